"""What the stage scripts share: command line, plan, validation and the one test score.

May import the packages below it, and `src.eval_worker`.

Read first: `start.run_stage`.
"""
