"""Ways to look at runs: the results table, W&B's own viewer, two runs beside one another.

May import everything in `src`.

Read first: `two_runs.compare_runs`.
"""
