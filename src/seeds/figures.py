"""The figures of a family of runs: the spread between seeds, beside the interval over problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from src.config.loading import ConfigError, read_yaml
from src.evaluation.comparison import Difference, Scored, paired_difference, read_scored
from src.run.directory import BENCHMARKS, SEARCH_STAGE
from src.run.file_list import OUTCOME
from src.run.files import read_record
from utils.stats.bootstrap import bootstrap_interval

Record = dict[str, Any]
Members = Mapping[int, Path]
SCORED = ("step0_baseline", "step2_sft", "step3_GRPO")
_SAME = ("profile", "rehearsal", "test_set", "prompt_sha256")


def build_figures(members: Members, stages: Sequence[str] = SCORED) -> Record:
    """Return what all seeds say together.

    Args:
        members: seed -> folder of its run.
        stages: scored stages to look for, in order; those that some seed lacks are left out.

    Raises:
        ConfigError: when no stage has finished for all seeds, or they were not measured alike.
    """
    found = [stage for stage in stages if all(_there(place, stage) for place in members.values())]
    searched = all(_there(place, SEARCH_STAGE) for place in members.values())
    if not found:
        raise ConfigError(
            f"no stage has finished for all seeds in {', '.join(map(str, members.values()))}; the "
            "same command with --resume goes on"
        )
    _refuse_mixtures(members, found)
    first = _outcome(next(iter(members.values())), found[0])
    return {
        "seeds": list(members),
        "runs": {str(seed): place.name for seed, place in members.items()},
        "profile": first["profile"],
        "rehearsal": first.get("rehearsal", False),
        "stages": [_stage(members, stage, stages) for stage in found],
        "search": _searches(members) if searched else {},
        "benchmarks": _benchmarks(members),
    }


def spread(values: Sequence[float]) -> Record:
    """Return mean, range and standard deviation (n - 1) of one value a seed.

    >>> spread([0.25, 0.5, 0.75])
    {'mean': 0.5, 'low': 0.25, 'high': 0.75, 'sd': 0.25}
    """
    return {"mean": mean(values), "low": min(values), "high": max(values), "sd": stdev(values)}


def _stage(members: Members, stage: str, stages: Sequence[str]) -> Record:
    outcomes = {seed: _outcome(place, stage) for seed, place in members.items()}
    scored = {seed: read_scored(place / stage) for seed, place in members.items()}
    first = next(iter(outcomes.values()))
    return {
        "stage": stage,
        "n": first["n"],
        "each": {
            str(seed): {key: outcome[key] for key in ("accuracy", "accuracy_ci95", "format_rate")}
            for seed, outcome in outcomes.items()
        },
        "accuracy": spread([outcome["accuracy"] for outcome in outcomes.values()]),
        "format_rate": spread([outcome["format_rate"] for outcome in outcomes.values()]),
        "over_problems": bootstrap_interval(_means([one.means() for one in scored.values()])),
        "improvement": _improvement(members, stage, stages, scored),
    }


def _improvement(
    members: Members, stage: str, stages: Sequence[str], scored: Mapping[int, Scored]
) -> Record | None:
    """Compare each seed's stage with the scored one before it, on the same problems."""
    for before in reversed(stages[: stages.index(stage)]):
        places = {seed: _earlier(place, stage, before) for seed, place in members.items()}
        if all(place is not None for place in places.values()):
            break
    else:
        return None
    firsts = {seed: read_scored(place) for seed, place in places.items() if place is not None}
    differences = {
        seed: paired_difference(firsts[seed].means(), scored[seed].means()) for seed in members
    }
    changes = [
        {problem: after[problem] - first for problem, first in firsts[seed].means().items()}
        for seed, after in ((seed, scored[seed].means()) for seed in members)
    ]
    low, high = bootstrap_interval([(1 + change) / 2 for change in _means(changes)])
    return {
        "before": before,
        "shared": len(set(places.values())) == 1,
        "each": {str(seed): _said(found) for seed, found in differences.items()},
        "difference": spread([found.difference for found in differences.values()]),
        "over_problems": (2 * low - 1, 2 * high - 1),
    }


