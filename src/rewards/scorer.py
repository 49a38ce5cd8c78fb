"""Every reward of a batch of completions: the project's own here, the user's in their process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from src.config.loading import ConfigError, resolve_path
from src.config.rewards import RewardFile
from src.config.schema import Config
from src.evaluation.worker_process import WorkerProcess
from src.rewards.batch import RewardBatch
from src.rewards.built_in import BUILT_IN
from src.rewards.calling import Fault, RewardCall, serve
from src.run.stopping import RunError

SETTING = "grpo.reward_timeout_s"
# To start a process and run the user's files, however short a call may take.
_LOADING_S = 60.0


class RewardTraceback(Exception):  # noqa: N818 - the cause of an error, never raised itself
    """Where in the user's file something went wrong."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class RewardScorer:
    """Computes all rewards of a batch.

    Functions of the user's run in one process, which starts with the first batch and stays.
    """

    def __init__(self, config: Config) -> None:
        self._files = config.grpo.rewards.files
        self._timeout_s = float(config.grpo.reward_timeout_s)
        self._worker: WorkerProcess | None = None

    def stop(self) -> None:
        """End the process of the user's functions."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def values(self, batch: RewardBatch) -> dict[str, list[float]]:
        """Return name -> value of each completion.

        Raises:
            RunError: a function of the user's gave none; naming it, and the row if one is to blame.
        """
        found = {name: list(reward(*batch.arguments())) for name, reward in BUILT_IN.items()}
        for number, file in enumerate(self._files):
            values = self._asked(number, batch)
            if isinstance(values, Fault):
                fault = self._blamed(number, batch, values)
                raise RunError(
                    f"{_sentence(file, fault, batch)}. Mend it; --resume goes on from the last "
                    "saved step"
                ) from RewardTraceback(fault.trace)
            found[file.name] = values
        return found

    def try_on(self, batch: RewardBatch) -> None:
        """Load the user's functions and call each once, before anything expensive.

        Raises:
            ConfigError: naming the function, and what is wrong with it.
        """
        for number, file in enumerate(self._files):
            fault = self._asked(number, batch)
            if isinstance(fault, Fault):
                said = _sentence(file, self._blamed(number, batch, fault), batch)
                raise ConfigError(
                    f"{said}. It was tried on made-up completions before anything else; mend it"
                )

    def _asked(self, number: int, batch: RewardBatch) -> list[float] | Fault:
        """Call a function, in a fresh process where there is none; say so if that is lost."""
        if not batch:
            return []
        if self._worker is None:
            self._worker = WorkerProcess(
                "the process of grpo.rewards", serve,
                ([(resolve_path(file.path), file.name) for file in self._files],),
                max(_LOADING_S, self._timeout_s), SETTING, has_children=True,
            )  # fmt: skip
            failed = self._worker.receive()
            if failed is not None or self._worker.gone:
                return self._lost(failed, "cannot be loaded", whole=True)
            self._worker.allow(self._timeout_s, SETTING)
        self._worker.send(RewardCall(number, batch))
        answer = self._worker.receive()
        return answer if answer is not None else self._lost(None, "gave no values")

    def _lost(self, failed: Fault | None, what: str, *, whole: bool = False) -> Fault:
        assert self._worker is not None
        fault = failed or Fault(f"{what}: its process {self._worker.gone},", whole=whole)
        self.stop()
        return fault

    def _blamed(self, number: int, batch: RewardBatch, fault: Fault) -> Fault:
        """Ask for one completion after the other to find the first that brings a fault."""
        if fault.whole or fault.place is not None:
            return fault
        for place in range(len(batch)):
            alone = self._asked(number, batch.only(place))
            if isinstance(alone, Fault):
                return _at(alone, place)
        said = f"{fault.told} on {len(batch)} rows together, but on none of them alone"
        return Fault(said, trace=fault.trace)


@contextmanager
def open_rewards(config: Config) -> Iterator[RewardScorer]:
    """Return a scorer whose process ends with the block."""
    scorer = RewardScorer(config)
    try:
        yield scorer
    finally:
        scorer.stop()


def _at(fault: Fault, place: int) -> Fault:
    return Fault(fault.told, place, fault.trace)


def _sentence(file: RewardFile, fault: Fault, batch: RewardBatch) -> str:
    row = "" if fault.place is None else f" on {batch.described(fault.place)}"
    return f"grpo.rewards.{file.key} {fault.told}{row}"
