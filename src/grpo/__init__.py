"""GRPO around TRL's trainer: problems, rollouts, rewards, importance weights, signs of collapse.

May import `src.stages` and what is below it; neither `src.sft` nor `src.search`, from which it gets
a checkpoint by its path. `trainer` alone imports trl.

Read first: `rollout_source.RolloutSource`, then `trainer.PolicyTrainer`.
"""
