"""Checks that need torch and transformers alone."""

from __future__ import annotations

import platform
import shutil
import sysconfig
from pathlib import Path

import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM

from src.training.attention import PACKED, packing_arguments
from src.training.batching import Example, GroupedBatch, PackedBatch, pack, pack_groups
from src.training.losses import add_chunked_loss, summed_nll
from tests.gpu.checks import Found, Skipped

TINY_BASE = Path(__file__).resolve().parents[2] / "assets" / "tiny_base"
SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
LENGTHS = (300, 17, 129, 64, 8)
# bfloat16 against float32: logits of size 1 lie apart by some of their 1/256 steps.
LARGEST_GAP, MEAN_GAP, LEAST_COSINE = 0.06, 0.006, 0.999
# CUDA 13, which torch 2.13's wheel is built for, needs this driver.
LEAST_DRIVER = 580


def versions(device: str) -> Found:
    """What is installed, and whether the driver is new enough for CUDA 13."""
    said = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if device == "cpu":
        return Found(True, f"{said}, {platform.processor() or platform.machine()}, no GPU")
    from tests.gpu.__main__ import list_gpus

    card = list_gpus()[0]
    driver = int(card["driver_version"].split(".")[0])
    cuda = torch.version.cuda or "none"
    held = torch.cuda.is_available() and (driver >= LEAST_DRIVER or not cuda.startswith("13"))
    missing = missing_for_kernels()
    wants = f"; kernels are built on first use, which wants {' and '.join(missing)}"
    return Found(
        held and not missing,
        f"{card['name']}, {card['memory.total']}, driver {card['driver_version']}, CUDA {cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}, {said}{wants if missing else ''}",
    )


def missing_for_kernels() -> list[str]:
    """Name what Triton wants for its kernels' launchers and this machine has not."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    compilers = [name for name in ("gcc", "clang") if shutil.which(name)]
    return [
        *([] if compilers else ["a C compiler (apt install gcc)"]),
        *([] if headers.is_file() else [f"{headers} (apt install python3-dev)"]),
    ]


def attention(device: str) -> Found:
    """Packed and grouped rows, checkpointing, compilation, chunked loss: bf16 against float32."""
    place = torch.device(device)
    exact = build("eager", place)
    state = exact.state_dict()
    said, held = [], True
    for name, grouped in (("packed", False), ("groups", True)):
        examples = grouped_examples() if grouped else plain_examples()
        logits, gradient = alone(exact, examples, place)
        # A CPU compiles for minutes; unit tests do that once.
        for more in ("", "checkpointing", "compiled")[: 2 if device == "cpu" else 3]:
            model = build(PACKED, place)
            model.load_state_dict(state)
            add_chunked_loss(model)
            if more == "checkpointing":
                model.gradient_checkpointing_enable({"use_reentrant": False})
            if more == "compiled":
                for layer in model.model.layers:
                    layer.compile(dynamic=True)
            batch = (pack_groups if grouped else pack)(examples, place)
            gap, mean, cosine = compare(model.train(), batch, logits, gradient)
            good = gap < LARGEST_GAP and mean < MEAN_GAP and cosine > LEAST_COSINE
            held = held and good
            mark = "" if good else " (!)"
            label = f"{name} {more}".strip()
            said.append(f"{label} {gap:.3f}/{mean:.4f}/{cosine:.5f}{mark}")
    return Found(held, "largest/mean logit gap, gradient cosine: " + "; ".join(said))


def build(implementation: str, device: torch.device) -> Qwen2ForCausalLM:
    """Return a random model in float32, the same each time."""
    torch.manual_seed(0)
    config = Qwen2Config(**SHAPE, use_cache=False, attn_implementation=implementation)
    return Qwen2ForCausalLM(config).to(device)


def plain_examples() -> list[Example]:
    """Return sequences of unequal lengths, half prompt and half target."""
    generator = torch.Generator().manual_seed(1)
    vocabulary = int(SHAPE["vocab_size"])
    return [
        Example(
            tuple(torch.randint(vocabulary, (length,), generator=generator).tolist()),
            length // 2,
            str(length),
        )
        for length in LENGTHS
    ]


def grouped_examples() -> list[Example]:
    """Return completions of two prompts."""
    first, second, *tails = plain_examples()
    return [
        Example(prompt.ids + tail.ids, len(prompt.ids), "group")
        for prompt in (first, second)
        for tail in tails
    ]


def alone(
    model: Qwen2ForCausalLM, examples: list[Example], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return target logits and the gradient of each sequence run alone, in float32."""
    model.zero_grad()
    rows = []
    for example in examples:
        ids = torch.tensor([example.ids], device=device)
        logits = model(input_ids=ids).logits[0, example.prompt_tokens - 1 : -1]
        wanted = ids[0, example.prompt_tokens :]
        torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").backward()
        rows.append(logits.detach())
    return torch.cat(rows), flat_gradient(model)


