"""Step 2: supervised fine-tuning on worked solutions or the model's own correct completions.

    cd step2_sft && python step2_sft.py
    python step2_sft/step2_sft.py --config config/tiny/sft_config.yaml
    accelerate launch --multi_gpu --num_processes 2 step2_sft/step2_sft.py    # three GPUs
    python step2_sft/step2_sft.py --set sft.source=rejection_sampling --set sft.rounds=2

Takes results/<run>/step1_sft_hyper/best.yaml where step 1 has run. Writes to
results/<run>/step2_sft/: checkpoints/, metrics.jsonl, completions.jsonl, summary.json,
traces_<round>.jsonl (rejection sampling), and outcome.json, which names the checkpoint that step 3
starts from.
"""

from __future__ import annotations

from src.config.schema import Config
from src.run.directory import Run
from src.stages.start import run_stage

DEFAULT_CONFIG = "config/sft_config.yaml"


def main(config: Config, run: Run) -> None:
    """Train, choose the best checkpoint on validation, report it once on test."""
    from src.data.chat import stage_prompt
    from src.data.problems import load_problems
    from src.eval_worker import EvalWorker
    from src.run.processes import is_main_process
    from src.sft.fine_tuning import FineTuning, fine_tuning_tasks
    from src.sft.rows import training_rows
    from src.stages.evaluation_engine import evaluation_sleeps
    from src.stages.model_check import check_model
    from src.stages.scoring import score_on_test, test_task
    from src.training.adapters import check_adapter
    from src.training.policy import check_architecture, load_tokenizer, resolve_model

    problems = load_problems(config)
    model = resolve_model(config.model.path)
    check_model(model, config)
    check_architecture(model, config)
    check_adapter(model, config, "train")
    tokenizer = load_tokenizer(model, config)
    prompt = stage_prompt(config, tokenizer)
    taught = training_rows(config, problems, prompt)
    run.begin(data=taught.provenance(problems), model=model)
    tasks = fine_tuning_tasks(config, problems, prompt, tokenizer)
    with EvalWorker(config, model, tasks, sleeps=evaluation_sleeps(config)) as worker:
        tuning = FineTuning(run, model, tokenizer, worker, tasks)
        if config.sft.source == "rejection_sampling":
            store = tuning.by_expert_iteration(problems, prompt)
        else:
            store = tuning.on_rows(taught.rows)
        if is_main_process():
            best = store.choose()
            outcome = score_on_test(run, best, [test_task(run, problems, prompt)], worker)
    if is_main_process():
        run.finish(
            best_step=best.step,
            chosen_on="validation",
            training_data=tuning.training_data,
            **outcome,
        )


if __name__ == "__main__":
    run_stage(
        "step2_sft",
        main,
        default_config=DEFAULT_CONFIG,
        description=__doc__ or "",
        takes_search_result=True,
    )
