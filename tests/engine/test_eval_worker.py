"""The evaluation process through the real vLLM: reports, failures that travel, restarts."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from src.checkpoints import Checkpoint
from src.eval_worker import EvaluationError, EvalWorker
from src.evaluation import EvalTask
from src.policy import load_policy, load_tokenizer, save_policy
from src.prompts import load_prompt
from src.weight_probe import measure_probe, write_probe
from tests.conftest import TINY_BASE
from tests.engine.engine_process import tiny_config
from utils.problem_generator import generate_problems

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint with a probe, as the trainer writes it."""
    config = tiny_config()
    folder = tmp_path_factory.mktemp("trained")
    model, tokenizer = load_policy(str(TINY_BASE), config), load_tokenizer(str(TINY_BASE), config)
    save_policy(model, tokenizer, folder)
    write_probe(folder, measure_probe(model, tokenizer))
    return Checkpoint(folder, 1, 8)


@pytest.fixture
def worker():
    prompt = load_prompt("prompts/rl_zero.prompt")
    config = tiny_config()
    task = EvalTask(
        "validation", generate_problems(16, "validation", 1), prompt, config.sampling, 17
    )
    with EvalWorker(config, str(TINY_BASE), {"validation": task}) as running:
        yield running


def test_reports_come_in_order_and_repeat(worker, trained):
    worker.submit(Checkpoint(TINY_BASE, 0, 0), "validation")
    worker.submit(trained, "validation")
    reports = list(worker.finished())
    assert [checkpoint.step for checkpoint, _ in reports] == [0, 1]
    base, same = (report for _, report in reports)
    assert base.probe_gap is None
    assert same.probe_gap < 0.03  # bfloat16 rounding in two implementations
    assert base.outcomes == same.outcomes  # the same weights and seeds, before and after a swap
    assert sum(base.outcomes.values()) == base.n == 16


def test_a_worker_that_was_killed_is_restarted_once(worker, trained):
    worker.evaluate(trained, "validation")
    os.kill(worker._process.pid, signal.SIGKILL)
    assert worker.evaluate(trained, "validation").n == 16


def test_a_checkpoint_with_wrong_weights_fails_with_the_figures(worker, trained, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(trained.folder, wrong)
    text = (wrong / "probe.json").read_text().replace("-0.", "-3.")
    (wrong / "probe.json").write_text(text)
    with pytest.raises(EvaluationError, match="nats"):
        worker.evaluate(Checkpoint(wrong, 2, 16), "validation")


def test_a_half_written_checkpoint_is_a_failure_not_a_zero(worker, trained, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(trained.folder, half)
    weights = half / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EvaluationError, match="safetensors|Safetensor"):
        worker.evaluate(Checkpoint(half, 2, 16), "validation")
