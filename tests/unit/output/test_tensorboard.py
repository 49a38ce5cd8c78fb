"""TensorBoard's event files hold what was logged, and what an interrupted run logged is purged."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorboardX", reason="make setup installs it")

from tensorboardX.proto.event_pb2 import Event  # noqa: E402

from src.output.tensorboard import FOLDER, TensorBoardSink  # noqa: E402


def events(folder):
    """Read the records of all event files: length, its checksum, data, its checksum."""
    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_figures_are_written_by_step(tmp_path):
    sink = TensorBoardSink(tmp_path, "step2_sft")
    sink.log({"train/loss": 0.5, "system/step_s": 2.0}, 3)
    sink.rewind(2)
    sink.log({"train/loss": 0.25}, 3)
    sink.close({"test/accuracy": 0.5, "name": "not a number"})
    found = events(tmp_path / FOLDER / "step2_sft")
    logged = {(e.step, v.tag, v.simple_value) for e in found for v in e.summary.value}
    assert logged == {
        (3, "train/loss", 0.5),
        (3, "system/step_s", 2.0),
        (3, "train/loss", 0.25),
        (0, "summary/test/accuracy", 0.5),
    }
    assert [e.step for e in found if e.session_log.status] == [3]
