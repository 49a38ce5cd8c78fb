"""What docs/tutorial.md quotes stands in the lines of docs/tutorial/, and the grader agrees."""

from __future__ import annotations

import re
from collections import Counter
from statistics import fmean, stdev

import pytest
from scipy.stats import t

from src.evaluation.comparison import paired_difference
from src.evaluation.rows import grade_rows
from src.run.files import read_jsonl
from tests.conftest import ROOT
from utils.stats.statistics import wilson_interval

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
        lines = [_figures(step, "grpo/") for step in (1, 14, 28, 56)]
        assert cells == [f"{line[name.strip('`')]:.3g}" for line in lines], name


def test_the_figures_of_validation():
    columns = ("accuracy", "format_rate", "accuracy_anywhere")
    rows = _table("| after step ")
    assert [row[0] for row in rows] == ["0", "14", "28", "42", "56"]
    for step, accuracy, interval, *cells in rows:
        line = _figures(int(step), "validation/")
        shares = [f"{100 * line[f'validation/{name}']:.1f}" for name in columns]
        assert [accuracy, *cells] == shares
        right = round(256 * line["validation/accuracy"])
        low, high = (100 * bound for bound in wilson_interval(right, 256))
        assert interval == f"[{low:.1f}, {high:.1f}]"


def test_the_figures_of_blocks_of_steps():
    rows = _table("| steps ")
    assert [row[0] for row in rows] == ["1 to 14", "15 to 28", "29 to 42", "43 to 56"]
    for steps, *cells in rows:
        first, last = map(int, steps.split(" to "))
        lines = [_figures(step, "grpo/") for step in range(first, last + 1)]
        drawn = sum(line["grpo/drawn_groups"] for line in lines)
        dropped = sum(line["grpo/dropped_groups"] for line in lines)
        assert cells == [
            f"{drawn:.0f}",
            _mean_of_steps([line["grpo/accuracy"] for line in lines]),
            _mean_of_steps([line["grpo/reward"] for line in lines]),
            f"{100 * dropped / drawn:.1f}",
        ]


def _mean_of_steps(values: list[float]) -> str:
    """Write the mean in percent with Student's interval from the scatter of the steps."""
    mean, error = fmean(values), stdev(values) / len(values) ** 0.5
    half = t.ppf(0.975, len(values) - 1) * error
    return f"{100 * mean:.1f} [{100 * (mean - half):.1f}, {100 * (mean + half):.1f}]"


def test_the_groups_left_out():
    lines = [_figures(step, "grpo/") for step in range(1, 57)]
    drawn = [line["grpo/drawn_groups"] for line in lines]
    dropped = [line["grpo/dropped_groups"] for line in lines]
    # A group that is left out is all right or all wrong; reward/accuracy is of the 32 kept.
    all_right = [
        line["grpo/accuracy"] * line["grpo/drawn_groups"] - 32 * line["grpo/reward/accuracy"]
        for line in lines
    ]
    said = f"{sum(dropped):.0f} groups left out (of {sum(drawn):,.0f} drawn) {sum(all_right):.0f}"
    assert said in " ".join(TEXT.split())
    blocks = f"{sum(all_right[:14]):.0f} in the first block, {sum(all_right[-14:]):.0f} in the last"
    assert blocks in " ".join(TEXT.split())


def test_problems_won_and_lost():
    (both, lost), (won, neither) = (map(int, cells) for _, *cells in _table("| | right after"))
    assert both + lost + won + neither == 1000
    before = [1.0] * (both + lost) + [0.0] * (won + neither)
    after = [1.0] * both + [0.0] * lost + [1.0] * won + [0.0] * neither
    (_, first, _), (_, second, difference) = [row[1:] for row in _table("| stage ")[1:]]
    for scores, cell in ((before, first), (after, second)):
        low, high = (100 * bound for bound in wilson_interval(int(sum(scores)), 1000))
        assert cell == f"{sum(scores) / 10:.1f} [{low:.1f}, {high:.1f}]"
    by_problem = (dict(enumerate(map(float, scores))) for scores in (before, after))
    assert difference == str(paired_difference(*by_problem))


def test_the_lines_of_the_log():
    logged = (RUN / "step3_GRPO" / "run.log").read_text()
    quoted = [line for line in TEXT.splitlines() if re.match(r"(step \d|test n)", line)]
    assert len(quoted) == 3
    assert all(f"INFO {line}\n" in logged for line in quoted)


def test_the_group_of_step_1():
    group = [row for row in GROUPS if row["step"] == 1]
    assert len(group) == 8
    counts = Counter(
        (
            f"`{row['completion'].strip()}`",
            row["outcome"],
            f"{row['reward/accuracy']:.0f}",
            f"{row['advantage']:.2f}",
        )
        for row in group
    )
    assert _table("| times ") == [[str(count), *cells] for cells, count in counts.most_common()]


def test_the_group_of_step_51_has_one_right_of_eight():
    group = [row for row in GROUPS if row["step"] == 51]
    assert [row["outcome"] for row in group].count("correct") == 1
    assert {f"{row['advantage']:.2f}" for row in group} == {"2.47", "-0.35"}
    assert {row["reference"] for row in group} == {"18.7"}


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
