"""The supervised fine-tuning loop: AdamW, linear warm-up and decay, float32 weights, autocast.

After every optimizer step the trainer yields: a checkpoint that has been written, or None. So its
caller looks at its mail after each step, stops training by leaving the loop and prunes by raising.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.training import TrainConfig
from src.engine.weight_probe import measure_probe, write_probe
from src.run.metrics import MetricLog
from src.run.terminal import Progress
from src.training.adapters import (
    FOLDER,
    adapted,
    computing_merged,
    has_adapter,
    published_weights,
    save_adapter,
)
from src.training.batching import (
    Example,
    largest_micro_batch,
    micro_batches,
    pack,
    shuffled_steps,
)
from src.training.checkpoints import Checkpoint, CheckpointStore
from src.training.losses import add_chunked_loss, summed_nll, target_scores
from src.training.memory_rehearsal import rehearse_memory, rehearses
from src.training.optimization import Schedule, build_optimizer, learning_rate_factor
from src.training.parallel import ParallelPolicy, autocast_to
from src.training.policy import save_policy
from src.training.throughput import memory_gib, peak_flops, training_flops

LOGGER = logging.getLogger(__name__)
# Steps in a row that may overflow in float16: that many halvings take the scale to 1/16.
_MOST_LEFT_OUT = 20


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did, over all processes."""

    loss: float
    grad_norm: float
    target_tokens: int
    tokens: int
    computed_tokens: int
    flops: float
    seconds: float


