"""The evaluation process through the real vLLM: reports, failures that travel, restarts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.config.loading import with_values
from src.data.prompts import load_prompt
from src.engine.weight_probe import measure_probe, write_probe
from src.eval_worker import EvalWorker
from src.evaluation.engine_client import EvaluationError
from src.evaluation.engine_process import EngineStartError
from src.evaluation.evaluation import EvalTask
from src.run.files import read_jsonl
from src.sft.examples import build_examples
from src.sft.rows import rows_from_problems
from src.training.batching import pack
from src.training.checkpoints import Checkpoint, CheckpointStore
from src.training.losses import add_chunked_loss, summed_nll
from src.training.policy import load_policy, load_tokenizer, save_policy
from tests.conftest import TINY_BASE
from tests.engine.engine_process import tiny_config
from utils.data.problem_generator import generate_problems

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint with a probe and hashes, as the trainer writes it."""
    config = tiny_config()
    model, tokenizer = load_policy(str(TINY_BASE), config), load_tokenizer(str(TINY_BASE), config)

    def write(folder):
        save_policy(model, tokenizer, folder)
        write_probe(folder, measure_probe(model, tokenizer, model.device))

    return CheckpointStore(tmp_path_factory.mktemp("trained"), keep=1).save(1, 8, write)


@pytest.fixture(scope="module")
def tasks():
    config = tiny_config()
    prompt = load_prompt("prompts/rl_zero.prompt")
    tokenizer = load_tokenizer(str(TINY_BASE), config)
    problems = generate_problems(16, "validation", 1)
    targets = build_examples(rows_from_problems(problems, prompt), tokenizer, 512, "all").examples
    greedy = config.sampling.model_copy(update={"temperature": 0.0})
    return {
        "validation": EvalTask(
            "validation", problems, prompt, config.sampling, 17, targets=targets
        ),
        "greedy": EvalTask("greedy", problems, prompt, greedy, 17),
        "many": EvalTask("many", problems[:8], prompt, config.sampling, 17, samples=4),
    }


@pytest.fixture(scope="module")
def worker(tasks):
    """One worker for all tests that leave it alive."""
    with EvalWorker(tiny_config(), str(TINY_BASE), tasks) as running:
        yield running


@pytest.fixture
def mortal(tasks):
    """A worker to be killed."""
    with EvalWorker(tiny_config(), str(TINY_BASE), tasks) as running:
        yield running


def copied(trained, folder, step=2):
    shutil.copytree(trained.folder, folder)
    return Checkpoint(folder, step, 8 * step)


def test_reports_come_in_order_and_repeat(worker, trained):
    worker.submit(Checkpoint(TINY_BASE, 0, 0), "validation")
    worker.submit(trained, "validation")
    reports = list(worker.finished())
    assert [checkpoint.step for checkpoint, _ in reports] == [0, 1]
    base, same = (scores["validation"] for _, scores in reports)
    assert base.probe_gap is None
    assert same.probe_gap < 0.03  # bfloat16 rounding in two implementations
    assert base.outcomes == same.outcomes  # the same weights and seeds, before and after a swap
    assert sum(base.outcomes.values()) == base.n == 16
    assert (same.step, same.seed, same.sampling["temperature"]) == (1, 17, 1.0)
    assert {"swap", "generate", "grade", "grade_wait"} <= set(same.seconds)


def test_one_request_scores_several_sets(worker, trained, tasks):
    reports = worker.evaluate(trained, "validation", "greedy", "many")
    assert list(reports) == ["validation", "greedy", "many"]
    many = reports["many"]
    assert (many.n, many.samples_per_problem, many.completions) == (8, 4, 32)
    assert sum(many.outcomes.values()) == 32
    assert many.pass_at[1] == pytest.approx(many.accuracy)
    assert many.pass_at[4] == sum(count > 0 for count in many.correct_samples) / 8
    assert reports["greedy"].seconds["swap"] == 0.0
    again = worker.evaluate(trained, "greedy")["greedy"]
    assert again.outcomes == reports["greedy"].outcomes


def test_the_engines_loss_is_the_policys(worker, trained, tasks):
    report = worker.evaluate(trained, "validation")["validation"]
    config = tiny_config()
    model = load_policy(str(trained.folder), config, "packed")
    add_chunked_loss(model)
    examples = tasks["validation"].targets
    with torch.no_grad():
        total = summed_nll(model, "packed", pack(examples, model.device)).item()
    assert report.nll == pytest.approx(total / sum(e.target_tokens for e in examples), rel=0.05)


def test_completions_are_written_in_order_with_every_sample(worker, trained, tasks, tmp_path):
    file = tmp_path / "completions.jsonl"
    worker.define(replace(tasks["many"], split="written", completions_file=file))
    worker.evaluate(trained, "written")
    rows = read_jsonl(file)
    wanted = [(problem.unique_id, n) for problem in tasks["many"].problems for n in range(4)]
    assert [(row["unique_id"], row["sample"]) for row in rows] == wanted
    assert len({row["completion"] for row in rows[:4]}) > 1


def test_what_was_discarded_never_arrives(worker, trained):
    worker.submit(trained, "many")
    worker.discard()
    assert list(worker.evaluate(trained, "greedy")) == ["greedy"]


def test_a_worker_that_was_killed_is_restarted_with_what_was_not_answered(mortal, trained):
    mortal.evaluate(trained, "validation")
    os.kill(mortal._engines[0].process.process.pid, signal.SIGKILL)
    mortal.submit(trained, "validation")
    mortal.submit(trained, "greedy")
    assert [list(reports) for _, reports in mortal.drain()] == [["validation"], ["greedy"]]


