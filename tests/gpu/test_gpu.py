"""The acceptance checks as tests, where there is a GPU."""

from __future__ import annotations

import pytest

from tests.gpu.__main__ import list_gpus, run, why_not
from tests.gpu.checks import CHECKS, Check

GPUS = list_gpus()
pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_check(check: Check):
    reason = why_not(check, "cuda:0" if GPUS else "", len(GPUS), without_engine=False)
    if reason:
        pytest.skip(reason)
    found = run(check, "cuda:0", logs=None)
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert found["held"], found["figure"]
