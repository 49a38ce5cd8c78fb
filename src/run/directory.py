"""The folder of one stage of one pipeline run: what made it, what came out."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import IO, Any

from src.config.benchmarks import BenchmarkConfig
from src.config.loading import ConfigError, dump_yaml, read_yaml, resolve_path
from src.config.schema import Config
from src.data.summary import summarise_data
from src.output.lines import FILE_FORMAT, brief, duration, shown_path
from src.output.streams import lead_rest_to
from src.run.file_list import FILES, OUTCOME, list_files
from src.run.files import (
    claim_folder,
    file_lock,
    read_json,
    read_record,
    write_json_atomic,
    write_text_atomic,
)
from src.run.processes import is_main_process, process_rank
from src.run.provenance import MANIFEST, code_version, hardware, model_identity, package_versions
from utils.data.hashing import file_sha256

LOGGER = logging.getLogger(__name__)
SEARCH_STAGE = "step1_sft_hyper"
BEST = "best.yaml"
"""The search's result: an overlay that step 2 takes."""
GRPO_STAGE = "step3_GRPO"
FITTING_STAGES = (SEARCH_STAGE, "step2_sft")
"""Those that train on supervised rows."""
TRAINING_STAGES = (*FITTING_STAGES, GRPO_STAGE)
"""Those that train at all; in the others evaluation has the GPUs to itself."""
STAGES = ("step0_baseline", *TRAINING_STAGES)
MEMORY_SETTINGS = (
    *("train.micro_batch_size", "train.gradient_checkpointing", "devices.eval"),
    *("grpo.micro_batch_size", "grpo.gradient_checkpointing", "grpo.engine_memory_fraction"),
    *("engine.memory_fraction", "engine.max_sequences", "engine.enforce_eager", "engine.sleep"),
    *("train.memory_rehearsal", "grpo.memory_rehearsal", "engine.tensor_parallel"),
)
"""Settings that a run may go on with other values of: they change what it takes, not what it is."""
PATIENCE_SETTINGS = (
    *("engine.start_timeout_s", "engine.no_answer_timeout_s"),
    *("train.rank_timeout_s", "grpo.rank_timeout_s", "grpo.reward_timeout_s"),
)
"""How long a run waits for what may hang: no part of what it is either."""
SHOWING_SETTINGS = (*("metrics.tensorboard", "hub.repo", "hub.push", "hub.public", "hub.licence"),)
"""Where a run is shown and given to."""

BENCHMARKS = "benchmarks"
"""Folder in a run's of a stage for each model that benchmarks were run on; its settings matter to
those stages alone, which start over where they have changed."""
_BENCHMARK_SETTINGS = tuple(f"evaluation.{name}" for name in BenchmarkConfig.model_fields)


class ChecksPassed(Exception):  # noqa: N818 - not an error: `--check` ends here
    """Configuration, data, prompt, model and devices are all in order."""


