"""Atomic writes leave the old file or the new one, and JSONL errors name the line."""

from __future__ import annotations

import json
import math
import os
import resource

import pytest
import torch

from src.run.files import (
    DiskFullError,
    append_jsonl,
    disk_full,
    drop_torn_line,
    read_json,
    read_jsonl,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "outcome.json"
    path.write_text("old")
    return path


def assert_untouched(path):
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_write_replaces_the_file_and_leaves_nothing_else(old_file):
    write_text_atomic(old_file, "new — ½\r\n")
    assert old_file.read_bytes() == "new — ½\r\n".encode()
    assert list(old_file.parent.iterdir()) == [old_file]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(old_file, monkeypatch, call):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space left"):
        write_bytes_atomic(old_file, b"new")
    assert_untouched(old_file)


def test_the_content_is_on_disk_before_the_name_changes(old_file, monkeypatch):
    calls = []
    replace = os.replace

    def record_replace(source, target):
        calls.append(("replace", source.read_bytes(), target.read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    monkeypatch.setattr(os, "replace", record_replace)
    write_bytes_atomic(old_file, b"new")
    assert calls == ["fsync", ("replace", b"new", "old")]


@pytest.mark.parametrize(("value", "error"), [(math.nan, ValueError), ({1, 2}, TypeError)])
def test_a_value_without_a_json_form_leaves_the_old_file(old_file, value, error):
    with pytest.raises(error):
        write_json_atomic(old_file, {"accuracy": value})
    assert_untouched(old_file)


def test_json_round_trips(tmp_path):
    path = tmp_path / "report.json"
    value = {"stage": "step2_sft", "ci95": [0.25, 0.5], "checkpoint": None, "text": "½"}
    write_json_atomic(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value
    assert read_json(path) == value


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "outcome.json"
    path.write_text('{"stage":')
    with pytest.raises(ValueError, match=r"outcome\.json: not valid JSON"):
        read_json(path)


def test_appended_records_are_read_back_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_jsonl(path, [{"step": 1, "text": "line\nbreak, ½ and \u2028"}])
    append_jsonl(path, [{"step": 2, "train/loss": math.inf}, {"step": 3}])
    first, second, third = read_jsonl(path)
    assert first == {"step": 1, "text": "line\nbreak, ½ and \u2028"}
    assert second["train/loss"] == math.inf
    assert third == {"step": 3}


def test_an_empty_log_has_no_records(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_jsonl(path, [])
    assert read_jsonl(path) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"step": 1}\n{"step": \n', 2),
        ('{"step": 1}\n\n{"step": 2}\n', 2),
        ('{"step": 1}\n{"step": 2}{"step": 3}\n', 2),
        ('{"step": 1}\n{"step": 2}\n{"st', 3),
        ("[1, 2]\n", 1),
        ("\n", 1),
    ],
)
def test_a_malformed_line_is_named_by_file_and_number(tmp_path, text, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"metrics\.jsonl:{line}: "):
        read_jsonl(path)


@pytest.fixture
def full_disk():
    """A file may grow to 1 MiB and no further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_takes_no_half_of_a_line_and_is_one_paragraph(tmp_path, full_disk):
    path = tmp_path / "groups.jsonl"
    append_jsonl(path, [{"step": 1}])
    with pytest.raises(DiskFullError) as found:
        append_jsonl(path, [{"step": 2, "text": "x" * 2**21}])
    assert read_jsonl(path) == [{"step": 1}]
    said = str(found.value)
    assert f"{path} could not be written" in said
    assert "MiB are free" in said
    assert "--resume" in said
    assert "\n" not in said
    with pytest.raises(DiskFullError):
        write_bytes_atomic(path, b"x" * 2**21)
    assert read_jsonl(path) == [{"step": 1}]
    assert os.listdir(tmp_path) == ["groups.jsonl"]


def test_a_full_disk_is_known_however_it_is_said(tmp_path):
    worker = RuntimeError("not scored:\nTraceback\nsrc.run.files.DiskFullError: the disk\n")
    assert disk_full(worker, tmp_path) == "the disk"
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = OSError(28, "No space left on device")
    assert str(tmp_path) in disk_full(wrapped, tmp_path)
    assert disk_full(ValueError("loss is not finite"), tmp_path) is None


@pytest.mark.parametrize("tensors", [1, 40])
def test_a_full_disk_is_known_by_how_torch_says_it(tmp_path, full_disk, tensors):
    """Its writer fails in its last word where the earlier ones were buffered."""
    size = 2**21 // tensors
    with pytest.raises(Exception) as found:  # noqa: PT011 - of whatever type
        torch.save({n: torch.zeros(size) for n in range(tensors)}, tmp_path / "optimizer.pt")
    assert "--resume" in disk_full(found.value, tmp_path)


def test_a_torn_last_line_is_dropped_and_said(tmp_path, caplog):
    path = tmp_path / "groups.jsonl"
    path.write_text('{"step": 1}\n{"st')
    drop_torn_line(path)
    assert read_jsonl(path) == [{"step": 1}]
    assert "dropped the last 4 bytes" in caplog.text
    drop_torn_line(tmp_path / "absent.jsonl")
