"""An engine that sleeps while the trainer trains: what happens in which order, what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import src.grpo.trainer as grpo_trainer
from src.config.loading import ConfigError, load_config
from src.engine.sleeping import SleepCycle
from src.engine.swap_verifier import StaleWeightsError
from src.evaluation import worker_loop
from src.evaluation.worker_loop import EvalRequest
from src.stages.out_of_memory import find_shortage
from src.training.checkpoints import Checkpoint
from tests.unit.grpo.test_losses import build


class FakeEngine:
    """Writes down what is asked of it."""

    def __init__(self):
        self.seen = []

    def sleep(self, level):
        self.seen.append(f"sleep {level}")

    def wake_up(self, tags):
        self.seen.append(f"wake {' '.join(tags)}")


def test_the_order_of_a_cycle():
    engine = FakeEngine()
    cycle = SleepCycle(engine)
    for _ in range(2):
        assert cycle.asleep
        cycle.wake_weights()
        cycle.weights_proven()
        cycle.wake_weights()  # synced twice: awake already
        cycle.weights_proven()
        with cycle.awake():
            engine.seen.append("draw")
    assert engine.seen == 2 * ["wake weights", "wake kv_cache", "draw", "sleep 2"]


def test_nothing_is_sampled_before_the_weights_are_written_and_compared():
    engine = FakeEngine()
    cycle = SleepCycle(engine)
    with pytest.raises(RuntimeError, match="weights are gone"), cycle.awake():
        pass
    cycle.wake_weights()
    with pytest.raises(RuntimeError, match="weights are unproven"), cycle.awake():
        pass
    assert engine.seen == ["wake weights"]
    with pytest.raises(RuntimeError, match="wake it first"):
        SleepCycle(engine).weights_proven()


def test_an_engine_that_never_sleeps_is_always_ready():
    cycle = SleepCycle(None)
    for _ in range(2):
        with cycle.awake():
            pass
        cycle.wake_weights()
        cycle.weights_proven()
        assert not cycle.asleep


@pytest.fixture
def trainer(tokenizer, tmp_path, monkeypatch):
    """TRL's trainer on a CPU beside a fake engine that sleeps; `trainer.seen` is what happens."""
    trainer, engine = build(tokenizer, tmp_path, "dapo"), FakeEngine()
    generation = SimpleNamespace(
        llm=engine, _iter_named_params=lambda: iter(()), sync_weights=trainer.sync_weights
    )
    trainer.vllm_generation, trainer.seen = generation, engine.seen
    trainer._cycle = SleepCycle(engine)
    note = engine.seen.append
    monkeypatch.setattr(grpo_trainer, "swap_weights", lambda *_: note("write"))
    trainer.stale = []
    monkeypatch.setattr(grpo_trainer, "stale_layers", lambda *_: note("compare") or trainer.stale)
    draw = trainer.source.draw
    monkeypatch.setattr(trainer.source, "draw", lambda pool: note("draw") or draw(pool))
    return trainer


CYCLE = ["wake weights", "write", "compare", "wake kv_cache", "draw", "sleep 2"]


def test_a_step_of_grpo_wakes_writes_compares_draws_and_sleeps(trainer):
    trainer.sync_weights()  # as TRL does before it asks for rollouts
    trainer._draw_rollouts()
    assert trainer.seen == CYCLE


def test_what_was_synced_before_a_validation_is_synced_again_for_the_rollouts(trainer):
    """Of the same step TRL syncs once, but between the two the engine has slept."""
    trainer.sync_weights()
    with trainer.engine_awake():
        trainer.seen.append("draw")
    trainer._draw_rollouts()
    assert trainer.seen == 2 * CYCLE


def test_stale_weights_are_never_sampled_from(trainer):
    trainer.stale = ["model.layers.0"]
    with pytest.raises(StaleWeightsError):
        trainer._draw_rollouts()
    with pytest.raises(RuntimeError, match="unproven"):
        trainer._draw_rollouts()
    assert "draw" not in trainer.seen


def served(monkeypatch, wake):
    """Let the evaluation worker answer two requests; return what happened and its answers."""
    seen, answers = [], []
    engine = SimpleNamespace(sleep=lambda: seen.append("sleep"), wake=lambda: wake(seen))
    verifier = SimpleNamespace(engine=engine, load=lambda _: seen.append("swap"))
    requests = [EvalRequest(n, Checkpoint(Path("folder"), 1, 1), ("test",)) for n in range(2)]

    def take():
        if not requests:
            raise EOFError
        return requests.pop(0)

    def send(message):
        seen.append(type(message).__name__)
        answers.append(message)

    for name, value in {
        "end_with_parent": lambda: None,
        "signal": SimpleNamespace(signal=lambda *_: None, SIGINT=0, SIG_IGN=0),
        "check_numbers": lambda *_: None,
        "load_tokenizer": lambda *_: None,
        "verify_checkpoint": lambda _: None,
        "SwapVerifier": lambda *_: verifier,
        "replace": lambda *_, **__: SimpleNamespace(seconds={}),
    }.items():
        monkeypatch.setattr(worker_loop, name, value)
    monkeypatch.setattr("src.engine.vllm_engine.VllmEngine", lambda *_, **__: engine)
    monkeypatch.setattr(worker_loop, "grade_share", lambda *_, **__: scored(seen))
    config = load_config(["config/sft_config.yaml"], ["engine.sleep=on"])
    mailbox = SimpleNamespace(beat=lambda: None, take=take, send=send)
    worker_loop.serve(config, "model", {"test": None}, mailbox)
    return seen, answers


def scored(seen):
    seen.append("score")
    return SimpleNamespace(seconds={})


def test_an_evaluation_engine_sleeps_before_its_answer_leaves(monkeypatch):
    seen, _ = served(monkeypatch, lambda seen: seen.append("wake"))
    each = ["wake", "swap", "score", "sleep", "EvalResult"]
    assert seen == ["sleep", "EngineStarted", *2 * each]


def test_an_engine_that_cannot_wake_is_told(monkeypatch):
    def wake(_):
        raise RuntimeError("CUDA Error: out of memory at cumem_allocator.cpp:128")

    seen, answers = served(monkeypatch, wake)
    assert "swap" not in seen
    assert "out of memory" in answers[1].trouble.told
    assert find_shortage(RuntimeError(answers[1].trouble.told)).kind == "out"


def test_a_sleep_that_cannot_be_is_refused_and_auto_is_not():
    overrides = ["devices.train=cpu", "devices.eval=cpu"]
    with pytest.raises(ConfigError, match=r"engine.sleep: on, but vLLM has no sleep on cpu"):
        load_config(["config/grpo_config.yaml"], ["engine.sleep=on", *overrides])
    load_config(["config/grpo_config.yaml"], overrides)
