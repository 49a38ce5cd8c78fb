"""Data sets in the hub's layout, by local copies: configurations, splits, and what is refused."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset, DatasetDict

from src.config.loading import build_config
from src.data.problems import load_problems
from utils.data.json_lines import DataError
from utils.data.sources import Source

CARD = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train.jsonl
  - split: test
    path: main/test.jsonl
- config_name: other
  data_files: other/train.jsonl
---
"""


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A local copy of a set with two configurations."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "org" / "sums"
    for name, count in (("main/train", 4), ("main/test", 2), ("other/train", 3)):
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"question": f"{name} {i}?", "answer": f"So.\n#### {i}"} for i in range(count)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(CARD)
    return folder


def test_a_copy_of_a_set_is_read_by_configuration_and_split(copy):
    name = f"hub:{copy}"
    rows = list(Source(f"{name}:main").rows())
    assert [row.content["question"] for row in rows] == [f"main/train {i}?" for i in range(4)]
    assert rows[1].where == f"{name}:main:train:2"
    assert len(list(Source(f"{name}:main", "test").rows())) == 2
    assert len(list(Source(f"{name}:main:test@abc").rows())) == 2
    assert len(list(Source(f"{name}:other").rows())) == 3
    assert Source(f"{name}:main").describe()["rows"] == 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", r"could not be loaded \(ValueError: Config name is missing.*main.*hub:NAME"),
        (":none", r"could not be loaded \(ValueError: BuilderConfig 'none' not found.*main"),
        (":main:dev", r"split dev could not be loaded \(ValueError: Unknown split .dev.*train"),
        ("@", "no name of a data set of the hub; write hub:NAME"),
    ],
)
def test_what_a_set_does_not_have_is_said_with_what_it_has(copy, name, says):
    with pytest.raises(DataError, match=says):
        list(Source(f"hub:{copy}{name}").rows())


def test_what_save_to_disk_wrote_is_read(tmp_path):
    rows = Dataset.from_list([{"problem": "1+1?", "answer": "2"}])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "both")
    for folder in ("one", "both"):
        read = list(Source(f"hub:{tmp_path / folder}", "test").rows())
        assert [row.content["answer"] for row in read] == ["2"]


def test_a_run_trains_and_tests_on_a_set_and_says_what_it_recognised(copy, caplog):
    settings = {"source": "files", "train_file": f"hub:{copy}:main",
                "test_file": f"hub:{copy}:main", "validation_rows": 1}  # fmt: skip
    with caplog.at_level("INFO"):
        problems = load_problems(build_config({"data": settings}))
    assert [len(problems.split(name)) for name in ("train", "validation", "test")] == [3, 1, 2]
    assert [one.answer for one in problems.test] == ["0", "1"]
    assert [one.unique_id for one in problems.test] == ["sums:main:test/1", "sums:main:test/2"]
    assert set(problems.files) == {f"hub:{copy}:main:train", f"hub:{copy}:main:test"}
    assert caplog.messages[0] == (
        f"data: hub:{copy}:main:train: data set, 4 rows, 4 with a solution: problem from question, "
        "solution from answer, answer from answer"
    )
