"""Choose the problems that GRPO trains on and lay them out as a stream."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.loading import ConfigError, resolve_path
from src.config.schema import Config
from src.data.prompts import PromptTemplate
from src.data.token_ids import prompt_ids
from src.eval_worker import EvalWorker
from src.evaluation.evaluation import EvalTask
from src.grpo.problem_stream import ProblemStream, RolloutProblem, informative
from src.output.lines import IN_LOG
from src.run.files import read_json, write_json_atomic
from src.training.checkpoints import Checkpoint
from src.training.parallel import main_process_first
from utils.data.hashing import file_sha256
from utils.data.problem import Problem
from utils.dataset_loader import problems_sha256
from utils.drgrpo_grader import r1_zero_reward_fn

LOGGER = logging.getLogger(__name__)


def usable_problems(
    problems: Sequence[Problem],
    prompt: PromptTemplate,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
) -> list[Problem]:
    """Leave out and count problems that could only add noise.

    A problem whose reference cannot be graded against itself, and one whose prompt leaves no room
    for a whole completion.

    Raises:
        ConfigError: when none is left.
    """
    room = config.engine.max_model_tokens - config.sampling.max_completion_tokens
    usable, not_gradable, too_long = [], 0, 0
    ids = prompt_ids(tokenizer, [prompt.render(problem) for problem in problems])
    for problem, own in zip(problems, ids, strict=True):
        perfect = f" </think> <answer> {problem.answer} </answer>"
        if not r1_zero_reward_fn(perfect, problem.answer)["reward"]:
            not_gradable += 1
        elif len(own) > room:
            too_long += 1
        else:
            usable.append(problem)
    LOGGER.info(
        "%d problems for GRPO; left out: %d references not gradable, %d prompts too long",
        len(usable), not_gradable, too_long,
    )  # fmt: skip
    if not usable:
        raise ConfigError(
            "no problem is left for GRPO: raise engine.max_model_tokens, lower "
            "sampling.max_completion_tokens, or check the data's answers"
        )
    return usable


def problem_stream(
    model: str,
    problems: list[Problem],
    prompt: PromptTemplate,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
) -> ProblemStream:
    """Return the problems in the order of training, by pass rate where that is asked for.

    Raises:
        ConfigError: when the filter leaves nothing.
    """
    rates = starting_pass_rates(config, model, problems, prompt)
    texts = [prompt.render(problem) for problem in problems]
    rows = [
        RolloutProblem(
            problem.unique_id,
            text,
            ids,
            problem.answer,
            problem.level,
            problem.problem,
        )
        for problem, text, ids in zip(problems, texts, prompt_ids(tokenizer, texts), strict=True)
    ]
    chosen = informative(rows, rates, config.grpo)
    LOGGER.info(
        "%d problems after grpo.problem_filter: %s", len(chosen), config.grpo.problem_filter,
        extra=IN_LOG if config.grpo.problem_filter == "none" else None,
    )  # fmt: skip
    if not chosen:
        raise ConfigError(
            f"grpo.problem_filter=pass_rate: the starting model solves each of {len(rows)} "
            f"problems always or never in {config.grpo.pass_rate_samples} samples; draw more "
            "(grpo.pass_rate_samples), use other problems, or grpo.problem_filter=none"
        )
    return ProblemStream(chosen, config.run.seed, config.grpo.order, rates)


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
    with main_process_first(config.grpo.rank_timeout_s):
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