@dataclass
class Run:
    """One stage's place on disk: `results/<run>/<stage>/`."""

    stage: str
    config: Config
    resume: bool = False
    check_only: bool = False
    quiet: bool = False
    """From its beginning on, what libraries print goes to `run.log` alone."""
    started: float = field(default_factory=time.time)
    _claim: IO[str] | None = field(default=None, init=False, repr=False)

    @property
    def pipeline_folder(self) -> Path:
        """Folder that the stages of this pipeline run share."""
        return pipeline_folder(self.config)

    @property
    def folder(self) -> Path:
        """Folder of this stage."""
        return self.pipeline_folder / self.stage

    @property
    def shared(self) -> bool:
        """Tell whether other processes may work in the folder at the same time."""
        return self.stage == SEARCH_STAGE and self.config.search.shared

    def already_finished(self) -> bool:
        """Tell whether this stage finished earlier under the same configuration, memory apart."""
        recorded = self.folder / "config.yaml"
        if read_outcome(self.pipeline_folder, self.stage) is None or not recorded.is_file():
            return False
        return self._same_settings(recorded)

    def begin(
        self, *, data: dict[str, Any], model: str, rewards: dict[str, dict[str, Any]] | None = None
    ) -> None:
        """Create the folder and write what is about to run.

        An earlier attempt is kept aside, unless this one goes on with it or shares the folder.

        Args:
            data: files and splits, as `ProblemSet.provenance` describes them.
            model: folder or hub id of the model it begins with.
            rewards: name -> file and hash of reward functions of the user's.

        Raises:
            ConfigError: when going on under another configuration than the one on disk, or where
                another process works in the folder.
        """
        if self.check_only:
            raise ChecksPassed
        if not is_main_process():
            self._quieten(self.pipeline_folder / f"{self.stage}.rank{process_rank()}.log")
            return
        if not self.shared:
            self._claim = claim_folder(self.folder)
        recorded = self.folder / "config.yaml"
        goes_on = self.shared or (self.resume and recorded.is_file())
        if goes_on and self._runs_benchmarks and not self._same_settings(recorded):
            goes_on = False
        if self.folder.exists() and not goes_on:
            self._keep_aside()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.shared:
            for left in self.folder.rglob(".*.tmp"):
                left.unlink()
        manifest = self._manifest() | {"data": data, "model": model_identity(model)}
        changed = self._changed_rewards(rewards or {})
        if rewards:
            manifest["rewards"] = rewards
        own = f"-{socket.gethostname()}-{os.getpid()}" if self.shared else ""
        with file_lock(self.folder / "begin.lock") if self.shared else nullcontext():
            self._record_config()
            write_json_atomic(self.folder / f"manifest{own}.json", manifest)
            if not (self.folder / MANIFEST).exists():
                write_json_atomic(self.folder / MANIFEST, manifest)
        log = self.folder / f"run{own}.log"
        handler = _RunLog(log, encoding="utf-8")
        handler.setFormatter(logging.Formatter(FILE_FORMAT))
        logging.getLogger().addHandler(handler)
        said = f"{self.stage}: writing to {shown_path(self.folder)}"
        LOGGER.info("%s", said, extra=brief(said, f"libraries to {log.name} there"))
        self._quieten(log)
        for line in changed:
            LOGGER.warning("%s", line)

    def finish(self, **outcome: Any) -> None:
        """Write `files.json` and `outcome.json`, the figures that the report takes."""
        wall_s = time.time() - self.started
        manifest = read_json(self.folder / MANIFEST)
        write_json_atomic(self.folder / MANIFEST, manifest | {"ended": _local_time(time.time())})
        write_json_atomic(self.folder / FILES, list_files(self.folder, shared=self.shared))
        write_json_atomic(
            self.folder / OUTCOME,
            {
                "stage": self.stage,
                "status": "finished",
                "profile": self.config.run.profile,
                "rehearsal": self.config.run.rehearsal is not None,
                "wall_s": round(wall_s, 1),
                "hardware": hardware(),
                "commit": code_version()["commit"],
                "data": summarise_data(manifest["data"]),
                "files_sha256": file_sha256(self.folder / FILES),
                **outcome,
            },
        )
        if self._claim is not None:
            self._claim.close()
        LOGGER.info("%s: finished in %s", self.stage, duration(wall_s))

    def _quieten(self, log: Path) -> None:
        if self.quiet:
            log.parent.mkdir(parents=True, exist_ok=True)
            lead_rest_to(log)

    def _record_config(self) -> None:
        """Write the configuration, or check that it is the one already there."""
        recorded, text = self.folder / "config.yaml", dump_yaml(self.config)
        if not recorded.is_file():
            write_text_atomic(recorded, text)
        elif recorded.read_text(encoding="utf-8") == text:
            LOGGER.info("going on in %s", self.folder)
        elif self.shared and self._same_settings(recorded):
            LOGGER.info("joining %s on devices or with memory of its own", self.folder)
        elif self._same_settings(recorded):
            write_text_atomic(recorded, text)
            others = "memory, patience or later stages"
            LOGGER.info("going on in %s with other settings of %s", self.folder, others)
        else:
            wish = "a shared search" if self.shared else "--resume"
            over = ", or start over without --resume (run_pipeline.py --fresh)"
            raise ConfigError(
                f"{self.folder}: {wish} needs the configuration the run was started with "
                f"({recorded}), and the --hardware; use them, or another run.name"
                f"{'' if self.shared else over}"
            )

    @property
    def _runs_benchmarks(self) -> bool:
        return self.stage.startswith(f"{BENCHMARKS}/")

    def _same_settings(self, recorded: Path) -> bool:
        """Tell whether a recorded configuration asks for the same, memory and patience apart."""
        found = [_settings(read_yaml(recorded)), _settings(self.config.model_dump(mode="json"))]
        if self.shared:  # each process has a device of its own
            found = [settings | {"devices.train": None} for settings in found]
        if not self._runs_benchmarks:
            for settings in found:
                for name in _BENCHMARK_SETTINGS:
                    settings.pop(name, None)
        unread = _unread(self.stage)
        first, second = (
            {name: value for name, value in settings.items() if name.split(".")[0] not in unread}
            for settings in found
        )
        return first == second

    def _changed_rewards(self, rewards: dict[str, dict[str, Any]]) -> list[str]:
        """Say which reward files are others than earlier steps had, whose hashes are kept."""
        recorded = self.folder / MANIFEST
        before = read_json(recorded).get("rewards", {}) if recorded.is_file() else {}
        said = []
        for name, now in rewards.items():
            was = before.get(name, now)
            now["earlier"] = list(was.get("earlier", []))
            if was["sha256"] != now["sha256"]:
                now["earlier"].append(was["sha256"])
                said.append(
                    f"{now['file']} has changed since earlier steps of this run (sha256 "
                    f"{was['sha256'][:12]}, now {now['sha256'][:12]}): it rewards the steps from "
                    "here on as it is now"
                )
        return said

    def _manifest(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "started": _local_time(self.started),
            "seed": self.config.run.seed,
            "config": self.config.model_dump(mode="json"),
            **code_version(),
            "packages": package_versions(),
            "hardware": hardware(),
        }

    def _keep_aside(self) -> None:
        taken = len(glob(f"{self.folder}.previous-*"))
        aside = self.folder.with_name(f"{self.folder.name}.previous-{taken + 1}")
        self.folder.rename(aside)
        LOGGER.info("the earlier attempt was kept as %s", aside)


