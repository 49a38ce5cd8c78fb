"""The list of checks: cheapest and most likely to fail first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Needs = Literal["torch", "engine"]


class Skipped(Exception):  # noqa: N818 - no error: this machine cannot do it
    """A check that this machine cannot run, with the reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a check saw: whether what should hold does, and the figures in words."""

    held: bool
    figure: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check: a function of the device's name, in a module of this folder."""

    name: str
    module: str
    limit_s: int
    needs: Needs = "engine"
    gpus: int = 1
    on_cpu: bool = True

    @property
    def function(self) -> str:
        """Name of the function."""
        return self.name.replace("-", "_").replace(".", "_")


CHECKS = (
    Check("versions", "torch_checks", 60, "torch"),
    Check("devices", "engine_checks", 60),
    Check("attention", "torch_checks", 120, "torch"),
    Check("probe-and-state", "torch_checks", 60, "torch"),
    Check("sft-1.5b", "torch_checks", 240, "torch"),
    Check("worker-and-swap", "engine_checks", 240),
    Check("stale-weights", "engine_checks", 240),
    Check("step2-tiny", "stage_checks", 240),
    Check("step3-tiny", "stage_checks", 240),
    Check("float16", "stage_checks", 300),
    Check("adapters", "stage_checks", 300, on_cpu=False),
    Check("asleep", "stage_checks", 300, on_cpu=False),
    Check("stale-rollouts", "stage_checks", 180),
    Check("fsdp2-one-process", "stage_checks", 300, on_cpu=False),
    Check("grpo-1.5b", "stage_checks", 300),
    Check("quick-start", "two_gpu_checks", 300, gpus=2, on_cpu=False),
    Check("split", "two_gpu_checks", 300, gpus=2, on_cpu=False),
    Check("ddp", "two_gpu_checks", 240, gpus=2, on_cpu=False),
    Check("fsdp2", "two_gpu_checks", 240, gpus=2, on_cpu=False),
    Check("server", "two_gpu_checks", 300, gpus=2, on_cpu=False),
    Check("two-engines", "two_gpu_checks", 300, gpus=2, on_cpu=False),
    Check("both-busy", "two_gpu_checks", 240, gpus=2, on_cpu=False),
)
