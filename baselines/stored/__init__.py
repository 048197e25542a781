"""Runs accepted as baselines, and the rules for comparing a later run with them."""
