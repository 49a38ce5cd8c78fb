"""Run GRPO's trainer on a real engine in a process of its own and return what was seen."""

from __future__ import annotations

from collections.abc import Callable
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


def observe_split(model: Path, folder: Path, runs: dict[str, list[str]]) -> dict[str, Any]:
    """Do the same with the engine in a process of its own, one for all runs."""
    from src.grpo.split import SplitRollouts, engine_elsewhere

    config, _ = _settings(next(iter(runs.values())))
    with engine_elsewhere(config, str(model), None) as whole:
        seen = {}
        for name, overrides in runs.items():
            config, _ = _settings(overrides)
            split = SplitRollouts(
                whole._engine, whole._memory, None, ahead=config.grpo.one_step_off
            )
            seen[name] = _observe(model, folder / name, overrides, split)
        return seen


def _settings(overrides: list[str]) -> tuple[Any, list[str]]:
    """Return the configuration, and what is planted."""
    from src.config.loading import load_config

    settings = [
        *("data.train_rows=32", "data.validation_rows=8", "data.test_rows=8"),
        *("grpo.prompts_per_step=4", "grpo.group_size=4", "grpo.micro_batch_size=8"),
        *("grpo.steps=2", "grpo.save_every=1000", "grpo.warmup_steps=0"),
    ]
    planted = [item.removeprefix("plant=") for item in overrides if item.startswith("plant=")]
    config = load_config(
        ["config/tiny/grpo_config.yaml"],
        [*settings, *(item for item in overrides if not item.startswith("plant="))],
    )
    return config, planted


def _observe(model: Path, folder: Path, overrides: list[str], split: Any = None) -> Any:
    import torch
    from transformers import TrainerCallback

    import src.grpo.trainer as grpo
    from src.data.problems import load_problems
    from src.data.prompts import load_prompt
    from src.engine.shared_weights import SharedWeights
    from src.engine.swap_verifier import StaleWeightsError
    from src.grpo.problems import problem_stream, usable_problems
    from src.grpo.rollout_source import RolloutSource
    from src.training.policy import load_tokenizer

    config, planted = _settings(overrides)
    tokenizer = load_tokenizer(str(model), config)
    prompt = load_prompt(config.data.prompt)
    usable = usable_problems(load_problems(config).train, prompt, tokenizer, config)
    stream = problem_stream(str(model), usable, prompt, tokenizer, config)
    source = RolloutSource(stream, config)
    if split is not None:
        split._source = source
    trainer = grpo.build_trainer(str(model), tokenizer, source, config, folder, split)
    steps: list[dict[str, Any]] = []

    class Recorder(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            trainer.begin_step()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if "the engine is killed" in planted and not steps:
                split._engine._worker.process.kill()
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
                    "weights": sum(p.abs().sum().item() for p in trainer.model.parameters()),
                    "lag": split.lag if split else 0,
                    **trainer.agreement.metrics(),
                }
            )

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if "loss" in (logs or {}):
                steps[-1] |= dict(logs or {})

    trainer.add_callback(Recorder())
    original, write = grpo.swap_weights, SharedWeights.write

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
    for plant in plants.keys() & set(planted):
        grpo.swap_weights = plants[plant]
    if "the scale is too large" in planted:
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    if "weights stay in the trainer" in planted:
        SharedWeights.write = _only_summed(write)
    try:
        trainer.train()
    except StaleWeightsError as error:
        return str(error)
    finally:
        grpo.swap_weights, SharedWeights.write = original, write
    return steps


def _only_summed(write: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `SharedWeights.write` that leaves the memory as it is."""

    def planted(memory: Any, named: Any) -> dict[str, int]:
        held = {name: tensor.clone() for name, tensor in memory._tensors.items()}
        sums = write(memory, named)
        for name, tensor in held.items():
            memory._tensors[name].copy_(tensor)
        return sums

    return planted
