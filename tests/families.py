"""Take a tiny random model of each family through the real engine: step 0, SFT, a swap, GRPO.

    python -m tests.families --folder DIR [--kinds llama gemma2]

Prints a line for each family: whether a policy computes as before once an engine is in its
process, how far packed logits are from eager ones, whether the engine's own tokenizer gives the
trainer's ids, the share of completions graded in step 0, the loss of an SFT step, the gap of
log-probabilities after the swap to its checkpoint and whether every layer held it, and the mean
importance ratio of one GRPO step. Float32 throughout, so that a gap above 1e-4 is a difference in
what is computed, not in how it is rounded. Ends with 1 where a family fails.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.engine.engine_process import in_engine_process
from tests.family_models import FAMILIES, family_model, write_family

COLUMNS = (
    *("family", "chat", "policy as before", "packed - eager", "ids as engine", "graded"),
    *("SFT loss", "swap gap", "importance ratio", "GRPO gap", "seconds"),
)
# What vLLM's attention takes on a CPU: heads of 32 or more.
SHAPE = {
    "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "head_dim": 32,
    "max_position_embeddings": 1024, "initializer_range": 0.08,
}  # fmt: skip
SMALL = {
    "engine.dtype": "float32", "train.compute_dtype": "float32", "engine.max_sequences": 16,
    "sampling.max_completion_tokens": 24, "train.batch_size": 4, "train.micro_batch_size": 4,
    "train.epochs": 1, "train.learning_rate": 1e-3, "grpo.prompts_per_step": 2,
    "grpo.group_size": 4, "grpo.micro_batch_size": 8, "grpo.steps": 1, "grpo.save_every": 1000,
    "grpo.dynamic_sampling": "false",
    # Else the engine samples the first tokens from what is left without the ends, and the policy
    # scores them with all.
    "grpo.min_completion_tokens": 0,
}  # fmt: skip
LARGEST_GAP = 1e-4


def settings() -> Any:
    """Return the tiny profile, smaller still."""
    from src.config.loading import load_config

    values = [f"{name}={value}" for name, value in SMALL.items()]
    return load_config(["config/tiny/grpo_config.yaml"], values)


def taken_through(kind: str, folder: Path) -> dict[str, Any]:
    """Take one family through all of it, in a process with an engine."""
    import torch

    from src.data.chat import chats, stage_prompt
    from src.data.token_ids import prompt_ids
    from src.engine.swap_verifier import SwapVerifier
    from src.engine.vllm_engine import VllmEngine
    from src.evaluation.evaluation import EvalTask, evaluate
    from src.stages.model_check import check_model
    from src.training.policy import check_architecture, load_policy, load_tokenizer
    from utils.data.problem_generator import generate_problems

    config, began = settings(), time.monotonic()
    model = str(write_family(kind, folder / "model", **_shape(kind)))
    check_model(model, config)
    check_architecture(model, config)
    tokenizer = load_tokenizer(model, config)
    policy = load_policy(model, config)  # before the engine, as in step 3
    ids = torch.arange(3, 40)[None]
    before = policy(input_ids=ids).logits
    prompt = stage_prompt(config, tokenizer)
    problems = generate_problems(8, "test", 1)
    engine = VllmEngine(model, config, tokenizer)
    found = {"family": kind, "policy as before": torch.equal(policy(input_ids=ids).logits, before)}
    texts = [prompt.render(problem) for problem in problems]
    # As vLLM cuts a text by itself; one that a template has opened is not to be opened again.
    own = engine._llm.get_tokenizer()(texts, add_special_tokens=not chats(config, tokenizer))
    found |= {
        "chat": chats(config, tokenizer),
        "packed - eager": packed_gap(kind),
        "ids as engine": own["input_ids"] == prompt_ids(tokenizer, texts),
    }
    task = EvalTask("test", problems, prompt, config.sampling, seed=1)
    found["graded"] = sum(evaluate(engine, task, checkpoint=model).outcomes.values())
    checkpoint, found["SFT loss"] = sft_step(model, tokenizer, prompt, config, folder)
    found["swap gap"] = SwapVerifier(engine, config.engine.swap_tolerance, model).load(checkpoint)
    agreement = grpo_step(str(checkpoint), tokenizer, prompt, config, folder, engine)
    found["importance ratio"] = agreement["grpo/importance_ratio"]
    found["GRPO gap"] = agreement["grpo/logprob_gap"]
    return found | {"seconds": time.monotonic() - began}


def _shape(kind: str) -> dict[str, Any]:
    return SHAPE | ({"query_pre_attn_scalar": 32} if kind.startswith("gemma") else {})


def packed_gap(kind: str) -> float:
    """Return the largest difference of logits between packed rows and eager attention."""
    import torch

    from src.training.attention import packing_arguments
    from src.training.batching import Example, pack

    rows = [torch.arange(3, 3 + count).tolist() for count in (23, 9, 40)]
    packed, eager = (family_model(kind, attn_implementation=name) for name in ("packed", "eager"))
    batch = pack([Example(tuple(row), 1, "") for row in rows], torch.device("cpu"))
    with torch.no_grad():
        alone = [eager(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in rows]
        together = packed(
            input_ids=batch.ids, position_ids=batch.positions, use_cache=False,
            **packing_arguments("packed", batch),
        ).logits[0]  # fmt: skip
    return float((together - torch.cat(alone)).abs().max())


def sft_step(
    model: str, tokenizer: Any, prompt: Any, config: Any, folder: Path
) -> tuple[Path, float]:
    """Train one step of SFT; return the checkpoint and the loss."""
    from src.run.metrics import MetricLog
    from src.sft.examples import build_examples
    from src.sft.rows import rows_from_problems
    from src.training.checkpoints import CheckpointStore
    from src.training.optimization import Schedule
    from src.training.policy import load_policy
    from src.training_worker import SftTrainer
    from utils.data.problem_generator import generate_problems

    logged: dict[str, float] = {}

    class Sink:
        def log(self, values: dict[str, float], step: int) -> None:
            logged.update(values)

    rows = rows_from_problems(generate_problems(4, "train", 1), prompt)
    examples = build_examples(rows, tokenizer, config.train.max_tokens, "all").examples
    policy = load_policy(model, config, config.train.attention, config.train)
    store = CheckpointStore(folder / "sft", keep=1)
    trainer = SftTrainer(policy, tokenizer, config.train, store, MetricLog([Sink()]), seed=1)
    (written,) = filter(None, trainer.train(examples, Schedule(1, frozenset({1}), 4)))
    return written.folder, logged["train/loss"]


def grpo_step(
    model: str, tokenizer: Any, prompt: Any, config: Any, folder: Path, engine: Any
) -> dict[str, float]:
    """Train one step of GRPO through TRL, with the engine there is; return how both agreed."""
    import trl.generation.vllm_generation as trl_vllm
    from transformers import TrainerCallback

    from src.grpo.problems import problem_stream, usable_problems
    from src.grpo.rollout_source import RolloutSource
    from src.grpo.trainer import build_trainer
    from utils.data.problem_generator import generate_problems

    trl_vllm.LLM = lambda **_: engine._llm
    usable = usable_problems(generate_problems(8, "train", 2), prompt, tokenizer, config)
    source = RolloutSource(problem_stream(model, usable, prompt, tokenizer, config), config)
    trainer = build_trainer(model, tokenizer, source, config, folder / "grpo")

    class Begin(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            trainer.begin_step()

    trainer.add_callback(Begin())
    trainer.train()
    return trainer.agreement.metrics()


def said(value: Any) -> str:
    """Show a figure of the table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 0.01 else (
        f"{value:.4f}" if isinstance(value, float) else str(value)
    )  # fmt: skip


def holds(found: dict[str, Any]) -> bool:
    """Tell whether a family computes the same everywhere."""
    gaps = (found["packed - eager"], found["swap gap"], found["GRPO gap"])
    near = max(*gaps, abs(found["importance ratio"] - 1)) <= LARGEST_GAP
    alike = found["ids as engine"] and found["policy as before"]
    return near and alike and found["graded"] > 0


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--kinds", nargs="+", default=sorted(FAMILIES), choices=sorted(FAMILIES))
    given, failed = options.parse_args(), 0
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for kind in given.kinds:
        try:
            found = in_engine_process(taken_through, kind, given.folder / kind, config=settings())
        except Exception as error:  # noqa: BLE001 - a family that fails is a line of the table
            failed += 1
            traceback.print_exception(error)
            print(f"| {kind} | {type(error).__name__}: {str(error)[-600:]} |", flush=True)
            continue
        failed += not holds(found)
        print("| " + " | ".join(said(found[name]) for name in COLUMNS) + " |", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
