"""Supervised fine-tuning of a Qwen2.5-1.5B-shaped model on one GPU: tokens/s, MFU, peak memory.

    python -m tests.benchmarks.gpu_sft                                  # 6 minutes on an H100
    python -m tests.benchmarks.gpu_sft --micro-batch-size 32
    python -m tests.benchmarks.gpu_sft --device cpu --quick

Needs torch and transformers alone. Random weights (float32, bfloat16 autocast) and random tokens in
sequences as long as MATH's under the r1_zero prompt, packed and trained on by the pipeline's own
batching, attention, loss and optimizer; four processes, with and without gradient checkpointing and
torch.compile. MFU counts the model's FLOPs, not those that checkpointing does again.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.benchmarks.table import Row, parser, report

if TYPE_CHECKING:
    import torch

    from src.training.batching import Example

QWEN_1_5B = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
SMALLEST = {
    "vocab_size": 620,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a process trains; a step has `batch_size` sequences."""

    device: str
    shape: dict[str, int]
    batch_size: int
    micro_batch_size: int
    steps: int
    checkpointing: bool = False
    compiled: bool = False

    @property
    def said(self) -> str:
        """Name the setting in a table."""
        return (
            f"checkpointing {'on' if self.checkpointing else 'off'}, "
            f"compile {'on' if self.compiled else 'off'}"
        )


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """What `build_optimizer` reads; the pipeline's configuration would need pydantic."""

    optimizer: str = "adamw"
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    decay_all: bool = False
    adam_beta2: float = 0.999


@dataclass(frozen=True, slots=True)
class Found:
    """One step in the median; `mfu` is None where the device's peak is not known."""

    device: str
    attention: str
    tokens: int
    target_tokens: int
    seconds: float
    first_s: float
    mfu: float | None
    memory_gib: float


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", help="such as cuda:0 or cpu (default: cuda:0 if there is one)")
    options.add_argument("--micro-batch-size", type=int, default=16, help="sequences (default: 16)")
    given = options.parse_args()
    device = given.device or first_device()
    if device is None:
        missing = "skipped: no CUDA device; --device cpu --quick tries it on a CPU"
        rows = [Row("gpu_sft", "", None, "", missing)]
    else:
        rows = [measure(setting) for setting in settings(device, given)]
    report(rows, given.output)


def first_device() -> str | None:
    """Return the first GPU; None without one."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else None


def settings(device: str, given: argparse.Namespace) -> list[Setting]:
    """Return the four combinations."""
    size = given.micro_batch_size
    sizes = (SMALLEST, 4, 2, 2) if given.quick else (QWEN_1_5B, 4 * size, size, 8)
    return [
        Setting(device, *sizes, checkpointing, compiled)
        for checkpointing in (True, False)
        for compiled in (False, True)
    ]


def measure(setting: Setting) -> Row:
    """Train in a fresh process; running out of memory is a result too."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        found = pool.submit(train, setting).result()
    name = f"gpu_sft, {setting.said}"
    if found is None:
        return Row(name, "", None, "", f"out of memory at {setting.micro_batch_size} a micro-batch")
    return Row(
        name,
        f"the bfloat16 peak of {found.device}",
        found.mfu,
        "",
        f"{found.tokens / found.seconds:.0f} tokens/s, "
        f"{found.target_tokens / found.seconds:.0f} target tokens/s, MFU "
        f"{'unknown' if found.mfu is None else f'{found.mfu:.1%}'}, peak memory "
        f"{found.memory_gib:.1f} GiB; {found.seconds:.2f} s a step of {setting.batch_size} "
        f"sequences ({setting.micro_batch_size} a micro-batch), the first step "
        f"{found.first_s:.1f} s; {found.attention}; random tokens in lengths like MATH's",
    )


def train(setting: Setting) -> Found | None:
    """Take a warm-up step and some timed ones; return None where memory runs out."""
    import torch

    from src.training.attention import PACKED
    from src.training.optimization import build_optimizer
    from src.training.throughput import memory_gib, peak_flops

    device, attention = torch.device(setting.device), PACKED
    count = setting.batch_size * (1 + setting.steps)
    examples = math_like(setting.shape["vocab_size"], count)
    try:
        model = build(setting, attention)
        optimizer = build_optimizer(model, OptimizerSettings())
        seconds = [
            timed_step(model, optimizer, attention, examples[first:][: setting.batch_size], setting)
            for first in range(0, count, setting.batch_size)
        ]
    except torch.OutOfMemoryError:
        return None
    timed, peak = examples[setting.batch_size :], peak_flops(device)
    flops = needed_flops(model, timed) / setting.steps
    return Found(
        torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU",
        attention,
        sum(len(item.ids) for item in timed) // setting.steps,
        target_tokens(timed) // setting.steps,
        median(seconds[1:]),
        seconds[0],
        flops / median(seconds[1:]) / peak if peak else None,
        memory_gib(device),
    )


def build(setting: Setting, attention: str) -> Any:
    """Return the model in training mode on its device, as the trainer prepares it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from src.training.losses import add_chunked_loss

    config = Qwen2Config(
        **setting.shape, max_position_embeddings=4096, tie_word_embeddings=True, use_cache=False
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    with torch.device(setting.device):
        model = Qwen2ForCausalLM(config)
    add_chunked_loss(model)
    if setting.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if setting.compiled:
        # Layer by layer: one graph of the whole model has a call of the attention kernel for each
        # layer and sequence, and takes minutes where one layer takes seconds.
        for layer in model.model.layers:
            layer.compile(dynamic=True)
    return model.train()


def timed_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    attention: str,
    batch: Sequence[Example],
    setting: Setting,
) -> float:
    """Do what an optimizer step of `src/training_worker.py` does; return its seconds."""
    import torch

    from src.training.batching import micro_batches, pack
    from src.training.losses import summed_nll

    started, total = time.perf_counter(), target_tokens(batch)
    # Room for that many of the mean length, and a little for what does not come out even.
    room = sum(len(item.ids) for item in batch) * setting.micro_batch_size / len(batch)
    for group in micro_batches(batch, math.ceil(1.05 * room))[0]:
        packed = pack(group, model.device)
        with torch.autocast(model.device.type, torch.bfloat16):
            nll = summed_nll(model, attention, packed)
        (nll / total).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if not math.isfinite(norm.item()):  # reading it waits for the device, as the trainer does
        raise FloatingPointError(f"gradient norm {norm.item()}")
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - started


def needed_flops(model: Any, examples: Sequence[Example]) -> float:
    """Return the FLOPs of training on some sequences once."""
    from src.training.throughput import training_flops

    lengths = [len(item.ids) for item in examples]
    return training_flops(model, lengths, target_tokens(examples))


def math_like(vocabulary: int, count: int) -> list[Example]:
    """Return random sequences as long as MATH's under the r1_zero prompt.

    Measured on 2,000 rows with SmolLM2's tokenizer, which splits digits as Qwen's does: 100 tokens
    of template, problems of 41 and targets of 139 in the median, both roughly log-normal.
    """
    from src.training.batching import Example

    generator = random.Random(0)
    examples = []
    for number in range(count):
        prompt = 100 + min(500, round(generator.lognormvariate(math.log(41), 0.65)))
        target = min(1000, round(generator.lognormvariate(math.log(139), 0.57)))
        ids = tuple(generator.choices(range(vocabulary), k=prompt + target))
        examples.append(Example(ids, prompt, f"random/{number}"))
    return examples


def target_tokens(examples: Sequence[Example]) -> int:
    """Count the tokens that are predicted."""
    return sum(example.target_tokens for example in examples)


if __name__ == "__main__":
    main()
