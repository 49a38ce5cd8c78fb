"""Run all four steps in order, each in a process of its own, and end in one results table.

    python run_pipeline.py --profile tiny
    python run_pipeline.py --profile tiny --steps 2,3
    python run_pipeline.py --profile full --hardware auto --dry-run
    python run_pipeline.py --profile full --rehearse
    python run_pipeline.py --profile tiny --seeds 1,2,3
    python run_pipeline.py --verify results/tiny
    python run_pipeline.py --report results/tiny
    python run_pipeline.py --compare-runs results/tiny results/other

A step that finished under the same configuration is skipped, an interrupted one goes on where it
was; --fresh starts over and keeps the earlier attempt aside. --rehearse runs the whole schedule
with a tiny model, fewer rows and smaller batches on whatever machine, in results/<run>-rehearsal;
the report lists what ran how often beside what was planned. --hardware puts an overlay of
config/hardware/ over the full profile: the one named, or what suits the GPUs that are here.
--seeds runs all of it once a seed; what may be said of them together is in results/<run>-seeds.
--verify derives every figure of a finished run again from its stored completions and hashes, and
says what does not match. --report writes the report of a run as far as it is, --compare-runs
compares two. What libraries print goes to each step's run.log; -v brings it back.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from src.benchmarks.running import check_benchmarks, run_benchmarks
from src.config.hardware import AUTO, HARDWARE, Hardware
from src.config.loading import ConfigError, dump_yaml, load_config, setting_keys, with_values
from src.config.schema import Config
from src.output.lines import brief, log_to_terminal, shown_path
from src.pipeline.launching import NONE, check_launch, chosen_hardware, step_3_launch
from src.run.directory import (
    FITTING_STAGES,
    GRPO_STAGE,
    SEARCH_STAGE,
    pipeline_folder,
)
from src.run.files import write_text_atomic
from src.run.processes import gpu_count
from src.run.stopping import GRACE_S, run_command, stoppable
from src.seeds.family import OPTION, Family, parse_seeds, run_seeds, without_seeds
from src.stages.promises import broken_promises
from src.stages.rehearsal import DEFAULT_FACTOR, describe_rehearsal, devices_here, rehearsed
from utils.data.json_lines import DataError

LOGGER = logging.getLogger(__name__)
PROFILES = {
    "tiny": "config/tiny",
    "smollm2": "config/smollm2",
    "cs336": "config/cs336",
    "full": "config",
}
# Those that run on GPUs.
LARGE = ("full", "cs336")


@dataclass(frozen=True, slots=True)
class Step:
    """One stage: how it is launched and which configuration it reads."""

    stage: str
    what: str
    launcher: tuple[str, ...]
    config: str


_PYTHON = sys.executable
STEPS = (
    Step(
        "step0_baseline",
        "zero-shot baseline",
        (_PYTHON, "step0_baseline/step0_baseLineModelEval.py"),
        "baseline_config.yaml",
    ),
    Step(
        SEARCH_STAGE,
        "hyperparameter search",
        (_PYTHON, "step1_sft_hyper/step1_sft_hyper.py"),
        "sft_hyper_config.yaml",
    ),
    Step("step2_sft", "fine-tuning", (_PYTHON, "step2_sft/step2_sft.py"), "sft_config.yaml"),
    Step(GRPO_STAGE, "GRPO", ("step3_GRPO/launch_trl.sh",), "grpo_config.yaml"),
)


def main() -> int:
    """Run the steps; return the exit code of the first that fails, or 128 + a signal's number."""
    arguments = parse_arguments()
    log_to_terminal(verbose=arguments.verbose)
    below = 3 if arguments.seeds else 2  # processes, each of which waits for the next
    with stoppable(lambda: "the same command goes on", grace_s=below * GRACE_S):
        return run_all(arguments)


