"""The evaluation worker's client on a process that answers from a script."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from src import eval_worker
from src.config.loading import load_config
from src.eval_worker import EngineStartError, EvaluationError, EvalWorker
from src.evaluation.worker_loop import EngineStarted, EvalResult, trouble_of
from src.training.checkpoints import Checkpoint

CHECKPOINT = Checkpoint(Path("step_000004"), 4, 64)
HUNG = "gave no answer for 900 s and was killed (engine.no_answer_timeout_s)"


class Scripted:
    """A process that answers its Nth request by the Nth line of the script; a text is its end."""

    def __init__(self, script: list) -> None:
        self.script, self.asked, self.gone = script, [], None
        self.allowed: list[tuple[float, str]] = []
        self.told_of_start = False

    def allow(self, seconds, setting):
        self.allowed.append((seconds, setting))

    def send(self, message):
        self.asked.append(message)

    def has_news(self):
        return bool(self.script) or self.gone is not None

    def receive(self):
        if isinstance(self.script[0], str):
            self.gone = self.script[0]
            return None
        answer = self.script.pop(0)
        return answer(self.asked.pop(0)) if callable(answer) else answer

    def stop(self, grace_s=0.0):
        self.script = []


def scored(request):
    return EvalResult(request, {"validation": SimpleNamespace(accuracy=0.5)})


def raised(request):
    return EvalResult(request, trouble=trouble_of(ValueError("no such split")))


@pytest.fixture
def scripts(monkeypatch):
    """Give each process that is started the next of some scripts; return those started."""
    started: list[Scripted] = []

    def use(*waiting: list) -> list[Scripted]:
        left = list(waiting)

        def start(name, serve, arguments, allowed_s, setting):
            started.append(Scripted(left.pop(0)))
            started[-1].allow(allowed_s, setting)
            return started[-1]

        monkeypatch.setattr(eval_worker, "WorkerProcess", start)
        return started

    return use


@pytest.fixture
def config():
    return load_config(["config/tiny/baseline_config.yaml"], ["engine.start_timeout_s=1800"])


READY = EngineStarted()


def test_starting_and_answering_have_deadlines_of_their_own(scripts, config):
    (started,) = (scripts([READY, scored]),)
    with EvalWorker(config, "m", {}) as worker:
        assert worker.evaluate(CHECKPOINT, "validation")["validation"].accuracy == 0.5
    assert started[0].allowed == [
        (1800, "engine.start_timeout_s"),
        (900, "engine.no_answer_timeout_s"),
    ]


def test_what_a_hung_worker_was_asked_another_answers(scripts, config, caplog):
    started = scripts([READY, scored, HUNG], [READY, scored, scored])
    with EvalWorker(config, "m", {}) as worker:
        for step in (1, 2, 3):
            worker.submit(Checkpoint(Path(f"step_{step}"), step, step), "validation")
        assert [checkpoint.step for checkpoint, _ in worker.drain()] == [1, 2, 3]
    assert len(started) == 2
    assert f"the evaluation worker {HUNG}; starting a fresh engine" in caplog.text


def test_a_checkpoint_on_which_two_workers_hang_is_a_failure_and_the_next_one_is_not(
    scripts, config
):
    scripts([READY, HUNG], [READY, HUNG], [READY, scored])
    with EvalWorker(config, "m", {}) as worker:
        with pytest.raises(EvaluationError, match="step_000004 on validation failed twice") as told:
            worker.evaluate(CHECKPOINT, "validation")
        assert str(told.value).endswith(HUNG)
        assert worker.evaluate(Checkpoint(Path("step_5"), 5, 5), "validation")


def test_an_engine_that_cannot_start_is_told_by_a_sentence_and_tried_once(scripts, config):
    try:
        raise ValueError("context of 4096 tokens,\n   the model has 1024")
    except ValueError as error:
        failed = EngineStarted(trouble_of(error))
    started = scripts([failed])
    with (
        EvalWorker(config, "models/m", {}) as worker,
        pytest.raises(EngineStartError) as failure,
    ):
        worker.evaluate(CHECKPOINT, "validation")
    assert str(failure.value) == (
        "the evaluation engine could not start on models/m: ValueError: context of 4096 tokens, "
        "the model has 1024"
    )
    assert "raise ValueError(" in str(failure.value.__cause__)
    assert len(started) == 1


def test_a_failed_evaluation_is_told_by_a_sentence(scripts, config):
    scripts([READY, raised])
    with (
        EvalWorker(config, "m", {}) as worker,
        pytest.raises(
            EvaluationError, match=r"^step_000004 on v could not be scored: ValueError: no such"
        ),
    ):
        worker.evaluate(CHECKPOINT, "v")
