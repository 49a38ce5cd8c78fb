"""The report as one HTML file that needs no network: figures, curves, completions to read."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.data.summary import describe_data
from src.output.page_template import fill
from src.report.benchmarks import page_benchmarks
from src.report.curves import read_curves
from src.report.search import describe_search
from src.report.unfinished import trial_values
from src.run.directory import GRPO_STAGE, SEARCH_STAGE
from src.run.files import read_jsonl
from utils.grading.faults import FAULTS
from utils.stats.statistics import wilson_interval

Record = dict[str, Any]
_TEMPLATE = Path(__file__).with_name("page.html")
_PROBLEMS = 300
_ANSWER_KEYS = ("completion", "outcome", "fault", "reason", "answer", "tokens", "truncated")
_SCORED_KEYS = ("faults", "by_level", "by_type")
# Title, stage, axis, and the metrics drawn together.
_CURVES = (
    ("SFT loss", "step2_sft", "optimizer step", ("train/loss", "validation/nll")),
    ("SFT accuracy", "step2_sft", "optimizer step",
     ("validation/accuracy", "train_subset/accuracy", "validation/format_rate")),
    ("GRPO accuracy", GRPO_STAGE, "optimizer step",
     ("grpo/accuracy", "validation/accuracy", "grpo/format_rate")),
    ("GRPO reward", GRPO_STAGE, "optimizer step", ("grpo/reward",)),
    ("GRPO completion length, tokens", GRPO_STAGE, "optimizer step",
     ("grpo/completion_tokens", "validation/completion_tokens")),
    ("GRPO token entropy, nats", GRPO_STAGE, "optimizer step", ("grpo/entropy",)),
)  # fmt: skip


def render_page(
    report: Record,
    outcomes: Mapping[str, Record],
    run_folder: Path,
    gain: str,
    unfinished: Sequence[Record] = (),
) -> str:
    """Return the whole page.

    Args:
        report: what report.json states.
        outcomes: stage -> outcome.json.
        gain: how much of the whole gain is format, in words.
        unfinished: stages that have begun and not finished, and how far they are.
    """
    scored = [entry for entry in report["stages"] if entry["stage"] != SEARCH_STAGE]
    stages = [
        entry | {key: outcomes[entry["stage"]][key] for key in _SCORED_KEYS} for entry in scored
    ]
    names = [entry["stage"] for entry in scored]
    problems = _problems(run_folder, names)
    total = report["test_set"]["n"] if report["test_set"] else 0
    search = outcomes.get(SEARCH_STAGE)
    data = {
        "title": f"{_kind(report)} {run_folder.name}, profile {report['profile']}",
        "rehearsal": report.get("rehearsal"),
        "unfinished": list(unfinished),
        "conditions": _conditions(outcomes) if outcomes else [],
        "stages": stages,
        "gain": gain,
        "variants": [{"name": name, **found} for name, found in report["variants"].items()],
        "benchmarks": page_benchmarks(report.get("benchmarks", {})),
        "faults": FAULTS,
        "curves": [*_search_curve(run_folder, search), *curves(run_folder)],
        "search": describe_search(search) if search else "",
        "importances": search["importances"] if search else {},
        "completed": search["trials"] - search["pruned"] - search["failed"] if search else 0,
        "breakdown": _breakdowns(outcomes, names),
        "problems": problems,
        "shown": f"{len(problems)} of the {total} test problems, drawn by a hash of their names; "
        "the same problem in all stages, one line each.",
    }
    return fill(_TEMPLATE, f"{_kind(report)} {run_folder.name}", data)


def _kind(report: Record) -> str:
    return "Rehearsal" if "rehearsal" in report else "Run"


def _conditions(outcomes: Mapping[str, Record]) -> list[str]:
    """Say what the run was made with."""
    last = list(outcomes.values())[-1]
    said = [f"commit {last['commit'][:10]}", last["hardware"]]
    if "sampling" in last:
        sampling = last["sampling"]
        said.append(
            f"temperature {sampling['temperature']}, top-p {sampling['top_p']}, at most "
            f"{sampling['max_completion_tokens']} tokens, seed {sampling.get('seed')}"
        )
    return [*said, describe_data(outcomes)]


def curves(run_folder: Path) -> list[Record]:
    """Return the charts of what was logged."""
    charts = []
    for title, stage, axis, metrics in _CURVES:
        found = read_curves(run_folder / stage, metrics)
        if found:
            series = [{"name": name, "points": points} for name, points in found.items()]
            charts.append({"title": title, "x": axis, "series": series})
    return charts


def _search_curve(run_folder: Path, search: Record | None) -> list[Record]:
    """Read the search's history: each trial's value and, once it has ended, the best so far.

    Args:
        search: its outcome.
    """
    file = run_folder / SEARCH_STAGE / "trials.csv"
    if search is None or not file.is_file():
        values = sorted(trial_values(file.parent).items())
        sofar = {"name": "trials so far", "points": values, "line": False}
        return (
            [{"title": "Search: value by trial", "x": "trial", "series": [sofar]}] if values else []
        )
    with file.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["value"]]
    # The one objective of which less is better; trials.csv has the loss itself.
    better = min if search["best"]["objective"] == "eval_loss" else max
    points: dict[str, list[list[float]]] = {"complete": [], "pruned": []}
    best: list[list[float]] = []
    for row in rows:
        number, value = int(row["number"]), float(row["value"])
        points.setdefault(row["state"].lower(), []).append([number, value])
        if row["state"] == "COMPLETE":
            best.append([number, better([value, *(before for _, before in best)])])
    series: list[Record] = [
        {"name": name, "points": found, "line": False} for name, found in points.items() if found
    ]
    series += [{"name": "best so far", "points": best}] if best else []
    return [{"title": "Search: value by trial", "x": "trial", "series": series}] if series else []


def _breakdowns(outcomes: Mapping[str, Record], stages: Sequence[str]) -> list[Record]:
    """Return accuracy by level, type and length, each with its interval in each stage."""
    charts = []
    for title, key in (("By level", "by_level"), ("By type", "by_type")):
        values = sorted({value for stage in stages for value in outcomes[stage][key]})
        groups = [
            {
                "name": value,
                "cells": [_cell(*outcomes[stage][key].get(value, (0, 0))) for stage in stages],
            }
            for value in values
        ]
        charts.append({"title": title, "groups": groups})
    # Lengths are cut into fifths of each stage's own completions.
    fifths = max((len(outcomes[stage]["by_length"]) for stage in stages), default=0)
    groups = []
    for number in range(fifths):
        tables = [outcomes[stage]["by_length"] for stage in stages]
        cells = [_length_cell(*t[number]) if number < len(t) else None for t in tables]
        groups.append({"name": f"{_ordinal(number)} fifth", "cells": cells})
    return [*charts, {"title": "By completion length, shortest first", "groups": groups}]


def _cell(correct: float, n: float) -> Record | None:
    return {"correct": correct, "n": n, "ci95": wilson_interval(correct, n)} if n else None


def _length_cell(fewest: float, most: float, correct: float, n: float) -> Record | None:
    cell = _cell(correct, n)
    return cell and cell | {"of": f", {fewest} to {most} tokens"}


def _ordinal(number: int) -> str:
    return ("first", "second", "third", "fourth", "fifth")[number]


def _problems(run_folder: Path, stages: Sequence[str]) -> list[Record]:
    """Choose problems by a hash of their names, with the first answer of every stage."""
    found: dict[str, Record] = {}
    for stage in stages:
        for row in read_jsonl(run_folder / stage / "completions.jsonl"):
            item = found.setdefault(row["unique_id"], _describe(row))
            item["answers"].setdefault(stage, {key: row[key] for key in _ANSWER_KEYS})
    ranked = sorted(found, key=lambda name: hashlib.sha256(name.encode()).digest())
    return [found[name] for name in ranked[:_PROBLEMS]]


def _describe(row: Record) -> Record:
    keys = ("problem", "reference", "level", "type")
    return {"id": row["unique_id"], **{key: row[key] for key in keys}, "answers": {}}