class SftTrainer:
    """Train a policy on examples and yield its checkpoints.

    Args:
        seed: of the order of the examples.
        overlap: train on while a checkpoint is written, and yield it when it is.
        resumable: store what `--resume` continues from with each checkpoint.
        held_out: examples whose token entropy is logged with each checkpoint.
        device: to train on, where the policy is not there yet.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: TrainConfig,
        store: CheckpointStore,
        metrics: MetricLog,
        seed: int,
        *,
        overlap: bool = False,
        resumable: bool = True,
        held_out: Sequence[Example] = (),
        device: torch.device | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._store = store
        self._metrics = metrics
        self._seed = seed
        self._overlap = overlap
        self._resumable = resumable
        self._held_out = held_out
        if config.gradient_checkpointing:
            policy.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        if config.compile:
            # Layer by layer: one graph of all layers and sequences takes minutes to compile.
            for layer in policy.get_decoder().layers:
                layer.compile(dynamic=True)
        add_chunked_loss(policy)
        policy = adapted(policy, config, seed)
        self._attention = policy.config._attn_implementation
        self._device = device or policy.device
        self._parallel = ParallelPolicy(
            policy, build_optimizer(policy, config), self._device, config.rank_timeout_s,
            scaled=config.compute_dtype == "float16",
        )  # fmt: skip
        self._peak = peak_flops(self._device)
        self._writing: list[tuple[Checkpoint, Future[None]]] = []
        self._left_out = 0
        self.busy_s = 0.0
        """Seconds spent in optimizer steps."""

    def train(
        self, examples: Sequence[Example], schedule: Schedule, *, resume: bool = False
    ) -> Iterator[Checkpoint | None]:
        """Run the schedule, from the stored training state when resuming.

        Raises:
            FloatingPointError: when loss or gradient is not finite.
        """
        rates = torch.optim.lr_scheduler.LambdaLR(
            self._parallel.optimizer,
            lambda step: learning_rate_factor(step, schedule.steps, self._config),
        )
        torch.manual_seed(self._seed)
        first, seen = self._restore(rates) if resume else (0, 0)
        if resume:
            self._metrics.rewind(first)
        self._parallel.model.train()
        order = (examples, self._config.batch_size, schedule.total_examples, self._seed)
        if rehearses(self._config.memory_rehearsal, self._device):
            self._rehearse(list(shuffled_steps(*order))[first : schedule.steps], first)
        batches = shuffled_steps(*order)
        with (
            Progress("training", schedule.steps, "steps", done=first) as progress,
            ThreadPoolExecutor(1, "checkpoint-writer") as writer,
        ):
            for step, batch in enumerate(batches, 1):
                if step <= first or step > schedule.steps:
                    continue
                self._seed_dropout(step)
                rate = float(rates.get_last_lr()[0])
                result = self._step(batch, step)
                rates.step()
                seen += len(batch)
                self._log(result, rate, step, seen)
                progress.advance(note=f"loss {result.loss:.3f}")
                if step in schedule.checkpoint_steps:
                    self._save(step, seen, rates, writer)
                wait = not self._overlap or step == schedule.steps
                yield from list(self._written(wait=wait)) or (None,)

    @torch.no_grad()
    def entropy(self, examples: Sequence[Example]) -> float:
        """Return the mean entropy of the next-token distributions at target tokens, in nats."""
        model, total = self._parallel.model, 0.0
        model.eval()
        for group in micro_batches(examples, self._config.micro_batch_tokens)[0]:
            with self._autocast():
                packed = pack(group, self._device)
                scores = target_scores(model, self._attention, packed, entropy=True)
            assert scores.entropy is not None
            total += scores.entropy.item()
        model.train()
        return total / sum(example.target_tokens for example in examples)

    def agree(self, choice: bool) -> bool:
        """Return the main process's choice in every process."""
        return self._parallel.agree(choice)

    def _rehearse(self, batches: Sequence[Sequence[Example]], step: int) -> None:
        """Pass through the largest micro-batch of the steps to come, in every process."""
        if not batches:
            return
        config, parallel = self._config, self._parallel
        largest = largest_micro_batch(batches, config.micro_batch_tokens, parallel.processes)
        tokens = sum(len(example.ids) for example in largest)
        said = f"{len(largest)} sequences, {tokens:,} tokens"
        taken = rehearse_memory(
            lambda: self._pass(largest, 1 / tokens, last=False),
            parallel.optimizer, config.optimizer, self._device, said,
        )  # fmt: skip
        self._metrics.log(taken, step=step)

    def _pass(
        self, examples: Sequence[Example], share: float, *, last: bool
    ) -> tuple[torch.Tensor, int]:
        """Run one micro-batch; return its summed loss times `share`, and the tokens computed.

        Args:
            last: of the step, after which gradients are exchanged.
        """
        packed = pack(examples, self._device)
        with self._parallel.synchronise(last=last):
            with self._autocast():
                nll = summed_nll(self._parallel.model, self._attention, packed)
            loss = nll * share
            self._parallel.backward(loss)
        return loss.detach(), packed.ids.numel()

    def _step(self, batch: Sequence[Example], step: int) -> StepResult:
        started = time.perf_counter()
        parallel = self._parallel
        target_tokens = sum(example.target_tokens for example in batch)
        shares = micro_batches(batch, self._config.micro_batch_tokens, parallel.processes)
        mine = shares[parallel.rank]
        summed = torch.zeros((), dtype=torch.float64, device=self._device)
        computed = 0
        for place, group in enumerate(mine, 1):
            # A process without a sequence of its own runs one for nothing: others wait for it.
            loss, tokens = self._pass(
                group or batch[:1], bool(group) / target_tokens, last=place == len(mine)
            )
            summed += loss  # read once a step: reading waits for the device
            computed += tokens
        total = parallel.summed(summed.item())
        norm = parallel.clip_gradients(self._config.max_grad_norm)
        self._check_finite(total, norm, step, batch)
        parallel.update()
        lengths = [len(example.ids) for example in batch]
        seconds = time.perf_counter() - started
        self.busy_s += seconds
        flops = training_flops(parallel.policy, lengths, target_tokens)
        return StepResult(
            total, norm, target_tokens, sum(lengths), int(parallel.summed(computed)), flops, seconds
        )

    def _seed_dropout(self, step: int) -> None:
        """Let what an adapter drops follow from step and process, resumed or not."""
        if self._config.adapter_dropout:
            torch.manual_seed(hash((self._seed, step, self._parallel.rank)))

    def _check_finite(self, loss: float, norm: float, step: int, batch: Sequence[Example]) -> None:
        # Under some scales gradients overflow, and the step is left out; not under all of them.
        self._left_out = 0 if math.isfinite(norm) else self._left_out + 1
        overflows = self._parallel.scaler.is_enabled() and self._left_out <= _MOST_LEFT_OUT
        if math.isfinite(loss) and (math.isfinite(norm) or overflows):
            return
        for _, future in self._writing:
            future.result()
        good = self._store.newest()
        raise FloatingPointError(
            f"step {step}: loss {loss}, gradient norm {norm}, on the examples "
            f"{', '.join(example.id for example in batch)}; last good checkpoint: "
            f"{good.folder if good else 'none'}. Lower train.learning_rate (now "
            f"{self._config.learning_rate}) or set train.compute_dtype to float32; --resume goes "
            "on from the last good checkpoint"
        )

    def _autocast(self) -> torch.autocast:
        return autocast_to(self._config.compute_dtype, self._device)

    def _log(self, result: StepResult, rate: float, step: int, seen: int) -> None:
        values = {
            "train/loss": result.loss,
            "train/grad_norm": result.grad_norm,
            "train/learning_rate": rate,
            "system/target_tokens_per_s": result.target_tokens / result.seconds,
            "system/tokens_per_s": result.tokens / result.seconds,
            "system/flops_per_s": result.flops / result.seconds,
            "train/padding_rate": 1 - result.tokens / result.computed_tokens,
            "system/memory_gib": memory_gib(self._device),
            "system/step_s": result.seconds,
            "train/examples_seen": seen,
        }
        if self._peak is not None:
            devices = self._peak * self._parallel.processes
            values["system/mfu"] = result.flops / result.seconds / devices
        self._metrics.log(values, step=step)

    def _save(
        self,
        step: int,
        seen: int,
        rates: torch.optim.lr_scheduler.LRScheduler,
        writer: ThreadPoolExecutor,
    ) -> None:
        """Copy the state to host memory and leave the writing to a thread."""
        started = time.perf_counter()
        # One copy of the state in memory at a time.
        for _, future in self._writing:
            future.result()
        policy, adapts = self._parallel.policy, has_adapter(self._parallel.policy)
        with computing_merged(policy):
            probe = measure_probe(self._parallel.model, self._tokenizer, self._device)
        copy = self._parallel.state(optimizer=self._resumable)
        weights = published_weights(policy) if adapts else copy["policy"]
        state = {
            **copy,
            "step": step,
            "examples_seen": seen,
            "rates": rates.state_dict(),
            "scaler": self._parallel.scaler.state_dict(),
            "random": torch.get_rng_state(),
        }

        def write(folder: Path) -> None:
            save_policy(policy, self._tokenizer, folder, weights)
            if adapts:
                save_adapter(policy, folder / FOLDER, copy["policy"])
            write_probe(folder, probe)

        def save() -> None:
            self._store.save(step, seen, write, state if self._resumable else None)

        # Logged first: with the checkpoint on disk, a killed run would not come here again.
        self._metrics.log({"system/save_s": time.perf_counter() - started}, step=step)
        if self._held_out:
            self._metrics.log({"validation/entropy": self.entropy(self._held_out)}, step=step)
        checkpoint = self._store.place(step, seen)
        if self._parallel.rank == 0:
            self._writing.append((checkpoint, writer.submit(save)))

    def _written(self, *, wait: bool) -> Iterator[Checkpoint | None]:
        while self._writing and (wait or self._writing[0][1].done()):
            checkpoint, future = self._writing.pop(0)
            future.result()
            if not self._overlap and self._device.type == "cuda":
                torch.cuda.empty_cache()  # for the engine that scores it on the same GPU
            yield checkpoint

    def _restore(self, rates: torch.optim.lr_scheduler.LRScheduler) -> tuple[int, int]:
        state = self._store.load_training_state()
        if state is None:
            return 0, 0
        self._parallel.load_state(state)
        rates.load_state_dict(state["rates"])
        self._parallel.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        LOGGER.info("resuming after step %d", state["step"])
        return state["step"], state["examples_seen"]
