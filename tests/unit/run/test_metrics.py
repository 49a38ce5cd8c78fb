"""The log of a run that was killed and resumed holds each figure once."""

from __future__ import annotations

from src.run.files import append_jsonl, read_jsonl
from src.run.metrics import JsonlSink


def steps(folder):
    rows = read_jsonl(folder / "metrics.jsonl")
    return [(row["step"], *sorted(row.keys() - {"step", "time_s"})) for row in rows]


def test_what_is_logged_again_replaces_the_earlier_row(tmp_path):
    first = JsonlSink(tmp_path, {})
    for step in (1, 2):
        first.log({"train/loss": 0.5}, step)
    first.log({"validation/accuracy": 0.25}, 2)  # killed before its score was kept
    again = JsonlSink(tmp_path, {})
    again.rewind(2)
    again.log({"train/loss": 0.25}, 3)
    again.log({"validation/accuracy": 0.25}, 2)
    again.close({})
    assert steps(tmp_path) == [
        (1, "train/loss"),
        (2, "train/loss"),
        (2, "validation/accuracy"),
        (3, "train/loss"),
    ]


def test_test_samples_stand_once(tmp_path):
    rows = [{"problem": "a"}, {"problem": "a"}]
    for _ in range(2):
        sink = JsonlSink(tmp_path, {})
        sink.samples(rows, 0, "samples")
    assert read_jsonl(tmp_path / "samples.jsonl") == [{"step": 0, **row} for row in rows]


def test_a_torn_line_and_later_steps_are_dropped_in_all_files(tmp_path):
    append_jsonl(tmp_path / "groups.jsonl", [{"step": 1}, {"step": 3}])
    with (tmp_path / "groups.jsonl").open("a") as file:
        file.write('{"step": 3, "comp')
    JsonlSink(tmp_path, {}).rewind(1)
    assert read_jsonl(tmp_path / "groups.jsonl") == [{"step": 1}]


def test_rounds_and_trials_are_told_apart(tmp_path):
    for number in (2, 1):
        sink = JsonlSink(tmp_path, {"round": number})
        sink.log({"train/loss": 1.0}, 1)
        sink.close({})
    assert [row["round"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2]
