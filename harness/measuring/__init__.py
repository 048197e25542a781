"""How one case is measured: warm-up, sampling, turns, and the state of the machine."""
