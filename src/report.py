"""Put the finished stages of one pipeline run into a table and a figure.

Reads `<stage>/outcome.json` and `<stage>/metrics.jsonl` under the run folder, and writes
`report.json`, `report.md` and `report.png` beside them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src import artifacts
from src.config_loading import ROOT
from src.run_directory import SEARCH_STAGE
from src.search_summary import describe_search
from utils.statistics import newcombe_difference_interval, wilson_interval

STAGES = ("step0_baseline", SEARCH_STAGE, "step2_sft", "step3_GRPO")
Record = dict[str, Any]

_SEARCH_KEYS = ("stage", "trials", "pruned", "failed", "best", "difference", "busy", "wall_s")
_SCORED_KEYS = (
    *("stage", "n", "accuracy", "accuracy_ci95", "format_rate", "outcomes"),
    *("wall_s", "checkpoint"),
)
_COMPARED = ("profile", "n", "test_set", "prompt_sha256", "sampling")
_HEADER = (
    *("stage", "n", "accuracy %", "95 % interval", "format %"),
    *("correct", "wrong", "format failure", "unscorable"),
    *("improvement (points)", "minutes"),
)
# Okabe and Ito's palette, which stays distinct under the common colour-vision deficiencies.
_BLUE, _ORANGE, _VERMILLION = "#0072B2", "#E69F00", "#D55E00"
_CURVES: dict[str, Record] = {
    "train/accuracy": {"color": _VERMILLION, "alpha": 0.6, "lw": 1},
    "validation/accuracy": {"color": _BLUE, "marker": "o", "markersize": 4},
}


def write_report(run_folder: Path) -> Path:
    """Write report.png, report.md and report.json of the finished stages; return the last's path.

    Raises:
        ValueError: no stage finished, or the stages' accuracies are not comparable.
    """
    outcomes = _read_outcomes(run_folder)
    _refuse_mixtures(run_folder, outcomes)
    report = _build_report(outcomes)
    text = _render_markdown(report, outcomes, run_folder.name)
    artifacts.write_bytes_atomic(run_folder / "report.png", _draw(report, run_folder))
    artifacts.write_text_atomic(run_folder / "report.md", text)
    artifacts.write_json_atomic(run_folder / "report.json", report)
    return run_folder / "report.json"


def render_table(report: Record) -> str:
    """Align the evaluated stages in plain text, with the search in a line below."""
    rows = [_HEADER, *(_cells(entry) for entry in _evaluated(report))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers in rows if len(rows) > 1 else []:
        padded = (cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    searches = [entry for entry in report["stages"] if entry["stage"] == SEARCH_STAGE]
    return "\n".join([*lines, *map(describe_search, searches)])


def _read_outcomes(run_folder: Path) -> dict[str, Record]:
    """Return each finished stage's outcome, in pipeline order."""
    files = {stage: run_folder / stage / "outcome.json" for stage in STAGES}
    outcomes = {stage: artifacts.read_json(file) for stage, file in files.items() if file.is_file()}
    if not outcomes:
        raise ValueError(
            f"{run_folder} holds no finished stage, expected <stage>/outcome.json for one of "
            f"{', '.join(STAGES)}: run a stage first or check the path"
        )
    return outcomes


def _refuse_mixtures(run_folder: Path, outcomes: dict[str, Record]) -> None:
    """Raise unless all evaluations answer the same question in the same way."""
    scored = [outcome for stage, outcome in outcomes.items() if stage != SEARCH_STAGE]
    problems = []
    for key in _COMPARED:
        if any(outcome[key] != scored[0][key] for outcome in scored):
            problems += [f"  {outcome['stage']}: {key} {outcome[key]}" for outcome in scored]
    if problems:
        raise ValueError(
            f"the stages in {run_folder} cannot stand in one table, since they differ in:\n"
            + "\n".join(problems)
            + "\nEvaluate them again with one configuration, or give each configuration a run "
            "folder of its own (run.name)."
        )


def _build_report(outcomes: dict[str, Record]) -> Record:
    """Collect what report.json states; each improvement is over the scored stage before."""
    entries: list[Record] = []
    previous: Record | None = None
    for stage, outcome in outcomes.items():
        keys = _SEARCH_KEYS if stage == SEARCH_STAGE else _SCORED_KEYS
        entry = {key: outcome[key] for key in keys}
        if stage != SEARCH_STAGE:
            entry["improvement"] = _improvement(outcome, previous) if previous else None
            previous = outcome
        entries.append(entry)
    return {
        "profile": next(iter(outcomes.values()))["profile"],
        "test_set": previous["test_set"] if previous else None,
        "stages": entries,
    }


def _improvement(outcome: Record, previous: Record) -> Record:
    """Return the gain in percentage points, with its 95 % interval."""
    n, n_before = outcome["n"], previous["n"]
    # With several samples a problem each problem counts once: its samples are alike.
    correct, correct_before = outcome["accuracy"] * n, previous["accuracy"] * n_before
    bounds = newcombe_difference_interval(correct, n, correct_before, n_before)
    return {
        "points": 100 * (correct / n - correct_before / n_before),
        "ci95": [100 * bound for bound in bounds],
    }


def _evaluated(report: Record) -> list[Record]:
    """Return the entries that carry an accuracy."""
    return [entry for entry in report["stages"] if entry["stage"] != SEARCH_STAGE]


