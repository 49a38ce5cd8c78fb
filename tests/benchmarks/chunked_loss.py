"""SFT's loss in chunks beside whole logits: peak memory of the output layer, tokens/s of a step.

    python -m tests.benchmarks.chunked_loss                             # 4 minutes on 2 cores
    python -m tests.benchmarks.chunked_loss --quick

Memory: an output layer with Qwen2.5's vocabulary on 8 x 1,024 target tokens, a process a side.
Speed: whole training steps of a random model in SmolLM2's shape, in turn; under bfloat16 autocast
where the processor has instructions for it, else in float32.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any

from tests.benchmarks.table import Row, alternate, listed, parser, report

VOCABULARY, WIDTH, TARGETS = 151_936, 256, 8 * 1024
SIDES = ("whole", "chunks")


def main() -> None:
    given = parser(__doc__).parse_args()
    report([memory(given.quick), speed(given.quick)], given.output)


def memory(quick: bool) -> Row:
    """Compare how far a process grows in one forward and backward pass."""
    sizes = (2_048, 64, 512) if quick else (VOCABULARY, WIDTH, TARGETS)
    grown, gaps = {}, {}
    for side in SIDES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            grown[side], gaps[side] = pool.submit(pass_through, side, *sizes).result()
    loss = abs(gaps["whole"][0] / gaps["chunks"][0] - 1)
    gradient = abs(gaps["whole"][1] / gaps["chunks"][1] - 1)
    return Row(
        "chunked_loss, peak memory",
        "whole logits",
        grown["chunks"] / grown["whole"],
        "" if quick else "<= 0.5",
        f"{grown['chunks']:.2f} GiB in chunks, {grown['whole']:.2f} GiB whole, for {sizes[2]} "
        f"targets of a vocabulary of {sizes[0]:,} at width {sizes[1]}, weights and inputs not "
        f"counted; losses within {loss:.0e}, gradient norms within {gradient:.0e} of one another",
    )


def pass_through(
    side: str, vocabulary: int, width: int, targets: int
) -> tuple[float, tuple[float, float]]:
    """Return by how many GiB the process grew, the loss and the gradient's norm; float32."""
    import torch

    from src.training.losses import _ChunkedNll
    from src.training.throughput import memory_gib

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(vocabulary, width) * 0.02)
    hidden = torch.randn(targets, width, requires_grad=True)
    wanted = torch.randint(vocabulary, (targets,))
    before = memory_gib(torch.device("cpu"))
    if side == "whole":
        logits = hidden @ weight.T
        loss = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")
    else:
        loss = _ChunkedNll.apply(hidden, weight, None, wanted, None)
    loss.backward()
    grown = memory_gib(torch.device("cpu")) - before
    assert weight.grad is not None
    return grown, (loss.item(), weight.grad.norm().item())


def speed(quick: bool) -> Row:
    """Compare target tokens a second of whole training steps."""
    from transformers import AutoTokenizer

    from src.training.attention import PACKED
    from src.training.losses import add_chunked_loss
    from tests.benchmarks.gpu_sft import math_like
    from tests.benchmarks.workload import QWEN2_20M, SMOLLM2_SHAPE, TINY_BASE, build_model

    shape, count = (QWEN2_20M, 4) if quick else (SMOLLM2_SHAPE, 8)
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    model = build_model(shape, tokenizer, PACKED)
    add_chunked_loss(model)
    examples = math_like(model.config.vocab_size, count)
    targets = sum(example.target_tokens for example in examples)
    found = alternate(
        {side: lambda side=side: step(model, examples, side) for side in SIDES},  # type: ignore[misc]
        1 if quick else 4,
    )
    rates = {side: [targets / seconds for seconds in times] for side, times in found.items()}
    return Row(
        "chunked_loss, target tokens/s",
        "whole logits",
        median(rates["chunks"]) / median(rates["whole"]),
        "" if quick else ">= 0.95",
        f"in chunks {listed(rates['chunks'], '.1f')}, whole {listed(rates['whole'], '.1f')}; one "
        f"pack of {count} sequences in lengths like MATH's, vocabulary "
        f"{model.config.vocab_size:,}, {'bfloat16' if multiplies_bfloat16() else 'float32'}",
    )


def multiplies_bfloat16() -> bool:
    """Tell whether this processor has instructions for bfloat16; without them it takes 80 times
    as long for a product of two matrices as in float32."""
    import torch

    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def step(model: Any, examples: Any, side: str) -> float:
    """Return the seconds of one forward and backward pass."""
    import torch
    from torch.nn import functional as F

    from src.training.attention import PACKED, packing_arguments
    from src.training.batching import pack
    from src.training.losses import summed_nll

    batch = pack(examples, torch.device("cpu"))
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
        if side == "chunks":
            nll = summed_nll(model, PACKED, batch)
        else:
            logits = model(
                input_ids=batch.ids,
                position_ids=batch.positions,
                use_cache=False,
                logits_to_keep=batch.predicts,
                **packing_arguments(PACKED, batch),
            ).logits[0]
            nll = F.cross_entropy(logits.float(), batch.targets, reduction="sum")
    nll.backward()
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return seconds


if __name__ == "__main__":
    main()
