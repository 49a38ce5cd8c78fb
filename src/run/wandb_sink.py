"""W&B: one run a stage, trial or report, each with its own step axis.

Offline where no key is set. Nothing that fails here stops a run: without a server it goes on
offline, and `wandb sync` sends it later; whatever else W&B raises is told once, and the run's own
records go on.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb

from src.config.schema import Config
from src.run.directory import Run
from src.run.files import read_json, write_text_atomic
from src.run.processes import use_wandb_folders, wandb_mode
from src.run.provenance import MANIFEST

LOGGER = logging.getLogger(__name__)
_REACHED_WITHIN_S = 30


class WandbSink:
    """One W&B run with one step axis."""

    def __init__(self, run: Run, name: str, step_name: str, settings: Mapping[str, Any]) -> None:
        self._step_name = step_name
        self._name = name
        self._sends_checkpoints = run.config.wandb.checkpoints
        self._failures = _Failures()
        self._run: wandb.Run | None = None
        with self._failures.told("init"):
            self._run = _start(
                run.config,
                run.folder,
                name=name,
                job_type=run.stage,
                recorded=run.config.model_dump(mode="json") | dict(settings),
            )
            self._run.define_metric(step_name)
            self._run.define_metric("*", step_metric=step_name)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send the values on the run's own axis."""
        self._send({self._step_name: step, **values})

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int, name: str) -> None:
        """Send a table of completions."""
        if rows:
            self._send_table({self._step_name: step}, name, rows)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the table."""
        self._send_table({}, name, rows)

    def rewind(self, step: int) -> None:
        """Nothing to do: the same steps come again, and the later value of a step is shown."""

    def checkpoint(self, folder: Path) -> None:
        """Send a checkpoint as an artifact with what made it, where `wandb.checkpoints` is set."""
        if not self._sends_checkpoints or self._run is None:
            return
        manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
        made_by = {key: manifest[key] for key in ("commit", "command", "model") if key in manifest}
        with self._failures.told("artifact"):
            artifact = wandb.Artifact(self._name, type="model", metadata=made_by)
            artifact.add_dir(str(folder), skip_cache=True)
            self._run.log_artifact(artifact)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and finish the run."""
        if self._run is None:
            return
        with self._failures.told("summary"):
            self._run.summary.update(dict(summary))
        with self._failures.told("finish"):
            self._run.finish()

    def _send(self, values: Mapping[str, Any]) -> None:
        if self._run is not None:
            with self._failures.told("log"):
                self._run.log(dict(values))

    def _send_table(
        self, at: Mapping[str, Any], name: str, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        if self._run is not None:
            with self._failures.told("table"):
                self._run.log({**at, name: _table(rows)})


class _Failures:
    """Keep what W&B raises from ending a run; the first is told, those that follow from it not."""

    def __init__(self) -> None:
        self._told = False

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        """Go on after the block, whatever it raises."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - W&B raises what its server and disk do
            if not self._told:
                LOGGER.warning(
                    "W&B failed at %s (%s: %s); the run goes on and its own files keep every "
                    "figure; mend that, or set wandb.mode=offline or wandb.mode=disabled",
                    doing,
                    type(error).__name__,
                    " ".join(str(error).split())[:300],
                )
            self._told = True


def log_report(
    config: Config, folder: Path, report: Mapping[str, Any], *, silent: bool = True
) -> None:
    """Send a pipeline's report: its figures as the run's summary, the page as an artifact.

    Args:
        folder: of the pipeline run, with `report.html`.
        report: what report.json states.
        silent: W&B prints nothing of its own.
    """
    if wandb_mode(config.wandb.mode) == "disabled":
        return
    name = wandb_name(f"{config.run.name}-report")
    with _Failures().told("the report"):
        run = _start(config, folder, name=name, job_type="report", recorded={}, silent=silent)
        for entry in report["stages"]:
            for key in ("accuracy", "accuracy_ci95", "format_rate", "accuracy_anywhere", "n"):
                if key in entry:
                    run.summary[f"{entry['stage']}/{key}"] = entry[key]
        run.log({"report": wandb.Html((folder / "report.html").read_text(encoding="utf-8"))})
        artifact = wandb.Artifact(name, type="report")
        for file in sorted(folder.glob("report.*")):
            artifact.add_file(str(file))
        run.log_artifact(artifact)
        run.finish()


def wandb_name(text: str) -> str:
    """Return a name that W&B takes for runs and artifacts, and that is one file's.

    >>> wandb_name("evaluations/a model-test")
    'evaluations-a-model-test'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)


def _start(
    config: Config,
    folder: Path,
    *,
    name: str,
    job_type: str,
    recorded: Mapping[str, Any],
    silent: bool = True,
) -> wandb.Run:
    """Start a run, or go on with the one that this folder had before; offline if need be.

    Args:
        recorded: settings shown with the run.
    """
    use_wandb_folders(folder)

    def begin(mode: Any, run_id: str) -> wandb.Run:
        return wandb.init(
            project=config.wandb.project,
            group=config.run.name,
            name=name,
            job_type=job_type,
            tags=[config.run.name[:64], config.run.profile[:64], job_type[:64]],
            config=dict(recorded),
            dir=str(folder),
            mode=mode,
            reinit="create_new",
            id=run_id,
            resume="allow",
            settings=wandb.Settings(init_timeout=_REACHED_WITHIN_S, silent=silent),
        )

    mode = wandb_mode(config.wandb.mode)
    try:
        return begin(mode, _id(folder / f"wandb-{name}.id"))
    except (wandb.Error, TimeoutError) as error:
        if mode == "offline":
            raise
        LOGGER.warning("W&B cannot be reached (%s); going on offline: wandb sync sends it", error)
        # The attempt holds on to its id until this process ends.
        return begin("offline", _new_id())


def _id(file: Path) -> str:
    """Return the id of this folder's W&B run, so that one that is resumed stays one run."""
    if not file.is_file():
        write_text_atomic(file, _new_id())
    return file.read_text(encoding="utf-8")


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


def _table(rows: Sequence[Mapping[str, Any]]) -> wandb.Table:
    columns = list(rows[0])
    return wandb.Table(columns=columns, data=[[row.get(c) for c in columns] for row in rows])
