"""The processes of a run: which device and which environment each has, and its rank.

The only module that reads or writes environment variables. A child's variables are set before it
starts: once CUDA or vLLM has initialised, changing them has no effect.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from src.config.loading import ConfigError
from src.config.schema import Config
from src.run.devices import (
    available_cores,
    check_engines,
    check_present,
    choose_engines,
    cpu_cores,
    device_index,
    devices_meet,
    is_cpu,
    present_gpus,
)
from src.run.network import free_port
from src.run.scratch import can_be_written, compiled_places, make_scratch

# What this process was started with, before it is narrowed to its own devices.
_AT_START = frozenset(os.environ)
_VISIBLE_AT_START = os.environ.get("CUDA_VISIBLE_DEVICES")
_UUIDS = ("GPU-", "MIG-")
_UUID_LENGTH = 40
WandbMode = Literal["online", "offline", "disabled", "shared"]
# What accelerate and torchrun tell their processes; a worker is a world of its own.
_LAUNCHER_VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK",
    "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID",
)  # fmt: skip

# Where processes that talk to none of another machine listen.
_LOOPBACK = {
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}


def forget_stale_launch(*, planning: bool) -> list[str]:
    """Take away what a launcher that is gone left in the environment; return the names.

    A launched process has a rank and an address to meet the others at. Without the address a rank
    or a number of processes is a rest of another run.

    Args:
        planning: nothing starts, and launch_trl.sh says for how many processes (WORLD_SIZE alone).

    Raises:
        ConfigError: rank and number of processes contradict one another.
    """
    present = [name for name in _LAUNCHER_VARIABLES if name in os.environ]
    ranked = "RANK" in present or "LOCAL_RANK" in present
    if "MASTER_ADDR" not in present and (ranked or not planning):
        for name in present:
            del os.environ[name]
        return present
    for rank, count in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        values = os.environ.get(rank, "0"), os.environ.get(count, "1")
        if not all(value.isdigit() for value in values) or int(values[0]) >= int(values[1]):
            raise ConfigError(
                f"{rank}={values[0]} with {count}={values[1]} in the environment: no launcher sets "
                f"these; start through launch_trl.sh or accelerate, or unset {' '.join(present)}"
            )
    return []


def visible_gpus() -> list[str]:
    """List the GPUs this process was started with, named as CUDA_VISIBLE_DEVICES names them.

    `cuda:N` in the configuration is the Nth of them, here and in every process that is started.
    """
    present = present_gpus()
    if _VISIBLE_AT_START is None:
        return [str(index) for index in range(present)]
    named: list[str] = []
    for item in map(str.strip, _VISIBLE_AT_START.split(",")):
        known = int(item) < present if item.isdigit() else bool(present) and item[:4] in _UUIDS
        if not known:
            break  # CUDA hides what follows a name it does not know, such as -1
        named.append(item)
    return named


def gpu_count() -> int:
    """Count the GPUs visible to this process, without loading CUDA."""
    return len(visible_gpus())


def training_gpus(config: Config) -> range:
    """Return N of each `cuda:N` that this machine's processes train on; empty on a CPU."""
    first = device_index(config.devices.train, "devices.train")
    return range(0) if first is None else range(first, first + local_process_count())


def evaluation_engines(config: Config, *, trains: bool = True) -> list[list[str]]:
    """Return the devices of each evaluation engine.

    Args:
        trains: this stage trains on `devices.train`; otherwise evaluation may have that too.
    """
    return choose_engines(config, training_gpus(config) if trains else range(0), gpu_count())


def evaluation_device(config: Config) -> str:
    """Return the first device of the first evaluation engine."""
    return evaluation_engines(config)[0][0]


def takes_turns(config: Config) -> bool:
    """Tell whether trainer and evaluation share a device, and so compute one after the other."""
    return devices_meet(config, evaluation_engines(config), training_gpus(config))


def check_devices(config: Config, *, beside: bool = True, trains: bool = True) -> None:
    """Refuse a device that is not there, or that trainer and evaluation worker cannot share.

    Args:
        beside: the evaluation worker lives while the processes train; step 3's lives before, if
            the starting model's pass rates are asked for.
        trains: the stage trains at all.

    Raises:
        ConfigError: naming the device, what there is, and the setting to change.
    """
    count, training = gpu_count(), training_gpus(config)
    engines = evaluation_engines(config, trains=trains)
    check_present("train", config.devices.train, count)
    if training and training[-1] >= count:
        raise ConfigError(
            f"devices.train: {len(training)} processes need cuda:{training[0]} to "
            f"cuda:{training[-1]}, and {count} GPUs are visible; launch fewer processes"
        )
    short = [name for name in visible_gpus() if name[:4] in _UUIDS and len(name) < _UUID_LENGTH]
    if short and training:
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES: {short[0]!r} is a shortened name, which vLLM does not find; "
            "give the whole one, as nvidia-smi -L prints it"
        )
    wanted = beside or config.grpo.needs_pass_rates
    check_engines(config, engines, count, training if beside and trains else range(0), wanted)


def training_device(config: Config) -> str:
    """Return torch's name of this process's training device: one GPU for each local process.

    `prepare_main_process` has left the process its machine's training GPUs alone, so torch, TRL and
    a colocated engine count them from 0.
    """
    return "cpu" if is_cpu(config.devices.train) else f"cuda:{local_rank()}"


