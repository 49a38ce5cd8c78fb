"""The recipes of GRPO beside one another: the same start, some seeds each, one table.

    python -m tests.benchmarks.grpo_recipes results/tiny/step2_sft/checkpoints/step_000008 \\
        --folder results/recipes                # 8 recipes x 3 seeds, over 2 hours on 2 cores

Each run is step 3 itself with its test evaluation; one that has finished is not run again. The time
is that of training and validation, from the first validation to the last, the start of the engine
left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from src.config.loading import ROOT
from src.run.files import read_json, read_jsonl

RECIPES = ("grpo", "dr_grpo", "dapo", "reinforce_baseline", "gspo", "cispo", "maxrl", "rft")


@dataclass(frozen=True, slots=True)
class Result:
    """One run: accuracies in percent, seconds, and validation accuracy by seconds."""

    test: float
    best_validation: float
    seconds: float
    drawn_groups: float
    curve: list[tuple[float, float]]

    def reached(self, accuracy: float) -> float | None:
        """Return the seconds after which validation was first at `accuracy` percent or above."""
        return next((at for at, value in self.curve if value >= accuracy), None)


def run(start: Path, folder: Path, recipe: str, seed: int, more: Sequence[str]) -> Result:
    """Run step 3 unless it has been, and read what it wrote."""
    name = f"{recipe}-{seed}"
    stage = folder / name / "step3_GRPO"
    if not (stage / "outcome.json").is_file():
        settings = [
            *(f"model.path={start}", "grpo.init=base", f"grpo.recipe={recipe}"),
            *(f"run.seed={seed}", f"run.output_root={folder}", f"run.name={name}"),
            *("wandb.mode=disabled", *more),
        ]
        command = [
            str(ROOT / "step3_GRPO" / "launch_trl.sh"),
            *("1", "--config", "config/tiny/grpo_config.yaml"),
            *(part for setting in settings for part in ("--set", setting)),
        ]
        subprocess.run(command, cwd=ROOT, check=True)
    return read_result(stage)


def read_result(stage: Path) -> Result:
    """Read one run's folder."""
    outcome = read_json(stage / "outcome.json")
    rows = read_jsonl(stage / "metrics.jsonl")
    scored = [row for row in rows if "validation/accuracy" in row]
    steps = [row for row in rows if "grpo/drawn_groups" in row]
    began = scored[0]["time_s"]
    curve = [(row["time_s"] - began, 100 * row["validation/accuracy"]) for row in scored]
    return Result(
        100 * outcome["accuracy"],
        max(value for _, value in curve),
        curve[-1][0],
        fmean(row["grpo/drawn_groups"] for row in steps),
        curve,
    )


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Write a mean with the range: `51.2 (50.1 to 52.3)`."""
    low, high = format(min(values), form), format(max(values), form)
    return f"{format(fmean(values), form)} ({low} to {high})"


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("start", type=Path, help="the checkpoint all runs start from")
    made.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    made.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    made.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    made.add_argument("--set", action="append", default=[], metavar="A.B=C")
    given = made.parse_args()
    start, folder = given.start.resolve(), given.folder.resolve()
    lines = ["| recipe | test accuracy % | best validation % | groups drawn a step | seconds |"]
    lines.append("|---|---|---|---|---|")
    for recipe in given.recipes:
        results = [run(start, folder, recipe, seed, given.set) for seed in given.seeds]
        cells = (
            spread([result.test for result in results]),
            spread([result.best_validation for result in results]),
            spread([result.drawn_groups for result in results]),
            spread([result.seconds for result in results], ".0f"),
        )
        lines.append(f"| `{recipe}` | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
