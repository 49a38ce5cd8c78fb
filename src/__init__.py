"""The pipeline: two workers at the door, and the packages they are made of.

Stage scripts import from here, and this imports from `utils`, never the other way round. Among the
packages a lower one never imports a higher one; `tests/unit/test_import_direction.py` holds the
order. ARCHITECTURE.md draws it.

Read first: `training_worker.SftTrainer` and `eval_worker.EvalWorker`.
"""
