"""Acceptance on GPUs: `python -m tests.gpu` (or `make gpu-check`), 14 minutes on one, 22 on two.

Each check runs in a process of its own with a time limit, so that one that crashes or hangs loses
no other. What a machine cannot do is skipped by name. `--device cpu` runs what makes sense there.
"""
