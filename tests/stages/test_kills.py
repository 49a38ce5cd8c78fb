"""Killed at a write and resumed, a stage ends as if left alone; `tests.kill_matrix` tries all."""

from __future__ import annotations

import pytest

from tests.kill_matrix import moment, run


@pytest.mark.parametrize(
    ("stage", "writes"),
    [
        ("step0_baseline", ["append step0_baseline/samples.jsonl"]),
        ("step2_sft", ["rename checkpoints/step_", "append step2_sft/metrics.jsonl"]),
    ],
)
def test_killed_at_a_write_and_resumed_it_ends_the_same(tmp_path, stage, writes):
    """An appended line is left half done."""
    whole = tmp_path / stage / "whole"
    done, seen = run(stage, whole)
    assert done.returncode == 0, done.stderr[-2000:]
    for wanted in writes:
        at = max(number for number, write in enumerate(seen, start=1) if write.startswith(wanted))
        torn = wanted.startswith("append")
        assert moment(stage, tmp_path / stage / str(at), whole, at, torn=torn) == []
