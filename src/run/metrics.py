"""Record metrics: JSONL always, W&B beside it, one writer each.

A log belongs to one run or trial. Every value goes to the JSONL file first, so that no curve
depends on W&B; each W&B run has its own step axis (`define_metric`), so logging from an evaluation
that finished late drops nothing.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from src.config.schema import Config
from src.run.directory import Run
from src.run.files import (
    append_jsonl,
    drop_torn_line,
    read_jsonl,
    write_jsonl_atomic,
    write_text_atomic,
)
from src.run.processes import is_main_process, wandb_mode
from src.run.wandb_sink import WandbSink, wandb_name

LOGGER = logging.getLogger(__name__)


class MetricSink(Protocol):
    """Where metrics go."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record values at a step of the run's own axis."""

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int, name: str) -> None:
        """Record completions to read under a name of their own."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record a table of the whole run: at least one row, all with the same columns."""

    def rewind(self, step: int) -> None:
        """Forget what an interrupted run logged after `step`; it is about to come again."""

    def checkpoint(self, folder: Path) -> None:
        """Record the model that was scored."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Record the final figures and let go of the destination."""


_LOGS = ("metrics", "samples", "groups")
"""Files that grow by lines, each with its step."""


class JsonlSink:
    """Append one object a line to `metrics.jsonl` and files of samples; tables become CSV files.

    What an interrupted run had logged before it logged the same again is dropped as the log is
    closed: a row is known by its step and the names of its values, samples by their step and order.
    """

    def __init__(self, folder: Path, extra: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._extra = dict(extra)
        self._sampled: set[str] = set()
        for file in self._files():
            drop_torn_line(file)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Append the values with the step and the time."""
        row = {"step": step, "time_s": round(time.time(), 3), **self._extra, **values}
        append_jsonl(self._folder / "metrics.jsonl", [row])

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int, name: str) -> None:
        """Append the rows with the step to `<name>.jsonl`, in place of an interrupted run's."""
        file = self._folder / f"{name}.jsonl"
        own = {"step": step, **self._extra}
        if name not in self._sampled:
            _keep(file, lambda row: not own.items() <= row.items())
            self._sampled.add(name)
        append_jsonl(file, [{**own, **row} for row in rows])

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `<name>.csv`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomic(self._folder / f"{name}.csv", text.getvalue())

    def rewind(self, step: int) -> None:
        """Take this log's later lines out of all files."""
        own = self._extra.items()
        for file in self._files():
            _keep(file, lambda row: row.get("step", 0) <= step or not own <= row.items())

    def checkpoint(self, folder: Path) -> None:
        """Nothing to do: the checkpoint is on disk already."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Let each figure stand once, by its step: the last that was logged."""
        file = self._folder / "metrics.jsonl"
        rows = read_jsonl(file) if file.is_file() else []
        latest = {_key(row): row for row in rows}
        ordered = sorted(latest.values(), key=lambda row: (row.get("round", 0), row.get("step", 0)))
        if ordered != rows:
            write_jsonl_atomic(file, ordered)

    def _files(self) -> list[Path]:
        files = [self._folder / f"{name}.jsonl" for name in _LOGS]
        return [file for file in files if file.is_file()]


def _keep(file: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Take all other rows out of a file."""
    rows = read_jsonl(file) if file.is_file() else []
    kept = [row for row in rows if wanted(row)]
    if len(kept) < len(rows):
        write_jsonl_atomic(file, kept)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a row of metrics is known by: its step, its columns, the names of its values."""
    columns = [(name, value) for name, value in row.items() if "/" not in name]
    named = [(name, None) for name in row if "/" in name]
    return tuple(sorted(column for column in (*columns, *named) if column[0] != "time_s"))


class MetricLog:
    """Send every value to all sinks."""

    def __init__(self, sinks: Sequence[MetricSink]) -> None:
        self._sinks = list(sinks)
        self._summary: dict[str, Any] = {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record values at a step."""
        for sink in self._sinks:
            sink.log(values, step)

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int, name: str = "samples") -> None:
        """Record completions to read, under a name of their own."""
        for sink in self._sinks:
            sink.samples(rows, step, name)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record a table of the whole run."""
        for sink in self._sinks:
            sink.table(name, rows)

    def rewind(self, step: int) -> None:
        """Forget what an interrupted run logged after `step`."""
        for sink in self._sinks:
            sink.rewind(step)

    def checkpoint(self, folder: Path) -> None:
        """Record the model that was scored."""
        for sink in self._sinks:
            sink.checkpoint(folder)

    def summarise(self, **values: Any) -> None:
        """Set the figures shown as the run's summary."""
        self._summary.update(values)

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sink in self._sinks:
            sink.close(self._summary)


def open_metric_log(
    run: Run,
    *,
    name: str | None = None,
    step_name: str = "step",
    settings: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> MetricLog:
    """Open the JSONL log, unless disabled the W&B run, and TensorBoard's file where asked for.

    Args:
        name: W&B run name after the pipeline run's; the stage by default.
        step_name: the step axis, such as `step` or `examples`.
        settings: shown beside the configuration in W&B.
        extra: columns added to every JSONL line, such as the trial number.
        folder: of the JSONL files; the run's by default.
    """
    if not is_main_process():
        return MetricLog([])
    config: Config = run.config
    sinks: list[MetricSink] = [JsonlSink(folder or run.folder, extra or {})]
    if config.metrics.tensorboard:
        # Imported here: it is read where it is asked for.
        from src.output.tensorboard import TensorBoardSink  # noqa: PLC0415

        sinks.append(TensorBoardSink(run.folder, wandb_name(name or run.stage)))
    if wandb_mode(config.wandb.mode) != "disabled":
        title = wandb_name(f"{config.run.name}-{name or run.stage}")
        sinks.append(WandbSink(run, title, step_name, settings or {}))
    return MetricLog(sinks)
