"""GRPO with TRL's trainer and a colocated vLLM engine, with its silent traps closed.

The only module that imports trl, and the only place where TRL's names are mapped to ours. TRL's
public `rollout_func` hook samples here, for three reasons:

* TRL calls a completion truncated unless it ends in the end-of-text token, so one that ended at
  `</answer>` would count as cut. The token is appended here, masked from the loss because the
  policy did not sample it.
* TRL's engine seed is fixed to the rank. Each completion gets its own seed from the run's seed, the
  step and its place, so seeds differ within a group and a resumed run does not replay the stream.
* On a CPU, TRL's weight sync fails on packed layers; `swap_weights` is used instead.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trl.generation.vllm_generation as trl_vllm
from datasets import Dataset
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer

from src.artifacts import append_jsonl
from src.checkpoints import CheckpointStore
from src.config_loading import ConfigError
from src.config_schema import Config
from src.devices import is_cpu, process_count, process_rank
from src.evaluation import EvalReport, EvalTask, evaluate
from src.generator import sample_seed
from src.metric_log import MetricLog
from src.policy import load_policy, save_policy
from src.prompts import PromptTemplate
from src.scoring import record_validation
from src.swap_verifier import SwapVerifier
from src.vllm_engine import CPU_ARGUMENTS, VllmEngine, sample_rollouts, swap_weights
from src.weight_probe import measure_probe, write_probe
from utils.drgrpo_grader import format_problem, grade_batch, r1_zero_reward_fn
from utils.problem import Problem

LOGGER = logging.getLogger(__name__)

_METRICS = {
    "loss": "train/loss",
    "reward": "train/reward",
    "reward_std": "train/reward_std",
    "rewards/format_reward/mean": "train/format_rate",
    "frac_reward_zero_std": "train/zero_variance_rate",
    "completions/mean_length": "train/completion_tokens",
    "completions/clipped_ratio": "train/truncated_rate",
    "entropy": "train/entropy",
    "kl": "train/kl",
    "clip_ratio/region_mean": "train/clip_rate",
    "sampling/importance_sampling_ratio/mean": "train/importance_ratio",
    "sampling/sampling_logp_difference/mean": "train/logprob_gap",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "step_time": "train/step_s",
}


def accuracy_reward(
    completions: Sequence[str], answer: Sequence[str], **_: Any
) -> list[float | None]:
    """Reward `r1_zero_reward_fn`'s verdict; None leaves an unscorable completion out."""
    grades = grade_batch(list(completions), list(answer))
    return [None if grade.outcome == "unscorable" else grade.reward for grade in grades]


def format_reward(completions: Sequence[str], **_: Any) -> list[float]:
    """Measure the format; logged with weight 0."""
    return [float(format_problem(completion) is None) for completion in completions]


def grpo_dataset(
    problems: Sequence[Problem],
    prompt: PromptTemplate,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
) -> Dataset:
    """Return prompts with their reference answers, in TRL's shape.

    Left out and counted: a problem whose reference cannot be graded against itself, which could
    only add noise to its group, and one whose prompt leaves no room for a whole completion.
    """
    rows, not_gradable, too_long = [], 0, 0
    for problem in problems:
        text = prompt.render(problem)
        perfect = f" </think> <answer> {problem.answer} </answer>"
        if not r1_zero_reward_fn(perfect, problem.answer)["reward"]:
            not_gradable += 1
        elif len(tokenizer(text, add_special_tokens=False)["input_ids"]) > max_prompt_tokens:
            too_long += 1
        else:
            rows.append({"prompt": text, "answer": problem.answer})
    LOGGER.info(
        "%d problems for GRPO; left out: %d references not gradable, %d prompts too long",
        len(rows), not_gradable, too_long,
    )  # fmt: skip
    if not rows:
        raise ConfigError(
            "no problem is left for GRPO: raise engine.max_model_tokens, lower "
            "sampling.max_completion_tokens, or check the data's answers"
        )
    return Dataset.from_list(rows)


def build_trainer(
    model: str,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    config: Config,
    output_folder: Path,
) -> GRPOTrainer:
    """Build TRL's trainer around float32 weights and a colocated engine."""
    policy = load_policy(model, config)
    policy.config.name_or_path = model
    with _engine_settings(config):
        trainer = GRPOTrainer(
            model=policy,
            reward_funcs=[accuracy_reward, format_reward],
            args=trl_arguments(config, output_folder),
            train_dataset=dataset,
            processing_class=tokenizer,
            rollout_func=functools.partial(sample_with_own_seeds, config=config),
        )
    trainer.remove_callback(PrinterCallback)
    if is_cpu(config.devices.train):
        generation = trainer.vllm_generation

        def sync_weights() -> None:
            swap_weights(generation.llm, generation._iter_named_params())

        generation.sync_weights = sync_weights
    return trainer


def trl_arguments(config: Config, output_folder: Path) -> GRPOConfig:
    """Map our configuration to TRL's."""
    grpo, sampling = config.grpo, config.sampling
    on_cpu = is_cpu(config.devices.train)
    return GRPOConfig(
        output_dir=str(output_folder),
        seed=config.run.seed,
        max_steps=grpo.steps,
        learning_rate=grpo.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=grpo.warmup_steps,
        adam_beta1=0.9,
        adam_beta2=grpo.adam_beta2,
        weight_decay=grpo.weight_decay,
        max_grad_norm=grpo.max_grad_norm,
        per_device_train_batch_size=grpo.micro_batch_size,
        gradient_accumulation_steps=grpo.accumulation(process_count()),
        num_generations=grpo.group_size,
        num_iterations=grpo.iterations,
        max_completion_length=sampling.max_completion_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        beta=grpo.kl_beta,
        epsilon=grpo.clip_low,
        epsilon_high=grpo.clip_high,
        scale_rewards="group" if grpo.scale_rewards else "none",
        loss_type=grpo.loss,
        mask_truncated_completions=grpo.mask_truncated,
        reward_weights=[1.0, 0.0],
        bf16=config.train.bf16_autocast,
        gradient_checkpointing=grpo.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=on_cpu,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=grpo.engine_memory_fraction,
        vllm_max_model_length=config.engine.max_model_tokens,
        save_strategy="steps",
        save_steps=grpo.save_every,
        save_total_limit=1,
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],
    )


