"""Checks of whole stages: the tiny profile, FSDP2 in one process, one step of a 1.5 B shape."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from src.run.files import read_jsonl
from tests.benchmarks.gpu_sft import QWEN_1_5B, SMALLEST
from tests.benchmarks.processes import training_process
from tests.gpu.checks import Found, Skipped
from tests.gpu.engine_checks import TINY_BASE, precision, tiny

ROOT = Path(__file__).resolve().parents[2]
STEP2 = ("step2_sft/step2_sft.py", "--config", "config/tiny/sft_config.yaml")
STEP3 = ("step3_GRPO/train_trl.py", "--config", "config/tiny/grpo_config.yaml")
SMALL_SFT = (
    *("data.train_rows=128", "data.test_rows=100", "train.epochs=1", "train.learning_rate=1e-4"),
    *("train.evaluate_every=2", "train.validation_rows=64", "train.train_subset_rows=16"),
)
SMALL_GRPO = (
    *("grpo.init=base", "grpo.steps=3", "grpo.evaluate_every=3", "grpo.save_every=3"),
    *("grpo.warmup_steps=0", "grpo.validation_rows=64", "data.test_rows=100"),
)
# The first and last of the 8 steps in `make quickstart` at commit 0eeb007, 2 cores of an AMD EPYC.
CPU_LOSSES = (0.0882, 0.0342)


def settings(values: Sequence[str]) -> list[str]:
    """Return `--set` for each value."""
    return [part for value in values for part in ("--set", value)]


def both_on(device: str, folder: str) -> list[str]:
    """Return the settings that put both roles on a device and the results into a folder."""
    return settings(
        [
            *(f"devices.train={device}", f"devices.eval={device}", "wandb.mode=disabled"),
            *(f"run.output_root={folder}", "run.name=check"),
            *precision(device),
        ]
    )


def run(command: Sequence[str]) -> str:
    """Run a command in the repository's root; return what it said.

    Raises:
        RuntimeError: with its last lines, when it fails.
    """
    # Line by line, so that a check that is cut off has said how far it came.
    said = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            said.append(line)
    whole = "".join(said)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {whole[-6000:]}")
    return whole


def rows_of(folder: str, stage: str, name: str = "check") -> list[dict[str, Any]]:
    """Return the metrics that a stage logged."""
    return read_jsonl(Path(folder) / name / stage / "metrics.jsonl")


def outcome_of(folder: str, stage: str, name: str = "check") -> dict[str, Any]:
    """Return what a stage reported."""
    return json.loads((Path(folder) / name / stage / "outcome.json").read_text())


def step2_tiny(device: str) -> Found:
    """Step 2 of the tiny profile: its losses are the CPU's, and its best checkpoint is scored."""
    with TemporaryDirectory() as folder:
        run([sys.executable, *STEP2, *both_on(device, folder), *settings(SMALL_SFT)])
        rows = rows_of(folder, "step2_sft")
        outcome = outcome_of(folder, "step2_sft")
    losses, probe = _tuned(rows)
    gaps = [abs(a / b - 1) for a, b in zip((losses[0], losses[-1]), CPU_LOSSES, strict=True)]
    seen = sum("validation/accuracy" in row for row in rows)
    return Found(
        max(gaps) < 0.02 and seen >= 2,
        f"losses {losses[0]:.4f} to {losses[-1]:.4f}, within {max(gaps):.2%} of the CPU's; {seen} "
        f"evaluations, largest probe gap {probe:.4f}; test {outcome['accuracy']:.1%} of "
        f"{outcome['n']}",
    )


def _tuned(rows: Sequence[dict[str, Any]]) -> tuple[list[float], float]:
    """Return SFT's losses and the largest probe gap of its checkpoints, in nats."""
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    return losses, max(row.get("validation/probe_gap", 0.0) for row in rows)


def step3_tiny(device: str) -> Found:
    """Three GRPO steps: rollouts, sync, importance ratios, checkpoint, test."""
    with TemporaryDirectory() as folder:
        run([sys.executable, *STEP3, *both_on(device, folder), *settings(SMALL_GRPO)])
        return _grpo_found(folder)


