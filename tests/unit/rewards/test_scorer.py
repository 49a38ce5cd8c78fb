"""Reward functions of the user's: their values, and what is said when there are none."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from src.config.loading import ConfigError, load_config
from src.rewards.batch import RewardBatch
from src.rewards.calling import Fault, called, checked_values, load_function
from src.rewards.scorer import RewardScorer, open_rewards
from src.run.stopping import RunError
from tests.conftest import ROOT
from utils.grading.outcome import Grade

FACE = "(completions, references, rows, grades)"


def batch(*completions: str) -> RewardBatch:
    rows = [
        {"unique_id": f"p{n}", "tokens": 10 * n, "token_limit": 100, "overlong_tokens": 20,
         "finished": True}
        for n in range(len(completions))
    ]  # fmt: skip
    grades = [Grade("correct", text, "", "text") for text in completions]
    return RewardBatch(completions, ["1"] * len(completions), rows, grades)


def config(folder: Path, text: str):
    file = folder / "mine.py"
    file.write_text(text)
    return load_config(["config/tiny/grpo_config.yaml"], [f"grpo.rewards.{file}:mine=1"])


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ([1, 0.5], [1.0, 0.5]),
        ((True, False), [1.0, 0.0]),
        (np.array([1.0, 2.0], dtype=np.float32), [1.0, 2.0]),
        ([np.float32(1), np.int64(2)], [1.0, 2.0]),
    ],
)
def test_values_are_taken_as_floats(returned, expected):
    assert checked_values(returned, batch("a", "b")) == expected


@pytest.mark.parametrize(
    ("returned", "told", "place"),
    [
        ([1.0], "returned 1 values for 2 completions, expected one for each", None),
        (0.5, "returned 0.5 (float), expected a list of 2 numbers", None),
        (None, "returned None (NoneType), expected a list of 2 numbers", None),
        ([1.0, "x"], "returned 'x' (str), expected a number,", 1),
        ([None, 1.0], "returned None (NoneType), expected a number,", 0),
        ([0.0, math.nan], "returned nan, expected a finite number,", 1),
        ([math.inf, 0.0], "returned inf, expected a finite number,", 0),
    ],
)
def test_what_is_no_value_is_told(returned, told, place):
    assert checked_values(returned, batch("a", "b")) == Fault(told, place, whole=place is None)


def test_a_file_that_cannot_be_loaded_is_told_with_its_line(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import math\nLIMIT = 1 / 0\ndef mine(): ...\n")
    fault = load_function(file, "mine")
    assert fault.told == "cannot be loaded: ZeroDivisionError: division by zero (line 2)"
    file.write_text("mine = 3")
    assert load_function(file, "mine").told == "is a int, expected a function"


def test_the_worked_example_of_the_documents(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "rewards.md").read_text(), re.S)
    file = tmp_path / "my_rewards.py"
    file.write_text(code)
    assert len([line for line in code.split("def ")[1].splitlines() if line.strip()]) <= 10
    values = called(load_function(file, "integer"), batch("7", " -12 ", "1/2"), file)
    assert values == [1.0, 0.9, 0.0]


def test_values_come_from_a_process_that_stays(tmp_path):
    text = f"import os\ndef mine{FACE}:\n    return [os.getpid()] * len(rows)\n"
    with open_rewards(config(tmp_path, text)) as scorer:
        scorer.try_on(batch("a"))
        values = scorer.values(batch("a", "b"))
        assert values["mine"] == [scorer._worker.process.pid] * 2
        assert values["accuracy"] == [1.0, 1.0]
        assert values["brevity"] == [0.0, -0.1]
        process = scorer._worker.process
    assert process.exitcode is not None


FAULTS = {
    "crash": ("1 / (text != 'bad')", "failed: ZeroDivisionError: division by zero (line 3)"),
    "exit": ("os._exit(3) if text == 'bad' else 0",
             "gave no values: its process ended with exit code 3,"),
    "hang": ("time.sleep(60 * (text == 'bad')) or 0",
             "gave no values: its process gave no answer for "),
    "wrong": ("'x' if text == 'bad' else 0", "returned 'x' (str), expected a number,"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_sentence_that_names_the_row(tmp_path, name):
    code, told = FAULTS[name]
    text = f"import os, time\ndef mine{FACE}:\n    return [{code} for text in completions]\n"
    scorer = RewardScorer(config(tmp_path, text))
    scorer._timeout_s = 0.4
    try:
        with pytest.raises(RunError) as raised:
            scorer.values(batch("good", "bad", "good"))
        said = str(raised.value)
        assert f"grpo.rewards.{tmp_path}/mine.py:mine {told}" in said
        assert said.endswith(
            "on row 1 of 3 (problem p1). Mend it; --resume goes on from the last saved step"
        )
        assert (scorer.values(batch("good"))["mine"]) in ([0.0], [1.0])
    finally:
        scorer.stop()


def test_a_function_is_tried_before_anything_expensive(tmp_path):
    text = f"def mine{FACE}:\n    return 1\n"
    said = r"returned 1 \(int\), expected a list of 1 numbers"
    with (
        open_rewards(config(tmp_path, text)) as scorer,
        pytest.raises(ConfigError, match=said),
    ):
        scorer.try_on(batch("a"))
