"""Score any checkpoint or hub id on the test problems, with the code and sampling of every stage.

    python step0_baseline/evaluate_model.py results/tiny/step2_sft/checkpoints/step_000050 \\
        --config config/tiny/baseline_config.yaml
    ... MODEL --prompts question_only qwen_boxed few_shot --greedy     # more ways of asking
    ... MODEL --benchmarks math500 aime24               # docs/benchmarks.md
    ... --compare results/tiny/step2_sft results/tiny/step3_GRPO       # folders, or models
    ... --regrade results/tiny/step3_GRPO/completions.jsonl [--patient] [--output FILE]

Writes to results/<run>/evaluations/<model name>/: completions.jsonl (completions-<variant>.jsonl),
summary.json, outcome.json; comparisons to comparisons/ of the run that is compared. Comparing and
grading again need no model. With --benchmarks the model is scored on those alone, likewise in
results/<run>/benchmarks/<model name>/; without names they are those of evaluation.benchmarks.
"""

from __future__ import annotations

import sys

from src.config.schema import Config
from src.run.directory import BENCHMARKS, Run
from src.stages.evaluate_model import evaluation_name, stage_arguments
from src.stages.evaluate_model import main as compare_or_regrade
from src.stages.start import run_stage

DEFAULT_CONFIG = "config/baseline_config.yaml"


def main(config: Config, run: Run) -> None:
    """Evaluate `config.model.path`, which the first argument of the command line replaced."""
    from src.stages.scoring import run_evaluation

    run_evaluation(config, run)


def run_benchmarks(config: Config, run: Run) -> None:
    """Run the benchmarks on `config.model.path`."""
    from src.benchmarks.loading import load_benchmarks, provenance
    from src.benchmarks.scoring import benchmark_tasks, score_benchmarks
    from src.stages.model_check import check_model
    from src.training.policy import resolve_model

    loaded = load_benchmarks(config)
    tasks = benchmark_tasks(run, loaded)
    model = resolve_model(config.model.path)
    check_model(model, config)
    run.begin(data=provenance(loaded), model=model)
    run.finish(**score_benchmarks(run, model, tasks))


if __name__ == "__main__":
    code = compare_or_regrade(sys.argv[1:], DEFAULT_CONFIG)
    if code is not None:
        sys.exit(code)
    model_path, benchmarks, arguments = stage_arguments(sys.argv[1:])
    run_stage(
        evaluation_name(model_path, BENCHMARKS) if benchmarks else evaluation_name(model_path),
        run_benchmarks if benchmarks else main,
        default_config=DEFAULT_CONFIG,
        description=__doc__ or "",
        arguments=arguments,
    )
