"""A step's line fits the terminal, and the log has all of it."""

from __future__ import annotations

import logging

import pytest

from src.output import lines, step_line
from src.output.lines import TerminalLines, brief, duration, fitted
from src.output.step_line import StepLines

METRICS = {
    **{"grpo/reward": 0.633, "grpo/accuracy": 0.523, "grpo/format_rate": 0.986},
    **{"grpo/zero_variance_rate": 0.41, "grpo/completion_tokens": 1024.4, "grpo/entropy": 0.052},
    **{"grpo/truncated_rate": 0.01, "grpo/importance_ratio": 1.0001, "grpo/reward/accuracy": 9.0},
    **{"system/generated_tokens_per_s": 728.0, "system/step_s": 133.5, "system/train_s": 19.1},
    "reward/accuracy": 9.0,
}


@pytest.fixture
def step(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(step_line.time, "monotonic", lambda: now[0])
    made = StepLines(2)
    now[0] += 600.0
    return made.line(12, 1000, METRICS, ["train"])


@pytest.mark.parametrize(("width", "ends"), [(80, "16.5 h left"), (100, "1024 tokens, 133.5 s")])
def test_a_step_fits_the_terminal(step, width, ends):
    whole, extra = step
    line = fitted(("08:35:12 " + extra["brief"][0], *extra["brief"][1:]), width)
    assert len(line) <= width
    assert line.startswith("08:35:12 step 12/1000: reward 0.633, accuracy 0.523, format 0.986, ")
    assert line.endswith(ends)
    assert "ratio 1.0001, 728 tokens/s, 133.5 s (train 19.1)" in whole


def record(name, level=logging.INFO, **extra):
    made = logging.LogRecord(name, level, "", 0, "whole", (), None)
    made.__dict__.update(extra)
    return made


@pytest.mark.parametrize(
    ("one", "quiet", "verbose"),
    [
        (record("src.run.files"), "whole", "whole"),
        (record("__main__", **brief("brief", "x" * 200)), "brief", "whole"),
        (record("src.a", **lines.IN_LOG), None, "whole"),
        (record("vllm.triton"), None, "whole"),
        (record("torch", logging.WARNING), None, "whole"),
        (record("torch", logging.ERROR), "whole", "whole"),
    ],
)
def test_what_the_terminal_shows(one, quiet, verbose, capsys):
    for handler, expected in ((TerminalLines(), quiet), (TerminalLines(verbose=True), verbose)):
        handler.handle(one)
        said = capsys.readouterr().err
        assert (said.partition(" ")[2].strip() or None) == expected


def test_times_are_rough():
    assert [duration(s) for s in (0.4, 99, 101, 5999, 6001)] == [
        *("0 s", "99 s", "2 min", "100 min", "1.7 h"),
    ]
