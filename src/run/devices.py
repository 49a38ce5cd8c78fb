"""Logical devices: what `cuda:1`, `cpu` and `cpu:0-3` in the configuration mean on this machine.

And which of them evaluation gets: one engine, or several that share the problems out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from glob import glob
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path

from src.config.loading import ConfigError
from src.config.schema import Config


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


def computes_on_gpus() -> bool:
    """Tell whether the torch that is installed can use a GPU, without loading it."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def gpu_memory_gb(names: Sequence[str]) -> list[float]:
    """Return the memory of GPUs as nvidia-smi counts it, in GB of 2^30 bytes.

    Empty where there is no nvidia-smi to ask.

    Args:
        names: as CUDA_VISIBLE_DEVICES names them.
    """
    return [size / 1024 for size in _asked_of_gpus("memory.total", names)]


def _asked_of_gpus(what: str, names: Sequence[str]) -> list[float]:
    """Return a number that nvidia-smi knows of each GPU; empty where there is no nvidia-smi."""
    if not names or shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    listed = subprocess.run(
        [*query, f"--id={','.join(names)}"], capture_output=True, text=True, check=False
    )
    lines = [line.strip() for line in listed.stdout.splitlines()]
    return [float(line) for line in lines if line.replace(".", "").isdigit()]


def gpu_capabilities(names: Sequence[str]) -> list[float]:
    """Return the compute capability of GPUs, such as 7.5 of a T4; empty without nvidia-smi.

    Args:
        names: as CUDA_VISIBLE_DEVICES names them.
    """
    return _asked_of_gpus("compute_cap", names)


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


def choose_engines(config: Config, training: range, gpus: int) -> list[list[str]]:
    """Return the devices of each evaluation engine, by `devices.eval`.

    `auto` is every GPU that nothing trains on, the ones after the trainer's first. Where there is
    none, and on a CPU, it is the trainer's own device, and the two take turns.

    Args:
        training: N of each `cuda:N` that is trained on meanwhile.
        gpus: that are visible.
    """
    given, size = config.devices.eval, config.engine.tensor_parallel
    devices = [given] if isinstance(given, str) else given
    if given == "auto":
        free = [index for index in range(gpus) if index not in training]
        free.sort(key=lambda index: bool(training) and index < training[0])
        if not free or is_cpu(config.devices.train):
            return [[config.devices.train]]
        devices = [f"cuda:{index}" for index in free[: max(size, len(free) // size * size)]]
    return [devices[first : first + size] for first in range(0, len(devices), size)]


def devices_meet(config: Config, engines: list[list[str]], training: range) -> bool:
    """Tell whether an engine computes on a GPU that is trained on, or on the trainer's cores."""
    train = config.devices.train
    return any(
        bool(set(cpu_cores(device, "devices.eval")) & set(cpu_cores(train, "devices.train")))
        if is_cpu(device) and is_cpu(train)
        else device_index(device, "devices.eval") in training
        for devices in engines
        for device in devices
    )


def engine_config(config: Config, devices: Sequence[str], training: range) -> Config:
    """Return the configuration of one engine's process: its devices, and its share of a card.

    Where the card is trained on too, the engine takes half of what it would have alone.
    """
    on = {device_index(device, "devices.eval") for device in devices} & set(training)
    share = config.engine.memory_fraction / (2 if on else 1)
    place = devices[0] if len(devices) == 1 else list(devices)
    return config.model_copy(
        update={
            "devices": config.devices.model_copy(update={"eval": place}),
            "engine": config.engine.model_copy(update={"memory_fraction": share}),
        }
    )


def check_engines(
    config: Config,
    engines: list[list[str]],
    gpus: int,
    training: range,
    wanted: bool,
) -> None:
    """Refuse evaluation devices that are not there, or that something else computes on.

    Args:
        training: N of each `cuda:N` that is trained on while the engines live.
        wanted: they will be started; otherwise they may be too small.

    Raises:
        ConfigError: naming the device, what there is, and the setting to change.
    """
    every = [device for devices in engines for device in devices]
    for device in every:
        check_present("eval", device, gpus)
    size = config.engine.tensor_parallel
    if wanted and len(engines[0]) < size:
        raise ConfigError(
            f"engine.tensor_parallel: an engine of {size} GPUs is wanted, and of the {gpus} that "
            f"are visible evaluation can have {', '.join(every)}; lower it, or give the run more "
            "GPUs (CUDA_VISIBLE_DEVICES)"
        )
    for one, other in combinations([device for device in every if is_cpu(device)], 2):
        both = set(cpu_cores(one, "devices.eval")) & set(cpu_cores(other, "devices.eval"))
        if both:
            raise ConfigError(
                f"devices.eval: {one} and {other} share the cores {sorted(both)}; give each engine "
                "cores of its own, such as [cpu:0-3, cpu:4-7]"
            )
    _check_beside(config, engines, training, gpus)


def check_present(role: str, device: str, gpus: int) -> None:
    """Refuse a GPU that is not there, or that this environment cannot use.

    Raises:
        ConfigError: naming it, what there is, and the setting to change.
    """
    index = device_index(device, f"devices.{role}")
    if index is None:
        return
    if index < gpus and not computes_on_gpus():
        raise ConfigError(
            f"devices.{role}: {device}, but this environment is for a CPU (make setup), and vLLM "
            "would compute there whatever is asked; `uv sync --extra vllm` makes one for GPUs, and "
            "--set devices.train=cpu --set devices.eval=cpu stays here"
        )
    if index < gpus:
        return
    if gpus == 0:
        raise ConfigError(
            f"devices.{role}: {device} is not there: this machine has no visible GPU. Run the CPU "
            "profile: run_pipeline.py --profile tiny"
        )
    raise ConfigError(
        f"devices.{role}: {device} is not there ({gpus} GPUs visible, cuda:0 to "
        f"cuda:{gpus - 1}); use --set devices.{role}=cuda:{gpus - 1}"
        f"{', or leave devices.eval at auto' if role == 'eval' else ''}"
    )


def _check_beside(config: Config, engines: list[list[str]], training: range, gpus: int) -> None:
    """Refuse GPUs that are trained on, unless one process and one engine take turns on one."""
    every, given = [device for devices in engines for device in devices], config.devices.eval
    shared = [device for device in every if device_index(device, "devices.eval") in training]
    others = [device for device in every if device not in shared]
    if shared and others:
        raise ConfigError(
            f"devices.eval: {', '.join(shared)} of {', '.join(every)} is trained on, and the other "
            f"engines would wait with it for the trainer; use [{', '.join(others)}], or auto"
        )
    if shared and len(training) > 1:
        raise ConfigError(
            f"devices.eval: {given}: {len(training)} processes train on cuda:{training[0]} to "
            f"cuda:{training[-1]}, which leaves no GPU of {gpus} for the evaluation worker; "
            f"launch {max(1, gpus - 1)} process(es), or name a GPU beside them"
        )