def test_a_worker_that_hangs_is_killed_and_gives_the_same_figures(tasks, trained, caplog):
    """Stopped by SIGSTOP amid an evaluation, as a driver that hangs stops it."""
    config = with_values(tiny_config(), {"engine.no_answer_timeout_s": 3})
    with EvalWorker(config, str(TINY_BASE), tasks) as worker:
        before = worker.evaluate(trained, "many")["many"]
        hung = worker._engines[0].process.process.pid
        os.kill(hung, signal.SIGSTOP)
        after = worker.evaluate(trained, "many")["many"]
        assert worker._engines[0].process.process.pid != hung
    assert not os.path.exists(f"/proc/{hung}")
    assert after.samples == before.samples
    assert "no answer for 3 s" in caplog.text
    assert "(engine.no_answer_timeout_s); starting a fresh engine" in caplog.text


def test_a_worker_that_dies_twice_on_a_checkpoint_is_a_failure_that_names_it(
    mortal, trained, tasks, monkeypatch
):
    (engine,) = mortal._engines
    start = engine.start

    def start_and_die(model):
        start(model)
        os.kill(engine.process.process.pid, signal.SIGKILL)

    monkeypatch.setattr(engine, "start", start_and_die)
    os.kill(mortal._engines[0].process.process.pid, signal.SIGKILL)
    with pytest.raises(EvaluationError, match="step_000001 on validation failed twice"):
        mortal.evaluate(trained, "validation")


def test_a_checkpoint_with_wrong_weights_fails_with_the_figures(worker, trained, tmp_path):
    wrong = copied(trained, tmp_path / "wrong")
    (wrong.folder / "checkpoint.json").unlink()  # or its hash would tell first
    probe = wrong.folder / "probe.json"
    probe.write_text(probe.read_text().replace("-0.", "-3."))
    with pytest.raises(EvaluationError, match="nats"):
        worker.evaluate(wrong, "validation")


def test_a_half_written_checkpoint_is_a_failure_not_a_zero(worker, trained, tmp_path):
    half = copied(trained, tmp_path / "half")
    weights = half.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EvaluationError, match="model.safetensors: is not what was written"):
        worker.evaluate(half, "validation")
    assert worker.evaluate(trained, "greedy")["greedy"].n == 16


def test_a_model_that_no_engine_takes_is_told_by_a_sentence_at_once(tmp_path, tasks):
    """A request waits already; the failure arrives all the same, and nothing is tried again."""
    model = tmp_path / "model"
    shutil.copytree(TINY_BASE, model)
    described = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(described | {"architectures": ["NoSuchModel"]}))
    with (
        EvalWorker(tiny_config(), str(model), tasks) as worker,
        pytest.raises(EngineStartError, match=r"could not start on .*NoSuchModel") as failure,
    ):
        worker.evaluate(Checkpoint(model, 0, 0), "greedy")
    assert "\n" not in str(failure.value)
    assert "Traceback (most recent call last)" in str(failure.value.__cause__)


def test_nothing_is_left_behind(trained, tasks):
    before = set(os.listdir("/dev/shm"))
    with EvalWorker(tiny_config(), str(TINY_BASE), tasks) as worker:
        worker.evaluate(trained, "greedy")
        family = [
            worker._engines[0].process.process.pid,
            *_descendants(worker._engines[0].process.process.pid),
        ]
    deadline = time.monotonic() + 5  # a semaphore of a test beside has a name for a moment
    while (left := _left_in_shared_memory(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    alive = [pid for pid in family if os.path.exists(f"/proc/{pid}")]
    assert not alive


def _left_in_shared_memory(before):
    new = set(os.listdir("/dev/shm")) - before
    return {name for name in new if not _another_process_has(f"/dev/shm/{name}")}


def _another_process_has(file):
    """Tell whether a file in shared memory is in use elsewhere, as by tests that run beside."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        # A process may end, or belong to somebody else.
        with suppress(OSError):
            if int(maps.parent.name) != os.getpid() and file in maps.read_text():
                return True
    return False


def _descendants(pid):
    children = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as stream:
            children += map(int, stream.read().split())
    return children + [deeper for child in children for deeper in _descendants(child)]


def test_two_engines_give_the_completions_and_the_report_of_one(tasks, trained, tmp_path, caplog):
    """On a group of cores each; one of them is killed while it has the checkpoint in hand."""
    one, other = sorted(os.sched_getaffinity(0))[:2]
    timed = {"seconds": {}, "tokens_per_s": 0.0, "engine_seconds": [], "probe_gap": None}

    def reports(devices, die=False):
        config = with_values(tiny_config(), {"devices.eval": devices})
        file = tmp_path / f"{len(devices)}-{die}.jsonl"
        own = {
            "validation": tasks["validation"],
            "many": replace(tasks["many"], completions_file=file),
        }
        with EvalWorker(config, str(TINY_BASE), own) as running:
            running.submit(trained, *own)
            if die:
                running._wait_for(running._engines[1].is_ready)
                os.kill(running._engines[1].process.process.pid, signal.SIGKILL)
            ((_, found),) = running.drain()
        assert all(report.probe_gap < 0.03 for report in found.values())  # swapped and verified
        return [replace(report, **timed) for report in found.values()], read_jsonl(file)

    alone = reports([f"cpu:{one}"])
    assert reports([f"cpu:{one}", f"cpu:{other}"], die=True) == alone
    assert f"cpu:{other} was killed by SIGKILL; starting a fresh engine" in caplog.text
