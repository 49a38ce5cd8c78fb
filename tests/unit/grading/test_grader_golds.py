"""Every reference of MATH and GSM8K accepts itself and its solution (skipped without them)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from utils.drgrpo_grader import grade

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
FILES = ["math_train.jsonl.gz", "math_test.jsonl.gz", "gsm8k_train.jsonl.gz", "gsm8k_test.jsonl"]
# The solution's last box does not hold the answer.
EXPLAINED = {
    "train/number_theory/7115.json": "the box is empty",
    "train/number_theory/7117.json": "the box is empty",
    "test/prealgebra/177.json": "the problem uses a box as an operation; the answer is not boxed",
}


@pytest.mark.parametrize("name", FILES)
def test_references_accept_themselves_and_their_solutions(name):
    file = DATA / name
    if not file.exists():
        pytest.skip(f"{file} is not there")
    opener = gzip.open if file.suffix == ".gz" else open
    failed = set()
    with opener(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            response = f"why</think> <answer>{row['answer']}</answer>"
            assert grade(response, row["answer"]).outcome == "correct", row["unique_id"]
            if grade(response, row["solution"]).outcome != "correct":
                failed.add(row["unique_id"])
    assert failed <= set(EXPLAINED)
