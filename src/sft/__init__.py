"""Supervised fine-tuning: which rows are taught, as which examples, in which rounds.

May import `src.stages` and what is below it, and `src.training_worker`.

Read first: `fine_tuning.FineTuning`.
"""
