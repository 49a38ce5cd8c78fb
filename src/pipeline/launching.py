"""Which overlay of `config/hardware/` a run takes, and on how many GPUs its step 3 runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from src.config.hardware import AUTO, Hardware, choose_hardware
from src.config.loading import ConfigError
from src.config.schema import Config
from src.run.devices import check_present, device_index, gpu_memory_gb, is_cpu
from src.run.directory import GRPO_STAGE
from src.run.processes import gpu_count, visible_gpus
from src.stages.start import optimizer_problems

LOGGER = logging.getLogger(__name__)
NONE = "none"


@dataclass(frozen=True, slots=True)
class Launch:
    """On how many processes step 3 runs, and how they share the policy out."""

    processes: int
    strategy: str


def chosen_hardware(asked: str | None, default: Config | None) -> Hardware | None:
    """Return the overlay for what is asked for, and say which and why; None for none.

    Args:
        asked: its name, `auto`, `none`; None takes what suits the GPUs here, if any does.
        default: the configuration that None chooses an overlay for; None where it wants none.

    Raises:
        ConfigError: when an overlay was asked for and none suits the GPUs here.
    """
    by_itself = asked is None and default is not None and not is_cpu(default.devices.train)
    if asked == NONE or (asked is None and not by_itself):
        return None
    cards = gpu_memory_gb(visible_gpus()) if asked in (AUTO, None) else []
    if by_itself and not cards:
        return None
    try:
        hardware, why = choose_hardware(asked or AUTO, cards)
    except ConfigError as error:
        if asked is not None:
            raise
        LOGGER.warning("no overlay: %s", error)
        return None
    LOGGER.info("hardware: %s, %s", hardware.file, why)
    return hardware


def step_3_launch(hardware: Hardware | None, processes: int | None) -> Launch:
    """Return how step 3 is launched.

    Args:
        processes: asked for; None takes as many as the overlay is for.
    """
    count = processes or (hardware.gpus if hardware else 1)
    return Launch(count, hardware.strategy if hardware and count > 1 else "ddp")


def check_launch(config: Config, launch: Launch, *, planning: bool) -> None:
    """Refuse what step 3 cannot have, before the steps before it run.

    Args:
        planning: the GPUs need not be here.

    Raises:
        ConfigError: naming what there is, and what to change.
    """
    problems = list(config.grpo.problems(launch.processes))
    problems += optimizer_problems(GRPO_STAGE, launch.strategy, config)
    gpus, device = gpu_count(), config.devices.train
    if not planning and not is_cpu(device):
        check_present("train", device, gpus)
        first = device_index(device, "devices.train") or 0
        if first + launch.processes > gpus:
            problems.append(
                f"step 3 is to run on {launch.processes} GPUs from {device} on, and {gpus} are "
                "visible; use a lower --processes, or another --hardware"
            )
    if problems:
        raise ConfigError("\n".join(problems))
