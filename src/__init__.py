"""The pipeline: two workers at the door, and the packages they are made of.

Stage scripts import from here, and this imports from `utils`, never the other way round. Among the
packages a lower one never imports a higher one; `tests/unit/test_import_direction.py` holds the
order. ARCHITECTURE.md draws it.

Read first: `training_worker.SftTrainer` and `eval_worker.EvalWorker`.
"""

import sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version

_PROJECT = "math-reasoning-pipeline"


def _refuse_a_bare_python() -> None:
    """End with a sentence where a Python has not got the project and what it needs."""
    try:
        version(_PROJECT)
    except PackageNotFoundError:
        # The first place is the script's folder, which only the scripts beside `src` share with it.
        elsewhere = sys.path[1:]  # noqa: TID251 - read, not changed
        if PathFinder.find_spec("src", elsewhere) is None:
            sys.exit(
                f"{sys.executable} has not got this project's packages; enter the environment that "
                "`make setup` made: source .venv/bin/activate"
            )


_refuse_a_bare_python()
