"""The policy and what trains it, for SFT and GRPO alike: packed rows, losses, checkpoints.

May import `src.config`, `src.data` and `src.run`; no engine.

Read first: `policy.load_policy`, then `batching.pack`.
"""
