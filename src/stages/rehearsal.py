"""The full configuration with its real schedule, small enough to run through anywhere.

What belongs together is divided together: training rows, batches, and the examples after which the
search compares its trials. So optimizer steps, evaluations, trials and rungs stay what they are.
GRPO's steps stay too, with fewer prompts in each.
"""

from __future__ import annotations

import math
from typing import Any

from src.config.loading import ConfigError, with_values
from src.config.schema import Config, Rehearsal
from src.config.training import Choices, Scalar
from src.data.row_counts import sft_rows, test_rows, train_rows
from src.run.devices import available_cores, computes_on_gpus
from src.run.processes import gpu_count

MODEL = "assets/tiny_base"
DEFAULT_FACTOR = 16
# What the model above holds, and how much shorter completions become.
_CONTEXT_TOKENS = 1024
_COMPLETION_DIVISOR = 8
_BENCHMARK_ROWS = 4
_BATCH = "train.batch_size"


def rehearsed(config: Config, factor: int) -> Config:
    """Return the configuration with rows and batches divided by a factor, its schedule unchanged.

    Raises:
        ConfigError: when a batch cannot be divided by the factor, naming the factors that work.
    """
    _check(config, factor)
    values = {
        **_identity(config, factor),
        **_rows(config, factor),
        **_tokens(config),
        **_batches(config, factor),
        **_search(config, factor),
    }
    return with_values(config, values)


def devices_here(*, side_by_side: bool) -> dict[str, Any]:
    """Map the devices to what this machine has; a CPU gets float32, most have no bfloat16.

    Args:
        side_by_side: trainer and evaluation worker both compute in this step; on a CPU each gets
            cores of its own.
    """
    if gpu_count() and computes_on_gpus():
        return {"devices.train": "cuda:0", "devices.eval": "auto", "engine.tensor_parallel": 1}
    cores = available_cores()
    half = len(cores) // 2
    own = {"train": cores[:half], "eval": cores[half:]} if side_by_side and half else {}
    listed = {role: ":" + ",".join(map(str, found)) for role, found in own.items()}
    return {
        "devices.train": f"cpu{listed.get('train', '')}",
        "devices.eval": f"cpu{listed.get('eval', '')}",
        "train.compute_dtype": "float32",
        "engine.dtype": "float32",
        "engine.sleep": "auto",
        "engine.tensor_parallel": 1,
    }


def describe_rehearsal(config: Config) -> str:
    """Say in one line what a rehearsal's figures are worth and what it changed."""
    rehearsal = config.run.rehearsal
    assert rehearsal is not None
    return (
        f"REHEARSAL: {config.model.path} in place of the model, rows and batches divided by "
        f"{rehearsal.factor}, {config.engine.max_model_tokens} tokens of context, "
        f"{config.sampling.max_completion_tokens} of them new, the search by loss; figures mean "
        "nothing"
    )


def _check(config: Config, factor: int) -> None:
    """Refuse a factor that would change the schedule."""
    if config.run.rehearsal is not None:
        raise ConfigError("run.rehearsal: this configuration is a rehearsal's already")
    search = config.search
    divided: dict[str, list[Any]] = {
        _BATCH: [config.train.batch_size],
        f"search.space: {_BATCH}": _batch_sizes(config),
        "search.enqueue": [point[_BATCH] for point in search.enqueue if _BATCH in point],
        "search.rung_examples": [*search.rung_examples, search.examples],
        "grpo.prompts_per_step": [config.grpo.prompts_per_step],
    }
    common = math.gcd(*(int(size) for sizes in divided.values() for size in sizes))
    if factor < 1 or common % factor:
        uneven = [name for name, sizes in divided.items() if any(int(x) % factor for x in sizes)]
        works = [str(number) for number in range(1, common + 1) if common % number == 0]
        raise ConfigError(
            f"--rehearse-factor {factor} does not divide {', '.join(uneven)}, so that steps would "
            f"not stay what they are; use {' or '.join(works[-4:])}"
        )


