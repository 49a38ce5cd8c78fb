"""The grader against the labelled cases that lie beside the checkout (skipped without them)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utils.drgrpo_grader import grade

CASES = Path(__file__).resolve().parents[3].parent / "shared" / "grader" / "cases.jsonl"
POLICY_NOTES = ("doubtful", "needs-extraction")
MIN_ACCURACY = 0.98

pytestmark = pytest.mark.skipif(not CASES.exists(), reason=f"{CASES} is not there")


def load_cases() -> list[dict]:
    """Read the cases whose label is not a matter of policy."""
    with CASES.open(encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    return [case for case in cases if not case["note"].startswith(POLICY_NOTES)]


def test_cases():
    cases = load_cases()
    wrong = []
    for case in cases:
        response = f"reasoning</think> <answer>{case['pred']}</answer>"
        found = grade(response, case["gold"]).outcome == "correct"
        if found != case["equal"]:
            wrong.append(case)
    false_positives = [case for case in wrong if not case["equal"]]
    assert not false_positives
    assert 1 - len(wrong) / len(cases) >= MIN_ACCURACY, wrong
