"""Grade by hand: one answer, or a file of them.

    python -m utils.grade --gold '\\frac{1}{2}' --answer 0.5 --explain
    python -m utils.grade rows.jsonl --gold-key gold --answer-key pred --label-key equal
    python -m utils.grade results/tiny/step2_sft/completions.jsonl

A file holds JSON lines, a JSON array, CSV or Parquet, packed or not. Where it has responses
(`--response-key`, with the r1_zero tags) the format is graded too; else `--answer-key` names the
bare answers. Where it has the problem's text, an answer that only echoes it is wrong. With labels
(true, false, 1, 0) a confusion table and every disagreement are printed. `--output` writes the
grades as JSONL.
Exit code 0 for a correct answer or a graded file, 1 for an answer that is not correct, 2 for bad
input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from utils.data.row_files import read_rows
from utils.drgrpo_grader import grade_batch, grading_statistics, reference_texts, set_children
from utils.grading.equality import explain
from utils.grading.outcome import Grade

Row = dict[str, Any]
_LABELS = {"true": True, "1": True, "false": False, "0": False}


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = _parse(arguments)
    try:
        set_children(given.children)
        code = _grade_one(given) if given.file is None else _grade_file(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has read enough; what Python flushes at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def confusion(labels: list[bool], grades: list[Grade]) -> Counter[tuple[bool, bool]]:
    """Count (label, graded correct) pairs."""
    pairs = zip(labels, grades, strict=True)
    return Counter((label, grade.outcome == "correct") for label, grade in pairs)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m utils.grade",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", type=Path, help="JSONL file to grade")
    parser.add_argument("--gold", help="reference answer, or a solution with \\boxed{}")
    parser.add_argument("--answer", help="answer to grade")
    parser.add_argument("--problem", help="its text: an answer that only echoes it is wrong")
    parser.add_argument("--explain", action="store_true", help="print each step of the comparison")
    parser.add_argument("--patient", action="store_true", help="the grader's fast=False")
    parser.add_argument("--gold-key", help="default: reference, gold or answer")
    parser.add_argument("--response-key", help="default: completion or response, if there")
    parser.add_argument("--answer-key", help="default: pred or answer, if there are no responses")
    parser.add_argument("--problem-key", help="default: prompt or problem, if there")
    parser.add_argument("--label-key", help="default: equal or label, if there")
    parser.add_argument("--output", type=Path, help="write each row's grade to this JSONL file")
    parser.add_argument("--children", type=int, default=2, help="symbolic processes (default: 2)")
    given = parser.parse_args(arguments)
    if (given.file is None) == (given.gold is None or given.answer is None):
        parser.error("give either a JSONL file, or both --gold and --answer")
    return given


def _grade_one(given: argparse.Namespace) -> int:
    """Grade one bare answer and print the outcome."""
    response = tagged(given.answer)
    (grade,) = grade_batch(
        [response], [given.gold], fast=not given.patient, problems=[given.problem]
    )
    reason = f": {grade.reason}" if grade.reason else ""
    sys.stdout.write(f"{grade.outcome} ({grade.stage}){reason}\n")
    if given.explain:
        for reference in reference_texts(given.gold):
            _, trace = explain(grade.answer or "", reference, fast=not given.patient)
            sys.stdout.writelines(f"  {line}\n" for line in trace)
    return int(grade.outcome != "correct")


def tagged(answer: str) -> str:
    """Put a bare answer between the r1_zero tags."""
    return f"</think> <answer>{answer}</answer>"


def _grade_file(given: argparse.Namespace) -> int:
    """Grade every row and print outcomes, statistics and, with labels, the confusion table."""
    rows = [row for _, row in read_rows(given.file, "the file's name")]
    gold_key = _key(rows, given.gold_key, ("reference", "gold", "answer"), "--gold-key")
    response_key = _key(rows, given.response_key, ("completion", "response"), None)
    if response_key:
        responses = [str(row[response_key]) for row in rows]
    else:
        answer_key = _key(rows, given.answer_key, ("pred", "answer"), "--answer-key")
        responses = [tagged(str(row[answer_key])) for row in rows]
    label_key = _key(rows, given.label_key, ("equal", "label"), None)
    labels = [_label(row[label_key], i) for i, row in enumerate(rows, 1)] if label_key else []
    if given.output and not given.output.parent.is_dir():
        raise ValueError(f"--output {given.output}: there is no folder {given.output.parent}")
    problem_key = _key(rows, given.problem_key, ("prompt", "problem"), None)
    grades = grade_batch(
        responses,
        [row[gold_key] for row in rows],
        fast=not given.patient,
        problems=[str(row[problem_key]) for row in rows] if problem_key else None,
        on_progress=_progress,
    )
    if given.output:  # before anything is printed: the reader of a pipe may leave at any line
        lines = (json.dumps(row | _fields(grade)) for row, grade in zip(rows, grades, strict=True))
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _report(grades)
    if label_key:
        _report_labels(rows, labels, grades)
    return 0


def _label(value: Any, row: int) -> bool:
    """Read true, false, 1, 0 and the texts that say them."""
    said = str(value).strip().lower()
    if said not in _LABELS:
        raise ValueError(f"row {row}: the label {value!r} is none of true, false, 1 and 0")
    return _LABELS[said]


def _key(rows: list[Row], given: str | None, usual: tuple[str, ...], option: str | None) -> str:
    """Return the key to read: the given one, or the first usual one that every row has."""
    for key in (given,) if given else usual:
        missing = next((i for i, row in enumerate(rows, 1) if key not in row), None)
        if missing is None:
            return key
        if given:
            raise ValueError(
                f"row {missing} has no {key!r}; its keys are {', '.join(rows[missing - 1])}"
            )
    if option:
        raise ValueError(f"the rows have none of {', '.join(usual)}; name theirs with {option}")
    return ""


def _progress(done: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} graded")


def _report(grades: list[Grade]) -> None:
    counts = Counter((grade.outcome, grade.stage) for grade in grades)
    sys.stdout.write(f"{len(grades)} rows\n")
    for (outcome, stage), count in sorted(counts.items()):
        sys.stdout.write(f"  {outcome:<15} {stage:<10} {count:>7}  {count / len(grades):6.1%}\n")
    events = ("symbolic_calls", "timeouts", "kills", "guard_hits", "cache_hits")
    statistics = grading_statistics()
    sys.stdout.write(", ".join(f"{name} {statistics.get(name, 0)}" for name in events) + "\n")


def _report_labels(rows: list[Row], labels: list[bool], grades: list[Grade]) -> None:
    table = confusion(labels, grades)
    right = table[True, True] + table[False, False]
    sys.stdout.write(
        "\n                graded correct   graded not correct\n"
        f"labelled equal  {table[True, True]:>14} {table[True, False]:>20}\n"
        f"labelled not    {table[False, True]:>14} {table[False, False]:>20}\n"
        f"agreement {right}/{len(labels)} = {right / len(labels):.4f}\n"
    )
    for row, label, grade in zip(rows, labels, grades, strict=True):
        if label != (grade.outcome == "correct"):
            sys.stdout.write(f"  labelled {label}, {grade.outcome}: {json.dumps(row)[:300]}\n")


def _fields(grade: Grade) -> Row:
    return {
        "outcome": grade.outcome,
        "extracted": grade.answer,
        "stage": grade.stage,
        "reason": grade.reason,
    }


if __name__ == "__main__":
    sys.exit(main())
