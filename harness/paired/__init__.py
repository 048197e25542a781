"""Measures two arms in one run, in pairs of fresh processes that take turns."""
