"""What fits on a card: the share of the engine that lives beside the trainer, and the plan's words.

vLLM takes its share of the whole card when it starts, whatever it needs; so the share is derived
from what the engine can use and from what the trainer leaves.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

from src.config.loading import ConfigError, with_values
from src.config.schema import Config
from src.run.devices import gpu_capabilities, gpu_memory_gb, is_cpu
from src.run.processes import (
    launched_sharding,
    launched_strategy,
    process_count,
    training_device,
    training_gpus,
    visible_gpus,
)
from src.stages.memory import (
    GIB,
    STRATEGIES,
    grpo_between_steps_gib,
    grpo_memory_gib,
)
from src.stages.model_shape import model_shape

LOGGER = logging.getLogger(__name__)
ASSUMED_GB = (24, 40, 80)
"""Cards that the plan speaks of where none is present."""
# Of a card's nominal gigabytes of 2^30 bytes, what CUDA gives out: 23.6 of 24, 39.4 of 40.
_USABLE = 0.985
MARGIN = 0.05
"""Of the card, left free: the estimate is one."""
# Given to the engine beyond what it needs, where the card has it: vLLM takes whatever else changes
# on the card while it starts, such as another program's growth, out of its own share.
_SPARE_GIB = 2.0
# Sequences of full length that the engine's cache must have room for.
_LEAST_SEQUENCES = 16
# Tokens of a prefill that vLLM measures itself with, as TRL sets it (vllm_generation.py).
_PREFILL_TOKENS = 4096
# CUDA graphs of the decoding batch sizes (0.3 to 0.6 GiB in vLLM's own log for such models), and
# what its kernels hold for themselves, so that a cache is left in any case.
_GRAPHS_GIB, _KERNELS_GIB = 0.5, 0.5
# Tables of float32 a sequence and vocabulary entry in vLLM's sampler: logits, log-probabilities,
# probabilities and the noise they are divided by.
_SAMPLER_TABLES = 4
# vLLM's CPU backend asks that so much of the machine's memory be free, and takes cpu_cache_gib.
_CPU_FRACTION = 0.35
# Processes that a remedy may suggest.
_MOST_PROCESSES = 16
# Compute capability of the first NVIDIA cards with bfloat16 (Ampere).
_BFLOAT16_SINCE = 8.0


@dataclass(frozen=True, slots=True)
class EngineNeed:
    """What an engine can make use of, in GiB."""

    weights: float
    workspace: float
    a_sequence: float
    sequences: int

    @property
    def least(self) -> float:
        """Enough to decode at all."""
        cached = min(self.sequences, _LEAST_SEQUENCES)
        return self.weights + self.workspace + cached * self.a_sequence

    @property
    def most(self) -> float:
        """Enough for all its sequences at full length; more would lie idle."""
        return self.weights + self.workspace + self.sequences * self.a_sequence

    def cached(self, reserved: float) -> int:
        """Return how many sequences of full length have room in so many GiB."""
        room = (reserved - self.weights - self.workspace) / self.a_sequence
        return max(0, min(self.sequences, int(room)))


def engine_need(config: Config, processes: int) -> EngineNeed:
    """Estimate what a rollout engine can use: weights, activations, graphs and KV cache."""
    engine, shape = config.engine, model_shape(config)
    each = 4 if engine.dtype == "float32" else 2
    sequences = max(config.grpo.completions_per_batch // processes, engine.max_sequences)
    # Both halves of the MLP and their product beside hidden states and queries.
    widths = 3 * shape.intermediate_size + 4 * shape.hidden_size
    activations = each * _PREFILL_TOKENS * widths
    sampler = 4 * _SAMPLER_TABLES * sequences * shape.vocabulary
    a_token = 2 * each * shape.layers * shape.key_width
    return EngineNeed(
        weights=each * shape.parameters / GIB,
        workspace=(activations + sampler) / GIB + kept_asleep_gib(config),
        a_sequence=a_token * engine.max_model_tokens / GIB,
        sequences=sequences,
    )


def engine_fraction(card_gib: float, trainer_gib: float, need: EngineNeed) -> float | None:
    """Return the engine's share of a card, to three places; None where it does not fit.

    >>> engine_fraction(40.0, 28.0, EngineNeed(3.0, 1.0, 0.05, 256))
    0.25
    """
    left = card_gib * (1 - MARGIN) - trainer_gib
    if left < need.least:
        return None
    return math.floor(min(left, need.most + _SPARE_GIB) / card_gib * 1000) / 1000


def planned_fraction(
    config: Config, card_gib: float, processes: int, strategy: str
) -> float | None:
    """Return the share of a card that the rollout engine would take; None where it does not fit."""
    if config.grpo.mode != "colocate":
        trainer = sum(grpo_memory_gib(config, processes, strategy).values())
        return 0.0 if trainer <= card_gib * (1 - MARGIN) else None
    sleeps = engine_sleeps(config, card_gib, processes, strategy)
    return _share(config, card_gib, processes, strategy, sleeps=sleeps)


def engine_sleeps(config: Config, card_gib: float, processes: int, strategy: str) -> bool:
    """Tell whether the rollout engine sleeps while the trainer trains.

    `auto`: where the two do not fit beside one another, and do in turn.
    """
    if config.engine.sleep != "auto" or config.grpo.mode != "colocate":
        return config.engine.sleep == "on" and config.grpo.mode == "colocate"
    awake, in_turn = (
        _share(config, card_gib, processes, strategy, sleeps=sleeps) for sleeps in (False, True)
    )
    return awake is None and in_turn is not None


def freed_by_sleep_gib(config: Config, share_gib: float, processes: int) -> float:
    """Return what an engine of so many GiB gives back while it sleeps: weights and KV cache."""
    return share_gib - engine_need(config, processes).workspace


def _share(
    config: Config, card_gib: float, processes: int, strategy: str, *, sleeps: bool
) -> float | None:
    """Return the engine's share beside a trainer that trains, or in turn with it."""
    given = config.grpo.engine_memory_fraction
    beside = sum(grpo_memory_gib(config, processes, strategy).values())
    if sleeps:
        if beside + kept_asleep_gib(config) > card_gib * (1 - MARGIN):
            return None
        beside = grpo_between_steps_gib(config, processes, strategy)
    if given != "auto":
        return given if beside + given * card_gib <= card_gib else None
    return engine_fraction(card_gib, beside, engine_need(config, processes))