def sample_with_own_seeds(
    prompts: Sequence[str], trainer: GRPOTrainer, *, config: Config
) -> dict[str, list[Any]]:
    """Sample one completion a prompt for TRL, each with its own seed, with true truncation."""
    tokenizer = trainer.processing_class
    prompt_ids = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    step, rank = trainer.state.global_step, process_rank()
    rollouts = sample_rollouts(
        trainer.vllm_generation.llm,
        prompt_ids,
        config.sampling,
        [sample_seed(config.run.seed, "rollout", step, rank, i) for i in range(len(prompt_ids))],
        config.grpo.min_completion_tokens,
    )
    completion_ids, logprobs, sampled_by_policy = [], [], []
    for rollout in rollouts:
        ends = rollout.finished and rollout.ids[-1] != tokenizer.eos_token_id
        completion_ids.append(rollout.ids + [tokenizer.eos_token_id] * ends)
        logprobs.append(rollout.logprobs + [0.0] * ends)
        sampled_by_policy.append([1] * len(rollout.ids) + [0] * ends)
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": logprobs,
        "env_mask": sampled_by_policy,
    }


@dataclass
class StageCallback(TrainerCallback):
    """Log every step, score validation with the rollout engine, keep the best checkpoint."""

    config: Config
    trainer: GRPOTrainer
    metrics: MetricLog
    store: CheckpointStore
    task: EvalTask
    samples_file: Path

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Pass TRL's metrics on under our names."""
        named = {_METRICS[name]: value for name, value in (logs or {}).items() if name in _METRICS}
        if process_rank() or "train/reward" not in named:
            return
        self.metrics.log(named, step=state.global_step)
        self._log_samples(state.global_step)
        LOGGER.info(
            "step %d/%d: reward %.3f, format %.3f, %.0f tokens, entropy %.3f, ratio %.4f, %.1f s",
            state.global_step, state.max_steps, *(named.get(f"train/{name}", float("nan")) for name
            in ("reward", "format_rate", "completion_tokens", "entropy", "importance_ratio",
                "step_s")),
        )  # fmt: skip

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Score the starting policy, so that training that only harms keeps it as the best."""
        if state.global_step == 0:
            self._validate(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Score and save every `evaluate_every` steps and at the end."""
        if state.global_step % self.config.grpo.evaluate_every and (
            state.global_step != state.max_steps
        ):
            return
        self._validate(state.global_step)

    def _validate(self, step: int) -> None:
        generation = self.trainer.vllm_generation
        generation.sync_weights()
        self.trainer._last_loaded_step = step
        if process_rank():
            return
        report = evaluate(VllmEngine.around(generation.llm), self.task, checkpoint=f"step {step}")
        policy = self.trainer.accelerator.unwrap_model(self.trainer.model)

        def write(folder: Path) -> None:
            save_policy(policy, self.trainer.processing_class, folder)
            write_probe(folder, measure_probe(policy, self.trainer.processing_class, policy.device))

        seen = step * self.config.grpo.completions_per_step
        checkpoint = self.store.save(step, seen, write)
        record_validation(self.store, self.metrics, checkpoint, {"validation": report})

    def _log_samples(self, step: int) -> None:
        """Write the first group of the step: prompt, completions, rewards, advantages."""
        logs, size = self.trainer._logs, self.config.grpo.group_size
        rows = [
            {"step": step, "prompt": prompt, "completion": text, "reward": reward, "advantage": adv}
            for prompt, text, reward, adv in zip(
                list(logs["prompt"])[:size],
                list(logs["completion"])[:size],
                list(logs["rewards"]["accuracy_reward"])[:size],
                list(logs["advantages"])[:size],
                strict=True,
            )
        ]
        append_jsonl(self.samples_file, rows)


def train(trainer: GRPOTrainer, callback: StageCallback, *, resume: bool) -> None:
    """Run GRPO, from TRL's last checkpoint when resuming."""
    trainer.add_callback(callback)
    folder = Path(trainer.args.output_dir)
    last = get_last_checkpoint(folder) if resume and folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)


def score_best(
    trainer: GRPOTrainer, store: CheckpointStore, task: EvalTask, tolerance: float
) -> EvalReport:
    """Score the best checkpoint's files on test, by a verified swap into the rollout engine."""
    best = store.best()
    engine = VllmEngine.around(trainer.vllm_generation.llm)
    verifier = SwapVerifier(engine, tolerance, loaded="the last rollout's weights")
    verifier.load(best.folder)
    return evaluate(engine, task, checkpoint=str(best.folder))


@contextmanager
def _engine_settings(config: Config) -> Iterator[None]:
    """Give TRL's engine the arguments it does not expose (trl#6776)."""
    original = trl_vllm.LLM
    arguments: dict[str, Any] = {
        "dtype": config.engine.dtype,
        "enforce_eager": config.engine.enforce_eager,
    }
    if is_cpu(config.devices.train):
        arguments |= CPU_ARGUMENTS
    trl_vllm.LLM = functools.partial(original, **arguments)
    try:
        yield
    finally:
        trl_vllm.LLM = original
