"""What needs neither torch nor a configuration: grading answers, reading data, statistics.

Imports nothing of `src`. At the door: the r1_zero grader, the loader of problems, and the command
`python -m utils.grade`.
"""
