"""Checkpoints of one training run: written whole or not at all, best and latest kept."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from src.artifacts import read_json, write_json_atomic

LOGGER = logging.getLogger(__name__)
_STATE = "training_state.pt"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved policy: where it is and how much training made it."""

    folder: Path
    step: int
    examples_seen: int


class CheckpointStore:
    """Write, score and prune the checkpoints below one folder.

    A checkpoint is deleted only after its score arrived, and never while it is the best or among
    the `keep` latest.

    Args:
        resumable: also keep the state that `--resume` continues from.
    """

    def __init__(self, folder: Path, keep: int, *, resumable: bool = True) -> None:
        self._folder = folder
        self._keep = keep
        self._resumable = resumable
        self._scores: dict[str, float] = {}
        index = folder / "scores.json"
        if index.is_file():
            self._scores = read_json(index)

    def save(self, step: int, examples_seen: int, write: Callable[[Path], None]) -> Checkpoint:
        """Write a checkpoint through `write(folder)` and rename it into place."""
        final = self._folder / f"step_{step:06d}"
        partial = final.with_name(f".{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        checkpoint = Checkpoint(final, step, examples_seen)
        write(partial)
        described = asdict(checkpoint) | {"folder": final.name}
        (partial / "checkpoint.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        return checkpoint

    def save_training_state(self, state: dict[str, Any]) -> None:
        """Replace the state that `--resume` continues from."""
        if not self._resumable:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{_STATE}.partial"
        torch.save(state, partial)
        os.replace(partial, self._folder / _STATE)

    def load_training_state(self) -> dict[str, Any] | None:
        """Return the latest training state, or None at the start."""
        file = self._folder / _STATE
        return torch.load(file, map_location="cpu", weights_only=False) if file.is_file() else None

    def unscored(self) -> list[Checkpoint]:
        """List the checkpoints that wait for a score, oldest first."""
        return [item for item in self._all() if item.folder.name not in self._scores]

    def record(self, checkpoint: Checkpoint, score: float) -> None:
        """Store a checkpoint's validation score and delete what is no longer needed."""
        self._scores[checkpoint.folder.name] = score
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self._folder / "scores.json", self._scores)
        scored = [item for item in self._all() if item.folder.name in self._scores]
        protected = {self.best().folder, *(item.folder for item in scored[-self._keep :])}
        for item in scored:
            if item.folder not in protected:
                shutil.rmtree(item.folder)

    def best(self) -> Checkpoint:
        """Return the checkpoint with the highest score, the earliest among equals.

        Raises:
            RuntimeError: when none has been scored.
        """
        scored = [item for item in self._all() if item.folder.name in self._scores]
        if not scored:
            raise RuntimeError(f"{self._folder}: no checkpoint has been scored yet")
        return max(scored, key=lambda item: self._scores[item.folder.name])

    def best_score(self) -> float:
        """Return the best checkpoint's score."""
        return self._scores[self.best().folder.name]

    def _all(self) -> list[Checkpoint]:
        found = []
        for file in sorted(self._folder.glob("step_*/checkpoint.json")):
            values = read_json(file)
            found.append(Checkpoint(file.parent, values["step"], values["examples_seen"]))
        return found
