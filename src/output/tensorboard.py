"""TensorBoard event files, beside the JSON lines that hold every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

FOLDER = "tensorboard"


class TensorBoardSink:
    """Scalars of one run or trial; samples and tables stay in their own files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / FOLDER / name
        self._writer = SummaryWriter(str(self._folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write the values at a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int, name: str) -> None:
        """Nothing to do."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to do."""

    def rewind(self, step: int) -> None:
        """Have the viewer drop what an interrupted run wrote after `step`."""
        self._writer.close()
        # A file is named by the second it is begun in; this may be the one of the first.
        self._writer = SummaryWriter(
            str(self._folder), purge_step=step + 1, filename_suffix=f".after{step}"
        )

    def checkpoint(self, folder: Path) -> None:
        """Nothing to do."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write the final figures that are numbers, and close the file."""
        numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        self.log({f"summary/{name}": float(value) for name, value in numbers.items()}, step=0)
        self._writer.close()
