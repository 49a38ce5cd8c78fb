"""Start a stage script: command line, configuration, logging, errors."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from src.config.loading import ConfigError, dump_yaml, load_config
from src.config.schema import Config
from src.output.lines import brief, log_to_terminal, shown_path
from src.output.streams import restored
from src.rewards.files import reward_problems
from src.run.devices import devices_meet
from src.run.directory import (
    BENCHMARKS,
    BEST,
    GRPO_STAGE,
    SEARCH_STAGE,
    TRAINING_STAGES,
    ChecksPassed,
    Run,
    earlier_folder,
)
from src.run.files import disk_full
from src.run.processes import (
    check_devices,
    check_wandb,
    evaluation_device,
    evaluation_engines,
    forget_stale_launch,
    is_main_process,
    launched_sharding,
    launched_strategy,
    prepare_main_process,
    process_count,
    process_rank,
    training_gpus,
    use_scratch,
)
from src.run.stopping import GRACE_S, RunError, end_told, keep_trace, stoppable
from src.seeds.family import OPTION, Family, parse_seeds, run_seeds, without_seeds
from src.stages.cards import check_card, with_float16
from src.stages.out_of_memory import end_out_of_memory
from src.stages.plan import describe_plan
from src.stages.promises import broken_promises
from utils.data.json_lines import DataError
from utils.drgrpo_grader import set_children

LOGGER = logging.getLogger(__name__)
USER_ERROR = 2
# Files of a state that --resume goes on from, and what parts their folder's name from its step.
_STATES = (
    ("**/step_*/training_state.pt", "_"),
    ("trl/checkpoint-*/rollout_source.json", "-"),
)


def run_stage(
    stage: str,
    main: Callable[[Config, Run], None],
    *,
    default_config: str,
    description: str,
    takes_search_result: bool = False,
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the command line, load the configuration and run `main(config, run)`.

    A mistake of the user's ends with one paragraph and exit code 2, before anything is written; a
    signal with one line and 128 + its number.
    """
    given = _parse_arguments(default_config, description, arguments)
    run: Run | None = None
    with stoppable(lambda: _goes_on(run), grace_s=GRACE_S * (2 if given.seeds else 1)):
        try:
            stale = forget_stale_launch(planning=given.check or given.dry_run)
            _log_to_terminal(verbose=given.verbose)
            if stale:
                LOGGER.warning("ignoring %s: left by a launcher that is gone", ", ".join(stale))
            config = load_config(given.config, given.set)
            if given.seeds:
                _run_seeds(stage, config, given)
            searched = earlier_folder(config, SEARCH_STAGE, BEST)
            overlay = searched / SEARCH_STAGE / BEST
            if takes_search_result and overlay.is_file():
                config = load_config([*given.config, overlay], given.set)
                taking = "taking the search's best hyperparameters"
                LOGGER.info("%s: %s", taking, overlay, extra=brief(taking, shown_path(overlay)))
            config = with_float16(config)
            if problems := list(_stage_problems(stage, config)):
                raise ConfigError("\n".join(problems))
            if given.dry_run:
                settings = f"{dump_yaml(config)}\n" if given.verbose else ""
                sys.stdout.write(f"{settings}{describe_plan(stage, config)}\n")
                return
            check_wandb(config)
            _check_tensorboard(config)
            check_devices(config, beside=stage != GRPO_STAGE, trains=stage in TRAINING_STAGES)
            if stage == GRPO_STAGE:
                check_card(config)
            run = Run(stage, config, given.resume, given.check, quiet=not given.verbose)
            if (given.resume or run.shared) and run.already_finished():
                where = shown_path(run.folder)
                LOGGER.info("%s: already finished in %s; nothing to do", stage, where)
                return
            _run(run, main)
        except ChecksPassed:
            LOGGER.info("%s: configuration, data, prompt, model and devices are in order", stage)
        except (ConfigError, DataError) as error:
            LOGGER.error("%s", error)
            sys.exit(USER_ERROR)