def thread_count(config: Config, device: str) -> int:
    """Threads that a process computes with on a CPU; processes of one machine share its cores."""
    cores = len(cpu_cores(device, "devices")) if is_cpu(device) else len(available_cores())
    return config.devices.threads or max(1, cores // local_process_count())


def prepare_main_process(config: Config) -> None:
    """Set what libraries read at import: devices, quiet hubs, no telemetry, thread counts.

    Before torch is imported: threads take the cores they find when they start. Of several GPUs the
    process keeps those that are trained on: transformers' trainer would spread over all it sees.
    """
    device = config.devices.train
    values = _common_variables()
    if process_count() == local_process_count() and config.grpo.mode != "server":
        values |= _LOOPBACK  # a server of rollouts may be another machine
    if process_count() == 1:
        # TRL's engine meets itself there, and would take 29500 as long as nobody listens on it yet:
        # two runs that start together would take the same.
        values["MASTER_PORT"] = str(free_port())
    gpus = visible_gpus()
    if training := training_gpus(config):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index] for index in training)
    if is_cpu(device):
        values |= _cpu_variables(config, device)
        if ":" in device:
            os.sched_setaffinity(0, cpu_cores(device, "devices.train"))
    for name, value in values.items():
        os.environ.setdefault(name, value)


def use_scratch() -> None:
    """Put the temporary files of this process and its children into a folder of their own."""
    os.environ.update(compiled_places(os.environ))
    scratch = make_scratch()
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)


@contextmanager
def worker_environment(config: Config) -> Iterator[None]:
    """Give child processes started inside the block the first engine's variables and cores."""
    devices = evaluation_engines(config)[0]
    values = _common_variables() | _LOOPBACK
    gpus = [device_index(device, "devices.eval") for device in devices]
    values["CUDA_VISIBLE_DEVICES"] = ",".join(
        visible_gpus()[gpu] for gpu in gpus if gpu is not None
    )
    before, cores = dict(os.environ), os.sched_getaffinity(0)
    if is_cpu(devices[0]):
        values |= _cpu_variables(config, devices[0])
    os.environ.update(values)
    for name in _LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    if is_cpu(devices[0]) and ":" in devices[0]:
        os.sched_setaffinity(0, cpu_cores(devices[0], "devices.eval"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.sched_setaffinity(0, cores)


def wandb_mode(configured: str) -> WandbMode:
    """Resolve `auto`: online where a key is set, else offline."""
    if configured != "auto":
        return cast("WandbMode", configured)
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline")
    return cast("WandbMode", mode)


def check_wandb(config: Config) -> None:
    """Refuse a mode that W&B does not know, and `online` without a key: it would ask for one.

    Raises:
        ConfigError: naming where the mode was set.
    """
    mode = wandb_mode(config.wandb.mode)
    source = "WANDB_MODE" if config.wandb.mode == "auto" else "wandb.mode"
    if mode not in get_args(WandbMode):
        raise ConfigError(f"{source}={mode}: expected one of {', '.join(get_args(WandbMode))}")
    if mode == "online" and not _has_wandb_key():
        raise ConfigError(
            f"{source}=online, and no key is set; run `wandb login`, set WANDB_API_KEY, or use "
            f"{source}=offline (wandb sync sends it later)"
        )


def _has_wandb_key() -> bool:
    """Tell whether W&B finds a key: in the environment or for its host in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    key_file = os.path.expanduser(os.environ.get("NETRC", "~/.netrc"))
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        with open(key_file, encoding="utf-8", errors="replace") as stream:
            return host in stream.read()
    except OSError:
        return False


def use_wandb_folders(folder: Path) -> None:
    """Have W&B write nothing outside a run's folder, but where the user has told it to."""
    places = {"DIR": "", "DATA_DIR": "wandb/data", "CACHE_DIR": "wandb/cache"}
    places["ARTIFACT_DIR"] = "wandb/artifacts"
    # The user's own settings, such as the server's address, are read where that is allowed.
    if not can_be_written(Path(os.path.expanduser("~/.config/wandb"))):
        places["CONFIG_DIR"] = "wandb/config"
    for name, place in places.items():
        if f"WANDB_{name}" not in _AT_START:
            os.environ[f"WANDB_{name}"] = str(folder / place)


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


def launched_sharding() -> str | None:
    """Return what accelerate was launched with to shard the policy: `fsdp`, `deepspeed` or None."""
    for name in ("fsdp", "deepspeed"):
        if os.environ.get(f"ACCELERATE_USE_{name.upper()}") == "true":
            return name
    return None


def launched_strategy() -> str:
    """Return which file of config/accelerate/ shares out the policy; `ddp` where nothing does."""
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    return {"fsdp": "fsdp2", "deepspeed": f"zero{stage}"}.get(launched_sharding() or "", "ddp")


def _common_variables() -> dict[str, str]:
    return {
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # As nvidia-smi counts cards, which is asked about them; CUDA would begin with the fastest.
        "CUDA_DEVICE_ORDER": os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "WANDB_SILENT": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        # A worker is a process of its own already; a second engine process only costs start time.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # The tracker of multiprocessing says that it clears up after a worker that was killed.
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning,"
        "ignore:resource_tracker:UserWarning",
    }


def _cpu_variables(config: Config, device: str) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(thread_count(config, device)),
        # vLLM would pin itself to all cores but one; the trainer in the same process needs them.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "ACCELERATE_USE_CPU": "true",
        **_LOOPBACK,
    } | engine_memory_gib(config)
