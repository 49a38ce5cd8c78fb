"""Load problems from local files, the hub or the generator, and split them.

Rows need `problem` and `solution`; `answer`, `level`, `type` and `unique_id` are taken where they
stand and derived where they do not. A malformed row is an error that names its line. A row without
a reference answer, or with one that is none ("proof", "notfound", NaN), is left out and listed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.data.answers import answer_text, is_answer
from utils.data.json_lines import DataError
from utils.data.problem import Problem, normalised_text
from utils.data.problem_generator import generate_problems
from utils.data.row_files import describe_file, read_rows
from utils.grading.answer_forms import extract_boxed

MATH_SUBJECT_SPLITS = ("train", "test")
MATH_500 = "HuggingFaceH4/MATH-500"
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
    """Each file read: its SHA-256 and number of rows."""
    duplicates: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Training and validation problems that repeat a test problem, by kind, with examples."""

    def split(self, name: str) -> list[Problem]:
        """Return the problems of `train`, `validation` or `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def provenance(self, *more: Path) -> dict[str, Any]:
        """Return what was read and how it was split, for the manifest.

        Args:
            more: further files that a stage reads.
        """
        splits = {name: self.split(name) for name in ("train", "validation", "test")}
        return {
            "files": self.files | {str(file): describe_file(file) for file in more},
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


def load_from_files(
    train_file: Path, test_file: Path, sizes: SplitSizes, seed: int, *, test_set: str = "all"
) -> ProblemSet:
    """Load local JSONL, JSONL.gz or Parquet files.

    Args:
        test_set: `all`, or a name whose rows are marked: `in_<name>: true`.
    """
    missing: list[str] = []
    train = list(_parse_rows(read_rows(train_file), train_file, missing))
    rows = read_rows(test_file) if test_set == "all" else _marked(test_file, test_set)
    test = list(_parse_rows(rows, test_file, missing, repeats_left_out=False))
    files = {str(file): describe_file(file) for file in (train_file, test_file)}
    return _split(train, test, sizes, seed, missing=missing, files=files)


def load_from_hub(
    dataset: str,
    subjects: Sequence[str],
    sizes: SplitSizes,
    seed: int,
    train_dataset: str | None,
    *,
    test_set: str = "all",
) -> ProblemSet:
    """Load MATH by subject from the hub; `train_dataset` (NuminaMath-CoT) replaces its train split.

    Raises:
        DataError: when the hub cannot be reached, naming the local alternative.
    """
    # Imported here: the hub client takes seconds, and local files do not need it.
    from datasets import load_dataset  # noqa: PLC0415

    missing: list[str] = []
    rows: dict[str, list[Problem]] = {}
    try:
        for split in MATH_SUBJECT_SPLITS:
            raw = [row for name in subjects for row in load_dataset(dataset, name, split=split)]
            rows[split] = list(_parse_rows(enumerate(raw, 1), Path(f"{dataset}:{split}"), missing))
        if train_dataset is not None:
            raw = load_dataset(train_dataset, split="train")
            rows["train"] = list(_parse_rows(enumerate(raw, 1), Path(train_dataset), missing))
        if test_set == "math500":
            raw = load_dataset(MATH_500, split="test")
            rows["test"] = list(_parse_rows(enumerate(raw, 1), Path(MATH_500), missing))
    except (OSError, ConnectionError) as error:
        raise DataError(
            f"data: {dataset} could not be loaded from the hub ({type(error).__name__}: {error}); "
            "check the connection, or use local files: --set data.source=files "
            "--set data.train_file=... --set data.test_file=..."
        ) from error
    return _split(rows["train"], rows["test"], sizes, seed, missing=missing, files={})


def load_synthetic(sizes: SplitSizes, seed: int) -> ProblemSet:
    """Generate the tiny profile's problems; splits are disjoint by the hash of the text."""
    return ProblemSet(
        train=generate_problems(sizes.train or 1600, "train", seed),
        validation=generate_problems(sizes.validation, "validation", seed),
        test=generate_problems(sizes.test or 1000, "test", seed),
    )


def _marked(file: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows that are marked as belonging to a named set."""
    found = False
    for number, row in read_rows(file):
        if row.get(f"in_{name}"):
            found = True
            yield number, row
    if not found:
        raise DataError(
            f"{file}: no row is marked in_{name}: true, so data.test_set: {name} is empty; mark "
            "its rows, or use data.source: hub"
        )


def problems_sha256(problems: Sequence[Problem]) -> str:
    """Fingerprint the texts and answers of problems, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps([problem.problem, problem.answer]).encode())
    return digest.hexdigest()


def _parse_rows(
    rows: Iterable[tuple[int, dict[str, Any]]],
    file: Path,
    missing: list[str],
    *,
    repeats_left_out: bool = True,
) -> Iterator[Problem]:
    """Yield the rows that can be graded.

    Args:
        repeats_left_out: a problem that stands twice is taken once later on, so its id may too.
    """
    seen: dict[str, tuple[str, str]] = {}
    for number, row in rows:
        where = f"{file}:{number}"
        for key in ("problem", "solution"):
            _require_text(row, key, where)
        answer = _reference(row, where, missing)
        if answer is None:
            continue
        problem = Problem(
            problem=row["problem"],
            solution=row["solution"],
            answer=answer,
            level=_level(row.get("level")),
            type=_stated(row, "type") or _stated(row, "source") or "unknown",
            unique_id=_stated(row, "unique_id") or f"{file.name}/{number}",
        )
        text = normalised_text(problem.problem)
        before, text_before = seen.setdefault(problem.unique_id, (where, text))
        if before != where and not (repeats_left_out and text == text_before):
            raise DataError(
                f"{where}: unique_id {problem.unique_id!r} is that of {before} too, and "
                "completions are told apart by it; give each row its own, or leave unique_id out"
            )
        yield problem


def _require_text(row: dict[str, Any], key: str, where: str) -> None:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        found = (
            ("blank" if isinstance(value, str) else type(value).__name__)
            if key in row
            else (f"missing; there are {', '.join(map(repr, row)) or 'none'}")
        )
        raise DataError(
            f"{where}: key '{key}' must be a text, got {found}; each row needs the texts 'problem' "
            "and 'solution'"
        )


def _reference(row: dict[str, Any], where: str, missing: list[str]) -> str | None:
    """Return the answer a row states, else its solution's last box; None for none, listed."""
    try:
        stated = answer_text(row.get("answer"))
    except TypeError as error:
        raise DataError(f"{where}: key 'answer' {error}") from None
    answer = stated or (extract_boxed(row["solution"]) or "").strip()
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
