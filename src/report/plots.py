"""Draw the figure of a pipeline run: rates by stage, and training curves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.report.curves import read_curves
from utils.stats.statistics import wilson_interval

Record = dict[str, Any]

# Okabe and Ito's palette, which stays distinct under the common colour-vision deficiencies.
_BLUE, _ORANGE, _VERMILLION = "#0072B2", "#E69F00", "#D55E00"
_CURVES: dict[str, Record] = {
    "grpo/accuracy": {"color": _VERMILLION, "alpha": 0.6, "lw": 1},
    "validation/accuracy": {"color": _BLUE, "marker": "o", "markersize": 4},
}


def draw_run(scored: Sequence[Record], run_folder: Path, *, rehearsal: bool = False) -> bytes:
    """Draw rates by stage (left) and training curves (right) as a PNG.

    Args:
        scored: the report's entries that carry an accuracy.
        rehearsal: say above them that they mean nothing.
    """
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    if rehearsal:
        figure.suptitle("REHEARSAL: figures mean nothing", color=_VERMILLION)
    rates, sft, grpo = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    sft.sharey(grpo)
    _draw_rates(rates, scored)
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


def _draw_rates(axes: Axes, entries: Sequence[Record]) -> None:
    """Draw accuracy and format rate by stage with their 95 % intervals."""
    for key, shift, colour in (("accuracy", -0.2, _BLUE), ("format_rate", 0.2, _ORANGE)):
        for place, entry in enumerate(entries):
            x, value = place + shift, entry[key]
            stated = entry["accuracy_ci95"] if key == "accuracy" else None
            lower, upper = stated or wilson_interval(round(value * entry["n"]), entry["n"])
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
    for name, points in read_curves(stage_folder, list(_CURVES)).items():
        axes.plot(*zip(*points, strict=True), label=name.replace("/", " "), **_CURVES[name])
    axes.set(title=f"{title}, by step", xlabel="optimizer step")
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.legend(handles=axes.lines, loc="lower right", frameon=False)
    if not axes.lines:
        axes.text(0.5, 0.5, "no curve logged", transform=axes.transAxes, ha="center")