def _identity(config: Config, factor: int) -> dict[str, Any]:
    """Name the run and the model; scores that mean nothing neither end it nor go online."""
    kept = Rehearsal(factor=factor, patience=config.train.patience)
    values: dict[str, Any] = {
        "run.name": f"{config.run.name}-rehearsal",
        "run.rehearsal": kept.model_dump(),
        "model.path": MODEL,
        "train.patience": max(config.train.patience, sft_rows(config) * config.train.epochs),
    }
    if config.wandb.mode in ("auto", "online"):
        values["wandb.mode"] = "offline"
    return values


def _rows(config: Config, factor: int) -> dict[str, Any]:
    data, train = config.data, config.train
    values: dict[str, Any] = {
        "data.train_rows": _training_rows(config, factor),
        "data.validation_rows": _fewer(data.validation_rows, factor),
        "data.test_rows": _fewer(test_rows(config), factor),
        "train.validation_rows": _fewer(train.validation_rows, factor),
        "train.train_subset_rows": _fewer(train.train_subset_rows, factor),
        "train.loss_rows": _fewer(train.loss_rows, factor),
        "search.validation_rows": _fewer(config.search.validation_rows, factor),
        "grpo.validation_rows": _fewer(config.grpo.validation_rows, factor),
        "evaluation.benchmark_rows": config.evaluation.benchmark_rows or _BENCHMARK_ROWS,
    }
    if config.sft.files:
        values["sft.files"] = [
            item.model_dump() | {"weight": item.weight / factor} for item in config.sft.files
        ]
    return values


def _training_rows(config: Config, factor: int) -> int:
    """Divide the training problems so that fine-tuning takes as many steps, at each batch size.

    Batches smaller than the number of epochs may leave a step or two of hundreds.
    """
    rows, epochs = train_rows(config), config.train.epochs

    def changed(fewer: int) -> list[int]:
        sizes = [config.train.batch_size, *_batch_sizes(config)]
        return [abs(-(-fewer * epochs // (size // factor)) + -rows * epochs // size)
                for size in sizes]  # fmt: skip

    return min(_fewer(rows, factor), max(1, rows // factor), key=changed)


def _tokens(config: Config) -> dict[str, Any]:
    context = min(config.engine.max_model_tokens, _CONTEXT_TOKENS)
    completion = config.sampling.max_completion_tokens // _COMPLETION_DIVISOR
    return {
        "engine.max_model_tokens": context,
        "train.max_tokens": min(config.train.max_tokens, context),
        "sampling.max_completion_tokens": max(1, min(completion, context // 4)),
        # Worked examples take most of a prompt's tokens.
        "evaluation.shots": max(
            1, config.evaluation.shots * context // config.engine.max_model_tokens
        ),
    }


def _batches(config: Config, factor: int) -> dict[str, Any]:
    train, grpo = config.train, config.grpo
    prompts = grpo.prompts_per_step // factor
    return {
        _BATCH: train.batch_size // factor,
        "train.micro_batch_size": max(1, train.micro_batch_size // factor),
        "grpo.prompts_per_step": prompts,
        "grpo.micro_batch_size": math.gcd(grpo.micro_batch_size, grpo.group_size * prompts),
    }


def _search(config: Config, factor: int) -> dict[str, Any]:
    search = config.search

    def smaller(path: str, value: Scalar) -> Scalar:
        if path == _BATCH:
            return int(value) // factor
        return max(1, int(value) // factor) if path == "train.micro_batch_size" else value

    space = {
        path: {"choices": list(dict.fromkeys(smaller(path, value) for value in values.choices))}
        if isinstance(values, Choices)
        else values.model_dump()
        for path, values in search.space.items()
    }
    return {
        # Accuracies of such a model are all 0, and what ties is never pruned.
        "search.objective": "eval_loss",
        "search.examples": search.examples // factor,
        "search.rung_examples": [rung // factor for rung in search.rung_examples],
        "search.space": space,
        "search.enqueue": [
            {path: smaller(path, value) for path, value in point.items()}
            for point in search.enqueue
        ],
    }


def _batch_sizes(config: Config) -> list[int]:
    """Return the batch sizes that the search may choose."""
    space = config.search.space.get(_BATCH)
    return [int(size) for size in space.choices] if isinstance(space, Choices) else []


def _fewer(rows: int, factor: int) -> int:
    return -(-rows // factor)
