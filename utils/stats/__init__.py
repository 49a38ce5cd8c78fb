"""Intervals, paired tests, bootstrap and votes: what may be said of a share of n problems.

Read first: `statistics.wilson_interval`.
"""
