"""Run all four steps in order, each in a process of its own, and end in one results table.

    python run_pipeline.py --profile tiny
    python run_pipeline.py --profile tiny --steps 2,3
    python run_pipeline.py --profile full --dry-run
    python run_pipeline.py --verify results/tiny

A step that finished under the same configuration is skipped, an interrupted one goes on where it
was; --fresh starts over and keeps the earlier attempt aside. --verify derives every figure of a
finished run again from its stored completions and hashes, and says what does not match.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from src.config.loading import ROOT, ConfigError, load_config
from src.config.schema import Config
from src.run.directory import pipeline_folder

LOGGER = logging.getLogger(__name__)
PROFILES = {"tiny": "config/tiny", "smollm2": "config/smollm2", "full": "config"}


@dataclass(frozen=True, slots=True)
class Step:
    """One stage: how it is launched and which configuration it reads."""

    launcher: tuple[str, ...]
    config: str


STEPS = (
    Step((sys.executable, "step0_baseline/step0_baseLineModelEval.py"), "baseline_config.yaml"),
    Step((sys.executable, "step1_sft_hyper/step1_sft_hyper.py"), "sft_hyper_config.yaml"),
    Step((sys.executable, "step2_sft/step2_sft.py"), "sft_config.yaml"),
    Step(("step3_GRPO/launch_trl.sh",), "grpo_config.yaml"),
)


def main() -> int:
    """Run the steps; return the exit code of the first that fails."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if arguments.verify is not None:
        return verify(arguments.verify)
    folder = PROFILES[arguments.profile]
    for number in arguments.steps:
        code = run_step(STEPS[number], folder, arguments)
        if code:
            LOGGER.error("step %d ended with exit code %d; mend it and run again", number, code)
            return code
    if arguments.dry_run:
        return 0
    try:
        config = load_config([f"{folder}/{STEPS[0].config}"], arguments.set)
    except ConfigError as error:
        LOGGER.error("%s", error)
        return 2
    return report(config)


def run_step(step: Step, folder: str, arguments: argparse.Namespace) -> int:
    """Run one step to its end and return its exit code."""
    processes = [str(arguments.processes)] if step.launcher[0].endswith(".sh") else []
    command = [*step.launcher, *processes, "--config", f"{folder}/{step.config}"]
    command += [part for value in arguments.set for part in ("--set", value)]
    command += ["--dry-run"] if arguments.dry_run else []
    command += [] if arguments.fresh or arguments.dry_run else ["--resume"]
    LOGGER.info("running %s", " ".join(Path(part).name for part in command))
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def report(config: Config) -> int:
    """Write the report, show its table, and send it to W&B (offline without a key)."""
    # Imported here: matplotlib is not needed to run or to plan a step.
    from src.report.report import render_table, write_report
    from src.run.files import read_json
    from src.run.wandb_sink import log_report

    folder = pipeline_folder(config)
    found = read_json(write_report(folder))
    log_report(config, folder, found)
    LOGGER.info("report: %s", folder / "report.html")
    sys.stdout.write(render_table(found) + "\n")
    return 0


def verify(folder: Path) -> int:
    """Say what in a finished run does not match; return 1 if anything does not, 2 without a run."""
    from src.report.verification import verify_run

    try:
        mismatches = verify_run(folder)
    except ValueError as error:
        LOGGER.error("%s", error)
        return 2
    for line in mismatches:
        LOGGER.error("%s", line)
    LOGGER.info("%s: %s", folder, f"{len(mismatches)} mismatches" if mismatches else "all holds")
    return int(bool(mismatches))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", choices=PROFILES, default="full")
    parser.add_argument(
        "--steps",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[0, 1, 2, 3],
        help="steps to run, such as 2,3",
    )
    parser.add_argument("--processes", type=int, default=1, help="processes (GPUs) of step 3")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--dry-run", action="store_true", help="print every step's plan")
    parser.add_argument("--verify", type=Path, metavar="RUN", help="check a finished run")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument(
        "--resume", action="store_true", help="go on with an existing run (the default)"
    )
    arguments = parser.parse_args()
    if not set(arguments.steps) <= set(range(len(STEPS))):
        parser.error("--steps takes numbers from 0 to 3, such as 2,3")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
