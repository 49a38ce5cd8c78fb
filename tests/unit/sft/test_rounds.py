"""Rounds of fine-tuning on one GPU: engine and policies leave it before the next one comes."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from src.config.loading import load_config
from src.run.metrics import MetricLog
from src.run.provenance import MANIFEST
from src.sft import fine_tuning
from src.sft.fine_tuning import FineTuning
from src.sft.rows import SftRow
from src.training.checkpoints import CheckpointStore
from tests.unit.training.test_training import packed_model

ROWS = [SftRow(str(i), f"What is {i}+1? <think>", f" {i + 1}</think>", None) for i in range(16)]


class Worker:
    """Scores checkpoints when it is waited for."""

    in_turn = True

    def __init__(self):
        self.pending = []

    def submit(self, checkpoint, *_):
        self.pending.append(checkpoint)

    def finished(self):
        return []

    def drain(self):
        while self.pending:
            yield self.pending.pop(), {}


@pytest.fixture
def tuning(tokenizer, tmp_path, monkeypatch):
    """Rounds on a small model with a worker that scores nothing."""
    config = load_config(
        ["config/tiny/sft_config.yaml"],
        ["sft.source=rejection_sampling", "train.batch_size=8", "train.memory_rehearsal=off",
         "train.epochs=1", "train.evaluate_every=1", "sft.keep=all"],
    )  # fmt: skip
    (tmp_path / MANIFEST).write_text("{}")
    run = SimpleNamespace(config=config, folder=tmp_path, resume=False)
    monkeypatch.setattr(fine_tuning, "open_metric_log", lambda *_, **__: nullcontext(MetricLog([])))
    monkeypatch.setattr(fine_tuning, "record_validation", lambda *_: 0.0)
    tasks = {"validation": SimpleNamespace(targets=())}
    return FineTuning(run, "base", tokenizer, Worker(), tasks)


def test_what_a_resumed_run_has_to_score_is_scored_before_the_policy_is_loaded(tuning, monkeypatch):
    """The engine that scores it has woken up on the GPU that the policy goes to."""
    monkeypatch.setattr(CheckpointStore, "unscored", lambda _: ["unscored"])

    def load(*_):
        assert tuning.worker.pending == []
        raise KeyboardInterrupt

    monkeypatch.setattr(fine_tuning, "load_policy", load)
    with pytest.raises(KeyboardInterrupt):
        tuning.on_rows(ROWS)


def test_a_rounds_policy_is_gone_when_the_next_one_is_loaded(tuning, tokenizer, monkeypatch):
    loaded = []

    def load(*_):
        assert not [policy for policy in loaded if policy() is not None]
        policy = packed_model(tokenizer)
        loaded.append(weakref.ref(policy))
        return policy

    monkeypatch.setattr(fine_tuning, "load_policy", load)
    gc.disable()  # a collection may come in time, and may not
    try:
        for number in (1, 2):
            tuning.on_rows(ROWS, number)
    finally:
        gc.enable()
    assert len(loaded) == 2
