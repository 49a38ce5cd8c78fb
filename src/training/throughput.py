"""How well a device is used: FLOPs of a training step, their share of the peak, memory, seconds."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

# Dense bfloat16 tensor-core peaks from NVIDIA's data sheets, in FLOP/s; the first match counts.
_PEAK_FLOPS = {
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Return the device's bfloat16 peak in FLOP/s; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in _PEAK_FLOPS.items() if key in name), None)


def training_flops(model: PreTrainedModel, lengths: Sequence[int], target_tokens: int) -> float:
    """Return the model FLOPs of one forward and backward pass; recomputation does not count.

    6 a weight and token (Kaplan et al. 2020, section 2.1), 4 where it is frozen and so has no
    gradient of its own, the output layer on target tokens alone,
    and 6 x layers x width x length for each token's causal attention (half of PaLM's 12, appendix
    B, as a token sees half of its sequence on average), the width being that of all heads together.
    """
    shape = model.config.get_text_config()
    head = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    layers, width = shape.num_hidden_layers, shape.num_attention_heads * head
    output, embeddings = (
        _flops_a_token(layer.weight)
        for layer in (model.get_output_embeddings(), model.get_input_embeddings())
    )
    total = sum(_flops_a_token(parameter) for parameter in model.parameters())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    body = total - embeddings - (0 if tied else output)
    attention = 6 * layers * width * sum(length**2 for length in lengths)
    return body * sum(lengths) + output * target_tokens + attention


def _flops_a_token(weight: torch.nn.Parameter) -> int:
    packed = getattr(weight, "quant_state", None)  # two weights a byte
    count = packed.shape.numel() if packed else weight.numel()
    return (6 if weight.requires_grad else 4) * count


def memory_gib(device: torch.device) -> float:
    """Return the largest memory used so far: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class StepClock:
    """Adds up named parts of a step; what is in none of them is training itself."""

    def __init__(self) -> None:
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Start a step."""
        self._parts.clear()
        self._began = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the block for a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self._parts[name] += seconds

    def end(self) -> dict[str, float]:
        """Return part -> seconds, with `step` the whole and `train` the rest."""
        whole = time.perf_counter() - self._began
        return {**self._parts, "train": whole - sum(self._parts.values()), "step": whole}
