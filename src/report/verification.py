"""Derive every figure of a finished run again from its completions and files; say what differs.

Nothing is believed that can be recomputed: completions are graded again, figures counted again,
intervals and comparisons made again, files hashed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.config.loading import ConfigError, load_config
from src.data.problems import load_problems
from src.data.prompts import load_prompt
from src.data.summary import summarise_data
from src.evaluation.figures import summarise
from src.evaluation.regrading import read_completions, regrade
from src.report.report import build_report, read_outcomes, refuse_mixtures, render_markdown
from src.run.directory import FITTING_STAGES, SEARCH_STAGE
from src.run.files import read_json
from src.run.provenance import MANIFEST
from src.sft.rows import training_rows
from src.training.checkpoints import DamagedCheckpointError, verify_checkpoint
from utils.data.hashing import file_sha256
from utils.data.json_lines import DataError
from utils.data.problem import Problem
from utils.dataset_loader import ProblemSet, problems_sha256

Record = dict[str, Any]
_TOLERANCE = 1e-9
_NEEDED = ("commit", "seed", "config", "packages", "hardware", "command", "started", "ended")


def verify_run(folder: Path) -> list[str]:
    """Return what does not hold in a run's folder, one line each; nothing where all does.

    Raises:
        ValueError: no stage of the run has finished.
    """
    outcomes = read_outcomes(folder)
    data = _Data()
    found = []
    for stage, outcome in outcomes.items():
        found += [f"{stage}: {line}" for line in _verify_stage(folder / stage, outcome, data)]
    return [*found, *_verify_report(folder, outcomes)]


class _Data:
    """The problems that configurations ask for, read and split again, once for all stages."""

    def __init__(self) -> None:
        self._loaded: dict[str, ProblemSet] = {}

    def provenance(self, folder: Path) -> Record:
        """Derive what a stage's manifest states of its data.

        Raises:
            ConfigError, DataError: when the files are no longer there.
        """
        config = load_config([folder / "config.yaml"])
        key = f"{config.data.model_dump_json()} {config.run.seed}"
        problems = self._loaded.get(key) or load_problems(config)
        self._loaded[key] = problems
        if folder.name not in FITTING_STAGES:
            return problems.provenance()
        prompt = load_prompt(config.data.prompt)
        return training_rows(config, problems, prompt).provenance(problems)


def _verify_stage(folder: Path, outcome: Record, data: _Data) -> Iterator[str]:
    yield from _verify_manifest(folder, outcome, data)
    if folder.name == SEARCH_STAGE:
        return
    yield from _verify_figures(folder, outcome, "")
    for variant, figures in outcome.get("variants", {}).items():
        yield from _verify_figures(folder, figures, variant)
    try:
        verify_checkpoint(Path(outcome["checkpoint"]))
    except DamagedCheckpointError as error:
        yield str(error)


def _verify_manifest(folder: Path, outcome: Record, data: _Data) -> Iterator[str]:
    """Check what made the stage: all of it recorded, the files still those."""
    if not (folder / MANIFEST).is_file():
        yield f"{MANIFEST} is missing: what made the figures is not known"
        return
    manifest = read_json(folder / MANIFEST)
    for key in _NEEDED:
        if manifest.get(key) is None:
            yield f"{MANIFEST}: {key} is not recorded"
    sampling = outcome.get("sampling")
    if sampling is not None and sampling.get("seed") is None:
        yield "outcome.json: the sampling seed is not recorded"
    elif sampling is not None and sampling["seed"] != manifest.get("seed"):
        yield f"sampling seed {sampling['seed']} is not the manifest's {manifest.get('seed')}"
    for name, expected in manifest.get("files", {}).items():
        file = folder / name
        if not file.is_file() or file_sha256(file) != expected:
            yield f"{name}: {'changed since' if file.is_file() else 'missing after'} the run ended"
    try:
        derived = data.provenance(folder)
        yield from _differences(f"{MANIFEST}: data", manifest["data"], derived)
        yield from _differences("outcome.json: data", outcome["data"], summarise_data(derived))
    except (ConfigError, DataError) as error:
        yield f"the data cannot be read again: {error}"
    for name, expected in manifest["model"]["sha256"].items():
        file = Path(manifest["model"]["path"]) / name
        if file.is_file() and file_sha256(file) != expected:
            yield f"{file}: no longer the weights that the stage began with"


def _verify_figures(folder: Path, stated: Record, variant: str) -> Iterator[str]:
    """Grade the completions again and count them again."""
    name = f"completions-{variant}.jsonl" if variant else "completions.jsonl"
    try:
        rows = read_completions(folder / name)
        found = regrade(folder / name)
    except (ConfigError, ValueError) as error:
        yield str(error)
        return
    for old, new in found.changed:
        yield (
            f"{name}: {old['unique_id']} is recorded as {old['outcome']} and grades as "
            f"{new['outcome']}"
        )
    if len({row["unique_id"] for row in rows}) != stated["test_set"]["n"]:
        yield f"{name}: not the {stated['test_set']['n']} problems that outcome.json states"
    elif _problems_sha256(rows) != stated["test_set"]["sha256"]:
        yield f"{name}: other problems than the test set of outcome.json"
    ks = [int(k) for k in stated["pass_at"]]
    figures = summarise(rows, split="test", checkpoint="", ks=ks).figures()
    where = f"outcome.json{f' ({variant})' if variant else ''}"
    yield from _differences(where, stated, figures)


def _verify_report(folder: Path, outcomes: dict[str, Record]) -> Iterator[str]:
    """Build the report again and compare it with what is on disk."""
    try:
        refuse_mixtures(folder, outcomes)
        report = build_report(folder, outcomes)
    except (ConfigError, ValueError) as error:
        yield str(error)
        return
    if not (folder / "report.json").is_file():
        yield "report.json is missing: run_pipeline.py writes it"
        return
    yield from _differences("report.json", read_json(folder / "report.json"), report)
    text = render_markdown(report, outcomes, folder.name)
    if (folder / "report.md").read_text(encoding="utf-8") != text:
        yield "report.md: not what the completions give"


def _differences(where: str, stated: Any, derived: Any) -> Iterator[str]:
    """Yield every place where what is stated is not what was derived."""
    if isinstance(derived, dict) and isinstance(stated, dict):
        for key, value in derived.items():
            if str(key) not in stated:
                yield f"{where}: {key} is missing"
            else:
                yield from _differences(f"{where}: {key}", stated[str(key)], value)
    elif isinstance(derived, list | tuple) and isinstance(stated, list):
        if len(stated) != len(derived):
            yield f"{where}: {len(stated)} values are stated, {len(derived)} derived"
        for number, (one, other) in enumerate(zip(stated, derived, strict=False)):
            yield from _differences(f"{where}[{number}]", one, other)
    elif not _same(stated, derived):
        yield f"{where}: {stated} is stated, {derived} derived"


def _same(stated: Any, derived: Any) -> bool:
    numbers = (int, float)
    if isinstance(stated, numbers) and isinstance(derived, numbers):
        return math.isclose(stated, derived, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(stated == derived)


def _problems_sha256(rows: list[Record]) -> str:
    """Fingerprint the problems that completions answer, as the stage did."""
    unique = {row["unique_id"]: row for row in rows}
    return problems_sha256(
        [Problem(row["problem"], "", row["reference"], None, "", key)
         for key, row in unique.items()]
    )  # fmt: skip
