"""Close a study: score its best trials again, choose one, and say how sure the choice is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from src.config.loading import nested_yaml
from src.eval_worker import EvalWorker
from src.evaluation.figures import EvalReport
from src.output.lines import brief
from src.run.directory import Run, read_outcome
from src.run.files import file_lock, write_text_atomic
from src.run.metrics import open_metric_log
from src.run.terminal import show_records
from src.search.data import WHOLE
from src.search.pruning import best_checkpoint, best_trials, merit
from src.search.study import FrozenTrial, StudyQueue
from src.stages.scoring import in_brief
from utils.stats.statistics import newcombe_difference_interval

LOGGER = logging.getLogger(__name__)
_COLORS = {"COMPLETE": "tab:blue", "PRUNED": "tab:orange", "FAIL": "tab:red"}


@dataclass(frozen=True, slots=True)
class Rescored:
    """A trial with the report of its best checkpoint on the whole validation split."""

    trial: FrozenTrial
    report: EvalReport

    def figures(self) -> dict[str, Any]:
        """Return what tables and `outcome.json` show."""
        report = self.report
        low, high = report.accuracy_ci95
        return {
            "number": self.trial.number,
            "value": abs(self.trial.value),
            "n": report.n,
            "accuracy": report.accuracy,
            "accuracy_ci95": [low, high],
            "format_rate": report.format_rate,
            "nll": report.nll,
        }


@contextmanager
def closing_turn(run: Run) -> Iterator[bool]:
    """Let one process close the study; yield False in those that come later."""
    with file_lock(run.folder / "closing.lock"):
        is_closed = read_outcome(run.pipeline_folder, run.stage) is not None
        if is_closed:
            LOGGER.info("%s: another process has closed the study", run.folder)
        yield not is_closed


def close_study(run: Run, queue: StudyQueue, worker: EvalWorker) -> dict[str, Any]:
    """Write `best.yaml`, `trials.csv`, `rescored.csv` and `study.png`; return the outcome.

    Raises:
        RuntimeError: when no trial was completed.
    """
    search = run.config.search
    candidates = best_trials(queue, search.rescore_top)
    if not candidates:
        raise RuntimeError(
            f"{run.folder}: no trial was completed, so there is no best; trials/*/metrics.jsonl "
            f"shows the losses. Failed: {queue.failed() or 'none'}. Change search.space and start "
            "over"
        )
    rescored = rescore(queue, worker, candidates, search.objective)
    best = rescored[0]
    # A rate that was found under an adapter is one for it.
    values = run.config.train.adapter_values("train") | best.trial.params
    write_text_atomic(run.folder / "best.yaml", nested_yaml(values))
    plot_study(queue, run.folder / "study.png")
    chosen = best.figures() | {"params": best.trial.params, "objective": search.objective}
    outcome = {
        **_counts(queue),
        "best": chosen,
        "rescored": [item.figures() for item in rescored],
        "difference": compare(rescored),
        "importances": queue.importances(),
        "busy": busy_shares(queue.trials()),
        "chosen_on": "validation",
        "plot": "study.png",
    }
    _log_summary(run, queue, outcome)
    return outcome | ({"wall_s": _age_s(queue)} if search.shared else {})


def rescore(
    queue: StudyQueue, worker: EvalWorker, candidates: Sequence[FrozenTrial], objective: str
) -> list[Rescored]:
    """Score trials on the whole validation split; return them best first."""
    rescored = []
    for trial in candidates:
        report = worker.evaluate(best_checkpoint(queue, trial), WHOLE)[WHOLE]
        low, high = report.accuracy_ci95
        LOGGER.info(
            "trial %d on all %d validation problems: accuracy %.1f %% (95 %% interval %.1f to "
            "%.1f), format rate %.1f %%, loss %s",
            *(trial.number, report.n, 100 * report.accuracy, 100 * low, 100 * high),
            *(100 * report.format_rate, "-" if report.nll is None else f"{report.nll:.4f}"),
            extra=in_brief(f"trial {trial.number}", report, "whole validation"),
        )
        rescored.append(Rescored(trial, report))
    return sorted(rescored, key=lambda item: merit(item.report, objective), reverse=True)


def compare(rescored: Sequence[Rescored]) -> dict[str, Any] | None:
    """Return the gap in accuracy between the best and the worst; None with fewer than two.

    It is flat where its interval (Newcombe's, for independent samples, so on the cautious side)
    includes zero.
    """
    if len(rescored) < 2:
        return None
    worst, *_, best = sorted(rescored, key=lambda item: item.report.accuracy)
    low, high = newcombe_difference_interval(
        *(best.report.outcomes["correct"], best.report.n),
        *(worst.report.outcomes["correct"], worst.report.n),
    )
    points = 100 * (best.report.accuracy - worst.report.accuracy)
    flat = low <= 0
    LOGGER.info(
        "%s: trials %d and %d, best and worst of the %d rescored, differ by %.1f points (95 %% "
        "interval %.1f to %.1f)",
        "the optimum is flat" if flat else "the best trials differ",
        *(best.trial.number, worst.trial.number, len(rescored), points, 100 * low, 100 * high),
        extra=brief(
            f"trials {best.trial.number} and {worst.trial.number} differ by {points:.1f} points "
            f"[{100 * low:.1f}, {100 * high:.1f}]{': the optimum is flat' if flat else ''}"
        ),
    )
    return {
        "between": [best.trial.number, worst.trial.number],
        "points": points,
        "ci95": [100 * low, 100 * high],
        "flat": flat,
    }


def busy_shares(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return the shares of the trials' time in which each device worked.

    The trainer's is optimizer steps; the engine's is swap, generation and grading of the scores
    that were used, of several engines the mean beside each one's own.
    """
    timed = [trial.user_attrs for trial in trials if "wall_s" in trial.user_attrs]
    wall_s = sum(values["wall_s"] for values in timed)
    shares = {
        "train": sum(values["train_s"] for values in timed) / wall_s,
        "eval": sum(values["eval_s"] for values in timed) / wall_s,
    }
    each = zip_longest(*(values.get("engines_s", ()) for values in timed), fillvalue=0.0)
    engines = [sum(seconds) / wall_s for seconds in each]
    if len(engines) > 1:
        shares |= {f"engine_{number}": share for number, share in enumerate(engines)}
    return shares


def plot_study(queue: StudyQueue, file: Path) -> None:
    """Draw history, scores by rung and parameter importance as a PNG."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    history, rungs, importance = figure.subplots(1, 3)
    for trial in queue.trials("COMPLETE", "PRUNED", "FAIL"):
        color = _COLORS[trial.state.name]
        steps = sorted(trial.intermediate_values)
        values = [abs(trial.intermediate_values[step]) for step in steps]
        rungs.plot(steps, values, marker="o", color=color, alpha=0.7)
        if values:
            history.scatter(trial.number, values[-1], color=color)
    objective = queue.search.objective.replace("_", " ")
    history.set(title="blue complete, orange pruned, red failed", xlabel="trial", ylabel=objective)
    rungs.set(title="rungs", xlabel="examples seen", ylabel=objective)
    shares = queue.importances()
    importance.barh(list(shares), list(shares.values()))
    importance.set(title="hyperparameter importance", xlabel="share (PED-ANOVA)")
    figure.savefig(file, dpi=120)


def _counts(queue: StudyQueue) -> dict[str, Any]:
    """Count the planned trials; one that its process left behind counts where it was run again."""
    failed, interrupted = queue.failed(), queue.interrupted()
    return {
        "trials": len(queue.trials()) - len(interrupted),
        "pruned": len(queue.trials("PRUNED")),
        "failed": len(failed),
        "failures": {str(number): reason for number, reason in failed.items()},
        "interrupted": len(interrupted),
    }


def _log_summary(run: Run, queue: StudyQueue, outcome: dict[str, Any]) -> None:
    """Write and show the tables, and the study's curve by trial, beside a W&B run of its own."""
    (run.folder / "metrics.jsonl").unlink(missing_ok=True)  # of a closing that was cut off
    trials = queue.trials()
    with open_metric_log(run, name="study", step_name="trial") as metrics:
        for trial in trials:
            values = {
                f"search/{name}": trial.user_attrs[name]
                for name in ("train_s", "eval_s", "wall_s", "memory_gib")
                if name in trial.user_attrs
            }
            if trial.value is not None:
                values["search/value"] = abs(trial.value)
            metrics.log(values, step=trial.number)
        rows = [_row(trial, queue, outcome["failures"]) for trial in trials]
        metrics.table("trials", rows)
        metrics.table("rescored", [_flat(figures) for figures in outcome["rescored"]])
        metrics.summarise(**outcome)
    show_records(f"{run.stage}: {len(rows)} trials, {queue.search.objective}", rows)


def _row(trial: FrozenTrial, queue: StudyQueue, failures: dict[str, str]) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name,
        "value": None if trial.value is None else abs(trial.value),
        **{path: trial.params.get(path) for path in queue.search.space},
        "examples_seen": max(trial.intermediate_values, default=0),
        "wall_s": trial.user_attrs.get("wall_s"),
        "failure": failures.get(str(trial.number)),
    }


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    """Give each bound of the interval a column."""
    low, high = figures["accuracy_ci95"]
    plain = {name: value for name, value in figures.items() if name != "accuracy_ci95"}
    return plain | {"accuracy_low": low, "accuracy_high": high}


def _age_s(queue: StudyQueue) -> float:
    """Return the seconds since the first trial began, in whichever process."""
    begun = [trial.datetime_start for trial in queue.trials() if trial.datetime_start]
    return round((datetime.now() - min(begun)).total_seconds(), 1)
