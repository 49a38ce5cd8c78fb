"""Checkpoints of a training run: written whole or not at all, hashed, chosen and latest kept."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from src.config.training import CheckpointChoice
from src.run.file_list import DESCRIPTION
from src.run.files import move_folder, read_record, room_for, write_json_atomic
from src.run.processes import is_main_process
from utils.data.hashing import file_sha256
from utils.stats.paired import within_one_standard_error

LOGGER = logging.getLogger(__name__)
_STATE = "training_state.pt"


class DamagedCheckpointError(RuntimeError):
    """A checkpoint's files are not those that were written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved policy: where it is and how much training made it."""

    folder: Path
    step: int
    examples_seen: int


@dataclass(frozen=True, slots=True, order=True)
class Score:
    """What checkpoints are chosen by: accuracy, among equals format rate, then validation loss."""

    accuracy: float
    format_rate: float = 0.0
    negative_nll: float = 0.0
    shares: Sequence[float] = field(default=(), compare=False)
    """Each validation problem's share of correct completions, in order."""


class CheckpointStore:
    """Write, score and prune the checkpoints below one folder.

    A checkpoint is deleted only after its score arrived, and never while it is the chosen one or
    among the `keep` latest. The newest alone carries the state that `--resume` continues from: it
    comes into being with the checkpoint, in one rename, so a run killed at any moment finds both or
    neither.

    Args:
        manifest: what made the run; a copy goes into each checkpoint.
        choice: see `chosen`.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        manifest: Path | None = None,
        choice: CheckpointChoice = "highest",
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._manifest = manifest
        self._choice = choice
        self._scores: dict[str, Score] = {}
        index = folder / "scores.json"
        if index.is_file():
            self._scores = {name: Score(**values) for name, values in read_record(index).items()}
        if is_main_process():
            self._clear()

    def place(self, step: int, examples_seen: int) -> Checkpoint:
        """Return the checkpoint of a step, written or not."""
        return Checkpoint(self._folder / f"step_{step:06d}", step, examples_seen)

    def save(
        self,
        step: int,
        examples_seen: int,
        write: Callable[[Path], None],
        state: dict[str, Any] | None = None,
    ) -> Checkpoint:
        """Write a checkpoint through `write(folder)`, hash its files and rename it into place.

        Args:
            state: what `--resume` continues from.
        """
        checkpoint = self.place(step, examples_seen)
        final = checkpoint.folder
        partial = _partial(final)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with room_for(final):
            self._fill(partial, checkpoint, write, state)
        move_folder(partial, final)
        self._drop_older_states()
        return checkpoint

    def _fill(
        self,
        partial: Path,
        checkpoint: Checkpoint,
        write: Callable[[Path], None],
        state: dict[str, Any] | None,
    ) -> None:
        write(partial)
        if self._manifest is not None:
            shutil.copy(self._manifest, partial)
        described = {
            **asdict(checkpoint),
            "folder": checkpoint.folder.name,
            "sha256": {
                file.relative_to(partial).as_posix(): file_sha256(file)
                for file in sorted(partial.rglob("*"))
                if file.is_file()
            },
        }
        if state is not None:
            torch.save(state, partial / _STATE)
            described["state_sha256"] = file_sha256(partial / _STATE)
        (partial / DESCRIPTION).write_text(json.dumps(described) + "\n", encoding="utf-8")

    def load_training_state(self) -> dict[str, Any] | None:
        """Return the newest training state, or None at the start.

        Raises:
            DamagedCheckpointError: when its bytes are not those that were written.
        """
        states = sorted(self._folder.glob(f"step_*/{_STATE}"))
        if not states:
            return None
        file = states[-1]
        if file_sha256(file) != read_record(file.parent / DESCRIPTION).get("state_sha256"):
            raise DamagedCheckpointError(
                f"{file}: damaged, its hash is not the recorded one; restore it, or start over "
                "without --resume"
            )
        return torch.load(file, map_location="cpu", weights_only=False)

    def unscored(self) -> list[Checkpoint]:
        """List the checkpoints that wait for a score, oldest first."""
        return [item for item in self._all() if item.folder.name not in self._scores]

    def record(self, checkpoint: Checkpoint, score: Score) -> None:
        """Store a checkpoint's validation score and delete what is no longer needed."""
        self._scores[checkpoint.folder.name] = score
        self._folder.mkdir(parents=True, exist_ok=True)
        scores = {name: asdict(value) for name, value in self._scores.items()}
        write_json_atomic(self._folder / "scores.json", scores)
        self._prune()

    def scores(self) -> list[Score]:
        """Return the scores so far, in the order of training."""
        return [self._scores[name] for name in sorted(self._scores)]

    def newest(self) -> Checkpoint | None:
        """Return the latest checkpoint; None before the first."""
        return next(reversed(self._all()), None)

    def chosen_or(self, otherwise: Checkpoint) -> Checkpoint:
        """Return the chosen checkpoint, or `otherwise` where none has been scored."""
        return self.chosen() if self._scores else otherwise

    def chosen(self) -> Checkpoint:
        """Return the checkpoint that training hands on, of those scored so far.

        `highest`: that with the highest score, the earliest among equals. `latest_near_highest`:
        the latest whose accuracy lies at most one standard error below the highest score's, both on
        the same problems: the highest of several owes about that much to chance, and a later
        checkpoint has had more training. An earlier choice never comes back, so what lies between
        the chosen and the newest can be deleted.

        Source: the one-standard-error rule of Breiman et al. (1984), "Classification and Regression
        Trees", section 3.4.3, towards the latest checkpoint instead of the smallest tree.

        Raises:
            RuntimeError: when none has been scored.
        """
        scored = self._scored()
        if not scored:
            raise RuntimeError(f"{self._folder}: no checkpoint has been scored yet")
        if self._choice == "highest":
            return max(scored, key=self._score)
        highest = max(self._scores.values())
        return next(
            item
            for item in reversed(scored)
            if self._score(item).accuracy >= highest.accuracy
            or within_one_standard_error(self._score(item).shares, highest.shares)
        )

    def choose(self) -> Checkpoint:
        """Return the chosen checkpoint, and say how it stands to the highest score."""
        chosen, (highest_of, highest) = self.chosen(), max(self._scores.items(), key=itemgetter(1))
        accuracy = self._score(chosen).accuracy
        beside = ", the highest"
        if accuracy < highest.accuracy:
            step = int(highest_of.rpartition("_")[2])
            beside = (
                f"; the highest, {100 * highest.accuracy:.1f} % at step {step}, is within its error"
            )
        LOGGER.info(
            "step %d goes on to test, one of %d scored: validation %.1f %%%s",
            chosen.step, len(self._scores), 100 * accuracy, beside,
        )  # fmt: skip
        return chosen

    def _score(self, checkpoint: Checkpoint) -> Score:
        return self._scores[checkpoint.folder.name]

    def _scored(self) -> list[Checkpoint]:
        return [item for item in self._all() if item.folder.name in self._scores]

    def _clear(self) -> None:
        """Do what a killed run had begun or was about to do: delete what is no longer needed."""
        for partial in self._folder.glob(".step_*.partial"):
            shutil.rmtree(partial)
        self._drop_older_states()
        self._prune()

    def _drop_older_states(self) -> None:
        for older in sorted(self._folder.glob(f"step_*/{_STATE}"))[:-1]:
            older.unlink()

    def _prune(self) -> None:
        scored = self._scored()
        if not scored:
            return
        protected = {self.chosen().folder, *(item.folder for item in scored[-self._keep :])}
        for item in scored:
            if item.folder not in protected and not (item.folder / _STATE).is_file():
                # Renamed first: half of a checkpoint is never seen.
                shutil.rmtree(item.folder.rename(_partial(item.folder)))

    def _all(self) -> list[Checkpoint]:
        found = []
        for file in sorted(self._folder.glob(f"step_*/{DESCRIPTION}")):
            values = read_record(file)
            found.append(Checkpoint(file.parent, values["step"], values["examples_seen"]))
        return found


def _partial(folder: Path) -> Path:
    """Return where a checkpoint is while it is written or deleted."""
    return folder.with_name(f".{folder.name}.partial")


def verify_checkpoint(folder: Path) -> None:
    """Check a checkpoint's files against the hashes stored with it; one from elsewhere has none.

    Raises:
        DamagedCheckpointError: naming the file.
    """
    for name, expected in recorded_hashes(folder).items():
        file = folder / name
        if not file.is_file() or file_sha256(file) != expected:
            state = "is not what was written" if file.is_file() else "is missing"
            raise DamagedCheckpointError(
                f"{file}: {state} (sha256 {expected[:12]}... recorded); write this checkpoint "
                "again or use another"
            )


def recorded_hashes(folder: Path) -> dict[str, str]:
    """Return file name -> SHA-256 as written with a checkpoint; nothing for one from elsewhere."""
    description = folder / DESCRIPTION
    return read_record(description).get("sha256", {}) if description.is_file() else {}
