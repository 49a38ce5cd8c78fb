"""What a process says when another one of the run hangs or is gone; texts as gloo writes them."""

from __future__ import annotations

import pytest

from src.training.parallel import end_of_waiting

PLACE = "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/"
SILENT = f"{PLACE}unbound_buffer.cc:78] Timed out waiting 2000ms for recv operation to complete"
GONE = f"{PLACE}pair.cc:537] Read error [127.0.0.1]:52363: Connection reset by peer. GLHF!"


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            SILENT,
            "process 0 of 2: no answer for 2 s from the other processes (grpo.rank_timeout_s)",
        ),
        (GONE, "process 0 of 2: another process of this run has ended"),
        ("api.wandb.ai: Connection reset by peer", None),
        ("shape mismatch", None),
    ],
)
def test_a_rank_that_hangs_or_is_gone_is_told_by_a_sentence(text, told):
    said = end_of_waiting(RuntimeError(text), 2, "grpo.rank_timeout_s")
    assert (said or "").startswith(told or "nothing") or said is told


def test_a_process_alone_waits_for_nobody():
    assert end_of_waiting(RuntimeError(SILENT), 2, "grpo.rank_timeout_s") is None
