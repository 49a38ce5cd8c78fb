"""One pass through the largest micro-batch of a run before its first step, for nothing.

Too little memory then shows in seconds and not when that micro-batch has its turn. What training
computes stays the same to the bit: gradients are thrown away, random numbers put back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from src.config.training import OptimizerName, Switch
from src.training.optimization import room_for_moments
from src.training.throughput import memory_gib

LOGGER = logging.getLogger(__name__)


def rehearses(asked: Switch, device: torch.device) -> bool:
    """Tell whether memory is rehearsed on a device; `auto` does so where it can run out."""
    return asked == "on" or (asked == "auto" and device.type == "cuda")


def rehearse_memory(
    once: Callable[[], object],
    optimizer: torch.optim.Optimizer,
    name: OptimizerName,
    device: torch.device,
    said: str,
) -> dict[str, float]:
    """Run a pass and forget it; return what it took, as metrics. All processes call this together.

    Room is held meanwhile for the moments that the optimizer makes in its first step.

    Args:
        once: the forward and the backward pass.
        name: of the optimizer.
        said: what is passed through, such as `8 sequences, 12,288 tokens`.

    Raises:
        Exception: whatever the pass raises, with a note of what it was.
    """
    on_gpu, started = device.type == "cuda", time.perf_counter()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with torch.random.fork_rng([device] if on_gpu else []):
            room = room_for_moments(optimizer, name)
            once()
    except Exception as error:
        error.add_note(f"in the rehearsal of the largest micro-batch ({said})")
        raise
    for group in optimizer.param_groups:  # accelerate's zero_grad does so at a step's end alone
        for parameter in group["params"]:
            parameter.grad = None
    del room
    values = {"system/rehearsal_s": time.perf_counter() - started}
    if on_gpu:
        values["system/rehearsal_gib"] = memory_gib(device)
    listed = ", ".join(f"{key.rpartition('_')[2]} {value:.1f}" for key, value in values.items())
    LOGGER.info("rehearsed the largest micro-batch (%s): %s", said, listed)
    return values
