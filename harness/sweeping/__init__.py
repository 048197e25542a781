"""Measures a whole suite into a run folder: which process comes next, until when, and what is reported meanwhile.

First each row is prepared: one process of it is measured alone, in full. Then rounds follow, in which rows of the same
work take turns (`harness.sweeping.rounds`).
"""
