"""Generate, grade, count, compare: how a set of problems becomes figures with intervals.

May import all of the packages below it, from `src.config` to `src.training`.

Read first: `evaluation.evaluate`.
"""
