"""The client of an engine that does one thing after another, on a process that follows a script."""

from __future__ import annotations

import pytest

from src.config.loading import load_config
from src.engine.swap_verifier import StaleWeightsError
from src.evaluation import engine_process
from src.evaluation.engine_process import (
    Answer,
    EngineError,
    EngineProcess,
    EngineStartError,
)
from src.evaluation.worker_loop import EngineStarted, trouble_of
from tests.unit.test_eval_worker import HUNG, Scripted

KILLED = "was killed by SIGKILL"
READY = EngineStarted()
FAILED = trouble_of(ValueError("no such thing"))


def echo(request):
    return Answer(f"did {request}", 2.0)


@pytest.fixture
def engine(monkeypatch):
    """Start a client whose processes follow one script after another; return both."""

    def start(*scripts: list) -> tuple[EngineProcess, list[Scripted]]:
        left, started = list(scripts), []

        def process(name, serve, arguments, allowed_s, setting, *, bell, has_children):
            started.append(Scripted(left.pop(0)))
            started[-1].allow(allowed_s, setting)
            return started[-1]

        monkeypatch.setattr(engine_process, "WorkerProcess", process)
        config = load_config(["config/tiny/grpo_config.yaml"], ["engine.start_timeout_s=1800"])
        return EngineProcess("the rollout engine", lambda *_: None, config, "base"), started

    return start


def test_requests_are_answered_and_deadlines_are_those_of_the_evaluation_worker(engine):
    client, (started,) = engine([READY, echo, echo])
    assert [client.ask("a"), client.ask("b")] == ["did a", "did b"]
    assert started.allowed == [
        (1800, "engine.start_timeout_s"),
        (900, "engine.no_answer_timeout_s"),
    ]
    assert client.busy_s == 4.0


def test_one_thing_is_asked_for_at_a_time(engine):
    client, _ = engine([READY, echo])
    client.begin("a")
    with pytest.raises(RuntimeError, match="the rollout engine is still at str"):
        client.begin("b")
    assert client.busy_s == 2.0  # the answer is there and not yet taken
    assert client.answer() == "did a"
    assert client.busy_s == 2.0


@pytest.mark.parametrize("end", [KILLED, HUNG])
def test_a_fresh_process_knows_what_the_lost_one_knew_and_is_asked_again(engine, caplog, end):
    client, started = engine([READY, echo, end], [READY, echo, echo])
    client.ask("weights", remember=True)
    assert client.ask("rollouts") == "did rollouts"
    assert f"the rollout engine {end}; starting a fresh one" in caplog.text
    assert len(started) == 2


def test_a_process_that_is_lost_at_what_is_remembered_is_asked_that_once(engine):
    client, started = engine([READY, KILLED], [READY, echo])
    assert client.ask("weights", remember=True) == "did weights"
    assert started[1].asked == []


@pytest.mark.parametrize("second", [[READY, KILLED], [READY, echo, KILLED], [KILLED]])
def test_two_lost_processes_are_a_sentence(engine, second):
    client, _ = engine([READY, echo, KILLED], second)
    client.ask("weights", remember=True)
    with pytest.raises(EngineError, match="failed twice.*fresh process: it was killed by SIGKILL"):
        client.ask("rollouts")


def test_a_request_after_a_lost_one_may_lose_a_process_too(engine):
    client, started = engine([READY, KILLED], [READY, echo, KILLED], [READY, echo])
    assert [client.ask("a"), client.ask("b")] == ["did a", "did b"]
    assert len(started) == 3


def test_what_goes_wrong_in_the_process_is_told_here(engine):
    failed = [READY, lambda _: Answer(None, 1.0, FAILED), echo]
    client, _ = engine(failed)
    with pytest.raises(EngineError, match="the rollout engine failed: ValueError: no such thing"):
        client.ask("a")
    assert client.ask("b") == "did b"
    client, _ = engine([EngineStarted(FAILED)])
    with pytest.raises(EngineStartError, match="could not start on base: ValueError: no such"):
        client.ask("a")


def test_stale_weights_are_told_as_such_also_of_a_fresh_process(engine):
    stale = [lambda _: Answer(None, 1.0, FAILED, stale=True)]
    client, _ = engine([READY, *stale])
    with pytest.raises(StaleWeightsError, match="no such thing"):
        client.ask("weights", remember=True)
    client, _ = engine([READY, echo, KILLED], [READY, *stale])
    client.ask("weights", remember=True)
    with pytest.raises(StaleWeightsError):
        client.ask("rollouts")
