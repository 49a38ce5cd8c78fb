"""Choose the rows of supervised fine-tuning: the training problems, or files mixed by weight."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.config_loading import resolve_path
from src.config_schema import Config
from src.config_training import WeightedFile
from src.prompts import PromptTemplate
from utils.answer_forms import extract_boxed
from utils.contained_texts import ContainedTexts
from utils.dataset_loader import ProblemSet
from utils.problem import Problem, normalised_text
from utils.sft_file_loader import SolutionRow, load_sft_rows

LOGGER = logging.getLogger(__name__)

_IDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class SftRow:
    """The exact texts of one training row, and the reference answer where there is one."""

    id: str
    prompt: str
    target: str
    answer: str | None


def training_rows(config: Config, problems: ProblemSet, template: PromptTemplate) -> list[SftRow]:
    """Return what `sft.source: solutions` trains on: `sft.files`, or the training problems."""
    if config.sft.files:
        return rows_from_files(config.sft.files, template, problems)
    return rows_from_problems(problems.train, template)


def training_files(config: Config) -> list[Path]:
    """Return where `sft.files` are, for the manifest; load the rows first."""
    return [resolve_path(item.file) for item in config.sft.files]


def rows_from_problems(problems: Sequence[Problem], template: PromptTemplate) -> list[SftRow]:
    """Render the prompt and the target of each problem."""
    return [_solution_row(problem, template) for problem in problems]


def rows_from_files(
    files: Sequence[WeightedFile], template: PromptTemplate, problems: ProblemSet
) -> list[SftRow]:
    """Load training files, leave out held-out problems and repeat each row by its file's weight.

    {prompt, completion} rows keep their texts; the template renders the others. The reference of a
    {problem, solution} row is its own `answer`, else that of the same training problem, else its
    solution's last box. A row is left out where its problem or prompt contains the text of a
    validation or test problem, case and white space folded; a paraphrase is not noticed.

    Raises:
        DataError: for a missing, malformed or empty file.
    """
    held_out = ContainedTexts(item.problem for item in (*problems.validation, *problems.test))
    references = {normalised_text(item.problem): item.answer for item in problems.train}
    kept: list[SftRow] = []
    leaked: list[str] = []
    for item in files:
        for row in load_sft_rows(resolve_path(item.file)):
            if isinstance(row, SolutionRow):
                asked, taught = row.problem, row.solution
                made = _file_solution_row(row, references, template)
            else:
                asked, taught = row.prompt, row.completion
                made = SftRow(row.id, asked, taught, row.answer)
            if held_out.found_in(asked):
                leaked.append(row.id)
            else:
                kept += [made] * copies(item.weight, f"{row.id}\n{taught}")
    LOGGER.info(
        "sft.files: %d rows an epoch from %d files; left out: %s",
        len(kept),
        len(files),
        listed({"held out for validation or test": leaked}),
    )
    return kept


def copies(weight: float, key: str) -> int:
    """Return how often a row stands in an epoch: a fractional weight takes a fixed share of rows.

    The share is chosen by a hash of the key, so it is the same each time and on every machine.

    >>> copies(2.5, "row 1"), copies(2.5, "row 2")
    (2, 3)
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return int(weight) + (place < weight % 1)


def listed(ids_by_reason: Mapping[str, Sequence[str]]) -> str:
    """Say how many rows each reason has, and which come first."""
    parts = [
        f"{len(ids)} {reason} ({', '.join(ids[:_IDS_SHOWN])}{', ...' * (len(ids) > _IDS_SHOWN)})"
        for reason, ids in ids_by_reason.items()
        if ids
    ]
    return ", ".join(parts) or "none"


def _solution_row(problem: Problem, template: PromptTemplate) -> SftRow:
    """Teach the answer that the solution reaches, and verify it against the reference."""
    # With the reference between the tags a solution that ends in another answer would verify.
    stated = extract_boxed(problem.solution) or problem.answer
    target = template.target(replace(problem, answer=stated))
    return SftRow(problem.unique_id, template.render(problem), target, problem.answer)


def _file_solution_row(
    row: SolutionRow, references: Mapping[str, str], template: PromptTemplate
) -> SftRow:
    known = references.get(normalised_text(row.problem))
    answer = row.answer or known or extract_boxed(row.solution)
    problem = Problem(row.problem, row.solution, answer or "", None, "unknown", row.id)
    made = _solution_row(problem, template)
    if answer:
        return made
    # A template with tags has nothing to put between them: no target can be made of this row.
    return replace(made, answer=None, target="" if "<answer>" in made.target else made.target)
