"""Runs accepted as baselines, and the rules by which a later run is compared with them."""
