"""Reward files before they run: what the configuration may name, what is said of others."""

from __future__ import annotations

import json
import re

import pytest

from src.config.loading import ConfigError, load_config
from src.rewards.files import reward_identities, reward_problems
from src.run.directory import Run
from src.stages.plan import describe_plan
from tests.conftest import NO_DATA

TINY = ["config/tiny/grpo_config.yaml"]


def config(key: str, weight: float = 0.5, *more: str):
    return load_config(TINY, [f"grpo.rewards.{key}={weight}", *more])


def test_a_function_is_named_beside_the_projects_own(tmp_path):
    rewards = config(f"{tmp_path}/mine.py:brief").grpo.rewards
    assert rewards.weights() == {
        "accuracy": 1.0, "format": 0.0, "overlong": 1.0, "brevity": 0.0, "brief": 0.5,
    }  # fmt: skip
    assert [file.path for file in rewards.files] == [f"{tmp_path}/mine.py"]


@pytest.mark.parametrize("path", ["mine.py", "a/b.c/mine.py", "../mine.py", "./mine.py"])
def test_a_path_keeps_its_dots_on_the_command_line(path):
    (file,) = config(f"{path}:brief").grpo.rewards.files
    assert (file.path, file.name) == (path, "brief")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("acuracy", "unknown reward 'acuracy'; use accuracy, format, overlong, brevity, or path"),
        ("mine.py:accuracy", "two rewards are named 'accuracy'"),
        ("mine.txt:brief", "unknown reward"),
    ],
)
def test_keys_that_are_refused(key, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(TINY, [f'grpo.rewards={{"{key}": 1}}'])


def test_a_weight_is_a_number():
    with pytest.raises(ConfigError, match="mine.py:brief"):
        load_config(TINY, ['grpo.rewards={"mine.py:brief": much}'])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no file"),
        ("def brief(:", "not valid Python: invalid syntax"),
        ("def brieff(): ...", "did you mean 'brieff'?"),
        ("", "it has no name at all"),
        ("def other(): ...\nLIMIT = 3", "it has LIMIT, other"),
        ("from x import y as brief", None),
        ("brief = len", None),
    ],
)
def test_file_and_function_are_looked_for_without_running_it(tmp_path, text, says):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    told = list(reward_problems(config(f"{file}:brief")))
    assert (told == []) if says is None else says in told[0]


def test_the_plan_names_the_file_and_its_hash(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("brief = len")
    settings = config(f"{file}:brief")
    sha256 = reward_identities(settings)["brief"]["sha256"]
    plan = describe_plan("step3_GRPO", settings)
    assert f"brief 0.5 ({file}, sha256 {sha256[:12]})" in plan


def test_a_changed_file_is_said_and_its_earlier_hash_kept(tmp_path, caplog):
    file = tmp_path / "mine.py"
    settings = config(f"{file}:brief", 0.5, f"run.output_root={tmp_path}", "run.name=r")
    seen = []
    for text in ("brief = len", "brief = len", "brief = max"):
        file.write_text(text)
        run = Run("step3_GRPO", settings, resume=True)
        caplog.clear()
        run.begin(data=NO_DATA, model="none", rewards=reward_identities(settings))
        run._claim.close()
        seen.append((caplog.text, (run.folder / "manifest.json").read_text()))
    assert [str(file) + " has changed" in text for text, _ in seen] == [False, False, True]
    was, now = (json.loads(text)["rewards"]["brief"] for _, text in seen[1:])
    assert (was["earlier"], now["earlier"]) == ([], [was["sha256"]])
    assert now["sha256"] != was["sha256"]
