"""The same run with several training seeds, and what may be said of all of them together.

May import all of the packages below it, from `src.config` to `src.evaluation`.

Read first: `family.Family`.
"""
