"""Grade r1_zero completions: the format first, then the answer against the reference.

After the grader of Dr. GRPO (https://github.com/sail-sg/understand-r1-zero) and CS336, with a
stricter grammar and an exact comparison. The prompt ends with `<think>`; a well-formed response is

    reasoning</think> <answer>answer</answer>

with one space between the tags, `<answer>` and `</answer>` once each, and nothing but white space
after them. The reasoning may mention `<think>` or `</think>`. All else is a format failure, so that
nothing outside the one pair of tags can change the answer; an empty answer or prose between them is
a wrong answer. So is, where the problem's text is given, the problem's own expression with the
operation still to do (`utils.grading.echo`). A reference that states nothing, and a comparison that
overruns its deadline, give `unscorable`: counted on its own, never rewarded.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from utils.grading import echo
from utils.grading.answer_forms import FORMS, FormName, extract_boxed, has_box
from utils.grading.equality import compare, is_scorable
from utils.grading.expressions import NeedsSymbols
from utils.grading.outcome import Grade
from utils.grading.symbolic_pool import POOL
from utils.grading.tally import TALLY

logger = logging.getLogger(__name__)

Reference = str | float | int | list[str] | None

_PROGRESS_EVERY = 1_000


def r1_zero_reward_fn(
    response: str, ground_truth: Reference, fast: bool = True, problem: str | None = None
) -> dict[str, float]:
    """Score one response: format_reward, answer_reward and reward, each 0.0 or 1.0.

    Args:
        problem: its text; without it the problem's expression, echoed back, is an answer.

    >>> r1_zero_reward_fn("1+1=2</think> <answer>2</answer>", "2")
    {'format_reward': 1.0, 'answer_reward': 1.0, 'reward': 1.0}
    """
    result = grade(response, ground_truth, fast, problem=problem)
    rewards = {"answer_reward": result.reward, "reward": result.reward}
    return {"format_reward": result.format_reward} | rewards


def grade_batch(
    responses: Sequence[str],
    ground_truths: Sequence[Reference],
    fast: bool = True,
    *,
    form: FormName = "tags",
    problems: Sequence[str | None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[Grade]:
    """Grade each response against the reference at its place; same order and length.

    Whatever needs no symbolic work is graded at once; the rest is spread over the symbolic children
    (`set_children`). Safe from any thread, beside an event loop, and in forked processes.

    Args:
        form: where the prompt asks for the answer (`utils.grading.answer_forms`).
        problems: their texts, as for `grade`.
        on_progress: called now and then with how many responses are graded.
    """
    texts = [None] * len(responses) if problems is None else problems
    rows = list(zip(responses, ground_truths, texts, strict=True))
    grades: dict[int, Grade] = {}
    waiting = []
    for index, row in enumerate(rows):
        try:
            grades[index] = _counted(_grade(*row, fast, form, symbolic=False))
        except NeedsSymbols:
            waiting.append(index)
        if on_progress and index % _PROGRESS_EVERY == 0:
            on_progress(len(grades))
    with ThreadPoolExecutor(POOL.worth_using(len(waiting))) as executor:
        found = executor.map(
            lambda index: _counted(_grade(*rows[index], fast, form, symbolic=True)), waiting
        )
        for index, result in zip(waiting, found, strict=True):
            grades[index] = result
            if on_progress:
                on_progress(len(grades))
    return [grades[index] for index in range(len(rows))]


def grade(
    response: str,
    ground_truth: Reference,
    fast: bool = True,
    form: FormName = "tags",
    problem: str | None = None,
) -> Grade:
    """Grade one response.

    The reference is an answer, a solution with its answer in \\boxed{}, a number, or a list of
    accepted ones; `fast` gives symbolic work 2 s rather than 10 s and leaves out the wider
    equivalences of `utils.grading.equality.compare`.

    Args:
        problem: its text; with it, an answer that only echoes it is wrong (`utils.grading.echo`).

    >>> grade("</think> <answer>2+3</answer>", "5", problem="What is $2+3$?").reason
    'echoed_problem'
    """
    return _counted(_grade(response, ground_truth, problem, fast, form, symbolic=True))


def set_children(count: int) -> None:
    """Set how many symbolic child processes this process may use at once."""
    POOL.resize(count)


def grading_statistics() -> dict[str, int]:
    """Return what this process has graded so far.

    Keys: `stage/outcome` for each grade, `timeouts`, `kills`, `guard_hits`, `symbolic_calls` and
    `cache_hits`, where there were any.
    """
    return TALLY.snapshot()


def _counted(result: Grade) -> Grade:
    TALLY.add(f"{result.stage}/{result.outcome}")
    return result


def _grade(
    response: str,
    ground_truth: Reference,
    problem: str | None,
    fast: bool,
    form: FormName,
    *,
    symbolic: bool,
) -> Grade:
    """Grade one response; NeedsSymbols where a symbolic comparison is needed but not wanted."""
    malformed = FORMS[form].problem(response)
    if malformed is not None:
        return Grade("format_failure", None, malformed, "format")
    answer = FORMS[form].answer(response)
    references = [text for text in reference_texts(ground_truth) if is_scorable(text)]
    if not references:
        reason = f"the reference {ground_truth!r:.80} states no answer"
        return Grade("unscorable", answer, reason, "reference")
    failure, echoed = None, False
    for reference in references:
        verdict = compare(answer, reference, fast, symbolic=symbolic)
        if verdict.equal and problem and echo.echoes(answer, reference, problem):
            echoed = True
        elif verdict.equal:
            return Grade("correct", answer, "", verdict.stage)
        if verdict.failure:
            failure = verdict
            logger.warning("unscorable: %s (%.80r, %.80r)", verdict.failure, answer, reference)
    if echoed:
        return Grade("wrong_answer", answer, echo.ECHOED_PROBLEM, "echo")
    if failure:
        return Grade("unscorable", answer, failure.failure, failure.stage)
    return Grade("wrong_answer", answer, f"not equal to {references[0]!r:.80}", verdict.stage)


def reference_texts(ground_truth: Reference) -> list[str]:
    """List the accepted answers as text, leaving out what is none (None, NaN, an empty box)."""
    if isinstance(ground_truth, list | tuple):
        return [text for item in ground_truth for text in reference_texts(item)]
    if isinstance(ground_truth, str):
        boxed = extract_boxed(ground_truth) if has_box(ground_truth) else ground_truth
        return [] if boxed is None else [boxed]
    if isinstance(ground_truth, int | float) and math.isfinite(ground_truth):
        return [format(Decimal(repr(ground_truth)), "f")]
    return []
