"""The hyperparameter search over SFT, in Optuna's words: study, trial, rung, pruning.

May import `src.sft` and what is below it. `study` alone imports optuna.

Read first: `study.StudyQueue`, then `trials.TrialRunner`.
"""
