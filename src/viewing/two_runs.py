"""Compare two pipeline runs by what lies in their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.config.loading import ConfigError, read_yaml
from src.evaluation.comparison import Scored, paired_difference, read_scored
from src.report.page import curves
from src.report.report import finished_outcomes, in_points
from src.report.unfinished import unfinished_stages
from src.run.directory import SEARCH_STAGE, STAGES

Record = dict[str, Any]
# A run's name and place say nothing of what it did.
_PLACES = ("run.name", "run.output_root")


def compare_runs(first: Path, second: Path) -> Record:
    """Return how the second run differs from the first: settings, scored stages, curves.

    Raises:
        ConfigError: when a folder holds no stage that has begun.
    """
    names = _names(first, second)
    begun = [_begun(folder) for folder in (first, second)]
    shared = [stage for stage in STAGES if all(stage in stages for stages in begun)]
    both = _settings(first, second, shared)
    return {
        "names": names,
        "stages": [_stage(stage, first, second) for stage in shared if stage != SEARCH_STAGE],
        "settings": _differing(both),
        "unknown": _unknown(both, names),
        "alone": [
            f"{stage} is in {name} alone"
            for stages, others, name in zip(begun, reversed(begun), names, strict=True)
            for stage in stages
            if stage not in others
        ],
        "curves": list(_both_curves(first, second, names)),
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by their dotted names.

    >>> flat({"run": {"seed": 17}})
    {'run.seed': 17}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        inside = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return found


def _names(first: Path, second: Path) -> list[str]:
    """Return the folders' names, with as much of their paths as tells them apart."""
    one, other = first.resolve().parts, second.resolve().parts
    for length in range(1, max(len(one), len(other)) + 1):
        names = ["/".join(one[-length:]), "/".join(other[-length:])]
        if names[0] != names[1]:
            return names
    raise ConfigError(f"{first} and {second} are one run; name two")


def _begun(folder: Path) -> list[str]:
    finished = finished_outcomes(folder) if folder.is_dir() else {}
    unfinished = {item["stage"] for item in unfinished_stages(folder, STAGES)}
    if not finished and not unfinished:
        raise ConfigError(
            f"{folder} is no pipeline run: no stage has begun in it, expected <stage>/config.yaml "
            f"for one of {', '.join(STAGES)}"
        )
    return [stage for stage in STAGES if stage in finished or stage in unfinished]


def _stage(stage: str, first: Path, second: Path) -> Record:
    """Compare one stage on the test problems, by problem; or say why that cannot be."""
    outcomes = [finished_outcomes(folder).get(stage) for folder in (first, second)]
    keys = ("n", "accuracy", "accuracy_ci95", "format_rate", "accuracy_anywhere", "wall_s")
    runs = [outcome and {key: outcome[key] for key in keys} for outcome in outcomes]
    found: Record = {"stage": stage, "runs": runs, "accuracy": None, "anywhere": None, "said": ""}
    if None in outcomes:
        return found | {"said": "not finished in both"}
    try:
        scored: list[Scored] = [read_scored(folder / stage) for folder in (first, second)]
        if unlike := list(_unlike(*(item.yardstick for item in scored))):
            return found | {"said": f"not compared: {', '.join(unlike)}"}
        for key, anywhere in (("accuracy", False), ("anywhere", True)):
            one, other = (item.means(found=anywhere) for item in scored)
            found[key] = in_points(paired_difference(one, other))
    except ConfigError as error:
        return found | {"said": str(error)}
    return found


def _unlike(one: Record, other: Record) -> Iterator[str]:
    """Say what keeps two evaluations from being compared; other seeds of sampling do not."""
    if one["test_set"] != other["test_set"]:
        yield "other test problems"
    for key in sorted({*one["sampling"], *other["sampling"]} - {"seed"}):
        values = [yardstick["sampling"].get(key) for yardstick in (one, other)]
        if values[0] != values[1]:
            yield f"{key} {values[0]} and {values[1]}"


def _settings(first: Path, second: Path, stages: list[str]) -> list[dict[str, dict[str, Any]]]:
    """Return each run's settings by stage and dotted name."""
    return [
        {stage: flat(read_yaml(folder / stage / "config.yaml")) for stage in stages}
        for folder in (first, second)
    ]


def _differing(both: list[dict[str, dict[str, Any]]]) -> list[Record]:
    """List each setting of which the runs have two values, with the stages where that is so."""
    found: dict[str, Record] = {}
    for stage, one in both[0].items():
        other = both[1][stage]
        for name in sorted(one.keys() & other.keys()):
            values = [one[name], other[name]]
            if values[0] != values[1] and name not in _PLACES:
                key = f"{name} {values}"
                row = found.setdefault(key, {"name": name, "values": values, "stages": []})
                row["stages"].append(stage)
    return list(found.values())


def _unknown(both: list[dict[str, dict[str, Any]]], names: list[str]) -> list[str]:
    """Say which settings one run alone has: the other was made by another version of the code."""
    known = [{name for stage in run.values() for name in stage} for run in both]
    return [
        f"settings of {name} alone, as the other run's code had none of them: "
        f"{', '.join(sorted(own - others))}"
        for own, others, name in zip(known, reversed(known), names, strict=True)
        if own - others
    ]


def _both_curves(first: Path, second: Path, names: list[str]) -> Iterator[Record]:
    """Lay each curve of one run over the other's."""
    drawn: dict[tuple[str, str, str], list[Record]] = {}
    for folder, name in zip((first, second), names, strict=True):
        for chart in curves(folder):
            for series in chart["series"]:
                place = (chart["title"], series["name"], chart["x"])
                drawn.setdefault(place, []).append({"name": name, "points": series["points"]})
    for (title, metric, axis), series in drawn.items():
        # The second run's colour stays its own where the first has no such curve.
        ordered = [next((s for s in series if s["name"] == name), None) for name in names]
        lines = [s or {"name": n, "points": []} for s, n in zip(ordered, names, strict=True)]
        yield {"title": f"{title.split(',')[0]}: {metric}", "x": axis, "series": lines}
