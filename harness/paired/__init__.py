"""Two arms measured in one run, in pairs of fresh processes that take turns."""
