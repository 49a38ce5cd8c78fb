"""Run each heavy part in a process of its own, with the cores and variables of a stage.

The modules that are started as scripts import nothing heavy at the top: a child sets its cores and
thread count before torch is loaded, and its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from src.config.loading import load_config, with_values
from src.config.schema import Config
from src.run.processes import prepare_main_process, worker_environment

TINY = "config/tiny/sft_config.yaml"
SMOLLM2 = "config/smollm2/sft_config.yaml"


def benchmark_config(file: str, values: Mapping[str, object] | None = None) -> Config:
    """Load a profile's configuration without W&B and with dotted paths replaced."""
    return with_values(load_config([file]), {"wandb.mode": "disabled", **(values or {})})


def training_process(config: Config, task: Callable[..., Any], *arguments: Any) -> Any:
    """Call `task(*arguments)` in a fresh process that trains on `devices.train`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, prepare_main_process, (config,)) as pool:
        return pool.submit(task, *arguments).result()


def engine_process(config: Config, task: Callable[..., Any], *arguments: Any) -> Any:
    """Call `task(*arguments)` in a fresh process with the evaluation worker's environment."""
    context = multiprocessing.get_context("spawn")
    with worker_environment(config), ProcessPoolExecutor(1, context) as pool:
        return pool.submit(task, *arguments).result()