def compare(
    model: Qwen2ForCausalLM,
    batch: PackedBatch | GroupedBatch,
    logits: torch.Tensor,
    gradient: torch.Tensor,
) -> tuple[float, float, float]:
    """Return the largest and mean gap of logits and the cosine of gradients."""
    with torch.autocast(logits.device.type, torch.bfloat16):
        with torch.no_grad():
            found = model(
                input_ids=batch.ids,
                position_ids=batch.positions,
                **packing_arguments(PACKED, batch),
            ).logits[0, batch.predicts]
        nll = summed_nll(model, PACKED, batch)  # type: ignore[arg-type]
    nll.backward()
    gap = (found.float() - logits).abs()
    cosine = torch.nn.functional.cosine_similarity(flat_gradient(model), gradient, dim=0)
    return gap.max().item(), gap.mean().item(), cosine.item()


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    """Return all gradients as one vector, in the order of the parameters."""
    return torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])


def probe_and_state(device: str) -> Found:
    """The probe leaves the weights as they were; a restored training state goes on the same."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from src.engine.weight_probe import measure_probe
    from src.training.parallel import ParallelPolicy

    place = torch.device(device)
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    examples = [Example(example.ids, 4, "x") for example in plain_examples()]
    examples = [Example(tuple(i % 512 for i in e.ids), 4, "x") for e in examples]

    def policy() -> ParallelPolicy:
        model = AutoModelForCausalLM.from_pretrained(TINY_BASE, attn_implementation=PACKED)
        model = model.float().to(place)
        add_chunked_loss(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        return ParallelPolicy(model, optimizer, place, 600)

    def step(parallel: ParallelPolicy) -> float:
        loss = summed_nll(parallel.model, PACKED, pack(examples, place)) / 100
        loss.backward()
        parallel.optimizer.step()
        parallel.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    first = policy()
    before = [parameter.detach().clone() for parameter in first.model.parameters()]
    probe = measure_probe(first.model, tokenizer, place)
    same = all(map(torch.equal, before, first.model.parameters()))
    step(first)
    state = first.state(optimizer=True)
    expected = [step(first) for _ in range(2)]
    second = policy()
    second.load_state(state)
    found = [step(second) for _ in range(2)]
    gap = max(abs(a - b) / abs(a) for a, b in zip(expected, found, strict=True))
    tokens = sum(map(len, probe.logprobs))
    return Found(
        same and gap < 1e-5,
        f"probe of {tokens} tokens, weights {'equal' if same else 'CHANGED'} after it; losses "
        f"after restoring within {gap:.1e}",
    )


def sft_1_5b(device: str) -> Found:
    """SFT of a 1.5 B shape in small and in large micro-batches: tokens/s, MFU, memory."""
    from tests.benchmarks.gpu_sft import QWEN_1_5B, SMALLEST, Setting, train

    on_gpu = device != "cpu"
    if on_gpu and torch.cuda.get_device_properties(device).total_memory < 36 * 2**30:
        raise Skipped("needs a card of 40 GB")
    shape, sizes, steps = (QWEN_1_5B, (8, 32), 3) if on_gpu else (SMALLEST, (2, 4), 2)
    said, rates = [], []
    for size in sizes:
        found = train(Setting(device, shape, max(sizes), size, steps, True))
        if found is None:
            return Found(False, f"out of memory at {size} sequences a micro-batch")
        mfu = "unknown" if found.mfu is None else f"{found.mfu:.1%}"
        rates.append(found.tokens / found.seconds)
        said.append(
            f"{size} sequences a micro-batch: {rates[-1]:,.0f} tokens/s, MFU {mfu}, peak "
            f"{found.memory_gib:.1f} GiB, {found.seconds:.2f} s a step of {max(sizes)}"
        )
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
    return Found(not on_gpu or rates[1] > rates[0], "; ".join(said))
