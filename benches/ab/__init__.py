"""`imgbench ab`: the arms, the environments in which they run, and the paired run from start to verdict."""
