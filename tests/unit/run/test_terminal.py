"""What is printed: tables keep every digit in a narrow terminal, progress is always told."""

from __future__ import annotations

import doctest
import logging
import os
import sys
import time
from types import SimpleNamespace

import pytest

from src.run import terminal as terminal_module
from src.run.terminal import Progress, list_faults, p_value, show, show_records, show_scores

FIGURES = {
    "n": 12345,
    "accuracy": 0.2561,
    "accuracy_ci95": [0.2163, 0.3014],
    "format_rate": 0.994,
    "accuracy_well_formed": None,
    "accuracy_anywhere": 0.5,
    "mean_completion_tokens": 1036.4,
    "samples_per_problem": 4,
    "pass_at": {"1": 0.25, "4": 0.531},
    "pass_at_ci95": {"1": [0.2, 0.3], "4": [0.46, 0.6]},
    "majority_at": {"1": 0.25, "4": 0.332},
    "majority_at_ci95": {"1": [0.2, 0.3], "4": [0.275, 0.392]},
}


@pytest.fixture(params=[30, 80, 200])
def terminal(request, monkeypatch):
    monkeypatch.setattr(terminal_module, "columns_of", lambda _: request.param)
    return request.param


def test_no_figure_is_cut(terminal, capsys):
    show_scores("made up", {"question_only-greedy": FIGURES})
    said = capsys.readouterr().out
    for figure in ("question_only-greedy", "12,345", "25.6 [21.6, 30.1]", "99.4", "1036",
                   "@4 53.1 [46.0, 60.0]", "@4 33.2 [27.5, 39.2]"):  # fmt: skip
        assert figure in said, said


def test_long_texts_are_folded_whole(terminal, capsys):
    text = "".join(chr(ord("a") + i % 26) for i in range(150))
    show("made up", ["problem", "points"], [(text, "+1.5")])
    said = capsys.readouterr().out
    assert "".join(line.split(" +")[0].strip() for line in said.splitlines()).count("z") == 5
    assert "+1.5" in said


def test_records_name_their_columns_by_the_last_part(capsys):
    show_records("trials", [{"number": 3, "train.learning_rate": 1.25e-4, "value": None}])
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said if line.strip() and "─" not in line] == [
        ["trials"],
        ["learning"],
        ["number", "rate"],
        ["3", "0.000125"],
    ]


def test_a_terminal_without_width_gets_lines(monkeypatch, caplog):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((0, 0)))
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    caplog.set_level(logging.INFO)
    with Progress("scoring", 3, "completions") as progress:
        progress.advance(1)
        monkeypatch.setattr(Progress, "_told_at", time.monotonic() - 60)
        progress.advance(1, "loss 0.5")
        progress.advance(1)
    (line,) = caplog.messages
    assert line.startswith("scoring: 2/3 completions, ")
    assert line.endswith(" s left, loss 0.5")
    caplog.clear()
    with Progress("scoring", 100, "completions") as progress:
        monkeypatch.setattr(Progress, "_told_at", time.monotonic() - 60)
        progress.advance(1)
    assert caplog.messages == ["scoring: 1/100 completions"]


def test_a_slow_start_is_not_counted_into_the_pace(monkeypatch):
    clock = iter([0.0, 60.0, 61.0, 62.0])
    monkeypatch.setattr(Progress, "_told_at", 0.0)
    monkeypatch.setattr("src.run.terminal.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("src.run.terminal.draws", lambda _: False)
    progress = Progress("training", 12, "steps")
    for _ in range(3):
        progress.advance()
    assert progress._pace(62.0) == "1.00/s, 9 s left"


def test_what_went_wrong_is_listed_by_frequency():
    assert list_faults({"wrong_value": 1, "missing_close_think": 3}, 4) == [
        "75.0% no </think>",
        "25.0% another value",
    ]


def test_no_p_value_reads_as_zero():
    assert [p_value(p) for p in (0.0, 0.00099, 0.001, 0.5)] == ["< 0.001"] * 2 + ["0.001", "0.500"]


def test_docstring_examples():
    assert doctest.testmod(terminal_module).failed == 0
