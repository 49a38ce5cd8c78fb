"""TRL's names for our settings and metrics; nothing else of the project knows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset

from src.config.schema import Config
from src.engine.vllm_engine import CPU_ARGUMENTS
from src.run.devices import is_cpu
from src.run.processes import launched_sharding, process_count
from src.stages.cards import cuda_memory_gib, rollout_fraction, rollout_sleeps

TRL_METRICS = {
    "loss": "train/loss",
    "reward_std": "grpo/reward_std",
    "kl": "grpo/kl",
    "clip_ratio/region_mean": "grpo/clip_rate",
    "cispo_clip_ratio": "grpo/clip_rate",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
}
_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def trl_values(config: Config, output_folder: Path) -> dict[str, Any]:
    """Return the arguments of TRL's GRPOConfig for a configuration."""
    grpo, sampling = config.grpo, config.sampling
    return {
        "output_dir": str(output_folder),
        "seed": config.run.seed,
        "max_steps": grpo.steps,
        "learning_rate": grpo.learning_rate,
        "lr_scheduler_type": _SCHEDULES[grpo.schedule],
        "warmup_steps": grpo.warmup_steps,
        "weight_decay": grpo.weight_decay,
        "max_grad_norm": grpo.max_grad_norm,
        "per_device_train_batch_size": grpo.micro_batch_size,
        "gradient_accumulation_steps": grpo.accumulation(process_count()),
        "num_generations": grpo.group_size,
        "num_iterations": grpo.iterations,
        "steps_per_generation": grpo.accumulation(process_count()) * grpo.updates_per_batch,
        "max_completion_length": sampling.max_completion_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "beta": grpo.kl_beta,
        "epsilon": grpo.clip_low,
        # TRL's CISPO takes the largest ratio itself.
        "epsilon_high": grpo.clip_high + (grpo.loss == "cispo"),
        "importance_sampling_level": grpo.ratio,
        "scale_rewards": "group" if grpo.scale_rewards else "none",
        "loss_type": grpo.loss,
        "mask_truncated_completions": grpo.mask_truncated,
        "reward_weights": list(grpo.rewards.weights().values()),
        # Corrected in the training pass instead, which saves one of the forward passes.
        "vllm_importance_sampling_correction": False,
        # The policy is autocast where it is scored. FSDP2's own mixed precision would hand out
        # log-probabilities in bfloat16; DeepSpeed's engine knows no other way.
        "bf16": config.train.compute_dtype == "bfloat16" and launched_sharding() == "deepspeed",
        "fp16": config.train.compute_dtype == "float16",  # for the scaled loss
        "gradient_checkpointing": grpo.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "ddp_find_unused_parameters": False,
        # Sharded gradients are summed micro-batch by micro-batch: whole ones would not fit.
        "accelerator_config": {
            "gradient_accumulation_kwargs": {"sync_each_batch": launched_sharding() == "fsdp"}
        },
        "use_cpu": is_cpu(config.devices.train),
        "ddp_timeout": grpo.rank_timeout_s,
        "use_vllm": grpo.mode != "split",
        "vllm_mode": "server" if grpo.mode == "server" else "colocate",
        "vllm_server_base_url": grpo.server_url,
        "vllm_gpu_memory_utilization": rollout_fraction(config, cuda_memory_gib(config)),
        "vllm_enable_sleep_mode": rollout_sleeps(config, cuda_memory_gib(config)),
        "vllm_max_model_length": config.engine.max_model_tokens,
        "save_strategy": "steps",
        "save_steps": grpo.save_every,
        "ignore_data_skip": True,  # the rollout source knows where it was
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": [],
    }


def reward_function(name: str) -> Any:
    """Return TRL's function for one of the rewards that came with the rollouts."""

    def reward(
        completions: Sequence[str], scores: Sequence[dict[str, float | None]], **_: Any
    ) -> list[float | None]:
        return [row[name] for row in scores]

    reward.__name__ = f"{name}_reward"
    return reward


def pace(config: Config) -> Dataset:
    """Return a data set that only tells TRL how many prompts there are a step, and steps."""
    return Dataset.from_list([{"prompt": ""}] * (config.grpo.prompts_per_step * config.grpo.steps))


@contextmanager
def engine_settings(module: Any, config: Config) -> Iterator[None]:
    """Give TRL's engine the arguments it does not expose: type, eager mode, a CPU's.

    TRL asks for an engine of 4-bit weights under QLoRA; it gets merged weights, which are whole.

    Args:
        module: TRL's, that builds the engine.
    """
    original, engine = module.LLM, config.engine
    own: dict[str, Any] = {"dtype": engine.dtype, "enforce_eager": engine.enforce_eager}
    own["quantization"] = None
    if is_cpu(config.devices.train):
        own |= CPU_ARGUMENTS

    def build(**given: Any) -> Any:
        # TRL has room for this process's completions of a step; validation has more of them.
        return original(
            **given | own | {"max_num_seqs": max(given["max_num_seqs"], engine.max_sequences)}
        )

    module.LLM = build
    try:
        yield
    finally:
        module.LLM = original