def _cells(entry: Record) -> tuple[str, ...]:
    """Format a scored stage's table row, matching `_HEADER`."""
    lower, upper = entry["accuracy_ci95"]
    counts = entry["outcomes"]
    gain = "-"
    if entry["improvement"]:
        low, high = entry["improvement"]["ci95"]
        gain = f"{entry['improvement']['points']:+.1f} ({low:+.1f} to {high:+.1f})"
    return (
        *(entry["stage"], str(entry["n"]), f"{100 * entry['accuracy']:.1f}"),
        *(f"{100 * lower:.1f} to {100 * upper:.1f}", f"{100 * entry['format_rate']:.1f}"),
        *(str(counts[key]) for key in ("correct", "wrong_answer", "format_failure", "unscorable")),
        *(gain, f"{entry['wall_s'] / 60:.1f}"),
    )


def _render_markdown(report: Record, outcomes: dict[str, Record], run_name: str) -> str:
    """Write the table, what it was measured with, and the figure."""
    rows = [
        (*_cells(entry), f"`{entry['checkpoint'].removeprefix(f'{ROOT}/')}`")
        for entry in _evaluated(report)
    ]
    table = [(*_HEADER, "checkpoint"), ("---", *["---:"] * (len(_HEADER) - 1), "---"), *rows]
    blocks = [
        f"# Results of run {run_name} (profile {report['profile']})",
        "\n".join(f"| {' | '.join(row)} |" for row in table) if rows else "No stage was evaluated.",
        *_show_search(outcomes.get(SEARCH_STAGE)),
        "Accuracy is the share of all test problems answered correctly, with its Wilson interval. "
        "The improvement is over the row above; its interval (Newcombe's method 10) treats the two "
        "as independent samples, which is cautious for stages scored on the same problems.",
        "\n".join(_describe_conditions(outcomes)),
        "![Accuracy and format rate by stage, and training curves](report.png)",
    ]
    return "\n\n".join(blocks) + "\n"


def _show_search(outcome: Record | None) -> list[str]:
    """Describe the hyperparameter search and place its figure, where it ran."""
    if outcome is None:
        return []
    figure = f"{SEARCH_STAGE}/{outcome['plot']}"
    shown = f"![Search: trials, scores by rung, hyperparameter importance]({figure})"
    return [describe_search(outcome), shown]


def _describe_conditions(outcomes: dict[str, Record]) -> list[str]:
    """List what the stages were measured with; commit and hardware may differ between them."""
    lines = []
    scored = next((o for stage, o in outcomes.items() if stage != SEARCH_STAGE), None)
    if scored:
        sampling = ", ".join(f"{key} = {value!r}" for key, value in scored["sampling"].items())
        test_set = f"{scored['test_set']['n']} problems, sha256 `{scored['test_set']['sha256']}`"
        lines.append(f"- Test set: {test_set}; prompt sha256 `{scored['prompt_sha256']}`")
        lines.append(f"- Sampling: {sampling}")
    for key in ("commit", "hardware"):
        values = dict.fromkeys(outcome[key] for outcome in outcomes.values())
        lines.append(f"- {key.capitalize()}: {'; '.join(values)}")
    return lines


def _draw(report: Record, run_folder: Path) -> bytes:
    """Draw rates by stage (left) and training curves (right) as a PNG."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    rates, sft, grpo = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    sft.sharey(grpo)
    _draw_rates(rates, _evaluated(report))
    _draw_curves(sft, "SFT", run_folder / "step2_sft")
    _draw_curves(grpo, "GRPO", run_folder / "step3_GRPO")
    # Only now: a limit set before the last curve would stop the shared axis from growing.
    grpo.set_ylim(bottom=0)
    for axes in (rates, sft, grpo):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    return image.getvalue()


def _draw_rates(axes: Axes, entries: list[Record]) -> None:
    """Draw accuracy and format rate by stage with their 95 % intervals."""
    for key, shift, colour in (("accuracy", -0.2, _BLUE), ("format_rate", 0.2, _ORANGE)):
        for place, entry in enumerate(entries):
            x, value = place + shift, entry[key]
            lower, upper = wilson_interval(round(value * entry["n"]), entry["n"])
            label = None if place else key.replace("_", " ")
            axes.bar(x, value, 0.38, color=colour, label=label)
            axes.errorbar(x, value, [[value - lower], [upper - value]], color="black", capsize=3)
            axes.text(x, upper + 0.01, f"{100 * value:.1f}", ha="center", va="bottom")
    names = [entry["stage"].replace("_", "\n", 1) for entry in entries]
    axes.set(title="Test set, with 95 % intervals", ylabel="share of problems", ylim=(0, 1.25))
    axes.set_xticks(range(len(entries)), names)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    if entries:
        axes.legend(loc="upper center", ncols=2, frameon=False)


def _draw_curves(axes: Axes, title: str, stage_folder: Path) -> None:
    """Draw train and validation accuracy by step, whichever were logged."""
    path = stage_folder / "metrics.jsonl"
    rows = artifacts.read_jsonl(path) if path.exists() else []
    for name, style in _CURVES.items():
        # A resumed stage logs some steps twice; the later value is the one that counts.
        points = sorted({row["step"]: row[name] for row in rows if name in row}.items())
        if points:
            axes.plot(*zip(*points, strict=True), label=name.replace("/", " "), **style)
    axes.set(title=f"{title}, by step", xlabel="optimizer step")
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.legend(handles=axes.lines, loc="lower right", frameon=False)
    if not axes.lines:
        axes.text(0.5, 0.5, "no curve logged", transform=axes.transAxes, ha="center")