def _grpo_found(folder: str, name: str = "check") -> Found:
    rows = rows_of(folder, "step3_GRPO", name)
    steps = [row for row in rows if "grpo/importance_ratio" in row]
    outcome = outcome_of(folder, "step3_GRPO", name)
    ratios = [row["grpo/importance_ratio"] for row in steps]
    gap = max(row["grpo/logprob_gap"] for row in steps)
    held = len(steps) >= 1 and all(0.99 < ratio < 1.01 for ratio in ratios) and gap < 0.03
    last = steps[-1]
    parts = ", ".join(
        f"{part} {last[f'system/{part}_s']:.2f}" for part in ("generate", "train", "sync", "step")
    )
    return Found(
        held,
        f"ratio {min(ratios):.4f} to {max(ratios):.4f}, gap {gap:.4f} nats; last step in s: "
        f"{parts}; memory {last['system/memory_gib']:.1f} GiB; test {outcome['accuracy']:.1%} of "
        f"{outcome['n']}",
    )


def asleep(device: str) -> Found:
    """Steps 2 and 3 with engines that sleep: swaps and ratios hold, the memory is rehearsed."""
    with TemporaryDirectory() as folder:
        more = [*both_on(device, folder), *settings(["engine.sleep=on"])]
        run([sys.executable, *STEP2, *more, *settings(SMALL_SFT)])
        tuned = rows_of(folder, "step2_sft")
        run([sys.executable, *STEP3, *more, *settings(SMALL_GRPO)])
        found, rows = _grpo_found(folder), rows_of(folder, "step3_GRPO")
    _, gap = _tuned(tuned)
    rehearsed = [row["system/rehearsal_gib"] for row in (*tuned, *rows)
                 if "system/rehearsal_gib" in row]  # fmt: skip
    largest = max(row.get("system/memory_gib", 0.0) for row in (*tuned, *rows))
    return Found(
        found.held and gap < 0.03 and len(rehearsed) == 2,
        f"probe gap of SFT's checkpoints {gap:.4f}; rehearsed {max(rehearsed, default=0):.2f} GiB, "
        f"largest {largest:.2f}; {found.figure}",
    )


def float16(device: str) -> Found:
    """Steps 2 and 3 in float16 under a scaled loss, as on a card without bfloat16."""
    with TemporaryDirectory() as folder:
        halves = settings(["engine.dtype=float16", "train.compute_dtype=float16"])
        more = [*both_on(device, folder), *halves]
        run([sys.executable, *STEP2, *more, *settings(SMALL_SFT)])
        tuned = rows_of(folder, "step2_sft")
        run([sys.executable, *STEP3, *more, *settings(SMALL_GRPO)])
        found, rows = _grpo_found(folder), rows_of(folder, "step3_GRPO")
    losses, probe = _tuned(tuned)
    norms = [row["train/grad_norm"] for row in rows if "train/grad_norm" in row]
    return Found(
        found.held and probe < 0.01 and losses[-1] < losses[0] / 2 and math.isfinite(norms[-1]),
        f"SFT: losses {losses[0]:.4f} to {losses[-1]:.4f}, largest probe gap {probe:.4f}; GRPO: "
        f"{found.figure}",
    )


def adapters(device: str) -> Found:
    """Step 2 by QLoRA, step 3 by LoRA and QLoRA, with 8-bit moments: merged, swapped, verified."""
    eight_bits = ("train.optimizer=adamw_8bit", "grpo.optimizer=adamw_8bit")
    with TemporaryDirectory() as folder:
        more = [*both_on(device, folder), *settings(eight_bits)]
        run([sys.executable, *STEP2, *more, *settings([*SMALL_SFT, "train.adapter=qlora"])])
        tuned = rows_of(folder, "step2_sft")
        run([sys.executable, *STEP3, *more, *settings([*SMALL_GRPO, "grpo.adapter=lora"])])
        low_rank = _grpo_found(folder)
        given = settings([*SMALL_GRPO, "grpo.adapter=qlora", "run.name=four-bits"])
        run([sys.executable, *STEP3, *more, *given])
        four_bits = _grpo_found(folder, "four-bits")
    losses, gap = _tuned(tuned)
    return Found(
        low_rank.held and four_bits.held and gap < 0.03 and losses[-1] < losses[0],
        f"SFT with QLoRA: losses {losses[0]:.4f} to {losses[-1]:.4f}, probe gap of its checkpoints "
        f"{gap:.4f}; GRPO with LoRA: {low_rank.figure}; with QLoRA: {four_bits.figure}",
    )