def kept_asleep_gib(config: Config) -> float:
    """Return what an engine keeps even while it sleeps: CUDA graphs and its kernels' buffers."""
    return _KERNELS_GIB + (0.0 if config.engine.enforce_eager else _GRAPHS_GIB)


def rollout_fraction(config: Config, card_gib: float | None) -> float:
    """Return the share of its GPU that this process's rollout engine takes.

    Args:
        card_gib: memory of the card, as CUDA counts it; None on a CPU.

    Raises:
        ConfigError: when trainer and engine do not fit together, naming what would.
    """
    given = config.grpo.engine_memory_fraction
    if given != "auto":
        return given
    if card_gib is None or config.grpo.mode != "colocate":
        return _CPU_FRACTION
    processes, strategy = process_count(), launched_strategy()
    found = planned_fraction(config, card_gib, processes, strategy)
    if found is None:
        raise ConfigError(_does_not_fit(config, card_gib, processes, strategy))
    reserved, need = found * card_gib, engine_need(config, processes)
    LOGGER.info(
        "the rollout engine takes %.3f of a GPU of %.1f GiB: %.1f GiB, room for %d of %d sequences",
        found, card_gib, reserved, need.cached(reserved), need.sequences,
    )  # fmt: skip
    return found


def rollout_sleeps(config: Config, card_gib: float | None) -> bool:
    """Tell whether this run's rollout engines sleep while the trainers train.

    All processes must say the same, so the smallest of their cards counts where it is known.
    """
    smallest = card_memory_gib(config) or card_gib
    if smallest is None:
        return False
    sleeps = engine_sleeps(config, smallest, process_count(), launched_strategy())
    if sleeps:
        LOGGER.info("the rollout engine sleeps while the trainer trains (engine.sleep)")
    return sleeps


def check_card(config: Config) -> None:
    """Refuse GRPO on GPUs that trainer and engine do not fit on, before anything is loaded.

    Raises:
        ConfigError: naming what would fit.
    """
    card = card_memory_gib(config)
    if card is None or config.grpo.engine_memory_fraction != "auto":
        return
    processes, launched = process_count(), launched_strategy()
    # A check before the launch does not know yet how several processes will share the policy.
    possible = STRATEGIES if processes > 1 and launched == "ddp" else (launched,)
    if all(planned_fraction(config, card, processes, name) is None for name in possible):
        raise ConfigError(_does_not_fit(config, card, processes, launched))


def with_float16(config: Config) -> Config:
    """Put float16 in place of bfloat16 where a visible GPU has none (T4); say so.

    Raises:
        ConfigError: the weights are sharded, which leaves no way to scale a loss.
    """
    names = [] if is_cpu(config.devices.train) else visible_gpus()
    old = [one for one in gpu_capabilities(names) if one < _BFLOAT16_SINCE]
    types = {"engine.dtype": config.engine.dtype, "train.compute_dtype": config.train.compute_dtype}
    if changed := [name for name, kind in types.items() if old and kind == "bfloat16"]:
        config = with_values(config, dict.fromkeys(changed, "float16"))
        LOGGER.warning(
            "a GPU of compute capability %.1f has no bfloat16 (that is since %.1f): float16 for %s",
            min(old), _BFLOAT16_SINCE, " and ".join(changed),
        )  # fmt: skip
    if config.train.compute_dtype == "float16" and launched_sharding():
        raise ConfigError(
            "train.compute_dtype: float16 wants a scaled loss, which sharded training here does "
            "not have; launch with accelerate launch --multi_gpu, or use "
            f"--set train.compute_dtype={'float32' if old else 'bfloat16'}"
        )
    return config


