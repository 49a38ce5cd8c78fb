"""Step 1: search step 2's hyperparameters with Optuna (TPE proposes, ASHA prunes).

    cd step1_sft_hyper && python step1_sft_hyper.py
    python step1_sft_hyper/step1_sft_hyper.py --config config/tiny/sft_hyper_config.yaml

Writes to results/<run>/step1_sft_hyper/: best.yaml (an overlay that step 2 takes), trials.csv,
study.png, study.journal (--resume goes on with an interrupted study), outcome.json.
"""

from __future__ import annotations

from src.config_schema import Config
from src.run_directory import Run
from src.stage import run_stage

DEFAULT_CONFIG = "config/sft_hyper_config.yaml"


def main(config: Config, run: Run) -> None:
    """Run the study on validation problems; the test split stays closed."""
    from src.batching import build_sft_examples
    from src.eval_worker import EvalWorker
    from src.hyper_search import TrialRunner, describe_study, open_study, run_study
    from src.policy import load_policy, load_tokenizer, resolve_model
    from src.problems import load_problems
    from src.prompts import load_prompt
    from src.scoring import validation_task

    problems = load_problems(config)
    prompt = load_prompt(config.data.prompt)
    model = resolve_model(config.model.path)
    run.begin(data=problems.file_hashes, model=model)
    rows = config.search.validation_rows
    tasks = {"validation": validation_task(config, problems, prompt, rows)}
    with EvalWorker(config, model, tasks) as worker:
        tokenizer = load_tokenizer(model, config)
        limit = config.train.max_tokens
        built = build_sft_examples(problems.train, prompt, tokenizer, limit)
        held_out = build_sft_examples(problems.validation[:rows], prompt, tokenizer, limit)
        policy = load_policy(model, config)
        runner = TrialRunner(run, policy, tokenizer, built.examples, held_out.examples, worker)
        study = open_study(run)
        run_study(study, runner)
    run.finish(checkpoint=None, **describe_study(study, run))


if __name__ == "__main__":
    run_stage(
        "step1_sft_hyper",
        main,
        default_config=DEFAULT_CONFIG,
        description=__doc__ or "",
    )
