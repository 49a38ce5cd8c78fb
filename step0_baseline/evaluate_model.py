"""Score any checkpoint or hub id on the test problems, with the code and sampling of every stage.

    python step0_baseline/evaluate_model.py results/tiny/step2_sft/checkpoints/step_000050 \\
        --config config/tiny/baseline_config.yaml

Writes to results/<run>/evaluations/<model name>/: completions.jsonl, summary.json, outcome.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

from src.config_schema import Config
from src.run_directory import Run
from src.stage import run_stage

DEFAULT_CONFIG = "config/baseline_config.yaml"


def main(config: Config, run: Run) -> None:
    """Evaluate `config.model.path`, which the first argument of the command line replaced."""
    from src.policy import resolve_model
    from src.problems import load_problems
    from src.prompts import load_prompt
    from src.scoring import score_on_test, test_task

    problems = load_problems(config)
    task = test_task(run, problems, load_prompt(config.data.prompt))
    model = resolve_model(config.model.path)
    run.begin(data=problems.file_hashes, model=model)
    run.finish(**score_on_test(run, model, task))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    name = "model"
    if arguments and not arguments[0].startswith("-"):
        model_path = arguments.pop(0)
        name = "_".join(Path(model_path).parts[-3:])
        arguments += ["--set", f"model.path={model_path}"]
    run_stage(
        f"evaluations/{name}",
        main,
        default_config=DEFAULT_CONFIG,
        description=__doc__ or "",
        arguments=arguments,
    )
