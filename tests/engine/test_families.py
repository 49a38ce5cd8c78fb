"""Families that vLLM computes otherwise than Qwen, from step 0 to a GRPO step."""

from __future__ import annotations

import pytest

from tests.engine.engine_process import in_engine_process
from tests.families import holds, taken_through

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.mark.parametrize(
    "kind",
    [
        "gemma2",  # its embedding is its output layer
        "olmo2",  # by transformers' own classes, which vLLM decorates for itself
    ],
)
def test_a_family_computes_alike_everywhere(kind, tmp_path):
    found = in_engine_process(taken_through, kind, tmp_path)
    assert holds(found), found
