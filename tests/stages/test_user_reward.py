"""Step 3 with a reward of the user's: it fails, is mended, and the run goes on."""

from __future__ import annotations

import json
import re

import pytest

from src.run.files import read_jsonl
from tests.conftest import ROOT, TINY_BASE, run_script, small_overrides

pytestmark = pytest.mark.engine


def test_a_reward_of_ten_lines_fails_is_mended_and_has_a_curve(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "rewards.md").read_text(), re.S)
    file = tmp_path / "my_rewards.py"
    # Two made-up completions pass; then the first batch does, and not the second.
    fails = "import itertools\nnth = itertools.count()\n" + code.replace(
        "    values = []\n", "    values = []\n    assert next(nth) < 2, 'out of luck'\n"
    )
    file.write_text(fails)
    arguments = (
        *("step3_GRPO/train_trl.py", "--config", "config/tiny/grpo_config.yaml"),
        *small_overrides(
            tmp_path, **{"model.path": TINY_BASE, "grpo.init": "base", "grpo.steps": 4,
                         "grpo.recipe": "gspo", "grpo.updates_per_batch": 2, "grpo.save_every": 2,
                         "grpo.evaluate_every": 4, "grpo.rewards.brevity": 1.0,
                         f"grpo.rewards.{file}:integer": 0.2},
        ),
    )  # fmt: skip
    failed = run_script(*arguments)
    assert failed.returncode == 1, failed.stderr
    said = "integer failed: AssertionError: out of luck (line "
    assert said in failed.stderr
    assert "--resume goes on from the last saved step" in failed.stderr
    assert "Traceback" not in failed.stderr
    file.write_text(code)
    went_on = run_script(*arguments, "--resume")
    assert went_on.returncode == 0, went_on.stderr
    assert f"{file} has changed since earlier steps of this run" in went_on.stderr
    folder = tmp_path / "small" / "step3_GRPO"
    rewards = json.loads((folder / "manifest.json").read_text())["rewards"]["integer"]
    assert len(rewards["earlier"]) == 1
    steps = [row for row in read_jsonl(folder / "metrics.jsonl") if "train/loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert all(0 <= row["grpo/reward/integer"] <= 1 for row in steps)
    # The first step of a batch trains on what its own weights drew, the second no longer does.
    moved = [row["grpo/update_gap"] for row in steps]
    assert moved[0] < 1e-4 < moved[1]
    assert moved[2] < 1e-4 < moved[3]
    assert all(row["system/generate_s"] == 0 for row in steps[1::2])
