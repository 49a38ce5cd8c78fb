"""Put the finished stages of one pipeline run into a table and a figure.

Reads `<stage>/outcome.json`, `metrics.jsonl` and `completions.jsonl` under the run folder, and
writes `report.json`, `report.md`, `report.png` and `report.html` beside them, and `files.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.benchmarks.table import read_benchmarks
from src.data.summary import describe_data
from src.evaluation.comparison import Difference, Scored, paired_difference, read_scored
from src.output.markdown import markdown_table
from src.report.benchmarks import build_benchmarks, show_benchmarks
from src.report.page import render_page
from src.report.plots import draw_run
from src.report.rehearsal import build_rehearsal, show_rehearsal
from src.report.search import describe_search
from src.report.unfinished import profile_of, unfinished_stages
from src.run.directory import BENCHMARKS, SEARCH_STAGE, STAGES
from src.run.file_list import FILES, OUTCOME, describe_files
from src.run.files import read_record, write_bytes_atomic, write_json_atomic, write_text_atomic
from src.run.terminal import interval, percent

Record = dict[str, Any]
_SEARCH_KEYS = ("stage", "trials", "pruned", "failed", "best", "difference", "busy", "wall_s")
_SCORED_KEYS = (
    *("stage", "n", "accuracy", "accuracy_ci95", "format_rate", "outcomes"),
    *("accuracy_well_formed", "accuracy_anywhere", "wall_s", "checkpoint"),
)
_COMPARED = ("profile", "n", "test_set", "prompt_sha256", "sampling")
_HEADER = (
    *("stage", "n", "accuracy %", "95 % interval", "format %", "of well-formed %", "anywhere %"),
    *("correct", "wrong", "format failure", "unscorable"),
    *("over the stage before (points)", "minutes"),
)


def write_report(run_folder: Path) -> Path:
    """Write the report of the finished stages in all its forms; return report.json's path.

    Of a run whose first stage has not finished there is report.html alone.

    Raises:
        ValueError: no stage has begun, or the stages' accuracies are not comparable.
    """
    unfinished = unfinished_stages(run_folder, STAGES)
    outcomes = finished_outcomes(run_folder) if unfinished else read_outcomes(run_folder)
    refuse_mixtures(run_folder, outcomes)
    report = build_report(run_folder, outcomes)
    gain = "".join(_describe_gain(report["whole_gain"]))
    page = render_page(report, outcomes, run_folder, gain, unfinished)
    write_bytes_atomic(run_folder / "report.html", page.encode("utf-8"))
    if not outcomes:
        return run_folder / "report.html"
    text = render_markdown(report, outcomes, run_folder.name)
    write_text_atomic(run_folder / "report.md", text)
    figure = draw_run(_evaluated(report), run_folder, rehearsal="rehearsal" in report)
    write_bytes_atomic(run_folder / "report.png", figure)
    write_json_atomic(run_folder / "report.json", report)
    # report.json and report.md are derived again when a run is verified.
    outcome_files = [f"{stage}/{OUTCOME}" for stage in outcomes]
    outcome_files += [f"{BENCHMARKS}/{name}/{OUTCOME}" for name in read_benchmarks(run_folder)]
    covered = ["report.png", "report.html", *outcome_files]
    write_json_atomic(run_folder / FILES, describe_files(run_folder, covered))
    return run_folder / "report.json"


def read_outcomes(run_folder: Path) -> dict[str, Record]:
    """Return each finished stage's outcome, in pipeline order."""
    outcomes = finished_outcomes(run_folder)
    if not outcomes:
        raise ValueError(
            f"{run_folder} holds no finished stage, expected <stage>/outcome.json for one of "
            f"{', '.join(STAGES)}: run a stage first or check the path"
        )
    return outcomes


def finished_outcomes(run_folder: Path) -> dict[str, Record]:
    """Return the outcome of each stage that has finished, in pipeline order."""
    files = {stage: run_folder / stage / OUTCOME for stage in STAGES}
    return {stage: read_record(file) for stage, file in files.items() if file.is_file()}


def refuse_mixtures(run_folder: Path, outcomes: dict[str, Record]) -> None:
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


def build_report(run_folder: Path, outcomes: Mapping[str, Record]) -> Record:
    """Collect what report.json states; each improvement is over the scored stage before."""
    scored = {stage: read_scored(run_folder / stage) for stage in outcomes if stage != SEARCH_STAGE}
    entries: list[Record] = []
    previous: str | None = None
    for stage, outcome in outcomes.items():
        keys = _SEARCH_KEYS if stage == SEARCH_STAGE else _SCORED_KEYS
        entry = {key: outcome[key] for key in keys}
        if stage != SEARCH_STAGE:
            before = scored[previous] if previous else None
            entry["improvement"] = before and in_points(_difference(before, scored[stage]))
            previous = stage
        entries.append(entry)
    first = next(iter(scored), None)
    rehearsal = build_rehearsal(run_folder, outcomes)
    benchmarks = build_benchmarks(run_folder, outcomes)
    return {
        **({"rehearsal": rehearsal} if rehearsal else {}),
        **({"benchmarks": benchmarks} if benchmarks else {}),
        "profile": _profile(run_folder, outcomes),
        "test_set": outcomes[first]["test_set"] if first else None,
        "stages": entries,
        "whole_gain": _whole_gain(list(scored.values())),
        "variants": outcomes[first].get("variants", {}) if first else {},
    }