def stale_rollouts(device: str) -> Found:
    """A weight sync that does nothing ends GRPO before it samples from old weights."""
    from tests.engine.grpo_process import observe_runs

    config = tiny(device, file="config/tiny/grpo_config.yaml")
    # Weights decay even where no rollout was rewarded and there is nothing to learn, and by more
    # than rounding to the engine's bfloat16 hides (0.4 %).
    moving = ("grpo.learning_rate=1e-3", "grpo.weight_decay=10.0")
    halved = (*precision(device), "engine.dtype=bfloat16")
    overrides = [f"devices.train={device}", f"devices.eval={device}", *moving, *halved]
    with TemporaryDirectory() as folder:
        runs = {"planted": [*overrides, "plant=the sync does nothing"]}
        said = training_process(config, observe_runs, TINY_BASE, Path(folder), runs)["planted"]
    caught = isinstance(said, str) and "hold other weights" in said
    return Found(caught, str(said)[-200:])


def fsdp2_one_process(device: str) -> Found:
    """GRPO under FSDP2 with one shard; vLLM and transformers load what it saved."""
    from transformers import AutoModelForCausalLM

    launch = ["-m", "accelerate.commands.launch", "--num_processes", "1"]
    launch += ["--config_file", "config/accelerate/fsdp2.yaml"]
    with TemporaryDirectory() as folder:
        more = [*both_on(device, folder), *settings(SMALL_GRPO), *settings(["grpo.steps=2"])]
        run([sys.executable, *launch, *STEP3, *more])
        found = _grpo_found(folder)
        checkpoint = outcome_of(folder, "step3_GRPO")["checkpoint"]
        named = json.loads((Path(checkpoint) / "config.json").read_text())["architectures"]
        AutoModelForCausalLM.from_pretrained(checkpoint)
        evaluate = ["step0_baseline/evaluate_model.py", checkpoint]
        evaluate += ["--config", "config/tiny/baseline_config.yaml"]
        run([sys.executable, *evaluate, *both_on(device, folder), "--set", "data.test_rows=50"])
    return Found(
        found.held and named == ["Qwen2ForCausalLM"],
        f"saved as {', '.join(named)}, scored by a fresh engine; {found.figure}",
    )


def grpo_1_5b(device: str) -> Found:
    """Three GRPO steps of a 1.5 B shape with random weights at 256 completions."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    on_gpu = device != "cpu"
    if on_gpu and torch.cuda.get_device_properties(device).total_memory < 70 * 2**30:
        raise Skipped("needs a card of 80 GB")
    shape, prompts, tokens = (QWEN_1_5B, 32, 256) if on_gpu else (SMALLEST, 4, 32)
    with TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
        model = Path(folder) / "model"
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        torch.manual_seed(0)
        shaped = Qwen2Config(
            **shape, **ends, tie_word_embeddings=True, max_position_embeddings=2048,
            dtype=torch.bfloat16,
        )  # fmt: skip
        with torch.device(device):
            built = Qwen2ForCausalLM(shaped).to(torch.bfloat16)
        built.save_pretrained(model)
        tokenizer.save_pretrained(model)
        del built
        if on_gpu:
            torch.cuda.empty_cache()
        one_step = (
            *("grpo.init=base", "grpo.steps=3", "grpo.evaluate_every=3", "grpo.save_every=3"),
            *(f"model.path={model}", f"sampling.max_completion_tokens={tokens}"),
            *(f"grpo.prompts_per_step={prompts}", "grpo.group_size=8", "grpo.micro_batch_size=32"),
            *("grpo.validation_rows=8", "data.test_rows=8", "grpo.gradient_checkpointing=true"),
            *("grpo.warmup_steps=0", "grpo.dynamic_sampling=false", "engine.max_model_tokens=512"),
        )
        run([sys.executable, *STEP3, *both_on(device, folder), *settings(one_step)])
        found = _grpo_found(folder)
    return Found(found.held, f"{8 * prompts} x {tokens} tokens; {found.figure}")
