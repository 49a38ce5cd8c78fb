"""Open the W&B runs of a pipeline run in W&B's terminal viewer, without an account.
 Without a RUN
it takes the newest one below results/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from src.config.loading import ROOT

_RUNS = ("wandb/offline-run-*", "wandb/run-*", "*/wandb/offline-run-*", "*/wandb/run-*")


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
            f"{run or ROOT / 'results'}: no W&B run is there (wandb.mode: disabled writes none); "
            "start with: make quickstart\n"
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="math-dashboard-") as folder:
        gather(runs, Path(folder))
        sys.stderr.write(f"{run}: {len(runs)} W&B runs; h shows the keys, q leaves\n")
        viewer = [sys.executable, "-m", "wandb", "leet", folder]
        return subprocess.run(viewer, check=False).returncode


def newest_run(results: Path) -> Path | None:
    """Return the pipeline run in which a W&B run was started last."""
    found = [(_started(run), run) for run in results.glob("*/") if wandb_runs(run)]
    return max(found, default=(0.0, None))[1]


def wandb_runs(run: Path) -> list[Path]:
    """Return the folders of a pipeline run's W&B runs, oldest first."""
    found = {folder for pattern in _RUNS for folder in run.glob(pattern)}
    return sorted((folder for folder in found if any(folder.glob("run-*.wandb"))), key=_name_key)


def gather(runs: list[Path], folder: Path) -> None:
    """Lay links to the files of each run into a folder of its name: what is written later, too."""
    for run in runs:
        (folder / run.name).mkdir()
        for file in run.iterdir():
            (folder / run.name / file.name).symlink_to(file.resolve())


def _started(run: Path) -> float:
    return max(folder.stat().st_mtime for folder in wandb_runs(run))


def _name_key(folder: Path) -> str:
    return folder.name.partition("run-")[2]


if __name__ == "__main__":
    sys.exit(main())
