"""Step 1: search step 2's hyperparameters with Optuna (TPE proposes, ASHA prunes).

    cd step1_sft_hyper && python step1_sft_hyper.py
    python step1_sft_hyper/step1_sft_hyper.py --config config/tiny/sft_hyper_config.yaml
    python step1_sft_hyper/step1_sft_hyper.py --set search.shared=true

The last one may be started any number of times, on any number of machines that share the results
folder: together they run the study's trials, each once.

Writes to results/<run>/step1_sft_hyper/: best.yaml (an overlay that step 2 takes), trials.csv,
rescored.csv, study.png, trials/trial_NNN/metrics.jsonl, study.journal (--resume goes on with an
interrupted study), outcome.json.
"""

from __future__ import annotations

from src.config.schema import Config
from src.run.directory import Run
from src.stages.start import run_stage

DEFAULT_CONFIG = "config/sft_hyper_config.yaml"


def main(config: Config, run: Run) -> None:
    """Run the study on validation problems; the test split stays closed."""
    from src.data.chat import stage_prompt
    from src.data.problems import load_problems
    from src.eval_worker import EvalWorker
    from src.search.closing import close_study, closing_turn
    from src.search.data import drawn_rows, search_tasks
    from src.search.study import open_study
    from src.search.trials import TRIAL_FAILURES, TrialRunner, keep_best
    from src.sft.examples import build_examples, log_left_out
    from src.sft.rows import training_rows
    from src.stages.evaluation_engine import evaluation_sleeps
    from src.stages.model_check import check_model
    from src.training.adapters import check_adapter
    from src.training.policy import check_architecture, load_policy, load_tokenizer, resolve_model

    problems = load_problems(config)
    model = resolve_model(config.model.path)
    check_model(model, config)
    check_architecture(model, config)
    check_adapter(model, config, "train")
    tokenizer = load_tokenizer(model, config)
    prompt = stage_prompt(config, tokenizer)
    taught = training_rows(config, problems, prompt)
    run.begin(data=taught.provenance(problems), model=model)
    queue = open_study(run.folder, config, TRIAL_FAILURES)
    tasks = search_tasks(config, problems, prompt, tokenizer)
    with EvalWorker(config, model, tasks, sleeps=evaluation_sleeps(config)) as worker:
        rows = taught.rows
        if config.sft.source == "rejection_sampling":
            rows = drawn_rows(run, problems, prompt, worker)
        built = build_examples(rows, tokenizer, config.train.max_tokens, config.sft.keep)
        examples = log_left_out(built).examples
        policy = load_policy(model, config, config.train.attention, config.train)
        runner = TrialRunner(run, policy, tokenizer, examples, worker)
        queue.work(runner, after_trial=lambda: keep_best(queue, config.search.rescore_top))
        runner.restore()  # what the last trial left in memory, before the best are scored again
        with closing_turn(run) as mine:
            if mine:
                outcome = close_study(run, queue, worker)
                run.finish(checkpoint=None, training_data=built.outcome(), **outcome)
                keep_best(queue, 0)


if __name__ == "__main__":
    run_stage(
        "step1_sft_hyper",
        main,
        default_config=DEFAULT_CONFIG,
        description=__doc__ or "",
    )
