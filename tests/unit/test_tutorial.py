"""What docs/tutorial.md quotes stands in the lines of docs/tutorial/, and the grader agrees."""

from __future__ import annotations

import re

import pytest

from src.evaluation.rows import grade_rows
from src.run.files import read_jsonl
from tests.conftest import ROOT

RUN = ROOT / "docs" / "tutorial"
TEXT = (ROOT / "docs" / "tutorial.md").read_text()
METRICS = read_jsonl(RUN / "step3_GRPO" / "metrics.jsonl")
COMPLETIONS = [
    (file.parent.name, row)
    for file in sorted(RUN.glob("*/completions.jsonl"))
    for row in read_jsonl(file)
]
GROUPS = read_jsonl(RUN / "step3_GRPO" / "groups.jsonl")


def _figures(step: int, prefix: str) -> dict[str, float]:
    """Return a step's line that holds a metric of this section."""
    return next(
        row for row in METRICS if row["step"] == step and any(k.startswith(prefix) for k in row)
    )


def _table(heading: str) -> list[list[str]]:
    rows = TEXT.partition(heading)[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_figures_of_steps():
    rows = _table("| metric ")
    assert len(rows) > 15
    for name, *cells, _ in rows:
        lines = [_figures(step, "grpo/") for step in (1, 10, 30, 60)]
        assert cells == [f"{line[name.strip('`')]:.3g}" for line in lines], name


def test_the_figures_of_validation():
    columns = ("accuracy", "format_rate", "accuracy_anywhere")
    rows = _table("| after step ")
    assert [row[0] for row in rows] == ["0", "10", "20", "30", "40", "50", "60"]
    for step, *cells in rows:
        line = _figures(int(step), "validation/")
        assert cells == [f"{100 * line[f'validation/{name}']:.1f}" for name in columns]


def test_the_lines_of_the_log():
    logged = (RUN / "step3_GRPO" / "run.log").read_text()
    quoted = [line for line in TEXT.splitlines() if re.match(r"(step \d|test n)", line)]
    assert len(quoted) == 3
    assert all(f"INFO {line}\n" in logged for line in quoted)


def test_the_group_of_step_1():
    rows = _table("| completion ")
    group = [row for row in GROUPS if row["step"] == 1]
    assert len(rows) == len(group) == 8
    for (text, outcome, reward, advantage), row in zip(rows, group, strict=True):
        assert text.strip("`") == row["completion"].strip()
        assert outcome == row["outcome"]
        assert float(reward) == row["reward/accuracy"]
        assert advantage == f"{row['advantage']:.2f}"


def test_the_group_of_step_51_has_five_wrong_copies():
    group = [row for row in GROUPS if row["step"] == 51]
    wrong = [row for row in group if row["outcome"] == "wrong_answer"]
    assert (len(group), len(wrong)) == (8, 5)
    for row in wrong:
        assert row["completion"].endswith(r"\boxed{(-10,-4)}$. </think> <answer> (10,-4) </answer>")


@pytest.mark.parametrize(("stage", "row"), COMPLETIONS, ids=str)
def test_a_completion_is_quoted_with_its_grade(stage, row):
    fault = f"`{row['fault']}`" if row["fault"] else "none"
    found = str(row["found"]).lower()
    said = (
        f"{stage}, `{row['unique_id']}`: {row['problem']} Reference `{row['reference']}`.",
        f"```\n{row['completion'].strip()}\n```",
        f"`{row['outcome']}`, fault {fault}, found {found}, {row['tokens']} tokens",
    )
    # Lines may be wrapped anywhere.
    assert " ".join("\n".join(said).split()) in " ".join(TEXT.split())


def test_ten_completions_are_graded_today_as_they_were():
    rows = [row for _, row in COMPLETIONS]
    assert len(rows) == 10
    assert grade_rows(rows) == rows
