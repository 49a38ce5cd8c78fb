"""What happens around GRPO's steps: figures, samples to read, validation, checkpoints, collapse."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from src.engine.swap_verifier import SwapVerifier
from src.engine.weight_probe import Probe, measure_probe, probe_of_files, write_probe
from src.evaluation.evaluation import EvalTask, evaluate
from src.evaluation.figures import EvalReport
from src.grpo.collapse import CollapseWatch
from src.grpo.rollout_source import completion_records, rollout_metrics
from src.grpo.trainer import PolicyTrainer
from src.grpo.trl_names import TRL_METRICS
from src.objective.importance import Agreement
from src.output.lines import IN_LOG
from src.output.step_line import StepLines
from src.run.files import read_json, write_json_atomic
from src.run.metrics import MetricLog
from src.run.processes import is_main_process
from src.stages.plan import describe_batch
from src.stages.scoring import record_validation
from src.training.adapters import (
    FOLDER,
    adapter_state,
    computing_merged,
    has_adapter,
    published_weights,
    save_adapter,
)
from src.training.checkpoints import CheckpointStore
from src.training.memory_rehearsal import rehearse_memory, rehearses
from src.training.parallel import gathered
from src.training.policy import save_policy
from src.training.throughput import memory_gib, peak_flops

LOGGER = logging.getLogger(__name__)
# Written last into a training state, so that a state without it is half of one.
_CURSOR = "rollout_source.json"
_PARTS = ("generate", "grade", "reward", "logprobs", "train", "sync")


@dataclass
class StageCallback(TrainerCallback):
    """Log every step, score validation with the rollout engine, keep the chosen checkpoint."""

    trainer: PolicyTrainer
    metrics: MetricLog
    store: CheckpointStore
    task: EvalTask
    stopped: str | None = None
    """Why training stopped before its last step, in words."""
    _step: dict[str, float] = field(default_factory=dict)
    _lines: StepLines = field(default_factory=lambda: StepLines(0))

    def __post_init__(self) -> None:
        self._grpo = self.trainer.settings.grpo
        self._watch = CollapseWatch(self._grpo.collapse)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Score the starting policy, so that it is chosen where training only harms."""
        # An attempt that was killed before its first save is done over from here.
        self.metrics.rewind(state.global_step or -1)
        self._rehearse(state.global_step)
        if state.global_step == 0:
            self._validate(0)
        self._lines = StepLines(state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the step's clock."""
        self.trainer.begin_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the step's figures; score and save every `evaluate_every` steps and at the end."""
        self._step = self._figures()
        if (state.global_step - 1) % self._grpo.sample_groups_every == 0:
            self._log_groups(state.global_step)
        if state.global_step % self._grpo.evaluate_every == 0 or (
            state.global_step == state.max_steps
        ):
            self._validate(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Pass the step's figures on, TRL's under our names; stop where training has collapsed."""
        if "loss" not in (logs or {}):
            return  # the summary at the end of training
        own = {TRL_METRICS[name]: value for name, value in (logs or {}).items()
               if name in TRL_METRICS}  # fmt: skip
        values = self._step | own
        self.metrics.log(values, step=state.global_step)
        parts = ("wait", *_PARTS) if self.trainer.split is not None else _PARTS
        line, extra = self._lines.line(state.global_step, state.max_steps, values, parts)
        LOGGER.info("%s", line, extra=extra)
        self.stopped = self._watch.see(values)
        if self.stopped:
            LOGGER.error(
                "training stops after step %d, it has collapsed: %s. The checkpoint chosen so far "
                "is kept; lower grpo.learning_rate or the sign's threshold in grpo.collapse",
                state.global_step, self.stopped,
            )  # fmt: skip
            control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Complete TRL's training state with the rollout source's, then delete the older ones."""
        if not is_main_process():
            return
        folder = Path(str(args.output_dir))
        newest = folder / f"checkpoint-{state.global_step}"
        # Logged first: from a whole state training goes on behind this step.
        self.metrics.log({"system/saved_states": 1.0}, step=state.global_step)
        source, split = self.trainer.source, self.trainer.split
        # First what is drawn ahead, behind which the cursor goes.
        ahead = None if split is None else split.state()
        write_json_atomic(newest / _CURSOR, {"cursor": source.cursor, "ahead": ahead})
        for older in folder.glob("checkpoint-*"):
            if older != newest:
                shutil.rmtree(older)

    def _figures(self) -> dict[str, float]:
        """Return the step's own figures, over all processes."""
        trainer = self.trainer
        drawn, split = trainer.drawn, trainer.split
        seconds = {**dict.fromkeys(_PARTS, 0.0), **trainer.clock.end()}
        rates: dict[str, float] = {}
        if split is not None:
            rates = {"grpo/rollout_lag": float(split.lag), **split.busy_rates(seconds)}
            seconds = {"wait": 0.0, **seconds, **split.spent}
        records = gathered(list(completion_records(drawn)) if drawn else [])
        sums = gathered([(trainer.work.trained_tokens, trainer.work.flops, trainer.agreement)])
        trained, flops = sum(row[0] for row in sums), sum(row[1] for row in sums)
        agreement = sum((row[2] for row in sums), Agreement())
        values = {f"system/{part}_s": value for part, value in seconds.items()}
        values |= rollout_metrics(records, self._grpo.rewards.weights(), self._grpo.group_size)
        values |= agreement.metrics() | rates
        generated = sum(record.tokens for record in records)
        device = trainer.accelerator.device
        values |= {
            # A further pass over the same rollouts (grpo.iterations) generates nothing.
            "system/generated_tokens_per_s": generated / (seconds["generate"] or math.inf),
            "system/trained_tokens_per_s": trained / seconds["train"],
            "system/flops_per_s": flops / seconds["train"],
            "system/memory_gib": memory_gib(device),
        }
        peak = peak_flops(device)
        if peak is not None:
            values["system/mfu"] = values["system/flops_per_s"] / (peak * len(sums))
        return values

    def _log_groups(self, step: int) -> None:
        """Write the first groups of the step: prompt, completions, grades, rewards, advantages."""
        trainer, size = self.trainer, self._grpo.group_size
        if not is_main_process() or trainer.drawn is None:
            return
        rows = []
        for number, group in enumerate(trainer.drawn.groups[: self._grpo.sample_groups]):
            advantages = trainer.advantages[number * size : (number + 1) * size]
            for (rollout, grade), own, advantage in zip(
                group.members, group.rewards, advantages, strict=True
            ):
                rows.append(
                    {
                        "place": group.place,
                        "problem": group.problem.unique_id,
                        "prompt": group.problem.prompt,
                        "reference": group.problem.answer,
                        "completion": rollout.text,
                        "outcome": grade.outcome,
                        "reason": grade.reason,
                        "tokens": len(rollout.ids),
                        "truncated": not rollout.finished,
                        **{f"reward/{name}": value for name, value in own.items()},
                        "advantage": advantage,
                    }
                )
        self.metrics.samples(rows, step=step, name="groups")

    def _validate(self, step: int) -> None:
        """Score the policy by the engine that samples rollouts, and save it."""
        trainer = self.trainer
        if trainer.split is not None:
            trainer.split.settle()
        started = time.perf_counter()
        trainer.sync_weights()
        swap_s = time.perf_counter() - started
        trainer._last_loaded_step = step
        # All processes take part in gathering the weights, measuring the probe and evaluating.
        policy = trainer.accelerator.unwrap_model(trainer.model)
        whole = self._weights(policy)
        probe = None if trainer.is_deepspeed_enabled else self._probe()
        report = self._scored(f"step {step}")
        if not is_main_process():
            return
        report = replace(report, seconds={"swap": swap_s} | report.seconds)

        def write(folder: Path) -> None:
            save_policy(policy, trainer.processing_class, folder, whole)
            if has_adapter(policy):
                save_adapter(policy, folder / FOLDER, adapter_state(policy))
            trusted = trainer.settings.model.trust_remote_code
            saved = probe or probe_of_files(folder, trainer.processing_class, trusted=trusted)
            write_probe(folder, saved)

        checkpoint = self.store.save(step, step * self._grpo.completions_per_step, write)
        record_validation(self.store, self.metrics, checkpoint, {"validation": report})

    def _rehearse(self, step: int) -> None:
        """Pass through the largest micro-batch there can be, in every process."""
        trainer, limit = self.trainer, self.trainer.settings.sampling.max_completion_tokens
        device, prompt = trainer.accelerator.device, trainer.source.longest_prompt
        # DeepSpeed keeps gradients where they cannot be thrown away.
        if trainer.is_deepspeed_enabled or not rehearses(self._grpo.memory_rehearsal, device):
            return
        said = f"{self._grpo.micro_batch_size} completions of {limit:,} tokens after {prompt:,}"
        taken = rehearse_memory(
            lambda: pass_through(trainer, prompt),
            trainer.optimizer, self._grpo.optimizer, device, said,
        )  # fmt: skip
        self.metrics.log(taken, step=step)

    def _weights(self, policy: Any) -> Mapping[str, Any]:
        """Return the policy's weights as they are saved, whole on the main process."""
        trainer = self.trainer
        if has_adapter(policy):
            return published_weights(policy) if is_main_process() else {}
        model = trainer.model_wrapped if trainer.is_deepspeed_enabled else trainer.model
        return trainer.accelerator.get_state_dict(model)

    def _scored(self, name: str) -> EvalReport:
        """Score validation with the weights the engine holds."""
        if self.trainer.split is not None:
            return self.trainer.split.validate(self.task, name)
        with self.trainer.engine_awake():
            return evaluate(self.trainer.engine(), self.task, checkpoint=name, shared=True)

    def _probe(self) -> Probe:
        """Measure the probe on the policy where it is, sharded or not."""
        trainer = self.trainer
        sharded = trainer.is_fsdp_enabled
        policy = trainer.model if sharded else trainer.accelerator.unwrap_model(trainer.model)
        with computing_merged(policy), _as_it_was(policy):
            return measure_probe(policy, trainer.processing_class, trainer.accelerator.device)


@contextmanager
def _as_it_was(policy: Any) -> Iterator[None]:
    """Take away the autocast that accelerate puts inside a forward pass in float16."""
    inside, before = policy.forward, getattr(policy, "_original_forward", None)
    if before is None:
        yield
        return
    policy.forward = before
    try:
        yield
    finally:
        policy.forward = inside


def pass_through(trainer: PolicyTrainer, prompt_tokens: int) -> None:
    """Run a forward and backward pass on made-up completions of full length."""
    grpo, columns = trainer.settings.grpo, trainer.settings.sampling.max_completion_tokens
    rows, device = grpo.micro_batch_size, trainer.accelerator.device
    ids = torch.ones(rows, prompt_tokens + columns, dtype=torch.long, device=device)  # (B, P + C)
    ids[:, 0] = torch.arange(rows) // grpo.group_size  # each group has a prompt of its own
    model = trainer.model_wrapped.train()
    # Sharded gradients are exchanged in each pass of training too.
    alone = nullcontext() if trainer.is_fsdp_enabled else trainer.accelerator.no_sync(model)
    with alone:
        scores, _ = trainer._scored(model, ids, torch.ones_like(ids), columns, None)
        scores.mean().backward()


def train(trainer: PolicyTrainer, callback: StageCallback, *, resume: bool) -> None:
    """Run GRPO, from the last whole training state when resuming."""
    trainer.add_callback(callback)
    batch = describe_batch(trainer.settings, trainer.accelerator.num_processes)
    LOGGER.info("a step: %s", batch, extra=IN_LOG)
    last = last_whole_state(Path(str(trainer.args.output_dir))) if resume else None
    if last is not None:
        state = read_json(last / _CURSOR)
        trainer.source.cursor = state["cursor"]
        if trainer.split is not None and state.get("ahead"):
            trainer.split.restore(state["ahead"])
        LOGGER.info("resuming from %s", last)
    trainer.train(resume_from_checkpoint=str(last) if last else None)


def last_whole_state(folder: Path) -> Path | None:
    """Return the newest training state that was written to its end."""
    whole = [file.parent for file in folder.glob(f"checkpoint-*/{_CURSOR}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def score_chosen(
    trainer: PolicyTrainer, store: CheckpointStore, task: EvalTask, tolerance: float
) -> EvalReport | None:
    """Score the chosen checkpoint's files on test, by a verified swap into the rollout engine.

    All processes call this and share the problems, unless some cannot see the files; those get
    None.
    """
    if trainer.split is not None:
        return trainer.split.score(store.choose(), task)
    folder = gathered([store.choose().folder if is_main_process() else None])[0]
    everywhere = all(gathered([folder.is_dir()]))
    with trainer.engine_awake():  # to write what slept takes all processes
        if not (everywhere or is_main_process()):
            return None
        verifier = SwapVerifier(trainer.engine(), tolerance, loaded="the last rollout's weights")
        if trainer.settings.grpo.mode == "colocate" or is_main_process():
            verifier.load(folder)
        if everywhere:
            gathered([folder])  # nobody generates before a shared server has the weights
        return evaluate(verifier.engine, task, checkpoint=str(folder), shared=everywhere)
