"""Choose the rows of supervised fine-tuning: the training problems, or files mixed by weight."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from src.config.schema import Config
from src.config.training import WeightedFile
from src.data.held_out import find_repeats
from src.data.problems import named_source
from src.data.prompts import PromptTemplate
from utils.data.contained_texts import ContainedTexts
from utils.data.problem import Problem, normalised_text
from utils.data.sft_file_loader import CompletionRow, SolutionRow, load_sft_rows
from utils.data.sources import Source
from utils.dataset_loader import ProblemSet, describe_repeats
from utils.grading.answer_forms import extract_boxed

LOGGER = logging.getLogger(__name__)

_IDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class SftRow:
    """The exact texts of one training row, and the reference answer where there is one."""

    id: str
    prompt: str
    target: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What `sft.source: solutions` trains on, where it stands, and what was left out of it."""

    rows: list[SftRow]
    files: list[Source] = field(default_factory=list)
    repeats: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows that repeat a validation or test problem, by kind, with examples."""

    def provenance(self, problems: ProblemSet) -> dict[str, Any]:
        """Return what was read, how it was split and what repeats it, for the manifest."""
        return problems.provenance(*self.files) | {"sft_files_duplicates": self.repeats}


def training_rows(config: Config, problems: ProblemSet, template: PromptTemplate) -> TrainingRows:
    """Return the rows of `sft.files`, or of the training problems."""
    if config.sft.files:
        return rows_from_files(config.sft.files, template, problems, config.data.remove_duplicates)
    return TrainingRows(rows_from_problems(problems.train, template))


def rows_from_problems(problems: Sequence[Problem], template: PromptTemplate) -> list[SftRow]:
    """Render the prompt and the target of each problem."""
    return [_solution_row(problem, template) for problem in problems]


def rows_from_files(
    files: Sequence[WeightedFile],
    template: PromptTemplate,
    problems: ProblemSet,
    remove: str = "exact",
) -> TrainingRows:
    """Load training files, leave out held-out problems and repeat each row by its file's weight.

    {prompt, completion} rows keep their texts; the template renders the others. The reference of a
    {problem, solution} row is its own `answer`, else that of the same training problem, else its
    solution's last box. A row is left out where its problem or prompt contains the text of a
    validation or test problem, case and white space folded. Rows that nearly repeat one are
    counted; a prompt of another template than this one dilutes the likeness.

    Args:
        remove: as `data.remove_duplicates`.

    Raises:
        DataError: for a missing, malformed or empty file.
    """
    held_out = [item.problem for item in (*problems.validation, *problems.test)]
    contained = ContainedTexts(held_out)
    references = {normalised_text(item.problem): item.answer for item in problems.train}
    kept: list[_FileRow] = []
    leaked: list[_FileRow] = []
    sources = [_source(item) for item in files]
    for item, source in zip(files, sources, strict=True):
        read = load_sft_rows(source)
        LOGGER.info("sft.files: %s", read.recognised)
        for row in read.rows:
            made = _file_row(row, references, template, item.weight)
            (leaked if contained.found_in(made.asked) else kept).append(made)
    repeats = find_repeats([row.asked for row in kept], held_out, remove)
    repeats.log("rows of sft.files", "a validation or test problem")
    rows = [row for place, row in enumerate(kept) if place not in repeats.removed]
    LOGGER.info(
        "sft.files: %d rows an epoch from %d files; left out: %s",
        sum(row.copies for row in rows),
        len(files),
        listed({"held out for validation or test": [row.made.id for row in leaked]}),
    )
    return TrainingRows(
        [row.made for row in rows for _ in range(row.copies)],
        sources,
        describe_repeats("contained", [{"row": row.made.id, "fitted": row.asked} for row in leaked])
        | repeats.by_kind,
    )


def _source(item: WeightedFile) -> Source:
    return named_source(
        item.file, item.columns, setting="sft.files", columns_setting="sft.files[].columns"
    )


@dataclass(frozen=True, slots=True)
class _FileRow:
    """A row with the text that asks its problem, and how often it stands in an epoch."""

    made: SftRow
    asked: str
    copies: int


def _file_row(
    row: SolutionRow | CompletionRow,
    references: Mapping[str, str],
    template: PromptTemplate,
    weight: float,
) -> _FileRow:
    if isinstance(row, SolutionRow):
        made, asked = _file_solution_row(row, references, template), row.problem
        taught = row.solution
    else:
        made = SftRow(row.id, row.prompt, row.completion, row.answer)
        asked, taught = template.asked(row.prompt), row.completion
    return _FileRow(made, asked, copies(weight, f"{row.id}\n{taught}"))


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
    """Teach the answer that the solution reaches, and verify it against the reference.

    Without a solution there is nothing to teach: the target is empty.
    """
    # With the reference between the tags a solution that ends in another answer would verify.
    stated = extract_boxed(problem.solution) or problem.answer
    target = template.target(replace(problem, answer=stated)) if problem.solution else ""
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
