"""Load problems from files, folders, the hub or the generator, and split them.

Which columns hold problem, solution and answer is recognised or named (`utils/data/columns.py`);
`level`, `type` and `unique_id` are taken where they stand. A malformed row is an error that names
its line. A row without a reference answer, or with one that is none ("proof", "notfound", NaN), is
left out and listed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from utils.data.answers import is_answer
from utils.data.columns import read_texts
from utils.data.json_lines import DataError
from utils.data.problem import Problem, normalised_text
from utils.data.problem_generator import TEST_PROBLEMS, TRAIN_PROBLEMS, generate_problems
from utils.data.sources import DataRow, Source, describe_reading
from utils.grading.answer_forms import extract_boxed

_KINDS = ("type", "subject", "source", "topic", "data_source")
"""Columns that say what kind of problem a row is; the first that does."""
_EXAMPLES = 5
"""Examples recorded of each kind of row that is left out."""


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Disjoint problems for fitting, choosing and reporting, and what was left out of them."""

    train: list[Problem]
    validation: list[Problem]
    test: list[Problem]
    without_answer: list[str] = field(default_factory=list)
    """Where rows without a reference answer stand (file:line)."""
    overlap_removed: int = 0
    """Training rows left out because the same problem is in the test set or came before."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each source read: its SHA-256 or fingerprint, and number of rows."""
    recognised: list[str] = field(default_factory=list)
    """What each source was found to be: format, rows and columns."""
    duplicates: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Training and validation problems that repeat a test problem, by kind, with examples."""

    def split(self, name: str) -> list[Problem]:
        """Return the problems of `train`, `validation` or `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def provenance(self, *more: Source) -> dict[str, Any]:
        """Return what was read and how it was split, for the manifest.

        Args:
            more: further sources that a stage reads.
        """
        splits = {name: self.split(name) for name in ("train", "validation", "test")}
        return {
            "files": self.files | {one.name: one.describe() for one in more},
            "rows_left_out": {
                "without_answer": len(self.without_answer),
                "repeated": self.overlap_removed,
            },
            "duplicates": self.duplicates,
            "splits": {
                name: {"n": len(problems), "sha256": problems_sha256(problems)}
                for name, problems in splits.items()
            },
        }


@dataclass(frozen=True, slots=True)
class SplitSizes:
    """How many problems each split takes; None takes all."""

    train: int | None
    validation: int
    test: int | None


def load_sources(
    train: Sequence[Source],
    test: Sequence[Source],
    sizes: SplitSizes,
    seed: int,
    *,
    test_set: str = "all",
) -> ProblemSet:
    """Load problems from files, folders and data sets of the hub.

    Args:
        test_set: `all`, or a name whose rows are marked: `in_<name>: true`.

    Raises:
        DataError: for a source that cannot be read, a row that is none, or no problems left.
    """
    missing: list[str] = []
    recognised: list[str] = []
    fitted = list(_problems(train, missing, recognised))
    tested = list(_problems(test, missing, recognised, marked=test_set))
    files = {source.name: source.describe() for source in (*train, *test)}
    found = _split(fitted, tested, sizes, seed, missing=missing, files=files)
    return replace(found, recognised=recognised)


def load_test_set(source: Source, name: str) -> ProblemSet:
    """Load problems that are reported on alone, as a benchmark's; there is nothing to fit.

    Args:
        name: where any row is marked `in_<name>: true`, those are the set.

    Raises:
        DataError: for a source that cannot be read, a row that is none, or no problems left.
    """
    missing: list[str] = []
    recognised: list[str] = []
    marked = name if any(row.content.get(f"in_{name}") for row in source.rows()) else "all"
    problems = list(_problems([source], missing, recognised, marked=marked))
    if not problems:
        raise DataError(f"{source.name}: no row has a reference answer; check its columns")
    return ProblemSet(
        [],
        [],
        problems,
        without_answer=missing,
        files={source.name: source.describe()},
        recognised=recognised,
    )


def load_synthetic(sizes: SplitSizes, seed: int) -> ProblemSet:
    """Generate the tiny profile's problems; splits are disjoint by the hash of the text."""
    return ProblemSet(
        train=generate_problems(sizes.train or TRAIN_PROBLEMS, "train", seed),
        validation=generate_problems(sizes.validation, "validation", seed),
        test=generate_problems(sizes.test or TEST_PROBLEMS, "test", seed),
    )


def _marked(rows: list[DataRow], name: str) -> list[DataRow]:
    """Return the rows that are marked as belonging to a named set."""
    found = [row for row in rows if row.content.get(f"in_{name}")]
    if not found:
        raise DataError(
            f"{rows[0].file}: no row is marked in_{name}: true, so data.test_set: {name} is empty; "
            "mark its rows, or use data.source: hub"
        )
    return found


def problems_sha256(problems: Sequence[Problem]) -> str:
    """Fingerprint the texts and answers of problems, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps([problem.problem, problem.answer]).encode())
    return digest.hexdigest()


def _problems(
    sources: Sequence[Source],
    missing: list[str],
    recognised: list[str],
    *,
    marked: str | None = None,
) -> Iterator[Problem]:
    """Yield the rows that can be graded, and say of each source what it was found to be.

    Args:
        marked: for test rows: `all`, or the name of the set whose rows are taken. A test problem
            that stands twice stays, so each needs an id of its own; a training problem is taken
            once later on, and so may its id.
    """
    seen: dict[str, tuple[str, str]] = {}
    for source in sources:
        rows = list(source.rows())
        columns = source.recognised(rows)
        solved = 0
        for row in rows if marked in (None, "all") else _marked(rows, str(marked)):
            texts = read_texts(row.content, columns, row.where)
            solved += bool(texts.solution)
            answer = _reference(texts.answer, texts.solution, row.where, missing)
            if answer is not None:
                problem = _problem(row, texts.problem, texts.solution, answer)
                _check_id(problem, row.where, seen, repeats=marked is None)
                yield problem
        recognised.append(describe_reading(source, len(rows), columns, solved))


def _problem(row: DataRow, text: str, solution: str, answer: str) -> Problem:
    kinds = (_stated(row.content, key) for key in _KINDS)
    return Problem(
        problem=text,
        solution=solution,
        answer=answer,
        level=_level(row.content.get("level")),
        type=next(filter(None, kinds), "unknown"),
        unique_id=_stated(row.content, "unique_id") or f"{row.name}/{row.number}",
    )


def _check_id(
    problem: Problem, where: str, seen: dict[str, tuple[str, str]], *, repeats: bool
) -> None:
    """Refuse an id that another problem has; the same problem may repeat it where that is asked."""
    text = normalised_text(problem.problem)
    before, text_before = seen.setdefault(problem.unique_id, (where, text))
    if before != where and not (repeats and text == text_before):
        raise DataError(
            f"{where}: unique_id {problem.unique_id!r} is that of {before} too, and "
            "completions are told apart by it; give each row its own, or leave unique_id out"
        )


def _reference(stated: str, solution: str, where: str, missing: list[str]) -> str | None:
    """Return the answer a row states, else its solution's last box; None for none, listed."""
    answer = stated or (extract_boxed(solution) or "").strip()
    if is_answer(answer):
        return answer
    missing.append(f"{where} ({answer[:20]!r})" if answer else where)
    return None


def _stated(row: dict[str, Any], key: str) -> str:
    """Return a value as text; "" for an absent one, which some tools write as NaN."""
    value = row.get(key)
    return "" if value is None or value != value else str(value).strip()


def _level(value: Any) -> int | None:
    """Read 3, "3" or "Level 3"; None for "Level ?" and absent levels.

    >>> _level("Level 3")
    3
    """
    found = re.search(r"\d{1,9}", str(value)) if value is not None else None
    return int(found.group()) if found else None


def _split(
    train: list[Problem],
    test: list[Problem],
    sizes: SplitSizes,
    seed: int,
    *,
    missing: list[str],
    files: dict[str, dict[str, Any]],
) -> ProblemSet:
    """Take validation out of train, by a seeded hash of the text; test stays untouched."""
    of_test = {normalised_text(problem.problem): problem.problem for problem in test}
    unique: dict[str, Problem] = {}
    copies = []
    for problem in train:
        key = normalised_text(problem.problem)
        if key in of_test:
            copies.append({"fitted": problem.problem, "held_out": of_test[key]})
        else:
            unique.setdefault(key, problem)
    ranked = sorted(unique.values(), key=lambda problem: _rank(problem, seed))
    validation, rest = ranked[: sizes.validation], ranked[sizes.validation :]
    chosen_test = test
    if sizes.test is not None and sizes.test < len(test):
        chosen_test = sorted(test, key=lambda problem: _rank(problem, seed))[: sizes.test]
    if not rest or not chosen_test:
        raise DataError(
            f"data: {len(rest)} training and {len(chosen_test)} test problems are left of "
            f"{len(train)} and {len(test)} rows; give larger files or lower "
            f"data.validation_rows = {sizes.validation}"
        )
    return ProblemSet(
        train=rest[: sizes.train],
        validation=validation,
        test=chosen_test,
        without_answer=missing,
        overlap_removed=len(train) - len(unique),
        files=files,
        duplicates=describe_repeats("exact", copies),
    )


def describe_repeats(
    kind: str, rows: Sequence[dict[str, Any]], *, removed: bool = True
) -> dict[str, dict[str, Any]]:
    """Count rows that repeat a held-out problem, the first of them as examples; nothing for none.

    Args:
        rows: what an example shows of each.
        removed: whether they are left out.
    """
    if not rows:
        return {}
    count = len(rows)
    return {kind: {"count": count, "removed": count * removed, "examples": list(rows[:_EXAMPLES])}}


def _rank(problem: Problem, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{normalised_text(problem.problem)}".encode()).hexdigest()
