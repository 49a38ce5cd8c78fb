"""Every file of a finished stage is checked, or named as not covered."""

from __future__ import annotations

import json

import pytest

from src.run.file_list import DESCRIPTION, FILES, differing_files, list_files, not_covered
from src.run.files import write_json_atomic
from utils.data.hashing import file_sha256


@pytest.fixture
def stage(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "step_000002"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "training_state.pt"):
        (checkpoint / name).write_bytes(name.encode())
    described = {
        "sha256": {"model.safetensors": file_sha256(checkpoint / "model.safetensors")},
        "state_sha256": file_sha256(checkpoint / "training_state.pt"),
    }
    (checkpoint / DESCRIPTION).write_text(json.dumps(described))
    for name in ("best.yaml", "trials.csv", "study.journal", "metrics.jsonl", "run.log"):
        (tmp_path / name).write_text(f"{name}\n" * 5)
    (tmp_path / "wandb" / "run").mkdir(parents=True)
    (tmp_path / "wandb" / "run" / "media.json").write_text("{}")
    write_json_atomic(tmp_path / FILES, list_files(tmp_path))
    return tmp_path


def found(stage, sha256):
    return list(differing_files(stage, sha256))


def test_an_untouched_stage_holds(stage):
    assert found(stage, file_sha256(stage / FILES)) == []
    assert list(not_covered(stage)) == ["run*.log", "wandb*"]
    assert "checkpoints/step_000002/training_state.pt" in list_files(stage)["files"]


@pytest.mark.parametrize(
    "name",
    [
        *("best.yaml", "trials.csv", "study.journal", "metrics.jsonl"),
        *(f"checkpoints/step_000002/{n}" for n in
          (DESCRIPTION, "model.safetensors", "training_state.pt")),
    ],
)  # fmt: skip
def test_each_kind_of_damage_is_a_line(stage, name):
    sha256, file = file_sha256(stage / FILES), stage / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert [line.partition(" (")[0] for line in found(stage, sha256)] == [
        f"{name}: changed since the run ended"
    ]
    file.write_bytes(whole[:-1] + b"~")
    assert "same size, other content" in found(stage, sha256)[0]
    file.unlink()
    assert found(stage, sha256) == [f"{name}: missing after the run ended"]


def test_what_was_added_and_an_edited_list_are_found(stage):
    sha256 = file_sha256(stage / FILES)
    (stage / "completions.jsonl").write_text("{}")
    assert found(stage, sha256) == ["completions.jsonl: added since the run ended"]
    write_json_atomic(stage / FILES, list_files(stage))
    assert found(stage, sha256) == [f"{FILES}: not the list whose hash outcome.json states"]
