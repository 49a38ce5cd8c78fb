"""Choose the problems that GRPO trains on and lay them out as a stream."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config_loading import ConfigError
from src.config_schema import Config
from src.pass_rates import starting_pass_rates
from src.problem_stream import ProblemStream, RolloutProblem, informative
from src.prompts import PromptTemplate
from utils.drgrpo_grader import r1_zero_reward_fn
from utils.problem import Problem

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
    for problem in problems:
        perfect = f" </think> <answer> {problem.answer} </answer>"
        if not r1_zero_reward_fn(perfect, problem.answer)["reward"]:
            not_gradable += 1
        elif len(_prompt_ids(problem, prompt, tokenizer)) > room:
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
    rows = [
        RolloutProblem(
            problem.unique_id,
            prompt.render(problem),
            _prompt_ids(problem, prompt, tokenizer),
            problem.answer,
            problem.level,
        )
        for problem in problems
    ]
    chosen = informative(rows, rates, config.grpo)
    LOGGER.info(
        "%d problems after grpo.problem_filter: %s", len(chosen), config.grpo.problem_filter
    )
    if not chosen:
        raise ConfigError(
            f"grpo.problem_filter=pass_rate: the starting model solves each of {len(rows)} "
            f"problems always or never in {config.grpo.pass_rate_samples} samples; draw more "
            "(grpo.pass_rate_samples), use other problems, or grpo.problem_filter=none"
        )
    return ProblemStream(chosen, config.run.seed, config.grpo.order, rates)


def _prompt_ids(
    problem: Problem, prompt: PromptTemplate, tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    return tokenizer(prompt.render(problem), add_special_tokens=False)["input_ids"]
