"""The half-precision type of a card. Needs torch alone, and that only when asked about a card."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BFLOAT16_SINCE = 8.0
"""Compute capability of the first NVIDIA cards with bfloat16 (Ampere)."""


def half_type(device: torch.device) -> torch.dtype:
    """Return bfloat16, and float16 for a GPU that has none."""
    import torch  # noqa: PLC0415

    if device.type != "cuda" or not torch.cuda.is_available():
        return torch.bfloat16
    major, minor = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if major + minor / 10 >= BFLOAT16_SINCE else torch.float16
