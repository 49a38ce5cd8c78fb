"""Logical devices: what `cuda:1`, `cpu` and `cpu:0-3` in the configuration mean on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from src.config.loading import ConfigError


def available_cores() -> list[int]:
    """List the CPU cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def present_gpus() -> int:
    """Count the NVIDIA cards of this machine, without loading CUDA."""
    cards = len(glob("/dev/nvidia[0-9]*"))
    if cards or not Path("/dev/dxg").exists() or shutil.which("nvidia-smi") is None:
        return cards
    # Windows' Linux subsystem has one device file for all cards.
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listed.stdout.count("GPU ")


def gpu_memory_gb(names: Sequence[str]) -> list[float]:
    """Return the memory of GPUs as nvidia-smi counts it, in GB of 2^30 bytes.

    Empty where there is no nvidia-smi to ask.

    Args:
        names: as CUDA_VISIBLE_DEVICES names them.
    """
    if not names or shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    listed = subprocess.run(
        [*query, f"--id={','.join(names)}"], capture_output=True, text=True, check=False
    )
    lines = [line.strip() for line in listed.stdout.splitlines()]
    return [float(line) / 1024 for line in lines if line.replace(".", "").isdigit()]


def device_index(device: str, name: str) -> int | None:
    """Return N of `cuda:N`, or None for a CPU.

    Raises:
        ConfigError: for any other text.
    """
    if is_cpu(device):
        cpu_cores(device, name)
        return None
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdigit():
        raise ConfigError(
            f"{name}: {device!r} is not a device; use 'cuda:N', 'cpu' or a list of cores such as "
            "'cpu:0-3'"
        )
    return int(index)


def is_cpu(device: str) -> bool:
    """Tell whether a device is a CPU or some of its cores."""
    return device.partition(":")[0] == "cpu"


def cpu_cores(device: str, name: str) -> list[int]:
    """Return the cores of `cpu:0-3` or `cpu:0,2`, and all this process may use for `cpu`.

    Raises:
        ConfigError: when the list cannot be read or names a core that is not there.
    """
    listed = device.partition(":")[2]
    if not listed:
        return available_cores()
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", listed):
        raise ConfigError(f"{name}: {device!r} is not a list of cores such as 'cpu:0-3'")
    cores: list[int] = []
    for part in listed.split(","):
        first, _, last = part.partition("-")
        cores += range(int(first), int(last or first) + 1)
    missing = sorted(set(cores) - set(range(os.cpu_count() or 1)))
    if missing or not cores:
        raise ConfigError(
            f"{name}: {device}: cores {missing} are not there; this machine has {os.cpu_count()}, "
            "counted from 0"
        )
    return cores
