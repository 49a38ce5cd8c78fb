"""What `evaluate_model.py` does besides scoring one model: compare, and grade again."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from src.config.loading import ROOT, ConfigError, load_config, resolve_path
from src.config.schema import Config
from src.evaluation.comparison import Scored, compare, read_scored, refuse_different_yardsticks
from src.evaluation.regrading import Regraded, regrade
from src.output.lines import log_to_terminal, shown_path
from src.run.directory import STAGES, pipeline_folder
from src.run.files import write_json_atomic, write_jsonl_atomic
from src.run.terminal import p_value, percent, points, show, show_faults, show_scores

LOGGER = logging.getLogger(__name__)
_SHOWN = 20
_BRIEF = 60


def main(arguments: Sequence[str], default_config: str) -> int | None:
    """Do what the options ask for; None where they ask for one model to be scored.

    Returns:
        The exit code: 0, or 2 for a mistake of the user's.
    """
    given = _parse(arguments, default_config)
    if given is None:
        return None
    log_to_terminal()
    try:
        config = load_config(given.config, given.set)
        if given.regrade is not None:
            _show_regraded(_regrade(given, config), given.patient)
        else:
            _compare_all(given, config)
    except ConfigError as error:
        LOGGER.error("%s", error)
        return 2
    return 0


def evaluation_name(model: str, folder: str = "evaluations") -> str:
    """Return the folder that a model's evaluation goes to, below the run's.

    >>> evaluation_name("results/tiny/step2_sft/checkpoints/step_000008")
    'evaluations/step2_sft_checkpoints_step_000008'
    """
    return f"{folder}/{'_'.join(part for part in Path(model).parts[-3:] if part != '/')}"


def stage_arguments(arguments: Sequence[str]) -> tuple[str, bool, list[str]]:
    """Turn MODEL, `--prompts`, `--greedy` and `--benchmarks` into settings.

    Returns:
        The model, whether benchmarks are asked for, and the stage's arguments.

    >>> stage_arguments(["--config", "a.yaml", "m", "--greedy"])
    ('m', False, ['--config', 'a.yaml', '--set', 'model.path=m', '--set', 'evaluation.greedy=true'])
    """
    parser = _configuration_options()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--prompts", nargs="+")
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--benchmarks", nargs="*")
    given, passed = parser.parse_known_args(list(arguments))
    settings = [f"model.path={given.model}"] if given.model else []
    settings += [f"evaluation.prompts=[{', '.join(given.prompts)}]"] if given.prompts else []
    settings += ["evaluation.greedy=true"] if given.greedy else []
    named = ", ".join(given.benchmarks or [])
    settings += [f"evaluation.benchmarks=[{named}]"] if named else []
    passed = [*_passed_on(given.config, [*given.set, *settings]), *passed]
    return given.model or "model", given.benchmarks is not None, passed


def _compare_all(given: argparse.Namespace, config: Config) -> None:
    """Compare each evaluation with the one before it, and the last with the first."""
    places = [_evaluated(place, given, config) for place in given.compare]
    scored = [read_scored(place) for place in places]
    refuse_different_yardsticks(scored)
    pairs = list(pairwise(scored))
    pairs += [(scored[0], scored[-1])] if len(scored) > 2 else []
    for first, second in pairs:
        found = compare(first, second)
        name = f"{_flat(first)}__{_flat(second)}.json"
        file = _comparisons(places[-1], given, config) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(file, found)
        _show_comparison(found)
        LOGGER.info("comparison: %s", shown_path(file))


def _evaluated(place: str, given: argparse.Namespace, config: Config) -> Path:
    """Return the evaluation at a place; a model there is evaluated first, unless it has been."""
    path = resolve_path(place)
    if (path / "completions.jsonl").is_file() or path.suffix == ".jsonl":
        return path
    if path.exists() and not (path / "config.json").is_file():
        return path  # neither: the error names what is missing
    script = ROOT / "step0_baseline" / "evaluate_model.py"
    command = [sys.executable, str(script), place, *_passed_on(given.config, given.set), "--resume"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        raise ConfigError(f"{place}: could not be evaluated; see above")
    return pipeline_folder(config) / evaluation_name(place)


def _comparisons(place: Path, given: argparse.Namespace, config: Config) -> Path:
    """Return where comparisons go: into the run that is set, else that of a compared stage."""
    asked = given.set or place.name not in STAGES
    return (pipeline_folder(config) if asked else place.parent) / "comparisons"


def _flat(scored: Scored) -> str:
    return scored.name.replace("/", "_")


def _show_comparison(found: dict[str, Any]) -> None:
    """Print one comparison: the difference, by level and type, problems won and lost."""
    before, after = map(percent, found["accuracy"])
    rows = [_difference_row("all", found)]
    for key in ("level", "type"):
        parts = found[f"by_{key}"].items()
        rows += [_difference_row(f"{key} {value}", part) for value, part in parts]
    title = f"{found['second']} ({after} %) over {found['first']} ({before} %)"
    show(title, ["problems", "n", "points [95 %]", "won", "lost", "p"], rows)
    for kind in ("won", "lost"):
        examples = found[f"{kind}_examples"]
        shown = [
            tuple(
                _brief(text)
                for text in (
                    item["problem"],
                    item["reference"],
                    item["first"]["answer"] or item["first"]["outcome"],
                    item["second"]["answer"] or item["second"]["outcome"],
                )
            )
            for item in examples
        ]
        if shown:
            header = ["problem", "reference", found["first"], found["second"]]
            show(f"problems {kind}", header, shown)


def _difference_row(name: str, part: dict[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{part['n']:,}",
        points(100 * part["difference"], [100 * bound for bound in part["ci95"]]),
        f"{part['won']:,}",
        f"{part['lost']:,}",
        p_value(part["p_value"]),
    )


def _regrade(given: argparse.Namespace, config: Config) -> Regraded:
    found = regrade(
        resolve_path(given.regrade), fast=not given.patient, ks=config.evaluation.pass_at
    )
    if given.output is not None:
        write_jsonl_atomic(given.output, found.rows)
        LOGGER.info("wrote %s", given.output)
    return found


def _show_regraded(found: Regraded, patient: bool) -> None:
    """Print the figures of both gradings and the rows on which they differ."""
    count = len(found.rows)
    grader = "the patient grader" if patient else "the grader"
    show_scores(
        f"{count:,} completions, {grader}: {found.seconds:.1f} s "
        f"({count / max(found.seconds, 1e-9):,.0f} a second)",
        {"as saved": found.before.figures(), "graded now": found.after.figures()},
    )
    show_faults("what went wrong", found.after.faults, count)
    rows = [
        (
            old["unique_id"],
            _brief(str(new["answer"])),
            _brief(new["reference"]),
            old["outcome"],
            new["outcome"],
            _brief(new["reason"]),
        )
        for old, new in found.changed[:_SHOWN]
    ]
    columns = ["problem", "answer", "reference", "as saved", "now", "reason"]
    show(f"{len(found.changed)} completions are graded otherwise", columns, rows)


def _brief(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _BRIEF else line[: _BRIEF - 1] + "…"


def _parse(arguments: Sequence[str], default_config: str) -> argparse.Namespace | None:
    """Read the command line; None where it scores one model."""
    parser = _configuration_options()
    parser.add_argument("--compare", nargs="+", metavar="A")
    parser.add_argument("--regrade", metavar="FILE")
    parser.add_argument("--patient", action="store_true")
    parser.add_argument("--output", type=Path)
    given, unknown = parser.parse_known_args(list(arguments))
    if given.compare is None and given.regrade is None:
        return None
    if unknown:
        parser.error(f"{' '.join(unknown)}: not an option of --compare or --regrade")
    if given.compare is not None and len(given.compare) < 2:
        parser.error("--compare wants two evaluations or models, or more")
    given.config = given.config or [default_config]
    return given


def _configuration_options() -> argparse.ArgumentParser:
    """Return a parser of what every use of the script takes; `--help` is the stage's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--set", action="append", default=[])
    return parser


def _passed_on(files: Sequence[str], values: Sequence[str]) -> list[str]:
    return [
        *(part for file in files for part in ("--config", file)),
        *(part for value in values for part in ("--set", value)),
    ]
