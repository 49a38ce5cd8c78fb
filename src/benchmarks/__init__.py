"""Benchmarks: other yardsticks than the run's own test problems, and never in one table with them.

May import all of the packages below it, from `src.config` to `src.eval_worker`.

Read first: `scoring.score_benchmarks`.
"""
