"""The plan of SFT's memory beside what a process really takes, for each optimizer.

    python -m tests.benchmarks.plan_memory          # minutes, where cores are slow at bfloat16
    python -m tests.benchmarks.plan_memory --quick

Our trainer takes some steps with a random Qwen2-shaped model of 110 M parameters on a CPU, in a
process of its own. Measured: how far its peak (VmHWM) lies over what it held after the same with a
model of 2 M, which loads all code. Planned: the sum of the items that `--dry-run` lists.
Activations are small beside weights, gradients and moments, as with checkpointing on a GPU.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from src.config.schema import Config
from src.stages.memory import GIB, training_memory_gib
from tests.benchmarks.processes import TINY, benchmark_config, training_process
from tests.benchmarks.scaling import random_examples
from tests.benchmarks.table import Row, parser, report
from tests.benchmarks.workload import TINY_BASE, Shape, build_model

OPTIMIZERS = ("adamw", "adamw_bf16_kahan", "adamw_8bit")
SHAPE = Shape("Qwen2", 768, 3072, 12, 12, 4, 8192)
QUICK_SHAPE = Shape("Qwen2", 192, 768, 4, 6, 2, 620)
STEPS, ROWS, LENGTH = 2, 2, 64
# Of the plan to what is measured.
LARGEST = 1.15


@dataclass(frozen=True, slots=True)
class Taken:
    """What one process took, in GiB: before there was the model, and at most."""

    start: float
    peak: float
    parameters: int


def main() -> None:
    given = parser(__doc__).parse_args()
    report([compare(name, given.quick) for name in OPTIMIZERS], given.output)


def compare(optimizer: str, quick: bool) -> Row:
    """Plan and measure a run with one optimizer."""
    shape = QUICK_SHAPE if quick else SHAPE
    config = benchmark_config(TINY, model_values(optimizer, shape, 1))  # counted by the run itself
    taken = training_process(config, train, config, shape)
    counted = benchmark_config(TINY, model_values(optimizer, shape, taken.parameters))
    items = training_memory_gib(counted)
    planned, measured = sum(items.values()), taken.peak - taken.start
    ratio = planned / measured
    listed = ", ".join(f"{name} {size:.2f}" for name, size in items.items() if size >= 0.005)
    return Row(
        f"plan_memory, {optimizer}",
        "the peak of a process over what it held before there was the model",
        max(ratio, 1 / ratio),
        "" if quick else f"<= {LARGEST}",
        f"planned {planned:.2f} GiB ({listed}), measured {measured:.2f} over {taken.start:.2f} at "
        f"the start, plan to measured {ratio:.3f}; {taken.parameters / 1e6:.0f} M parameters, "
        f"{measured * GIB / taken.parameters:.1f} bytes each, {ROWS * LENGTH} tokens at once",
    )


def model_values(optimizer: str, shape: Shape, parameters: int) -> dict[str, object]:
    """Return the settings of a run with an optimizer on a model of a shape."""
    head = shape.hidden // shape.heads
    return {
        "model.path": "a/scaled-model",
        "model.parameters": parameters,
        "model.hidden_size": shape.hidden,
        "model.layers": shape.layers,
        "model.intermediate_size": shape.intermediate,
        "model.query_width": shape.hidden,
        "model.key_width": head * shape.kv_heads,
        "model.vocabulary": shape.vocabulary,
        "model.weight_dtype": "bfloat16" if optimizer == "adamw_bf16_kahan" else "float32",
        "train.optimizer": optimizer,
        "train.compute_dtype": "float32",
        "train.gradient_checkpointing": True,
        "train.batch_size": ROWS,
        "train.micro_batch_size": ROWS,
        "train.max_tokens": LENGTH,
    }


def train(config: Config, shape: Shape) -> Taken:
    """Take some steps with a small model, then with the one that is measured."""
    take_steps(config, QUICK_SHAPE)
    gc.collect()
    start = status_gib("VmRSS")
    count = take_steps(config, shape)
    return Taken(start, status_gib("VmHWM"), count)


def take_steps(config: Config, shape: Shape) -> int:
    """Train a random model; return its number of parameters."""
    import torch
    from transformers import AutoTokenizer

    from src.run.metrics import MetricLog
    from src.training.attention import PACKED
    from src.training.checkpoints import CheckpointStore
    from src.training.optimization import Schedule
    from src.training_worker import SftTrainer

    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    model = build_model(shape, tokenizer, PACKED).to(getattr(torch, config.model.weight_dtype))
    examples = [
        replace(example, prompt_tokens=1)
        for example in random_examples(model.config.vocab_size, LENGTH, ROWS * STEPS)
    ]
    with TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), keep=1)
        trainer = SftTrainer(
            model, tokenizer, config.train, store, MetricLog([]), 17, resumable=False
        )
        for _ in trainer.train(examples, Schedule(STEPS, frozenset(), len(examples))):
            pass
    return sum(parameter.numel() for parameter in model.parameters())


def status_gib(field: str) -> float:
    """Return a figure of this process's memory, such as `VmHWM`, its largest so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 2**20
    raise ValueError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