def card_memory_gib(config: Config) -> float | None:
    """Return the memory of the smallest GPU that is trained on, without loading CUDA.

    None where there is none, or no nvidia-smi to ask.
    """
    gpus = visible_gpus()
    names = [gpus[index] for index in training_gpus(config) if index < len(gpus)]
    sizes = gpu_memory_gb(names)
    return min(sizes) * _USABLE if sizes else None


def cuda_memory_gib(config: Config) -> float | None:
    """Return the memory of the GPU this process trains on, as CUDA counts it; None on a CPU."""
    # Imported here: the plan answers without torch.
    import torch  # noqa: PLC0415

    if is_cpu(config.devices.train) or not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info(training_device(config))[1] / GIB


def usable_gib(nominal_gb: float) -> float:
    """Return what CUDA gives out of a card that is sold with so many gigabytes."""
    return nominal_gb * _USABLE


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do about too little memory, and what the run would be then."""

    kind: str
    does: str
    config: Config
    processes: int
    strategy: str


# Schulman et al., "LoRA Without Regret", 2025.
ADAPTER_RATE = "which wants about ten times the learning rate"


def smaller(size: int) -> list[int]:
    """Return the divisors of a number below it, largest first.

    >>> smaller(8)
    [4, 2, 1]
    """
    return [divisor for divisor in range(size - 1, 0, -1) if size % divisor == 0]


def grpo_changes(config: Config, processes: int, strategy: str) -> Iterator[Change]:
    """Yield what makes GRPO smaller, what costs least first."""
    grpo = config.grpo
    if not grpo.gradient_checkpointing:
        config = with_values(config, {"grpo.gradient_checkpointing": True})
        does = "--set grpo.gradient_checkpointing=true"
        yield Change("checkpointing", does, config, processes, strategy)
    if grpo.mode == "colocate" and config.engine.sleep != "on":
        asleep = with_values(config, {"engine.sleep": "on"})
        yield Change("sleep", "--set engine.sleep=on", asleep, processes, strategy)
    for size in smaller(grpo.micro_batch_size):
        cut = with_values(config, {"grpo.micro_batch_size": size})
        does = f"--set grpo.micro_batch_size={size}"
        yield Change("micro-batch", does, cut, processes, strategy)
    if grpo.optimizer == "adamw" and strategy == "ddp":
        held = with_values(config, {"grpo.optimizer": "adamw_8bit"})
        does = "--set grpo.optimizer=adamw_8bit"
        yield Change("optimizer", does, held, processes, strategy)
    if grpo.adapter == "none" and strategy == "ddp":
        adapted = with_values(config, {"grpo.adapter": "lora"})
        yield Change(
            "adapter", f"--set grpo.adapter=lora, {ADAPTER_RATE}", adapted, processes, strategy
        )
    more = 2 * processes
    while more <= _MOST_PROCESSES:
        if not any(grpo.problems(more)):
            does = f"step3_GRPO/launch_trl.sh {more} --strategy fsdp2"
            yield Change("processes", does, config, more, "fsdp2")
        more *= 2
    if grpo.mode == "colocate":
        server = with_values(config, {"grpo.mode": "server"})
        does = "step3_GRPO/launch_trl.sh --mode server, with vLLM on a GPU of its own"
        yield Change("server", does, server, processes, strategy)


def _does_not_fit(config: Config, card_gib: float, processes: int, strategy: str) -> str:
    trainer = sum(grpo_memory_gib(config, processes, strategy).values())
    helps: dict[str, str] = {}
    for change in grpo_changes(config, processes, strategy):
        if planned_fraction(change.config, card_gib, change.processes, change.strategy) is not None:
            helps.setdefault(change.kind, change.does)
    fits = "; ".join(helps.values()) or "nothing that these settings offer: use larger GPUs"
    return (
        f"grpo.engine_memory_fraction: auto: the trainer takes about {trainer:.1f} GiB of a GPU's "
        f"{card_gib:.1f} ({strategy}, {processes} process(es)), and the rollout engine beside it "
        f"needs at least {engine_need(config, processes).least:.1f} (--dry-run lists what for). "
        f"What fits: {fits}"
    )
