"""`imgbench ab`: the arms, the environments that they run in, and the paired run from start to verdict."""