def run_all(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; return the exit code."""
    # Imported here: what reads and draws runs is heavy, and a plan needs none of it.
    if arguments.verify is not None:
        from src.viewing.commands import verify

        return verify(arguments.verify)
    if arguments.report or arguments.compare_runs:
        from src.viewing.commands import look_at

        return look_at(*([arguments.report] if arguments.report else arguments.compare_runs))
    if arguments.seeds:
        return run_family(arguments)
    try:
        hardware = chosen_hardware(arguments.hardware, laid_out_for(arguments))
        configured = {number: configure(STEPS[number], hardware, arguments)
                      for number in {0, *arguments.steps}}  # fmt: skip
        first = load_config(*configured[0])
        check_benchmarks(first, dry_run=arguments.dry_run)
        if 3 in configured:
            launch = step_3_launch(hardware, arguments.processes)
            check_launch(load_config(*configured[3]), launch, planning=arguments.dry_run)
    except (ConfigError, DataError) as error:
        LOGGER.error("%s", error)
        return 2
    for number in arguments.steps:
        code = run_step(STEPS[number], *configured[number], hardware, arguments)
        if code:
            log = pipeline_folder(first) / STEPS[number].stage / "run.log"
            where = f"; all that was said: {shown_path(log)}" if code != 2 and log.is_file() else ""
            LOGGER.error(
                "step %d ended with exit code %d; mend it and run again%s", number, code, where
            )
            return code
    options = step_options(*configured[0], arguments)
    if code := run_benchmarks(first, options, dry_run=arguments.dry_run):
        LOGGER.error("the benchmarks ended with exit code %d; mend it and run again", code)
        return code
    if arguments.dry_run:
        return 0
    from src.viewing.commands import report

    return report(first, verbose=arguments.verbose)


def run_family(arguments: argparse.Namespace) -> int:
    """Run the steps once a seed, one seed after another, then report on all of them together."""
    folder = PROFILES[arguments.profile]
    try:
        configs = [load_config([f"{folder}/{step.config}"], arguments.set) for step in STEPS]
        family = Family(configs[0], arguments.seeds, rehearsal=arguments.rehearse)
        stages = [STEPS[number].stage for number in arguments.steps]
        earlier = family.earlier_run(stages, configs[3].grpo.init)
    except ConfigError as error:
        LOGGER.error("%s", error)
        return 2
    script = [_PYTHON, str(Path(__file__).resolve())]
    code = run_seeds(family, [*script, *without_seeds(sys.argv[1:])], earlier)
    if code or arguments.dry_run:
        return code
    # Imported here: a plan needs no figures.
    from src.seeds.report import write_family

    LOGGER.info("report of all seeds: %s", write_family(family.folder, family.members()))
    return 0


def laid_out_for(arguments: argparse.Namespace) -> Config | None:
    """Return the configuration that an overlay is chosen for unasked; None where none is."""
    if arguments.profile not in LARGE or arguments.rehearse:
        return None
    return load_config([f"{PROFILES[arguments.profile]}/{STEPS[0].config}"], arguments.set)


def configure(
    step: Step, hardware: Hardware | None, arguments: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """Return a step's configuration files and the overrides that go with them.

    Raises:
        ConfigError, DataError: when the configuration or the data cannot be used.
    """
    files = [f"{PROFILES[arguments.profile]}/{step.config}"]
    files += [hardware.file] if hardware else []
    config = load_config(files, arguments.set)
    if not arguments.rehearse:
        return files, arguments.set
    for line in broken_promises(step.stage, config):
        LOGGER.warning("%s: %s", step.stage, line)
    small = rehearsed(config, arguments.rehearse_factor)
    small = with_values(small, devices_here(side_by_side=step.stage in FITTING_STAGES))
    if step.stage in FITTING_STAGES and not arguments.dry_run:
        # Imported here: neither a plan nor a real run needs a tokenizer.
        from src.sft.rehearsal import with_spare_rows

        small = with_spare_rows(small)
    LOGGER.info("%s: %s", step.stage, describe_rehearsal(small))
    overlay = pipeline_folder(small) / "rehearsal" / step.config
    overlay.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(overlay, dump_yaml(small))
    # What the command line asks for wins over the search's result in a real run.
    asked = [setting.partition("=")[0].strip() for setting in arguments.set]
    return [str(overlay)], [f"{path}={_value(small, path)}" for path in asked]


def run_step(
    step: Step,
    files: list[str],
    overrides: list[str],
    hardware: Hardware | None,
    arguments: argparse.Namespace,
) -> int:
    """Run one step to its end and return its exit code."""
    launch = [*step.launcher, *launch_options(step, hardware, arguments)]
    command = [*launch, *step_options(files, overrides, arguments)]
    place = f"stage {arguments.steps.index(STEPS.index(step)) + 1} of {len(arguments.steps)}"
    said = " ".join(Path(part).name for part in command)
    LOGGER.info("running %s", said, extra=brief(f"{place}: {step.stage}, {step.what}"))
    return run_command(command)


def step_options(
    files: list[str], overrides: list[str], arguments: argparse.Namespace
) -> list[str]:
    """Return what every stage script is given."""
    options = [part for file in files for part in ("--config", file)]
    options += [part for value in overrides for part in ("--set", value)]
    options += ["--dry-run"] if arguments.dry_run else []
    options += ["--verbose"] if arguments.verbose else []
    return options + ([] if arguments.fresh or arguments.dry_run else ["--resume"])


def launch_options(
    step: Step, hardware: Hardware | None, arguments: argparse.Namespace
) -> list[str]:
    """Return for step 3 on how many processes it runs, and how they share the policy out."""
    if not step.launcher[0].endswith(".sh"):
        return []
    launch = step_3_launch(hardware, arguments.processes)
    if hardware and launch.processes > 1 and (gpu_count() or arguments.dry_run):
        return [str(launch.processes), "--strategy", launch.strategy]
    return [str(launch.processes)]


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
    parser.add_argument(
        "--hardware",
        choices=(AUTO, NONE, *sorted(item.name for item in HARDWARE)),
        help="overlay of full and cs336 (default: what suits the GPUs here; with --rehearse none)",
    )
    parser.add_argument("--processes", type=int, help="processes (GPUs) of step 3 (default: 1)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument(
        OPTION,
        type=parse_seeds,
        metavar="1,2,3",
        help="run once a seed, in results/<run>-seed<N>, and report in results/<run>-seeds",
    )
    parser.add_argument("--dry-run", action="store_true", help="print every step's plan")
    parser.add_argument(
        "--rehearse", action="store_true", help="run the schedule with a tiny model and fewer rows"
    )
    parser.add_argument(
        "--rehearse-factor",
        type=int,
        default=DEFAULT_FACTOR,
        metavar="N",
        help=f"rows and batches of a rehearsal are N times smaller (default {DEFAULT_FACTOR})",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show what libraries print, and whole lines"
    )
    parser.add_argument("--verify", type=Path, metavar="RUN", help="check a finished run")
    parser.add_argument(
        "--report", type=Path, metavar="RUN", help="report on a run as far as it is, at any time"
    )
    parser.add_argument(
        "--compare-runs", type=Path, nargs=2, metavar=("A", "B"), help="two runs side by side"
    )
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument(
        "--resume", action="store_true", help="go on with an existing run (the default)"
    )
    arguments = parser.parse_args()
    if arguments.hardware not in (None, NONE) and arguments.profile not in LARGE:
        parser.error(f"--hardware is for {' and '.join(LARGE)}; the other profiles run on a CPU")
    if not set(arguments.steps) <= set(range(len(STEPS))):
        parser.error("--steps takes numbers from 0 to 3, such as 2,3")
    return arguments


def _value(config: Config, path: str) -> str:
    """Return a setting's value as `--set` takes it."""
    value = config.model_dump(mode="json")
    for key in setting_keys(path):
        value = value[key]
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