def _said(found: Difference) -> Record:
    return asdict(found) | {"said": str(found)}


def _means(each: Sequence[Mapping[str, float]]) -> list[float]:
    """Return each problem's mean over the seeds."""
    return [mean(one[problem] for one in each) for problem in each[0]]


def _searches(members: Members) -> Record:
    found = {seed: _outcome(place, SEARCH_STAGE)["best"] for seed, place in members.items()}
    return {str(seed): best["params"] for seed, best in found.items()}


def _benchmarks(members: Members) -> list[Record]:
    """Return the spread of avg@k for each benchmark that every seed's last model was asked."""
    places = [_last_benchmarks(place) for place in members.values()]
    if any(place is None for place in places):
        return []
    asked = {place: read_record(place / OUTCOME)[BENCHMARKS] for place in places if place}
    first = next(iter(asked.values()))
    names = [
        name
        for name in first
        if all(name in one and _asked(one[name]) == _asked(first[name]) for one in asked.values())
    ]
    return [_benchmark(name, list(members), asked) for name in names]


def _benchmark(name: str, seeds: Sequence[int], asked: Mapping[Path, Record]) -> Record:
    accuracies = [one[name]["accuracy"] for one in asked.values()]
    first = next(iter(asked.values()))[name]
    means = [read_scored(place / f"completions-{name}.jsonl").means() for place in asked]
    return {
        "benchmark": name,
        "n": first["n"],
        "k": first["samples_per_problem"],
        "each": {str(seed): value for seed, value in zip(seeds, accuracies, strict=True)},
        "accuracy": spread(accuracies),
        "over_problems": bootstrap_interval(_means(means)),
    }


def _last_benchmarks(place: Path) -> Path | None:
    """Return the folder of the benchmarks of the last stage's checkpoint that was asked any."""
    files = [
        file
        for file in (place / BENCHMARKS).glob(f"*/{OUTCOME}")
        if ".previous-" not in file.parent.name
    ]
    folder_of = {read_record(file)["checkpoint"]: file.parent for file in files}
    for stage in reversed(SCORED):
        if _there(place, stage):
            checkpoint = _outcome(place, stage)["checkpoint"]
            if checkpoint in folder_of:
                return folder_of[checkpoint]
    return None


def _refuse_mixtures(members: Members, stages: Sequence[str]) -> None:
    """Raise unless all seeds answered the same problems in the same way."""
    asked = {
        f"{place.name}/{stage}": _asked(_outcome(place, stage))
        for stage in stages
        for place in members.values()
    }
    first = next(iter(asked.values()))
    if any(one != first for one in asked.values()):
        raise ConfigError(
            "these runs cannot stand in one table, since they were not measured alike:\n"
            + "\n".join(f"  {name}: {one}" for name, one in asked.items())
            + "\nrun all seeds with one configuration"
        )


def _asked(outcome: Record) -> Record:
    """Return what two evaluations must share: all of the yardstick but the sampling's seed."""
    sampling = {key: value for key, value in outcome["sampling"].items() if key != "seed"}
    return {key: outcome[key] for key in _SAME if key in outcome} | {"sampling": sampling}


def _earlier(place: Path, stage: str, before: str) -> Path | None:
    """Return the folder of the stage that a stage built on: the run's own, or another run's."""
    if _there(place, before):
        return place / before
    name = read_yaml(place / stage / "config.yaml")["run"].get("earlier")
    other = place.with_name(name) if name else None
    return other / before if other is not None and _there(other, before) else None


def _there(place: Path, stage: str) -> bool:
    return (place / stage / OUTCOME).is_file()


def _outcome(place: Path, stage: str) -> Record:
    return read_record(place / stage / OUTCOME)
