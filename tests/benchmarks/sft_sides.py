"""The two sides of `sft_speed`: our trainer and TRL's, on the same token sequences.

Each process takes a warm-up step that is not timed and then one pass over the same sequences with
each setting. That TRL trained on each of their target tokens once is checked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from datasets import Dataset, disable_progress_bars
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from src.config.schema import Config
from src.run.metrics import MetricLog
from src.training.batching import Example
from src.training.checkpoints import CheckpointStore
from src.training.optimization import Schedule
from src.training.policy import load_policy, load_tokenizer
from src.training_worker import SftTrainer as OurTrainer
from tests.benchmarks.processes import benchmark_config
from tests.benchmarks.workload import build_training_examples

Sampling = Literal["batch_rebalance", "group_by_length", "packed"]


@dataclass(frozen=True, slots=True)
class Work:
    """What both sides train: a model, a step's sequences and how many steps."""

    config_file: str
    model: str
    rows: Path | None
    batch_size: int
    steps: int
    max_tokens: int = 512

    def config(self, micro_batch_size: int = 1) -> Config:
        """Return the configuration that both sides take their settings from."""
        values = {
            "model.path": self.model,
            "train.batch_size": self.batch_size,
            "train.micro_batch_size": micro_batch_size,
            "train.max_tokens": self.max_tokens,
        }
        return benchmark_config(self.config_file, values)

    def examples(self, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
        """Return the sequences of the warm-up step, then those of the timed steps."""
        count = (1 + self.steps) * self.batch_size
        return build_training_examples(self.rows, tokenizer, self.max_tokens, count)


@dataclass(frozen=True, slots=True)
class TrlSetting:
    """How TRL forms batches.

    `rows` is `per_device_train_batch_size`; a packed row has `row_tokens` tokens.
    """

    sampling: Sampling
    rows: int
    row_tokens: int = 0

    def __str__(self) -> str:
        if self.sampling == "packed":
            return f"packing=True (bfd), max_length {self.row_tokens}, {self.rows} a micro-batch"
        return f"{self.sampling}, {self.rows} a micro-batch"


@dataclass(frozen=True, slots=True)
class Speed:
    """One timed pass; `positions` counts prompts and padding too."""

    target_tokens: int
    positions: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Target tokens a second."""
        return self.target_tokens / self.seconds


def ours(work: Work, sizes: Sequence[int]) -> list[Speed]:
    """Train once with each micro-batch size, on one model that goes on learning."""
    config = work.config()
    tokenizer = load_tokenizer(work.model, config)
    examples = work.examples(tokenizer)
    policy = load_policy(work.model, config, config.train.attention)
    warm_up, timed = examples[: work.batch_size], examples[work.batch_size :]
    _our_pass(policy, tokenizer, work.config(sizes[0]), warm_up)
    return [_our_pass(policy, tokenizer, work.config(size), timed) for size in sizes]


def theirs(work: Work, settings: Sequence[TrlSetting]) -> list[Speed]:
    """Train once with each of TRL's settings, on one model that goes on learning."""
    disable_progress_bars()
    config = work.config()
    tokenizer = load_tokenizer(work.model, config)
    examples = work.examples(tokenizer)
    policy = load_policy(work.model, config, "sdpa")
    warm_up, timed = examples[: work.batch_size], examples[work.batch_size :]
    _trl_pass(policy, tokenizer, config, warm_up, settings[0])
    return [_trl_pass(policy, tokenizer, config, timed, setting) for setting in settings]


def _our_pass(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
    examples: Sequence[Example],
) -> Speed:
    with TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), keep=1)
        trainer = OurTrainer(
            policy, tokenizer, config.train, store, MetricLog([]), config.run.seed, resumable=False
        )
        steps = len(examples) // config.train.batch_size
        started = time.perf_counter()
        for _ in trainer.train(examples, Schedule(steps, frozenset(), len(examples))):
            pass
        seconds = time.perf_counter() - started
    targets = sum(example.target_tokens for example in examples)
    return Speed(targets, sum(len(example.ids) for example in examples), seconds)


def _trl_pass(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
    examples: Sequence[Example],
    setting: TrlSetting,
) -> Speed:
    clock = _Clock()
    with TemporaryDirectory() as folder:
        trainer = _CountingTrainer(
            policy,
            SFTConfig(output_dir=folder, **_arguments(config, setting, examples)),
            train_dataset=Dataset.from_list([_labelled(example) for example in examples]),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    targets = sum(example.target_tokens for example in examples)
    if trainer.target_tokens != targets:
        raise RuntimeError(f"TRL trained on {trainer.target_tokens} of {targets} target tokens")
    return Speed(targets, trainer.positions, clock.ended - clock.started)


class _Clock(TrainerCallback):
    """Note when the first optimizer step begins and the last one ends."""

    started = ended = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = self.started or time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended = time.perf_counter()


class _CountingTrainer(SFTTrainer):
    """Count the target tokens and the positions of the batches."""

    target_tokens = positions = 0

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **more: Any) -> Any:
        self.target_tokens += int((inputs["labels"] != -100).sum())
        self.positions += inputs["input_ids"].numel()
        return super().training_step(model, inputs, *arguments, **more)


def _labelled(example: Example) -> dict[str, list[int]]:
    ids = list(example.ids)
    targets = ids[example.prompt_tokens :]
    return {"input_ids": ids, "labels": [-100] * example.prompt_tokens + targets}


def _arguments(config: Config, setting: TrlSetting, examples: Sequence[Example]) -> dict[str, Any]:
    """Return TRL's arguments: our optimizer, no recomputation, nothing logged or saved."""
    train = config.train
    arguments = {
        "per_device_train_batch_size": setting.rows,
        "num_train_epochs": 1,
        "max_length": train.max_tokens,
        "learning_rate": train.learning_rate,
        "weight_decay": train.weight_decay,
        "adam_beta2": train.adam_beta2,
        "max_grad_norm": train.max_grad_norm,
        "optim": "adamw_torch_fused",
        "bf16": True,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "completion_only_loss": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if setting.sampling != "packed":
        accumulation = max(1, train.batch_size // setting.rows)
        more: dict[str, Any] = {"train_sampling_strategy": setting.sampling}
    else:
        tokens = sum(len(example.ids) for example in examples)
        a_step = tokens * train.batch_size / len(examples)
        accumulation = max(1, round(a_step / setting.row_tokens / setting.rows))
        more = {"packing": True, "packing_strategy": "bfd", "max_length": setting.row_tokens}
    return {**arguments, "gradient_accumulation_steps": accumulation, **more}
