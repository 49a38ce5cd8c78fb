"""A stage's outcome that is not what a stage writes: a sentence with the remedy."""

from __future__ import annotations

import pytest

from src.config.loading import ConfigError
from src.run.directory import read_outcome


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b'"text"', b"\xff\xfe"])
def test_a_damaged_outcome_says_what_to_do(tmp_path, content):
    (tmp_path / "step2_sft").mkdir()
    (tmp_path / "step2_sft" / "outcome.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"outcome\.json: .*delete it and run step2_sft with --r"):
        read_outcome(tmp_path, "step2_sft")


def test_no_outcome_and_a_whole_one(tmp_path):
    assert read_outcome(tmp_path, "step2_sft") is None
    (tmp_path / "step2_sft").mkdir()
    (tmp_path / "step2_sft" / "outcome.json").write_text('{"stage": "step2_sft"}')
    assert read_outcome(tmp_path, "step2_sft") == {"stage": "step2_sft"}
