"""Fixtures shared by all tests: small models, the tiny base, a finished small pipeline run."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from xdist.scheduler import LoadScopeScheduling

from utils.dataset_loader import ProblemSet

ROOT = Path(__file__).resolve().parent.parent
TINY_BASE = ROOT / "assets" / "tiny_base"
NO_DATA = ProblemSet([], [], []).provenance()
"""What a manifest states of a stage that reads nothing."""

SMALL = {
    "data.train_rows": 96,
    "data.validation_rows": 32,
    "data.test_rows": 48,
    "train.epochs": 1,
    "train.evaluate_every": 2,
    "train.validation_rows": 24,
    "search.trials": 4,
    "search.startup_trials": 2,
    "search.examples": 128,
    "search.rung_examples": "[64, 128]",
    "search.validation_rows": 24,
    "grpo.steps": 3,
    "grpo.warmup_steps": 0,
    "grpo.prompts_per_step": 4,
    "grpo.group_size": 4,
    "grpo.micro_batch_size": 8,
    "grpo.evaluate_every": 2,
    "grpo.validation_rows": 24,
    "grpo.save_every": 1,
    "grpo.sample_groups_every": 1,
    "grpo.sample_groups": 1,
}


def small_overrides(output_root: Path, **more: object) -> list[str]:
    """Return `--set` arguments that shrink the tiny profile to seconds a step."""
    values = {"run.output_root": output_root, "run.name": "small", **SMALL, **more}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def run_script(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script of the project and capture what it says."""
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where pytest-xdist runs several processes, keep what shares a dear fixture in one.

    Its own groups (`--dist loadgroup`) do nothing under pytest 9.2, which no longer takes a test's
    name from the place where they are written.
    """

    class ByFixture(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "pipeline_run" if uses_pipeline_run(ROOT / file) else file

    return ByFixture(config, log)


def pytest_collection_modifyitems(items):
    """Begin with what takes long, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: (not uses_pipeline_run(item.path), not takes_long(item.path)))


@cache
def uses_pipeline_run(file: Path) -> bool:
    return "pipeline_run" in file.read_text()


@cache
def takes_long(file: Path) -> bool:
    return file.parent.name in ("engine", "stages") or "pytest.mark.slow" in file.read_text()


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_BASE)


def two_layer_model(tokenizer, *, tied: bool, seed: int = 0) -> Qwen2ForCausalLM:
    """Build a 2-layer Qwen2 with random weights."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # vLLM's CPU attention wants 32 dimensions a head
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    return Qwen2ForCausalLM(config)


@pytest.fixture
def tiny_model(tokenizer):
    return two_layer_model(tokenizer, tied=True)


@pytest.fixture(scope="session")
def pipeline_run(tmp_path_factory):
    """Run the whole pipeline once through the real engines, much reduced."""
    root = tmp_path_factory.mktemp("pipeline")
    command = ["run_pipeline.py", "--profile", "tiny", *small_overrides(root)]
    done = run_script(*command)
    assert done.returncode == 0, done.stderr[-4000:]
    return Pipeline(root / "small", command, done.stdout + done.stderr)


class Pipeline:
    """A finished run: its folder, the command that made it and what that printed."""

    def __init__(self, folder: Path, command: list[str], output: str) -> None:
        self.folder, self.command, self.output = folder, command, output

    def outcome(self, stage: str) -> dict:
        return json.loads((self.folder / stage / "outcome.json").read_text())

    def metrics(self, stage: str) -> list[dict]:
        """Rows of the stage's metrics; those of all trials where it has trials."""
        folder = self.folder / stage
        files = sorted(folder.glob("trials/*/metrics.jsonl")) or [folder / "metrics.jsonl"]
        return [json.loads(line) for file in files for line in file.read_text().split("\n")[:-1]]
