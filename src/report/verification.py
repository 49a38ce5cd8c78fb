"""Derive every figure of a finished run again from its completions and files; say what differs.

Nothing is believed that can be recomputed: completions are graded again, figures counted again,
intervals and comparisons made again, files hashed again. Damage of any kind is a line, never a
traceback.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.benchmarks.table import read_benchmarks
from src.config.loading import ConfigError, load_config
from src.config.schema import Config
from src.data.chat import stage_prompt
from src.data.problems import load_problems
from src.data.prompts import PromptTemplate, load_prompt
from src.data.summary import summarise_data
from src.evaluation.figures import summarise
from src.evaluation.regrading import read_completions
from src.evaluation.rows import grade_rows
from src.report.report import (
    build_report,
    read_outcomes,
    refuse_mixtures,
    render_markdown,
)
from src.run.directory import (
    BENCHMARKS,
    FITTING_STAGES,
    SEARCH_STAGE,
    STAGES,
    TRAINING_STAGES,
    reported_checkpoint,
)
from src.run.file_list import (
    DESCRIPTION,
    FILES,
    OUTCOME,
    changed_files,
    differing_files,
    not_covered,
)
from src.run.files import read_record
from src.run.provenance import MANIFEST
from src.seeds.figures import SCORED, build_figures
from src.seeds.report import family_tables
from src.seeds.report import render_markdown as seeds_markdown
from src.sft.rows import training_rows
from utils.data.hashing import file_sha256
from utils.data.json_lines import DataError
from utils.data.problem import Problem
from utils.dataset_loader import ProblemSet, problems_sha256

Record = dict[str, Any]
_TOLERANCE = 1e-9
_REPORT_FILES = ("report.json", "report.md", FILES)
_NEEDED = ("commit", "seed", "config", "packages", "hardware", "command", "started", "ended")


def verify_run(folder: Path) -> list[str]:
    """Return what does not hold in a run's folder, one line each; nothing where all does.

    Raises:
        ValueError: no stage of the run has finished.
    """
    stages = [stage for stage in STAGES if (folder / stage / FILES).is_file()]
    stages += [s for s in STAGES if (folder / s / OUTCOME).is_file() and s not in stages]
    outcomes: dict[str, Record] = {}
    data, found = _Data(), []
    for stage in stages or read_outcomes(folder):
        lines = list(_sound(OUTCOME, _verify_stage(folder / stage, outcomes, data)))
        found += [f"{stage}: {line}" for line in lines]
    for name, outcome in read_benchmarks(folder).items():
        lines = list(_sound(OUTCOME, verify_benchmarks(folder / BENCHMARKS / name, outcome)))
        found += [f"{BENCHMARKS}/{name}: {line}" for line in lines]
    if len(outcomes) == len(stages):
        found += _sound("report.json", _verify_report(folder, outcomes))
        return [*found, *_sound(FILES, changed_files(folder))]
    return [*found, "report.json, report.md, report.html: not checked, an outcome is damaged"]


def is_family(folder: Path) -> bool:
    """Tell whether a folder holds what several seeds say together, and no run itself."""
    file = folder / "report.json"
    return file.is_file() and "runs" in read_record(file)


def verify_family(folder: Path) -> list[str]:
    """Return what does not hold in the runs of several seeds, or in the report of them together.

    Raises:
        ValueError: no stage of a seed's run has finished.
    """
    stated = read_record(folder / "report.json")
    members = {int(seed): folder.with_name(name) for seed, name in stated["runs"].items()}
    found = [f"{place.name}: {line}" for place in members.values() for line in verify_run(place)]
    return [*found, *_sound("report.json", _verify_seeds(folder, stated, members))]


def _verify_seeds(folder: Path, stated: Record, members: dict[int, Path]) -> Iterator[str]:
    reported = [entry["stage"] for entry in stated["stages"]]
    derived = build_figures(members, SCORED if set(reported) <= set(SCORED) else reported)
    yield from _differences("report.json", stated, derived)
    text = seeds_markdown(derived, family_tables(derived), folder.name)
    if (folder / "report.md").read_text(encoding="utf-8") != text:
        yield "report.md: not what the runs give"


def verify_benchmarks(folder: Path, outcome: Record) -> Iterator[str]:
    """Check one model's benchmarks: files, grades and figures."""
    yield from _sound(FILES, differing_files(folder, outcome.get("files_sha256")))
    for name, figures in outcome[BENCHMARKS].items():
        yield from _sound(f"completions-{name}", _verify_figures(folder, figures, name))


