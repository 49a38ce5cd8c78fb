"""Rollouts from an engine on `devices.eval`, in a process of its own (`grpo.mode: split`).

A step's rollouts are drawn before it trains, or while the step before it does
(`grpo.one_step_off`). Weights go over through shared memory. The process side is
`src/grpo/rollout_worker.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from src.config.schema import Config
from src.engine.generator import Rollout
from src.engine.shared_weights import SharedWeights
from src.evaluation.engine_client import reports_of
from src.evaluation.engine_process import EngineProcess
from src.evaluation.evaluation import EvalTask
from src.evaluation.figures import EvalReport
from src.grpo.rollout_source import RolloutSource
from src.grpo.rollout_worker import ScoreFiles, ScoreHeld, TakeWeights, serve
from src.grpo.rollouts import Drawn, Group
from src.run.processes import evaluation_device
from src.training.checkpoints import Checkpoint
from src.training.throughput import StepClock
from utils.grading.outcome import Grade

# Seconds that an idle engine has to end by itself.
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Lot:
    """A step's rollouts, and how many updates had made the weights that drew them."""

    drawn: Drawn
    updates: int


class SplitRollouts:
    """Each step's rollouts from an engine elsewhere.

    Args:
        ahead: while a step trains, the next one's are drawn, with the weights before its update
            (`grpo.one_step_off`).
    """

    def __init__(
        self, engine: EngineProcess, memory: SharedWeights, source: RolloutSource, *, ahead: bool
    ) -> None:
        self._engine, self._memory = engine, memory
        self.lag = 0
        """Updates by which the policy is ahead of the weights that drew the present rollouts."""
        self.spent: dict[str, float] = {}
        """Seconds the engine took for the present step's rollouts, by what for."""
        self._source, self._ahead = source, ahead
        self._loaded: int | None = None
        self._under_way: int | None = None
        self._ready: Lot | None = None
        self._busy_before_s = 0.0

    def begin_step(self) -> None:
        """Start counting for a step."""
        self.spent, self._busy_before_s = {}, self._engine.busy_s

    def busy_rates(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Return the shares of a step in which trainer and engine were at work.

        Args:
            seconds: the step's, by part.
        """
        trained = seconds["train"] + seconds.get("logprobs", 0.0)
        rates = {"trainer": trained, "engine": self._engine.busy_s - self._busy_before_s}
        return {f"system/{name}_busy_rate": s / seconds["step"] for name, s in rates.items()}

    def load(
        self, updates: int, named: Callable[[], Mapping[str, torch.Tensor]], clock: StepClock
    ) -> None:
        """Give the engine the policy as it is after so many updates, where it has not got that.

        Raises:
            StaleWeightsError: the engine holds other weights afterwards.
        """
        with clock.part("wait"):
            self.settle()
        if self._loaded != updates:
            with clock.part("sync"):
                taken = TakeWeights(self._memory.folder, self._memory.write(named()))
                self._engine.ask(taken, remember=True)
            self._loaded = updates

    def validate(self, task: EvalTask, checkpoint: str) -> EvalReport:
        """Score a task with the weights that are loaded; `checkpoint` names them."""
        self.settle()
        return self._engine.ask(ScoreHeld(task, checkpoint))

    def score(self, checkpoint: Checkpoint, task: EvalTask) -> EvalReport:
        """Score a task with a checkpoint's files, by a verified swap."""
        self.settle()
        self._loaded = None
        scored = self._engine.ask(ScoreFiles(task, checkpoint))
        return reports_of(checkpoint, {task.name: task}, [scored])[task.name]

    def settle(self) -> None:
        """Wait for rollouts that are under way; they are kept for their step."""
        if self._under_way is not None:
            drawn = self._engine.answer()
            self._source.go_behind(drawn)
            self._ready, self._under_way = Lot(drawn, self._under_way), None

    def draw(self, updates: int, clock: StepClock, *, last: bool) -> Drawn:
        """Return the rollouts of the step after so many updates, whose weights are loaded.

        Args:
            last: no step follows.
        """
        if self._ready is None:
            self._begin()
            with clock.part("wait"):
                self.settle()
        assert self._ready is not None
        lot, self._ready = self._ready, None
        if self._ahead and not last:
            self._begin()
        self.lag = updates - lot.updates
        self.spent = {"generate": lot.drawn.generate_s, "grade": lot.drawn.grade_s}
        return lot.drawn

    def state(self) -> dict[str, Any] | None:
        """Wait for what is under way, and return what a resumed run needs of it; None: nothing."""
        self.settle()
        if self._ready is None:
            return None
        drawn = self._ready.drawn
        return {
            "updates": self._ready.updates,
            "generate_s": drawn.generate_s,
            "grade_s": drawn.grade_s,
            "groups": [_described(group) for group in drawn.groups],
            "dropped": [_described(group) for group in drawn.dropped],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the rollouts of the next step from a state."""
        groups, dropped = (
            [_group(row, self._source) for row in state[name]] for name in ("groups", "dropped")
        )
        drawn = Drawn(groups, dropped, state["generate_s"], state["grade_s"])
        self._ready = Lot(drawn, state["updates"])

    def _begin(self) -> None:
        assert self._loaded is not None
        self._under_way = self._loaded
        self._engine.begin(self._source.request())


@contextmanager
def engine_elsewhere(
    config: Config, model: str, source: RolloutSource
) -> Iterator[SplitRollouts | None]:
    """Run the rollout engine of `grpo.mode: split` while the block runs; None in other modes."""
    if config.grpo.mode != "split":
        yield None
        return
    devices = config.devices.model_copy(update={"eval": evaluation_device(config)})
    # A step's completions are decoded together, as by a colocated engine.
    sequences = max(config.engine.max_sequences, config.grpo.completions_per_batch)
    own = config.engine.model_copy(update={"max_sequences": sequences})
    own_config = config.model_copy(update={"devices": devices, "engine": own})
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        memory = SharedWeights(Path(folder), getattr(torch, config.engine.dtype))
        engine = EngineProcess("the rollout engine", serve, own_config, model)
        grace_s = 0.0
        try:
            yield SplitRollouts(engine, memory, source, ahead=config.grpo.one_step_off)
            grace_s = _GRACE_S
        finally:
            engine.stop(grace_s)
            memory.close()


def _described(group: Group) -> dict[str, Any]:
    """Describe a group for JSON, which keeps numbers to the last digit."""
    return {
        "place": group.place,
        "rollouts": [asdict(rollout) for rollout, _ in group.members],
        "grades": [asdict(grade) for grade in group.grades],
    }


def _group(row: Mapping[str, Any], source: RolloutSource) -> Group:
    rollouts = {member: Rollout(**rollout) for member, rollout in enumerate(row["rollouts"])}
    grades = [Grade(**grade) for grade in row["grades"]]
    return Group(row["place"], source.problem(row["place"]), rollouts, grades)
