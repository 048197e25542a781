"""How one number is taken: warm-up, sampling, turns, and what the machine did meanwhile."""
