"""Open the curves of a pipeline run in W&B's terminal viewer, without an account.

python -m src.viewing.dashboard [RUN]; without one it takes the newest below results/. W&B keeps the
scores on test and the report in runs of their own, which have no curves and are left out: their
figures are in the report.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from src.config.loading import ROOT

_RUNS = ("wandb/offline-run-*", "wandb/run-*", "*/wandb/offline-run-*", "*/wandb/run-*")
_WITHOUT_CURVES = ("-test.id", "-report.id")


def main(arguments: list[str] | None = None) -> int:
    """Gather the runs in one folder, which is what the viewer reads, and open it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="default: the newest below results/")
    run = parser.parse_args(arguments).run or newest_run(ROOT / "results")
    runs = wandb_runs(run) if run else []
    if not runs:
        sys.stderr.write(
            f"{run or ROOT / 'results'}: no W&B run with curves is there (wandb.mode: disabled "
            "writes none); start with: make quickstart\n"
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="math-dashboard-") as folder:
        gather(runs, Path(folder))
        sys.stderr.write(f"{run}: {len(runs)} W&B runs; h shows the keys, q leaves\n")
        viewer = [sys.executable, "-m", "wandb", "leet", folder]
        return subprocess.run(viewer, check=False).returncode


def newest_run(results: Path) -> Path | None:
    """Return the pipeline run in which a W&B run was started last."""
    found = [(_name_key(runs[-1]), run) for run in results.glob("*/") if (runs := wandb_runs(run))]
    return max(found, default=("", None))[1]


def wandb_runs(run: Path) -> list[Path]:
    """Return the folders of a pipeline run's W&B runs that have curves, oldest first."""
    found = {folder for pattern in _RUNS for folder in run.glob(pattern)}
    runs = [folder for folder in found if any(folder.glob("run-*.wandb")) and _has_curves(folder)]
    return sorted(runs, key=_name_key)


def gather(runs: list[Path], folder: Path) -> None:
    """Lay links to the files of each run into a folder of its name: what is written later, too."""
    for run in runs:
        (folder / run.name).mkdir()
        for file in run.iterdir():
            (folder / run.name / file.name).symlink_to(file.resolve())


def _has_curves(folder: Path) -> bool:
    """Tell by the name under which the stage has kept the run's id."""
    kept = [file for file in folder.parents[1].glob("wandb-*.id") if _id(file) in folder.name]
    return not any(file.name.endswith(_WITHOUT_CURVES) for file in kept)


def _id(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()


def _name_key(folder: Path) -> str:
    """Return the time and the id in a W&B run's name."""
    return folder.name.partition("run-")[2]


if __name__ == "__main__":
    sys.exit(main())