def _run_seeds(stage: str, config: Config, given: argparse.Namespace) -> NoReturn:
    """Run this script once a seed, then report on all of them together; ends the process."""
    if process_count() > 1:
        raise ConfigError(
            f"{OPTION}: {process_count()} processes run one seed together; use run_pipeline.py "
            f"--processes {process_count()} {OPTION} ..., which starts them once a seed"
        )
    if stage.startswith(f"{BENCHMARKS}/"):
        raise ConfigError(
            f"{OPTION}: benchmarks draw several completions a problem already, and train nothing; "
            "set evaluation.benchmark_settings.<name>.samples, or run them on each seed's model"
        )
    family = Family(config, given.seeds)
    earlier = family.earlier_run([stage], config.grpo.init)
    # What the user wrote: a script may have turned some of it into settings.
    command = [sys.executable, str(Path(sys.argv[0]).resolve()), *without_seeds(sys.argv[1:])]
    code = run_seeds(family, command, earlier)
    if not (code or given.dry_run or given.check or stage == SEARCH_STAGE):
        # Imported here: a plan needs no figures.
        from src.seeds.figures import SCORED  # noqa: PLC0415
        from src.seeds.report import write_family  # noqa: PLC0415

        stages = SCORED[: SCORED.index(stage) + 1] if stage in SCORED else [stage]
        written = write_family(family.folder, family.members(), stages)
        LOGGER.info("report of all seeds: %s", written)
    sys.exit(code)


def _run(run: Run, main: Callable[[Config, Run], None]) -> None:
    """Run the stage; a failure that a sentence tells ends the process with code 1."""
    config = run.config
    if is_main_process() and not run.check_only:
        for line in broken_promises(run.stage, config):
            LOGGER.warning("%s", line)
    prepare_main_process(config)
    use_scratch()
    set_children(config.grader.children)
    try:
        with restored():
            main(config, run)
    except Exception as error:
        end_out_of_memory(run, error)  # if it is one
        if full := disk_full(error, run.folder):
            raise ConfigError(full) from error
        if told := _told_by_a_sentence(run, error):
            end_told(run.folder, told, error)
        keep_trace(run.folder, error)
        raise


def _told_by_a_sentence(run: Run, error: Exception) -> str | None:
    if isinstance(error, RunError):
        return str(error)
    if process_count() == 1:
        return None
    # Imported here: it loads torch, which a failed process of several has loaded already.
    from src.training.parallel import end_of_waiting  # noqa: PLC0415

    section = "grpo" if run.stage == GRPO_STAGE else "train"
    timeout_s = getattr(run.config, section).rank_timeout_s
    return end_of_waiting(error, timeout_s, f"{section}.rank_timeout_s")


def _goes_on(run: Run | None) -> str | None:
    """Say what `--resume` goes on from, for whom a signal has stopped."""
    if not is_main_process():
        return None
    if run is None or run.check_only or not run.folder.is_dir():
        return "nothing had been written"
    steps = [
        int(file.parent.name.rpartition(separator)[2])
        for pattern, separator in _STATES
        for file in run.folder.glob(pattern)
    ]
    if steps:
        return f"--resume goes on from step {max(steps)} in {run.folder}"
    return f"--resume goes on with what is in {run.folder}"


def _stage_problems(stage: str, config: Config) -> Iterator[str]:
    """Say what keeps this stage from running as it was launched."""
    if stage == SEARCH_STAGE:
        yield from config.search_problems()
    if stage == GRPO_STAGE:
        yield from config.grpo.problems(process_count())
        if config.sampling.temperature == 0:
            yield (
                "sampling.temperature: 0 draws the same completion for a whole group, which tells "
                "GRPO nothing; use 1"
            )
        yield from reward_problems(config)
        yield from _split_problems(config)
    yield from optimizer_problems(stage, launched_strategy(), config)
    zero = stage == GRPO_STAGE and launched_strategy().startswith("zero")
    if zero and config.grpo.memory_rehearsal == "on":
        yield (
            "grpo.memory_rehearsal: on, but DeepSpeed keeps gradients where they cannot be thrown "
            "away; use auto, or --strategy fsdp2"
        )


