"""One HTML page of a run or of a paired run."""
