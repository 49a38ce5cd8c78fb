"""What each step of a run did how often, from its records, beside what its configuration plans."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config.schema import Config
from src.data.row_counts import sft_rows, test_rows
from src.evaluation.figures import ENGINE_WORK
from src.run.devices import is_cpu
from src.run.directory import GRPO_STAGE, SEARCH_STAGE
from src.run.files import read_json, read_jsonl
from src.training.optimization import EarlyStopping

Record = dict[str, Any]
_ONE_OF_SEVERAL = re.compile(r"engine_\d+_s")
_ENGINE_S = tuple(f"{part}_s" for part in ENGINE_WORK)


@dataclass(frozen=True, slots=True)
class Count:
    """How often something happened; `planned` are the bounds, None where nothing is planned."""

    what: str
    planned: tuple[int, int] | None
    seen: float
    why: str = ""
    """What explains a difference."""

    @property
    def holds(self) -> bool:
        """Tell whether what was seen lies within what was planned."""
        return self.planned is None or self.planned[0] <= self.seen <= self.planned[1]

    @property
    def plan(self) -> str:
        """Write the bounds.

        >>> Count("trials", (1, 20), 4).plan
        '1 to 20'
        """
        if self.planned is None:
            return "-"
        low, high = self.planned
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def stage_counts(folder: Path, config: Config, outcome: Record) -> list[Count]:
    """Return what a finished stage did how often.

    Args:
        folder: of the stage.
        config: which it ran with.
    """
    count = {SEARCH_STAGE: _search, "step2_sft": _fine_tuning, GRPO_STAGE: _grpo}.get(
        folder.name, _baseline
    )
    found = list(count(folder, config, outcome))
    if folder.name != SEARCH_STAGE:
        found.append(Count("test problems", _exactly(test_rows(config)), outcome["n"]))
    return found


def _baseline(folder: Path, config: Config, outcome: Record) -> Iterator[Count]:
    asked = (1 + len(config.evaluation.prompts)) * (1 + config.evaluation.greedy)
    yield Count("test evaluations", _exactly(asked), 1 + len(outcome["variants"]))


def _search(folder: Path, config: Config, outcome: Record) -> Iterator[Count]:
    search = config.search
    files = sorted(folder.glob("trials/trial_*/metrics.jsonl"))
    metrics = {int(file.parent.name.removeprefix("trial_")): read_jsonl(file) for file in files}
    rows = [row for trial in metrics.values() for row in trial]
    scored = Counter(row["step"] for row in rows if "trial/value" in row)
    trials = _trials(folder)
    pruned = Counter(int(t["examples_seen"]) for t in trials if t["state"] == "PRUNED")
    able = search.pruning_rungs()
    yield Count("trials", _exactly(search.trials), outcome["trials"])
    yield Count("trials that failed", _exactly(0), outcome["failed"])
    for place, rung in enumerate(search.rung_examples):
        least = 1 if place else search.trials
        yield Count(f"trials scored at {rung} examples", (least, search.trials), scored[rung])
        most = search.trials - 1 if rung in able else 0
        yield Count(f"trials pruned at {rung} examples", (0, most), pruned[rung])
    tied = "scores that tie are never pruned" if not outcome["pruned"] else ""
    yield Count("trials pruned", (int(bool(able)), search.trials - 1), outcome["pruned"], tied)
    yield from _trial_steps(config, trials, metrics)
    scores = scored.total()
    yield Count("checkpoints saved", (scores, len(trials) * len(search.rung_examples)),
                _with(rows, "system/save_s"))  # fmt: skip
    yield Count("verified weight swaps", _exactly(scores), _with(rows, "validation/probe_gap"))
    again = min(search.rescore_top, outcome["trials"] - outcome["pruned"] - outcome["failed"])
    yield Count("trials scored again", _exactly(again), len(outcome["rescored"]))
    yield Count("trainer busy %", None, 100 * outcome["busy"]["train"])
    yield Count("engine busy %", None, 100 * outcome["busy"]["eval"])


def _trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _trial_steps(
    config: Config, trials: Sequence[dict[str, str]], metrics: dict[int, list[Record]]
) -> Iterator[Count]:
    """Count optimizer steps at each batch size; a pruned trial ends between two of its rungs."""
    search, seen, least, most = config.search, Counter[int](), Counter[int](), Counter[int]()
    for trial in trials:
        size = int(trial.get("train.batch_size") or config.train.batch_size)
        seen[size] += _with(metrics.get(int(trial["number"]), []), "train/loss")
        most[size] += search.examples // size
        least[size] += (
            search.examples if trial["state"] == "COMPLETE" else search.rung_examples[0]
        ) // size
    for size in sorted(seen):
        yield Count(f"optimizer steps of {size} examples", (least[size], most[size]), seen[size])


def _fine_tuning(folder: Path, config: Config, outcome: Record) -> Iterator[Count]:
    train, rows = config.train, read_jsonl(folder / "metrics.jsonl")
    rounds = config.sft.rounds if config.sft.source == "rejection_sampling" else 1
    planned = train.checkpoint_steps(sft_rows(config))
    evaluations = _exactly(rounds * len(planned))
    data = outcome["training_data"]
    left_out = ", ".join(f"{count} {reason}" for reason, count in data["left_out"].items())
    yield Count("training examples", _exactly(sft_rows(config)), data["examples"],
                f"left out: {left_out or 'none'}")  # fmt: skip
    yield Count(f"optimizer steps of {train.batch_size} examples",
                _exactly(rounds * planned[-1]), _with(rows, "train/loss"))  # fmt: skip
    yield Count("evaluations", evaluations, _with(rows, "validation/accuracy"))
    yield Count("checkpoints saved", evaluations, _with(rows, "system/save_s"))
    yield Count("verified weight swaps", evaluations, _with(rows, "validation/probe_gap"))
    scores = _scores(folder)
    yield Count("checkpoints chosen between", evaluations, len(scores))
    if config.run.rehearsal is not None:
        stopping = EarlyStopping(config.run.rehearsal.patience, train.min_delta)
        ended = [place for place, one in enumerate(scores, 1) if stopping.should_stop(one)]
        yield Count("evaluation at which patience would end it (0: none)", None,
                    ended[0] if ended else 0)  # fmt: skip
    trained, evaluated, whole = busy_seconds(rows)
    yield Count("trainer busy %", None, 100 * trained / whole)
    yield Count("engine busy %", None, 100 * evaluated / whole)


def busy_seconds(rows: Sequence[Record]) -> tuple[float, float, float]:
    """Return seconds in optimizer steps, in evaluations, and from the first step to the last.

    Those in evaluations are an engine's, of several the mean.
    """
    steps = [row for row in rows if "train/loss" in row]
    scored = [row for row in rows if "validation/accuracy" in row or "train_subset/accuracy" in row]
    evaluated = sum(_engine_s(row) for row in scored)
    first, last = steps[0], max(row["time_s"] for row in (*steps, *scored))
    whole = last - first["time_s"] + first["system/step_s"]
    return sum(row["system/step_s"] for row in steps), evaluated, whole


def _engine_s(row: Record) -> float:
    """Return the seconds of a row's evaluations in which the engine, or each of them, worked."""
    named = [(name.partition("/")[2], value) for name, value in row.items()]
    each: dict[str, float] = {}
    for name, value in named:
        if _ONE_OF_SEVERAL.fullmatch(name):
            each[name] = each.get(name, 0.0) + value
    if each:
        return sum(each.values()) / len(each)
    return sum(value for name, value in named if name in _ENGINE_S)


