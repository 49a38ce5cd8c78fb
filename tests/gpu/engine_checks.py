"""Checks of the evaluation worker and its verified swaps."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from src.config.loading import load_config
from src.config.schema import Config
from tests.benchmarks.processes import engine_process
from tests.gpu.checks import Found

TINY_BASE = Path(__file__).resolve().parents[2] / "assets" / "tiny_base"
PROBLEMS = 32


def precision(device: str) -> tuple[str, ...]:
    """Return the settings of the full profile's precision, which the tiny profile has not."""
    return () if device == "cpu" else ("train.compute_dtype=bfloat16", "engine.dtype=bfloat16")


def tiny(device: str, *more: str, file: str = "config/tiny/sft_config.yaml") -> Config:
    """Return the tiny profile with both roles on a device."""
    both = [f"devices.train={device}", f"devices.eval={device}", "wandb.mode=disabled"]
    return load_config([file], [*both, *precision(device), *more])


def devices(device: str) -> Found:
    """Trainer and worker see their own GPU and no other."""
    from src.run.processes import evaluation_device, visible_gpus

    auto = load_config(["config/sft_config.yaml"], [f"devices.train={device}"])
    place, gpus = evaluation_device(auto), visible_gpus()
    config = tiny(device)
    count, visible = engine_process(config, seen_in_worker)
    expected = 0 if device == "cpu" else 1
    return Found(
        count == expected,
        f"GPUs {', '.join(gpus) or 'none'}; auto evaluates on {place}; a worker on {device} sees "
        f"{count} ({visible or 'none'})",
    )


def seen_in_worker() -> tuple[int, str]:
    """Return what a process with the worker's environment sees."""
    import torch

    from src.run.processes import visible_gpus

    return torch.cuda.device_count(), ",".join(visible_gpus())


def write_pair(folder: Path, config: Config) -> tuple[Path, Path]:
    """Write the tiny base and the same after a small update, each with its probe."""
    import torch

    from src.engine.weight_probe import measure_probe, write_probe
    from src.training.policy import load_tokenizer, save_policy

    tokenizer = load_tokenizer(str(TINY_BASE), config)
    model = _on_the_cpu()
    torch.manual_seed(0)
    for name in ("before", "after"):
        save_policy(model, tokenizer, folder / name)
        write_probe(folder / name, measure_probe(model, tokenizer, torch.device("cpu")))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 3e-3 * torch.randn_like(parameter).sign()
    return folder / "before", folder / "after"


def _on_the_cpu():
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(TINY_BASE, dtype=torch.float32)


def worker_and_swap(device: str) -> Found:
    """Swapped completions equal a fresh engine's; layers equal the files; the gap is small."""
    import torch

    from src.data.problems import load_problems
    from src.data.prompts import load_prompt
    from src.eval_worker import EvalWorker
    from src.evaluation.evaluation import EvalTask
    from src.training.checkpoints import Checkpoint

    config = tiny(device, "data.test_rows=64")
    problems = load_problems(config).test[:PROBLEMS]
    task = EvalTask("test", problems, load_prompt(config.data.prompt), config.sampling, 1)
    started = time.perf_counter()
    with TemporaryDirectory() as temporary:
        before, after = write_pair(Path(temporary), config)
        with EvalWorker(config, str(before), {"test": task}) as worker:
            worker.evaluate(Checkpoint(before, 0, 0), "test")
            ready_s = time.perf_counter() - started
            swapped = worker.evaluate(Checkpoint(after, 1, 0), "test")["test"]
        with EvalWorker(config, str(after), {"test": task}) as worker:
            fresh = worker.evaluate(Checkpoint(after, 1, 0), "test")["test"]
    pairs = zip(swapped.samples, fresh.samples, strict=True)
    same = sum(a["completion"] == b["completion"] for a, b in pairs)
    gap = swapped.probe_gap or 0.0
    untouched = not torch.cuda.is_initialized()
    return Found(
        same == len(fresh.samples) and gap < config.engine.swap_tolerance and untouched,
        f"{same} of {len(fresh.samples)} completions as a fresh engine's; probe gap {gap:.4f}; "
        f"swap {swapped.seconds['swap']:.2f} s, first scores {ready_s:.0f} s after the start; "
        f"{swapped.tokens_per_s:,.0f} tokens/s; CUDA {'un' * untouched}touched in this process",
    )


def stale_weights(device: str) -> Found:
    """An engine whose swap did nothing is caught, and a good swap is not."""
    from tests.engine.engine_process import verified_loads

    config = tiny(device)
    said = {}
    with TemporaryDirectory() as temporary:
        pair = write_pair(Path(temporary), config)
        for plant in ("nothing", "swap does nothing"):
            said[plant] = engine_process(config, verified_loads, *pair, plant, config)
    good = said["nothing"] == ["verified", "verified"]
    caught = "hold other weights" in said["swap does nothing"][1]
    return Found(
        good and caught,
        f"good swaps {'verified' if good else said['nothing']}; planted: "
        f"{said['swap does nothing'][1][-160:]}",
    )
