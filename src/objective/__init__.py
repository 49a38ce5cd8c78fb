"""What a step of GRPO minimises, apart from TRL: advantages, log-probabilities, importance weights.

Read first: `advantages.own_advantages`, then `importance.importance_weights`.
"""