def _grpo(folder: Path, config: Config, outcome: Record) -> Iterator[Count]:
    grpo, rows = config.grpo, read_jsonl(folder / "metrics.jsonl")
    steps = [row for row in rows if "train/loss" in row]
    scored = [row for row in rows if "validation/accuracy" in row]
    evaluations = len(grpo.evaluation_steps)
    ended = f"collapsed: {outcome['collapsed']}" if outcome["collapsed"] else ""
    yield Count(f"optimizer steps of {grpo.completions_per_step} completions",
                _exactly(grpo.steps), len(steps), ended)  # fmt: skip
    yield Count("evaluations", _exactly(evaluations), len(scored), ended)
    yield Count("checkpoints chosen between", _exactly(evaluations), len(_scores(folder)), ended)
    # Before each step that generates, and at each evaluation; a step right after one needs none,
    # unless the engine has slept in between and lost its weights.
    syncs = sum(row["system/sync_s"] > 0 for row in steps) + _with(scored, "validation/swap_s")
    batches = -(-grpo.steps // grpo.steps_per_batch)
    sleeps = "off" if is_cpu(config.devices.train) else config.engine.sleep
    more = {"on": _exactly(evaluations), "off": _exactly(1), "auto": (1, evaluations)}[sleeps]
    planned = batches + more[0], batches + more[1]
    yield Count("verified weight syncs", planned, syncs, ended)
    yield Count("resumable states saved", _exactly(len(grpo.save_steps)),
                _with(rows, "system/saved_states"), ended)  # fmt: skip
    samples = -(-grpo.steps // grpo.sample_groups_every)
    written = {row["step"] for row in read_jsonl(folder / "groups.jsonl")}
    yield Count("steps with groups written down", _exactly(samples), len(written), ended)
    generating = [row for row in steps if row["system/generate_s"] > 0]
    drawn, dull = (
        sum(row[f"grpo/{name}_groups"] for row in generating) for name in ("drawn", "dropped")
    )
    yield Count("groups drawn", _drawn(config), drawn, ended)
    yield Count("groups dropped as dull", None, dull)
    whole = sum(row["system/step_s"] for row in steps)
    for name, parts in (("engine", ("generate",)), ("trainer", ("logprobs", "train"))):
        spent = sum(_busy_s(row, name, parts) for row in steps)
        yield Count(f"{name} busy %", None, 100 * spent / whole)


def _busy_s(row: Record, name: str, parts: Sequence[str]) -> float:
    """Return the seconds of a step in which a device worked; told apart in `grpo.mode: split`."""
    rate = row.get(f"system/{name}_busy_rate")
    if rate is not None:
        return rate * row["system/step_s"]
    return sum(row[f"system/{part}_s"] for part in parts)


def _drawn(config: Config) -> tuple[int, int]:
    grpo = config.grpo
    least = grpo.prompts_per_step * -(-grpo.steps // grpo.steps_per_batch)
    return least, int(least * grpo.draw_limit) + 1 if grpo.dynamic_sampling else least


def _scores(folder: Path) -> list[float]:
    """Return the accuracies that checkpoints were chosen by, in the order of training."""
    files = sorted(folder.glob("checkpoints/**/scores.json"))
    return [score["accuracy"] for file in files for _, score in sorted(read_json(file).items())]


def _with(rows: Sequence[Record], name: str) -> int:
    return sum(name in row for row in rows)


def _exactly(number: int) -> tuple[int, int]:
    return number, number