def _profile(run_folder: Path, outcomes: Mapping[str, Record]) -> str:
    if outcomes:
        return next(iter(outcomes.values()))["profile"]
    return profile_of(run_folder, unfinished_stages(run_folder, STAGES)[0]["stage"])


def _difference(before: Scored, after: Scored, *, found: bool = False) -> Difference:
    return paired_difference(before.means(found=found), after.means(found=found))


def _whole_gain(scored: list[Scored]) -> Record | None:
    """Tell apart what the first and the last stage differ by: format, and answers."""
    if len(scored) < 2:
        return None
    first, last = scored[0], scored[-1]
    gain, answers = _difference(first, last), _difference(first, last, found=True)
    return {
        "from": first.stage,
        "to": last.stage,
        "accuracy": in_points(gain),
        "anywhere": in_points(answers),
        "format_points": 100 * (gain.difference - answers.difference),
    }


def in_points(difference: Difference) -> Record:
    """Return a difference in percentage points."""
    return {
        "points": 100 * difference.difference,
        "ci95": [100 * bound for bound in difference.ci95],
        "won": difference.won,
        "lost": difference.lost,
        "p_value": difference.p_value,
        "said": str(difference),
    }


def _evaluated(report: Record) -> list[Record]:
    """Return the entries that carry an accuracy."""
    return [entry for entry in report["stages"] if entry["stage"] != SEARCH_STAGE]


def _shown_checkpoint(path: str) -> str:
    """Name a checkpoint by what stays when a run is moved: from its stage on, or its last folders.

    >>> _shown_checkpoint("/home/me/project/results/tiny/step2_sft/checkpoints/step_000006")
    'step2_sft/checkpoints/step_000006'
    >>> _shown_checkpoint("/home/me/project/assets/tiny_base")
    'assets/tiny_base'
    """
    parts = Path(path).parts
    own = [place for place, part in enumerate(parts) if part in STAGES]
    return "/".join(parts[own[-1] :] if own else parts[-2:])


def _cells(entry: Record) -> tuple[str, ...]:
    """Format a scored stage's table row, matching `_HEADER`."""
    counts = entry["outcomes"]
    gain = entry["improvement"]
    return (
        *(entry["stage"], str(entry["n"]), percent(entry["accuracy"])),
        *(interval(entry["accuracy_ci95"]), percent(entry["format_rate"])),
        *(percent(entry["accuracy_well_formed"]), percent(entry["accuracy_anywhere"])),
        *(str(counts[key]) for key in ("correct", "wrong_answer", "format_failure", "unscorable")),
        *(gain["said"] if gain else "-", f"{entry['wall_s'] / 60:.1f}"),
    )


def render_markdown(report: Record, outcomes: dict[str, Record], run_name: str) -> str:
    """Write the table, what it was measured with, and the figure."""
    rows = [
        (*_cells(entry), f"`{_shown_checkpoint(entry['checkpoint'])}`")
        for entry in _evaluated(report)
    ]
    table = markdown_table((*_HEADER, "checkpoint"), rows, texts=("checkpoint",))
    blocks = [
        f"# Results of run {run_name} (profile {report['profile']})",
        *show_rehearsal(report.get("rehearsal")),
        table if rows else "No stage was evaluated.",
        *_show_search(outcomes.get(SEARCH_STAGE)),
        *_describe_gain(report["whole_gain"]),
        *_show_variants(report["variants"]),
        "Accuracy is the share of all test problems answered correctly in the right format, with "
        "its Wilson interval; beside it the share among well-formed completions, and the share "
        "where the answer of a malformed one counts too, wherever it stands; a wrong answer in "
        "the tags stays wrong, even beside the right one. Stages are compared on the same "
        "problems: Tango's interval of the paired difference, McNemar's exact test. The intervals "
        "cover which problems were drawn, not what another training seed would give.",
        "\n".join(_describe_conditions(outcomes)),
        "![Accuracy and format rate by stage, and training curves](report.png)",
        *show_benchmarks(report.get("benchmarks", {})),
    ]
    return "\n\n".join(blocks) + "\n"


def _describe_gain(gain: Record | None) -> list[str]:
    """Say how much of the whole gain is format."""
    if gain is None:
        return []
    return [
        f"From {gain['from']} to {gain['to']}: {gain['accuracy']['said']}. The right answer, "
        f"whatever the format: {gain['anywhere']['said']}. So {gain['format_points']:+.1f} points "
        "of the gain are format, learning to put a right answer in its place."
    ]


def _show_variants(variants: Record) -> list[str]:
    """Put the first stage's other prompts and decodings in a table of their own."""
    if not variants:
        return []
    header = ("asked otherwise", "n", "accuracy %", "95 % interval", "format %", "anywhere %")
    rows = [
        (
            *(name, str(found["n"]), percent(found["accuracy"]), interval(found["accuracy_ci95"])),
            *(percent(found["format_rate"]), percent(found["accuracy_anywhere"])),
        )
        for name, found in variants.items()
    ]
    return [
        "The first model asked in other ways (another yardstick than the table above):",
        markdown_table(header, rows),
    ]


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
    lines.append(f"- Data: {describe_data(outcomes)}")
    for key in ("commit", "hardware"):
        values = dict.fromkeys(outcome[key] for outcome in outcomes.values())
        lines.append(f"- {key.capitalize()}: {'; '.join(values)}")
    return lines
