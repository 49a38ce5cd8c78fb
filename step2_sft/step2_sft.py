"""Step 2: supervised fine-tuning on worked solutions, scored by a persistent vLLM worker.

    cd step2_sft && python step2_sft.py
    python step2_sft/step2_sft.py --config config/tiny/sft_config.yaml

Takes results/<run>/step1_sft_hyper/best.yaml where step 1 has run. Writes to
results/<run>/step2_sft/: checkpoints/, metrics.jsonl, completions.jsonl, summary.json, and
outcome.json, which names the checkpoint that step 3 starts from.
"""

from __future__ import annotations

from src.config_schema import Config
from src.run_directory import Run
from src.stage import run_stage

DEFAULT_CONFIG = "config/sft_config.yaml"


def main(config: Config, run: Run) -> None:
    """Train, choose the best checkpoint on validation, report it once on test."""
    from src.batching import build_sft_examples, log_left_out
    from src.checkpoints import CheckpointStore
    from src.eval_worker import EvalWorker
    from src.metric_log import open_metric_log
    from src.policy import load_policy, load_tokenizer, resolve_model
    from src.problems import load_problems
    from src.prompts import load_prompt
    from src.scoring import record_validation, score_on_test, test_task, validation_task
    from src.training_worker import EarlyStopping, Schedule, SftTrainer

    problems = load_problems(config)
    prompt = load_prompt(config.data.prompt)
    model = resolve_model(config.model.path)
    run.begin(data=problems.file_hashes, model=model)
    test = test_task(config, problems, prompt)
    task = validation_task(config, problems, prompt, config.train.validation_rows)
    store = CheckpointStore(run.folder / "checkpoints", config.train.keep)
    with (
        open_metric_log(run) as metrics,
        EvalWorker(config, model, {"validation": task}) as worker,
    ):
        tokenizer = load_tokenizer(model, config)
        limit = config.train.max_tokens
        built = log_left_out(build_sft_examples(problems.train, prompt, tokenizer, limit))
        held_out = build_sft_examples(task.problems, prompt, tokenizer, limit).examples
        policy = load_policy(model, config)
        trainer = SftTrainer(policy, tokenizer, config.train, store, metrics, config.run.seed)
        stopping = EarlyStopping(config.train.patience, config.train.min_delta)
        schedule = Schedule.by_steps(config.train, len(built.examples))
        for checkpoint in store.unscored():
            worker.submit(checkpoint, "validation")
        for checkpoint in trainer.train(built.examples, schedule, resume=run.resume):
            metrics.log({"validation/nll": trainer.validation_nll(held_out)}, checkpoint.step)
            worker.submit(checkpoint, "validation")
            scores = [record_validation(store, metrics, *item) for item in worker.finished()]
            if any(stopping.should_stop(score) for score in scores):
                break
        for item in worker.drain():
            record_validation(store, metrics, *item)
        best = store.best()
    run.finish(best_step=best.step, **score_on_test(run, str(best.folder), test))


if __name__ == "__main__":
    run_stage(
        "step2_sft",
        main,
        default_config=DEFAULT_CONFIG,
        description=__doc__ or "",
        takes_search_result=True,
    )
