"""How often the starting model solves each training problem, measured once and kept."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from src.artifacts import read_json, write_json_atomic
from src.checkpoints import Checkpoint
from src.config_loading import resolve_path
from src.config_schema import Config
from src.eval_worker import EvalWorker
from src.evaluation import EvalTask
from src.parallel import main_process_first
from src.prompts import PromptTemplate
from utils.dataset_loader import problems_sha256
from utils.hashing import file_sha256
from utils.problem import Problem

LOGGER = logging.getLogger(__name__)


def starting_pass_rates(
    config: Config, model: str, problems: list[Problem], prompt: PromptTemplate
) -> dict[str, float]:
    """Return problem id -> share of correct completions; measured, or read where it was before.

    The file below `<output_root>/pass_rates/` is named by a hash of all that the figures depend on
    and holds it: weights, problems, prompt, sampling, samples and seed.
    """
    if not config.grpo.needs_pass_rates:
        return {}
    samples = config.grpo.pass_rate_samples
    task = EvalTask("pass_rate", problems, prompt, config.sampling, config.run.seed, samples)
    provenance = {
        "weights": _weights(model),
        "problems": problems_sha256(problems),
        "prompt": prompt.sha256,
        "sampling": task.sampling.model_dump(mode="json"),
        "samples": samples,
        "seed": task.seed,
    }
    name = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:16]
    file = resolve_path(config.run.output_root) / "pass_rates" / f"{name}.json"
    with main_process_first():
        if file.is_file():
            LOGGER.info("pass rates of the starting model: read from %s", file)
        else:
            _measure(config, model, task, provenance, file)
    return read_json(file)["pass_rates"]


def _measure(
    config: Config, model: str, task: EvalTask, provenance: dict[str, Any], file: Path
) -> None:
    with EvalWorker(config, model, {task.split: task}) as worker:
        report = worker.evaluate(Checkpoint(Path(model), 0, 0), task.split)[task.split]
    rates = {
        problem.unique_id: correct / task.samples
        for problem, correct in zip(task.problems, report.correct_samples, strict=True)
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(file, {"provenance": provenance, "pass_rates": rates})
    equal = sum(rate in (0.0, 1.0) for rate in rates.values())
    LOGGER.info(
        "pass rates of the starting model over %d problems x %d: mean %.3f, %d at 0 or 1; kept in "
        "%s",
        len(rates), task.samples, report.accuracy, equal, file,
    )  # fmt: skip


def _weights(model: str) -> dict[str, str] | str:
    """Return the hash of each weight file of a local model, or the name of one on the hub."""
    files = sorted(Path(model).glob("*.safetensors"))
    return {file.name: file_sha256(file) for file in files} if files else model