class _RunLog(logging.FileHandler):
    """The log file; the run's own writes say where the disk is full, not a traceback a line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Let the line go."""


def pipeline_folder(config: Config) -> Path:
    """Return `results/<run>/`."""
    return resolve_path(config.run.output_root) / config.run.name


def earlier_folder(config: Config, stage: str, file: str = OUTCOME) -> Path:
    """Return the run's folder whose finished stage this run builds on: its own, else that of
    `run.earlier`."""
    own = pipeline_folder(config)
    if (own / stage / file).is_file() or config.run.earlier is None:
        return own
    return own.with_name(config.run.earlier)


def read_outcome(folder: Path, stage: str) -> dict[str, Any] | None:
    """Read what a stage reported, or None where it has not finished.

    Raises:
        ConfigError: the file is not what a stage writes.
    """
    file = folder / stage / OUTCOME
    if not file.is_file():
        return None
    try:
        outcome = read_record(file)
        if "stage" not in outcome:
            raise ConfigError(f"{file}: not the outcome of a stage")
    except ConfigError as error:
        raise ConfigError(
            f"{error}; delete it and run {stage} with --resume: it goes on from its last "
            "checkpoint and scores again"
        ) from None
    return outcome


def reported_checkpoint(folder: Path, outcome: Mapping[str, Any]) -> Path:
    """Return the checkpoint that a training stage reported, in its folder, wherever that is now."""
    place = Path(outcome["checkpoint"]).parts
    return folder.joinpath(*place[place.index("checkpoints") :])


def reported_model(folder: Path, outcome: Mapping[str, Any]) -> str:
    """Return the model that a stage reported on: its own checkpoint, or what it evaluated."""
    trained = outcome["stage"] in TRAINING_STAGES
    return str(reported_checkpoint(folder, outcome)) if trained else outcome["checkpoint"]


def _unread(stage: str) -> tuple[str, ...]:
    """Return the sections of the configuration that a stage takes no part of."""
    if stage not in TRAINING_STAGES:
        return ("train", "sft", "search", "grpo")
    return ("grpo",) if stage in FITTING_STAGES else ()


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values but for those that change memory, patience or where it is shown alone."""
    return {
        f"{section}.{name}": value
        for section, named in values.items()
        for name, value in named.items()
        if f"{section}.{name}" not in MEMORY_SETTINGS + PATIENCE_SETTINGS + SHOWING_SETTINGS
    }


def _local_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
