"""Step 3: GRPO with TRL and vLLM, rewarded by the r1_zero grader.

    cd step3_GRPO && ./launch_trl.sh        # one process; ./launch_trl.sh 2 for two GPUs
    step3_GRPO/launch_trl.sh 1 --config config/tiny/grpo_config.yaml

Starts from step 2's best checkpoint (grpo.init: sft) or the base model (grpo.init: base). Writes to
results/<run>/step3_GRPO/: checkpoints/, trl/ (resumable state), metrics.jsonl, groups.jsonl (sample
groups with rewards and advantages), completions.jsonl, summary.json, outcome.json.
"""

from __future__ import annotations

from src.config.schema import Config
from src.run.directory import Run
from src.stages.start import run_stage

DEFAULT_CONFIG = "config/grpo_config.yaml"


def main(config: Config, run: Run) -> None:
    """Train, choose a checkpoint on validation, report it once on test."""
    from src.data.chat import stage_prompt
    from src.data.problems import load_problems
    from src.grpo.callback import StageCallback, score_chosen, train
    from src.grpo.problems import problem_stream, usable_problems
    from src.grpo.rollout_source import RolloutSource, trial_batch
    from src.grpo.split import engine_elsewhere
    from src.grpo.trainer import build_trainer
    from src.rewards.files import reward_identities
    from src.rewards.scorer import open_rewards
    from src.run.metrics import open_metric_log
    from src.run.processes import is_main_process
    from src.run.provenance import MANIFEST
    from src.stages.model_check import check_model
    from src.stages.scoring import starting_model, test_task, validation_task, write_test_outcome
    from src.training.adapters import check_adapter
    from src.training.checkpoints import CheckpointStore
    from src.training.policy import check_architecture, load_tokenizer

    problems = load_problems(config)
    model = starting_model(config)
    check_model(model, config)
    check_architecture(model, config)
    check_adapter(model, config, "grpo")
    tokenizer = load_tokenizer(model, config)
    prompt = stage_prompt(config, tokenizer)
    usable = usable_problems(problems.train, prompt, tokenizer, config)
    with open_rewards(config) as rewards:
        rewards.try_on(trial_batch(usable, prompt, config))
        run.begin(data=problems.provenance(), model=model, rewards=reward_identities(config))
        test = test_task(run, problems, prompt)
        task = validation_task(config, problems, prompt, config.grpo.validation_rows)
        stream = problem_stream(model, usable, prompt, tokenizer, config)
        source = RolloutSource(stream, config, rewards)
        store = CheckpointStore(
            run.folder / "checkpoints", 1, run.folder / MANIFEST, config.grpo.choose
        )
        with engine_elsewhere(config, model, source) as split:
            trainer = build_trainer(model, tokenizer, source, config, run.folder / "trl", split)
            with open_metric_log(run) as metrics:
                callback = StageCallback(trainer, metrics, store, task)
                train(trainer, callback, resume=run.resume)
            report = score_chosen(trainer, store, test, config.engine.swap_tolerance)
    if report is not None and is_main_process():
        outcome = write_test_outcome(run, [test], {test.name: report})
        run.finish(
            best_step=store.chosen().step,
            chosen_on=task.split,
            collapsed=callback.stopped,
            **outcome,
        )


if __name__ == "__main__":
    run_stage(
        "step3_GRPO",
        main,
        default_config=DEFAULT_CONFIG,
        description=__doc__ or "",
    )
