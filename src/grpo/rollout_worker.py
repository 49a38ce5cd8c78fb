"""The rollout engine's own side (`grpo.mode: split`): what a trainer elsewhere asks it for.

It takes weights, draws a step's groups and scores; one request after the other, so that nothing it
answers depends on when it was asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from src.config.schema import Config
from src.engine.shared_weights import altered_tensors
from src.engine.swap_verifier import StaleWeightsError, SwapVerifier, check_synced
from src.evaluation.engine_process import Answer
from src.evaluation.evaluation import EvalTask, evaluate
from src.evaluation.worker_loop import (
    EvalRequest,
    EvalResult,
    Trouble,
    score_files,
    serve_engine,
    trouble_of,
)
from src.evaluation.worker_process import Mailbox
from src.grpo.rollout_source import DrawRequest
from src.training.checkpoints import Checkpoint

if TYPE_CHECKING:
    from src.engine.vllm_engine import VllmEngine


@dataclass(frozen=True, slots=True)
class TakeWeights:
    """Weights to hold from now on."""

    folder: Path
    checksums: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ScoreHeld:
    """A task to score with the weights that are held."""

    task: EvalTask
    checkpoint: str
    """Named in the report."""


@dataclass(frozen=True, slots=True)
class ScoreFiles:
    """A task to score with a checkpoint's files."""

    task: EvalTask
    checkpoint: Checkpoint


Request = TakeWeights | DrawRequest | ScoreHeld | ScoreFiles


def serve(config: Config, model: str, mailbox: Mailbox) -> None:
    """Answer requests until the trainer is gone."""

    def begin(engine: VllmEngine) -> Callable[[Request], Answer]:
        return RolloutWorker(config, engine, mailbox.beat).answer

    serve_engine("rollout engine", config, model, mailbox, begin)


class RolloutWorker:
    """Does what is asked for with one engine."""

    def __init__(self, config: Config, engine: VllmEngine, beat: Callable[[], None]) -> None:
        self._config, self._engine, self._beat = config, engine, beat
        # A process whose engine is on a CPU sees no GPU.
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def answer(self, request: Request) -> Answer:
        """Do what is asked for; whatever goes wrong travels to the trainer."""
        began = time.monotonic()
        try:
            value, trouble, stale = self._done(request), None, False
        except StaleWeightsError as error:
            value, trouble, stale = None, Trouble(str(error), trouble_of(error).trace), True
        except Exception as error:  # noqa: BLE001 - the worker's boundary: failures become answers
            value, trouble, stale = None, trouble_of(error), False
        if isinstance(value, EvalResult):
            trouble, stale = value.trouble, value.wants_fresh_engine
        return Answer(value, time.monotonic() - began, trouble, stale)

    def _done(self, request: Request) -> Any:
        sampling, grpo = self._config.sampling, self._config.grpo
        match request:
            case TakeWeights(folder, checksums):
                return self._take(folder, checksums)
            case DrawRequest():
                pool = self._engine.rollouts(sampling, grpo.min_completion_tokens)
                return request.drawn_from(pool)
            case ScoreHeld(task, checkpoint):
                return evaluate(self._engine, task, checkpoint=checkpoint, beat=self._beat)
            case ScoreFiles(task, checkpoint):
                tolerance = self._config.engine.swap_tolerance
                verifier = SwapVerifier(self._engine, tolerance, "the last rollout's weights")
                asked = EvalRequest(0, checkpoint, (task.name,))
                return score_files(asked, {task.name: task}, verifier, self._beat)

    def _take(self, folder: Path, checksums: Mapping[str, int]) -> None:
        self._engine.swap(folder)
        self._beat()
        unlike = altered_tensors(folder, checksums, self._device)
        self._beat()
        unlike += self._engine.differing_layers(folder)
        check_synced(unlike)
