"""Rewards of graded completions: the project's own, and functions in files of the user's.

All have one face: `reward(completions, references, rows, grades)` returns a number for each
completion. Those of the user's run in a process of their own, with a deadline.

Read first: `scorer.RewardScorer`, then `built_in`.
"""
