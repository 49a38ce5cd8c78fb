"""The supervised fine-tuning loop: AdamW, linear warm-up and decay, float32 weights, bf16 autocast.

The trainer yields checkpoints. Step 2 stops it by leaving the loop, step 1 prunes a trial by
raising from it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.batching import Example, MicroBatch, micro_batches, shuffled_steps
from src.checkpoints import Checkpoint, CheckpointStore
from src.config_schema import TrainConfig
from src.losses import summed_nll
from src.metric_log import MetricLog
from src.policy import save_policy
from src.progress import Progress
from src.weight_probe import measure_probe, write_probe

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to train and where to save, in optimizer steps."""

    steps: int
    checkpoint_steps: frozenset[int]
    total_examples: int

    @classmethod
    def by_steps(cls, config: TrainConfig, examples: int) -> Schedule:
        """Save every `evaluate_every` steps and at the end."""
        steps = config.steps(examples)
        every = range(config.evaluate_every, steps + 1, config.evaluate_every)
        return cls(steps, frozenset({*every, steps}), examples * config.epochs)

    @classmethod
    def by_examples(cls, config: TrainConfig, rungs: Sequence[int]) -> Schedule:
        """Save after the given numbers of examples, whatever the batch size."""
        steps = [rung // config.batch_size for rung in rungs]
        return cls(steps[-1], frozenset(steps), rungs[-1])


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did."""

    loss: float
    grad_norm: float
    target_tokens: int
    tokens: int
    padding_rate: float
    seconds: float


class SftTrainer:
    """Train a policy on examples and yield its checkpoints.

    Args:
        seed: of the order of the examples.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: TrainConfig,
        store: CheckpointStore,
        metrics: MetricLog,
        seed: int,
    ) -> None:
        self._policy = policy
        self._tokenizer = tokenizer
        self._config = config
        self._store = store
        self._metrics = metrics
        self._seed = seed
        self._optimizer = build_optimizer(policy, config)
        if config.gradient_checkpointing:
            policy.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )

    def train(
        self, examples: Sequence[Example], schedule: Schedule, *, resume: bool = False
    ) -> Iterator[Checkpoint]:
        """Run the schedule, from the stored training state when resuming.

        Raises:
            FloatingPointError: when loss or gradient is not finite.
        """
        rates = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: learning_rate_factor(step, schedule.steps, self._config)
        )
        first, seen = self._restore(rates) if resume else (0, 0)
        torch.manual_seed(self._seed + first)
        self._policy.train()
        batches = shuffled_steps(
            examples, self._config.batch_size, schedule.total_examples, self._seed
        )
        with Progress("training", schedule.steps, "steps", done=first) as progress:
            for step, batch in enumerate(batches, 1):
                if step <= first:
                    continue
                if step > schedule.steps:
                    break
                rate = float(rates.get_last_lr()[0])
                result = self._step(batch, step)
                rates.step()
                seen += len(batch)
                self._log(result, rate, step, seen)
                progress.advance(note=f"loss {result.loss:.3f}")
                if step in schedule.checkpoint_steps:
                    yield self._save(step, seen, rates)

    @torch.no_grad()
    def validation_nll(self, examples: Sequence[Example]) -> float:
        """Return the mean negative log-likelihood of the examples' target tokens, in nats."""
        self._policy.eval()
        total, tokens = 0.0, 0
        for batch in self._micro_batches(examples):
            with self._autocast():
                total += summed_nll(self._policy, batch).item()
            tokens += batch.target_tokens
        self._policy.train()
        return total / tokens

    def _step(self, batch: Sequence[Example], step: int) -> StepResult:
        started = time.perf_counter()
        target_tokens = sum(len(example.ids) - example.prompt_tokens for example in batch)
        total, padded = 0.0, 0
        for micro_batch in self._micro_batches(batch):
            with self._autocast():
                loss = summed_nll(self._policy, micro_batch) / target_tokens
            loss.backward()
            total += loss.item()
            padded += micro_batch.ids.numel()
        norm = torch.nn.utils.clip_grad_norm_(
            self._policy.parameters(), self._config.max_grad_norm
        ).item()
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {step}: loss {total}, gradient norm {norm}; lower train.learning_rate "
                f"(now {self._config.learning_rate}) or set train.bf16_autocast to false; go on "
                "from the last checkpoint with --resume"
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        tokens = sum(len(example.ids) for example in batch)
        seconds = time.perf_counter() - started
        return StepResult(total, norm, target_tokens, tokens, 1 - tokens / padded, seconds)

    def _micro_batches(self, examples: Sequence[Example]) -> Iterator[MicroBatch]:
        return micro_batches(
            examples,
            self._config.micro_batch_size,
            self._tokenizer.pad_token_id,
            self._policy.device,
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._policy.device.type, torch.bfloat16, enabled=self._config.bf16_autocast
        )

    def _log(self, result: StepResult, rate: float, step: int, seen: int) -> None:
        self._metrics.log(
            {
                "train/loss": result.loss,
                "train/grad_norm": result.grad_norm,
                "train/learning_rate": rate,
                "train/target_tokens_per_s": result.target_tokens / result.seconds,
                "train/tokens_per_s": result.tokens / result.seconds,
                "train/padding_rate": result.padding_rate,
                "train/examples_seen": seen,
            },
            step=step,
        )

    def _save(
        self, step: int, seen: int, rates: torch.optim.lr_scheduler.LRScheduler
    ) -> Checkpoint:
        def write(folder: Path) -> None:
            save_policy(self._policy, self._tokenizer, folder)
            write_probe(folder, measure_probe(self._policy, self._tokenizer))

        checkpoint = self._store.save(step, seen, write)
        self._store.save_training_state(
            {
                "step": step,
                "examples_seen": seen,
                "policy": self._policy.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "rates": rates.state_dict(),
            }
        )
        return checkpoint

    def _restore(self, rates: torch.optim.lr_scheduler.LRScheduler) -> tuple[int, int]:
        state = self._store.load_training_state()
        if state is None:
            return 0, 0
        self._policy.load_state_dict(state["policy"])
        self._optimizer.load_state_dict(state["optimizer"])
        rates.load_state_dict(state["rates"])
        LOGGER.info("resuming after step %d", state["step"])
        return state["step"], state["examples_seen"]


class EarlyStopping:
    """Tell when a score has not improved by `min_delta` for `patience` evaluations."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self._patience, self._min_delta = patience, min_delta
        self._best = -math.inf
        self._since_best = 0

    def should_stop(self, score: float) -> bool:
        """Take the next score, higher being better."""
        if score > self._best + self._min_delta:
            self._best, self._since_best = score, 0
        else:
            self._since_best += 1
        return self._since_best >= self._patience


def build_optimizer(policy: PreTrainedModel, config: TrainConfig) -> torch.optim.AdamW:
    """Build fused AdamW that decays matrices but not norms, biases and embeddings."""
    embeddings = {id(parameter) for parameter in policy.get_input_embeddings().parameters()}
    decayed: list[Any] = []
    plain: list[Any] = []
    for parameter in policy.parameters():
        is_matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
        (decayed if is_matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(0.9, config.adam_beta2), fused=True
    )


def learning_rate_factor(step: int, steps: int, config: TrainConfig) -> float:
    """Return the share of the peak learning rate that step `step` (from 0) takes."""
    warmup = max(1, round(config.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))