def _check_tensorboard(config: Config) -> None:
    if config.metrics.tensorboard and find_spec("tensorboardX") is None:
        raise ConfigError(
            "metrics.tensorboard: true needs tensorboardX, which this environment is older than; "
            "run make setup (or uv sync), or set it to false"
        )


def _split_problems(config: Config) -> Iterator[str]:
    """Say what keeps trainer and rollout engine from living apart."""
    if config.grpo.mode != "split":
        return
    train, evaluation = config.devices.train, evaluation_device(config)
    if isinstance(config.devices.eval, list):
        yield (
            f"devices.eval: grpo.mode: split has one engine on one device, not on "
            f"{', '.join(config.devices.eval)}; name one of them for this step, or use auto"
        )
    if config.engine.tensor_parallel > 1:
        yield (
            f"engine.tensor_parallel: {config.engine.tensor_parallel}, but grpo.mode: split has "
            "one engine on one device; use 1, or grpo.mode: server for a model that does not fit it"
        )
    if devices_meet(config, evaluation_engines(config)[:1], training_gpus(config)):
        yield (
            f"devices.eval: {evaluation} is not apart from devices.train: {train}, as grpo.mode: "
            "split wants it; name another GPU or other cores (devices.train=cpu:0 "
            "devices.eval=cpu:1), or use grpo.mode: colocate"
        )
    if launched_sharding() is not None:
        yield (
            f"grpo.mode: split takes a policy that is whole in its process, and accelerate shards "
            f"it ({launched_strategy()}); start through launch_trl.sh 1, or use another mode"
        )


def optimizer_problems(stage: str, strategy: str, config: Config) -> Iterator[str]:
    """Say which optimizers a strategy or a type cannot have."""
    section = "grpo" if stage == GRPO_STAGE else "train"
    adapter = getattr(config, section).adapter
    if adapter != "none" and strategy != "ddp":
        yield (
            f"{section}.adapter: {adapter} trains in one process or several (ddp), not with "
            f"sharded weights ({strategy}): what takes memory is frozen. Leave the strategy out, "
            f"or set {section}.adapter to none"
        )
    name = getattr(config, section).optimizer
    if (
        stage in TRAINING_STAGES
        and config.train.compute_dtype == "float16"
        and config.model.weight_dtype == "bfloat16"
        and adapter == "none"
    ):
        yield (
            "model.weight_dtype: bfloat16 has gradients in bfloat16, and a GPU cannot take the "
            "scale of float16's loss (train.compute_dtype) out of them; use "
            f"model.weight_dtype=float32, with {section}.optimizer=adamw or adamw_8bit"
        )
    if strategy.startswith("zero") and name != "adamw":
        yield (
            f"{section}.optimizer: DeepSpeed keeps float32 weights and moments of its own, so "
            f"{name} saves nothing; use adamw, or --strategy fsdp2"
        )
    if strategy == "fsdp2" and name == "adamw_8bit":
        yield (
            f"{section}.optimizer: bitsandbytes' adamw_8bit cannot be sharded by FSDP2; use adamw, "
            "or adamw_bf16_kahan with model.weight_dtype: bfloat16"
        )


def _parse_arguments(
    default_config: str, description: str, given: Sequence[str] | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help=f"YAML configuration, repeatable, later wins (default: {default_config})",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        help="override one setting, repeatable",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plan, with -v all settings too"
    )
    parser.add_argument(
        "--check", action="store_true", help="check data, prompt, model and devices, then stop"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show what libraries print, and whole lines"
    )
    parser.add_argument(
        OPTION,
        type=parse_seeds,
        metavar="1,2,3",
        help="run once a seed, in results/<run>-seed<N>, and report in results/<run>-seeds",
    )
    arguments = parser.parse_args(given)
    arguments.config = [Path(file) for file in arguments.config or [default_config]]
    return arguments


def _log_to_terminal(*, verbose: bool) -> None:
    level = logging.INFO if process_rank() == 0 else logging.WARNING
    log_to_terminal(level=level, verbose=verbose)
    for noisy in ("httpx", "vllm", "matplotlib", "transformers", "accelerate", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It prints the whole of a completion that could not be scored; those are counted.
    logging.getLogger("trl").setLevel(logging.ERROR)
