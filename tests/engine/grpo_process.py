"""Run GRPO's trainer on a real engine in a process of its own and return what was seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def observe_runs(model: Path, folder: Path, runs: dict[str, list[str]]) -> dict[str, Any]:
    """Train once for each entry of `runs` (name -> overrides), all on one engine.

    An override `plant=...` breaks something first. Returns name -> figures of each step, or the
    error in words.
    """
    import trl.generation.vllm_generation as trl_vllm

    original, built = trl_vllm.LLM, []

    def shared_engine(**arguments: Any) -> Any:
        if not built:
            built.append(original(**arguments))
        return built[0]

    trl_vllm.LLM = shared_engine
    return {name: _observe(model, folder / name, overrides) for name, overrides in runs.items()}


def _observe(model: Path, folder: Path, overrides: list[str]) -> Any:
    from transformers import TrainerCallback

    import src.grpo.trainer as grpo
    from src.config.loading import load_config
    from src.data.problems import load_problems
    from src.data.prompts import load_prompt
    from src.engine.swap_verifier import StaleWeightsError
    from src.grpo.problems import problem_stream, usable_problems
    from src.grpo.rollout_source import RolloutSource
    from src.training.policy import load_tokenizer

    settings = [
        *("data.train_rows=32", "data.validation_rows=8", "data.test_rows=8"),
        *("grpo.prompts_per_step=4", "grpo.group_size=4", "grpo.micro_batch_size=8"),
        *("grpo.steps=2", "grpo.save_every=1000"),
    ]
    planted = [item.removeprefix("plant=") for item in overrides if item.startswith("plant=")]
    config = load_config(
        ["config/tiny/grpo_config.yaml"],
        [*settings, *(item for item in overrides if not item.startswith("plant="))],
    )
    tokenizer = load_tokenizer(str(model), config)
    prompt = load_prompt(config.data.prompt)
    usable = usable_problems(load_problems(config).train, prompt, tokenizer, config)
    stream = problem_stream(str(model), usable, prompt, tokenizer, config)
    source = RolloutSource(stream, config)
    trainer = grpo.build_trainer(str(model), tokenizer, source, config, folder)
    steps: list[dict[str, Any]] = []

    class Recorder(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            trainer.begin_step()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            groups = [*trainer.drawn.groups, *trainer.drawn.dropped]
            steps.append(
                {
                    "texts": [[r.text for r, _ in group.members] for group in groups],
                    "finished": [[r.finished for r, _ in group.members] for group in groups],
                    "seconds": trainer.clock.end(),
                    "reference": trainer.ref_model,
                    "optimised": sum(
                        parameter.numel()
                        for group in trainer.optimizer.param_groups
                        for parameter in group["params"]
                    ),
                    **trainer.agreement.metrics(),
                }
            )

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if "loss" in (logs or {}):
                steps[-1] |= dict(logs or {})

    trainer.add_callback(Recorder())
    original = grpo.swap_weights

    def sync_then_change(llm: Any, given: Any) -> None:
        original(llm, given)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data *= 1.01

    plants = {
        "the sync does nothing": lambda *_: None,
        "the engine gets the base": lambda llm, _: original(llm, model),
        "the adapter changes after the merge": sync_then_change,
    }
    for plant in planted:
        grpo.swap_weights = plants[plant]
    try:
        trainer.train()
    except StaleWeightsError as error:
        return str(error)
    finally:
        grpo.swap_weights = original
    return steps
