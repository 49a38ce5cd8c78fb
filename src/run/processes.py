"""The processes of a run: which device and which environment each has, and its rank.

The only module that reads or writes environment variables. A child's variables are set before it
starts: once CUDA or vLLM has initialised, changing them has no effect.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from typing import Literal, cast

from src.config.loading import ConfigError
from src.config.schema import Config
from src.run.devices import available_cores, cpu_cores, device_index, is_cpu

WandbMode = Literal["online", "offline", "disabled", "shared"]
# What accelerate and torchrun tell their processes; a worker is a world of its own.
_LAUNCHER_VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK",
    "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID",
)  # fmt: skip


def gpu_count() -> int:
    """Count NVIDIA GPUs visible to this process, without loading CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(glob("/dev/nvidia[0-9]*"))
    if visible is None:
        return present
    return min(
        present, len([item for item in visible.split(",") if item.strip() not in ("", "-1")])
    )


def check_devices(config: Config) -> None:
    """Refuse a device that is not there.

    Raises:
        ConfigError: naming the device, what there is, and the setting to change.
    """
    for role in ("train", "eval"):
        device = getattr(config.devices, role)
        index = device_index(device, f"devices.{role}")
        if index is not None and index >= gpu_count():
            raise ConfigError(
                f"devices.{role}: {device} is not there ({gpu_count()} GPUs visible); use "
                f"--set devices.{role}=cuda:0 with one GPU, or run the CPU profile "
                "(run_pipeline.py --profile tiny)"
            )
    first = device_index(config.devices.train, "devices.train")
    last = None if first is None else first + local_process_count() - 1
    if last is not None and last >= gpu_count():
        raise ConfigError(
            f"devices.train: {local_process_count()} processes need cuda:{first} to cuda:{last}, "
            f"and {gpu_count()} GPUs are visible; launch fewer processes"
        )


def training_device(config: Config) -> str:
    """Return torch's name of this process's training device: one GPU for each local process."""
    index = device_index(config.devices.train, "devices.train")
    return "cpu" if index is None else f"cuda:{index + local_rank()}"


def thread_count(config: Config, device: str) -> int:
    """Threads that a process computes with on a CPU; processes of one machine share its cores."""
    cores = len(cpu_cores(device, "devices")) if is_cpu(device) else len(available_cores())
    return config.devices.threads or max(1, cores // local_process_count())


def prepare_main_process(config: Config) -> None:
    """Set what libraries read at import: offline W&B, quiet hubs, no telemetry, thread counts.

    Before torch is imported: threads take the cores they find when they start.
    """
    device = config.devices.train
    values = _common_variables()
    if is_cpu(device):
        values |= _cpu_variables(config, device)
        if ":" in device:
            os.sched_setaffinity(0, cpu_cores(device, "devices.train"))
    for name, value in values.items():
        os.environ.setdefault(name, value)


@contextmanager
def worker_environment(config: Config) -> Iterator[None]:
    """Give child processes started inside the block the evaluation worker's variables and cores."""
    device = config.devices.eval
    index = device_index(device, "devices.eval") if not is_cpu(device) else None
    values = _common_variables()
    if index is None:
        values |= _cpu_variables(config, device) | {"CUDA_VISIBLE_DEVICES": ""}
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        values["CUDA_VISIBLE_DEVICES"] = visible[index] if visible != [""] else str(index)
    before, cores = dict(os.environ), os.sched_getaffinity(0)
    os.environ.update(values)
    for name in _LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    if is_cpu(device) and ":" in device:
        os.sched_setaffinity(0, cpu_cores(device, "devices.eval"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.sched_setaffinity(0, cores)


def prepare_worker_process() -> None:
    """End with the parent: a worker must not outlive a run that was killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def wandb_mode(configured: str) -> WandbMode:
    """Resolve `auto`: online where a key is set, else offline."""
    if configured != "auto":
        return cast("WandbMode", configured)
    key_file = os.path.expanduser("~/.netrc")
    has_key = bool(os.environ.get("WANDB_API_KEY"))
    if not has_key and os.path.isfile(key_file):
        with open(key_file, encoding="utf-8") as stream:
            has_key = "api.wandb.ai" in stream.read()
    mode = os.environ.get("WANDB_MODE") or ("online" if has_key else "offline")
    return cast("WandbMode", mode)


def engine_memory_gib(config: Config) -> dict[str, str]:
    """Variables that bound the engine's KV cache where it is colocated on a CPU."""
    return {"VLLM_CPU_KVCACHE_SPACE": str(config.engine.cpu_cache_gib)}


def process_rank() -> int:
    """Rank among the processes accelerate launched; 0 when alone."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Tell whether this process writes files and metrics."""
    return process_rank() == 0


def local_rank() -> int:
    """Rank among the launched processes of this machine; 0 when alone."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_process_count() -> int:
    """Number of processes launched on this machine; 1 when alone."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def process_count() -> int:
    """Number of processes accelerate launched; 1 when alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _common_variables() -> dict[str, str]:
    return {
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "WANDB_SILENT": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        # A worker is a process of its own already; a second engine process only costs start time.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
    }


def _cpu_variables(config: Config, device: str) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(thread_count(config, device)),
        # vLLM would pin itself to all cores but one; the trainer in the same process needs them.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "ACCELERATE_USE_CPU": "true",
    } | engine_memory_gib(config)