def uncovered(folder: Path) -> list[str]:
    """Return what of a run's folder `verify_run` does not look at, as names and patterns."""
    stages = [stage for stage in STAGES if (folder / stage / FILES).is_file()]
    inside = [
        f"{stage}/{name}" for stage in stages for name in _sound(FILES, not_covered(folder / stage))
    ]
    known = {*STAGES, BENCHMARKS, *_REPORT_FILES, "report.html", "report.png"}
    return [*inside, *sorted(path.name for path in folder.iterdir() if path.name not in known)]


def _sound(where: str, lines: Iterator[str]) -> Iterator[str]:
    """Yield what a check finds; where a damaged file ends the check, say that in a line."""
    try:
        yield from lines
    except ValueError as error:
        yield str(error)
    except (KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        yield (
            f"{where}: not what a stage writes ({type(error).__name__}: {error}), so nothing more "
            "could be checked with it; restore the file, or run the stage again"
        )


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
        return training_rows(config, problems, _prompt_of_rows(config)).provenance(problems)


def _prompt_of_rows(config: Config) -> PromptTemplate:
    """Return the prompt that a stage looked for in its rows: a chat model's stands in its turns.

    Only rows of files depend on it, so only they wait for a tokenizer.

    Raises:
        ConfigError: the prompt, the model or its tokenizer is no longer there.
    """
    if not config.sft.files:
        return load_prompt(config.data.prompt)
    from src.training.policy import load_tokenizer, resolve_model  # noqa: PLC0415

    try:
        return stage_prompt(config, load_tokenizer(resolve_model(config.model.path), config))
    except OSError as error:
        raise ConfigError(f"the tokenizer of {config.model.path}: {error}") from error


def _verify_stage(folder: Path, outcomes: dict[str, Record], data: _Data) -> Iterator[str]:
    """Check one stage; put its outcome among the others where it can be read."""
    outcome = read_record(folder / OUTCOME)
    yield from _sound(FILES, differing_files(folder, outcome.get("files_sha256")))
    yield from _sound(MANIFEST, _verify_manifest(folder, outcome, data))
    outcomes[folder.name] = outcome
    if folder.name == SEARCH_STAGE:
        return
    yield from _sound("completions.jsonl", _verify_figures(folder, outcome, ""))
    for variant, figures in outcome.get("variants", {}).items():
        yield from _sound(f"completions-{variant}", _verify_figures(folder, figures, variant))
    if folder.name in TRAINING_STAGES:
        inside = reported_checkpoint(folder, outcome)
        if not (inside / DESCRIPTION).is_file():
            yield f"{OUTCOME}: its checkpoint {inside} is missing, or no {DESCRIPTION} lies there"


def _verify_manifest(folder: Path, outcome: Record, data: _Data) -> Iterator[str]:
    """Check what made the stage: all of it recorded, data and starting model still those."""
    if not (folder / MANIFEST).is_file():
        yield f"{MANIFEST} is missing: what made the figures is not known"
        return
    manifest = read_record(folder / MANIFEST)
    for key in _NEEDED:
        if manifest.get(key) is None:
            yield f"{MANIFEST}: {key} is not recorded"
    sampling = outcome.get("sampling")
    if sampling is not None and sampling.get("seed") is None:
        yield f"{OUTCOME}: the sampling seed is not recorded"
    elif sampling is not None and sampling["seed"] != manifest.get("seed"):
        yield f"sampling seed {sampling['seed']} is not the manifest's {manifest.get('seed')}"
    try:
        derived = data.provenance(folder)
        yield from _differences(f"{MANIFEST}: data", manifest.get("data"), derived)
        yield from _differences(f"{OUTCOME}: data", outcome.get("data"), summarise_data(derived))
    except (ConfigError, DataError) as error:
        yield f"the data cannot be read again: {error}"
    for name, expected in manifest["model"]["sha256"].items():
        file = Path(manifest["model"]["path"]) / name
        if file.is_file() and file_sha256(file) != expected:
            yield f"{file}: no longer the weights that the stage began with"


def _verify_figures(folder: Path, stated: Record, variant: str) -> Iterator[str]:
    """Grade the completions again and count them again."""
    name = f"completions-{variant}.jsonl" if variant else "completions.jsonl"
    saved = read_completions(folder / name)
    rows = grade_rows(saved)
    for old, new in zip(saved, rows, strict=True):
        if old["outcome"] != new["outcome"]:
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
    refuse_mixtures(folder, outcomes)
    report = build_report(folder, outcomes)
    missing = [name for name in _REPORT_FILES if not (folder / name).is_file()]
    for name in missing:
        yield f"{name} is missing: run_pipeline.py writes it"
    if "report.json" not in missing:
        stated = read_record(folder / "report.json")
        yield from _differences("report.json", stated, report)
    text = render_markdown(report, outcomes, folder.name)
    if "report.md" not in missing and (folder / "report.md").read_bytes() != text.encode("utf-8"):
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
