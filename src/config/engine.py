"""Where things are computed: devices, and the engine that generates text."""

from __future__ import annotations

from pydantic import Field, field_validator

from src.config.training import ComputeType, Positive, Section, Share, Switch


class DeviceConfig(Section):
    train: str = "cuda:0"
    """Device of the trainer: `cuda:N`, `cpu` (all cores) or `cpu:0-3` (these cores alone)."""
    eval: str | list[str] = "auto"
    """Device of the evaluation worker, or a list: an engine each, which share the problems out;
    `auto`: every GPU that nothing trains on, else the trainer's device."""
    threads: Positive | None = None
    """CPU threads a process; None for all cores it may use."""

    @field_validator("eval")
    @classmethod
    def _check_eval(cls, given: str | list[str]) -> str | list[str]:
        """Refuse a list that cannot be one engine a device."""
        devices = [given] if isinstance(given, str) else given
        if not devices:
            raise ValueError("names no device; use auto, or a list such as [cuda:1, cuda:2]")
        if len(devices) > 1 and "auto" in devices:
            raise ValueError("auto stands alone, it chooses them all; name the others, or auto")
        twice = sorted({device for device in devices if devices.count(device) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} twice; an engine wants a device of its own")
        if len({device.partition(":")[0] for device in devices} & {"cpu", "cuda"}) > 1:
            raise ValueError(
                "GPUs and cores of the CPU in one list: the slower would keep the faster waiting; "
                "use the GPUs alone, or groups of cores alone"
            )
        return given if len(devices) > 1 else devices[0]


class EngineConfig(Section):
    dtype: ComputeType = "bfloat16"
    """Weights and activations inside vLLM; a card without bfloat16 gets float16."""
    max_model_tokens: Positive = 2048
    """Longest prompt plus completion, in tokens."""
    max_sequences: Positive = 256
    """Sequences decoded together."""
    memory_fraction: Share = 0.85
    """Share of a GPU's memory for weights and KV cache; halved where the trainer shares it."""
    cpu_cache_gib: Positive = 1
    """KV cache on a CPU, in GiB."""
    tensor_parallel: Positive = 1
    """GPUs that hold one evaluation engine together, for a model that does not fit one."""
    enforce_eager: bool = False
    """Skip CUDA graphs and compilation: slower decoding, faster start."""
    sleep: Switch = "auto"
    """Give back the rollout engine's GPU memory while the trainer on the same GPU trains; `auto`:
    where both do not fit otherwise."""
    start_timeout_s: Positive = 3600
    """Longest that an evaluation worker may take to load its model and compile, in seconds."""
    no_answer_timeout_s: Positive = 900
    """Longest that a worker's engine shows no step, or a vLLM server leaves a request unanswered,
    in seconds; the worker is then killed and started again, the server given up."""
    swap_tolerance: float = Field(default=0.1, gt=0)
    """Largest mean absolute gap of probe log-probabilities after a weight swap, in nats a token.

    Two bfloat16 implementations of 30 layers differ by about 0.05; weights that stayed old are
    also told by lying closer to the weights before.
    """
