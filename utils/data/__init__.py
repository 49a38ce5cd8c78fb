"""Problems and rows of data files, generated problems, and texts that repeat one another.

Read first: `problem.Problem`.
"""
