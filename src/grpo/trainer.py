"""GRPO with TRL's trainer and a colocated vLLM engine, with its silent traps closed.

The only module that imports trl, and the only place where TRL's names are mapped to ours. What
TRL's trainer does otherwise, through its `rollout_func` hook and four methods of a subclass:

* Rollouts come from `RolloutSource`: own seeds, dynamic sampling, grading while others are sampled.
  TRL's data loader only sets the pace.
* TRL calls a completion truncated unless it ends in the end-of-text token, so one that ended at
  `</answer>` would count as cut. The token is appended here, masked from the loss because the
  policy did not sample it.
* An unscorable completion is masked from the loss, and none of its rewards is a number.
* Log-probabilities come from packed rows, and those of the policy that sampled from the training
  pass itself, whose weights are still the same: one forward pass less than TRL takes.
* After each weight sync the engine's layers are compared with the policy's, to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import trl.generation.vllm_generation as trl_vllm
import trl.trainer.utils as trl_utils
from datasets import Dataset
from transformers import PrinterCallback
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer
from trl.generation.vllm_client import VLLMClient

from src.config.schema import Config
from src.engine.generator import Generator, RolloutPool
from src.engine.server_engine import CompletionServer, ServerEngine, ServerRolloutPool
from src.engine.swap_verifier import StaleWeightsError
from src.engine.vllm_engine import (
    CPU_ARGUMENTS,
    VllmEngine,
    VllmRolloutPool,
    stale_layers,
    swap_weights,
)
from src.grpo.importance import Agreement, importance_weights
from src.grpo.rollout_source import RolloutSource, training_rows
from src.grpo.rollouts import Drawn
from src.run.devices import is_cpu
from src.run.processes import process_count
from src.training.losses import CompletionScores, completion_scores
from src.training.policy import choose_attention, load_policy
from src.training.throughput import StepClock, training_flops

TRL_METRICS = {
    "loss": "train/loss",
    "reward_std": "grpo/reward_std",
    "kl": "grpo/kl",
    "clip_ratio/region_mean": "grpo/clip_rate",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
}
_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


class PolicyTrainer(GRPOTrainer):
    """TRL's trainer on rollouts of ours.

    Args:
        settings: the run's configuration.
        arguments: TRL's own.
    """

    def __init__(self, source: RolloutSource, settings: Config, **arguments: Any) -> None:
        self.source = source
        self.settings = settings
        self.clock = StepClock()
        self.agreement = Agreement()
        self.trained_tokens = 0
        self.flops = 0.0
        self.drawn: Drawn | None = None
        self.advantages: list[float] = []
        self._loss_inputs: dict[str, Any] | None = None
        self._buffered_inputs: list[dict[str, Any]] | None = None
        self._server: CompletionServer | None = None
        super().__init__(rollout_func=lambda *_: self._draw_rollouts(), **arguments)
        # TRL would score every position on a device without Triton, those of prompts as well.
        trl_utils._use_triton = lambda _: True
        if settings.grpo.mode == "server":
            # TRL's client lives in the main process alone; every process samples its own share.
            client = getattr(self.vllm_generation, "vllm_client", None)
            self._server = client or VLLMClient(base_url=settings.grpo.server_url)
        if self.use_vllm:
            self._sync_in_trl = self.vllm_generation.sync_weights
            self.vllm_generation.sync_weights = self.sync_weights

    def begin_step(self) -> None:
        """Forget the figures of the step before."""
        self.clock.begin()
        self.agreement = Agreement()
        self.trained_tokens, self.flops = 0, 0.0

    def engine(self) -> Generator:
        """Return the engine that samples rollouts."""
        if self._server is not None:
            return ServerEngine(self._server, self._tokenizer, self.accelerator.device)
        return VllmEngine.around(self.vllm_generation.llm)

    def _pool(self) -> RolloutPool:
        sampling, floor = self.settings.sampling, self.settings.grpo.min_completion_tokens
        if self._server is not None:
            return ServerRolloutPool(self._server, self._tokenizer, sampling, floor)
        return VllmRolloutPool(self.vllm_generation.llm, sampling, floor)

    def sync_weights(self) -> None:
        """Give the engine the policy's weights, and prove it.

        Raises:
            StaleWeightsError: naming the layers that stayed as they were.
        """
        generation = self.vllm_generation
        with self.clock.part("sync"):
            if self._server is None and is_cpu(self.settings.devices.train):
                # TRL's own way fails on layers that vLLM has packed for a CPU.
                swap_weights(generation.llm, generation._iter_named_params())
            else:
                self._sync_in_trl()
            sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
            if self._server is None and not sharded:
                policy = self.accelerator.unwrap_model(self.model)
                stale = stale_layers(generation.llm, dict(policy.named_parameters()))
                if stale:
                    raise StaleWeightsError(
                        f"after the weight sync {len(stale)} layers of the rollout engine hold "
                        f"other weights than the policy: {', '.join(stale[:5])}"
                    )

    def _draw_rollouts(self) -> dict[str, list[Any]]:
        """Draw this step's groups and return them as TRL wants them."""
        self.drawn = self.source.draw(self._pool())
        self.clock.add("generate", self.drawn.generate_s)
        self.clock.add("grade", self.drawn.grade_s)
        return training_rows(self.drawn, self.settings, self._tokenizer.eos_token_id)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Keep the advantages."""
        output = super()._generate_and_score_completions(inputs)
        self.advantages = output["advantages"].tolist()
        return output

    def _prepare_inputs(self, generation_batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Cut a step's rollouts into micro-batches in their order, not shuffled as TRL does.

        A step takes all of them whatever their order, and members of a group share their prompt.
        """
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            whole = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = trl_utils.split_tensor_dict(whole, parts)
        return self._buffered_inputs[self._step % parts]

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """Let the forward pass below see and correct what the loss is made of."""
        self._loss_inputs = dict(inputs)
        try:
            return super()._compute_loss(model, self._loss_inputs)
        finally:
            self._loss_inputs = None

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Score completions (B, C) in packed rows of at most `batch_size` sequences."""
        arguments = (model, input_ids, attention_mask, logits_to_keep, batch_size)
        if self._loss_inputs is None:  # the policy before its update, or the reference policy
            with self.clock.part("logprobs"):
                return (*self._scored(*arguments), None)
        logprobs, entropies = self._scored(*arguments)
        self._correct_importance(self._loss_inputs, logprobs.detach(), entropies)
        return logprobs, entropies, None

    def _scored(
        self,
        model: torch.nn.Module,
        ids: torch.Tensor,
        mask: torch.Tensor,
        columns: int,
        batch_size: int | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own = self.accelerator.unwrap_model(model)
        size = batch_size or len(ids)
        scores = []
        for rows, present in zip(ids.split(size), mask.split(size), strict=True):
            with self.accelerator.autocast():
                scores.append(
                    completion_scores(
                        model, own.config._attn_implementation, rows, present, columns
                    )
                )
            if self._loss_inputs is not None:
                self._count(own, scores[-1])
        return (
            torch.cat([score.logprobs for score in scores]),
            torch.cat([score.entropies for score in scores]),
        )

    def _count(self, policy: Any, scores: CompletionScores) -> None:
        """Count the tokens trained on and the FLOPs this took."""
        layers, width = policy.config.num_hidden_layers, policy.config.hidden_size
        self.trained_tokens += scores.targets
        self.flops += training_flops(policy, scores.lengths, scores.targets, layers, width)
        self.flops -= training_flops(policy, scores.shared, 0, layers, width)

    def _correct_importance(
        self, inputs: dict[str, Any], logprobs: torch.Tensor, entropies: torch.Tensor
    ) -> None:
        """Weigh the advantages of a micro-batch by what the engine's sampling differs.

        A weight on the loss of a token is the same as one on its advantage, as it is not negative.
        """
        grpo = self.settings.grpo
        mask = inputs["completion_mask"] * inputs["tool_mask"]  # (B, C)
        weights, agreement = importance_weights(
            inputs.get("old_per_token_logps", logprobs),
            inputs["sampling_per_token_logps"],
            mask,
            grpo.importance_correction,
            grpo.importance_cap,
        )
        inputs["advantages"] = inputs["advantages"].unsqueeze(1) * weights  # (B, C)
        agreement.entropy = (entropies * mask).sum().item()
        self.agreement += agreement
        agreement.check(self.settings.engine.swap_tolerance)


def build_trainer(
    model: str,
    tokenizer: PreTrainedTokenizerBase,
    source: RolloutSource,
    config: Config,
    output_folder: Path,
) -> PolicyTrainer:
    """Build TRL's trainer around the policy and a colocated engine."""
    policy = load_policy(model, config, choose_attention(config))
    policy.config.name_or_path = model
    with _engine_settings(config):
        trainer = PolicyTrainer(
            source,
            config,
            model=policy,
            reward_funcs=[_reward_function(name) for name in config.grpo.rewards.weights()],
            args=trl_arguments(config, output_folder),
            train_dataset=_pace(config),
            processing_class=tokenizer,
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trl_arguments(config: Config, output_folder: Path, **more: Any) -> GRPOConfig:
    """Map our configuration to TRL's."""
    grpo, sampling = config.grpo, config.sampling
    values: dict[str, Any] = {
        "output_dir": str(output_folder),
        "seed": config.run.seed,
        "max_steps": grpo.steps,
        "learning_rate": grpo.learning_rate,
        "lr_scheduler_type": _SCHEDULES[grpo.schedule],
        "warmup_steps": grpo.warmup_steps,
        "adam_beta1": 0.9,
        "adam_beta2": grpo.adam_beta2,
        "weight_decay": grpo.weight_decay,
        "max_grad_norm": grpo.max_grad_norm,
        "per_device_train_batch_size": grpo.micro_batch_size,
        "gradient_accumulation_steps": grpo.accumulation(process_count()),
        "num_generations": grpo.group_size,
        "num_iterations": grpo.iterations,
        "max_completion_length": sampling.max_completion_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "beta": grpo.kl_beta,
        "epsilon": grpo.clip_low,
        "epsilon_high": grpo.clip_high,
        "scale_rewards": "group" if grpo.scale_rewards else "none",
        "loss_type": grpo.loss,
        "mask_truncated_completions": grpo.mask_truncated,
        "reward_weights": list(grpo.rewards.weights().values()),
        # Corrected in the training pass instead, which saves one of the forward passes.
        "vllm_importance_sampling_correction": False,
        "bf16": config.train.bf16_autocast,
        "gradient_checkpointing": grpo.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "ddp_find_unused_parameters": False,
        "use_cpu": is_cpu(config.devices.train),
        "use_vllm": True,
        "vllm_mode": grpo.mode,
        "vllm_server_base_url": grpo.server_url,
        "vllm_gpu_memory_utilization": grpo.engine_memory_fraction,
        "vllm_max_model_length": config.engine.max_model_tokens,
        "save_strategy": "steps",
        "save_steps": grpo.save_every,
        "ignore_data_skip": True,  # the rollout source knows where it was
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": [],
    }
    arguments = GRPOConfig(**values | more)
    if is_cpu(config.devices.train):
        # accelerate numbers the processes of a CPU, and torch cannot load tensors to `cpu:1`.
        vars(arguments)["_setup_devices"] = torch.device("cpu")
    return arguments


def _reward_function(name: str) -> Any:
    """Return TRL's function for one of the rewards that came with the rollouts."""

    def reward(
        completions: Sequence[str], scores: Sequence[dict[str, float | None]], **_: Any
    ) -> list[float | None]:
        return [row[name] for row in scores]

    reward.__name__ = f"{name}_reward"
    return reward


def _pace(config: Config) -> Dataset:
    """Return a data set that only tells TRL how many prompts there are a step, and steps."""
    return Dataset.from_list([{"prompt": ""}] * (config.grpo.prompts_per_step * config.grpo.steps))


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
