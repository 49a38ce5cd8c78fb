"""Fixed texts whose log-probabilities tell whether an engine holds the weights it should.

A weight swap can go silently wrong: a packed or tied layer keeps its old values and nothing raises.
The trainer therefore stores the log-probabilities of these texts beside each checkpoint, and the
engine's own are compared after every swap.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.data.token_ids import prompt_ids
from src.run.files import read_json, write_json_atomic

PROBE_FILE = "probe.json"
PROBE_TEXTS = (
    "User: What is $34-57+12$?\nAssistant: <think> $34-57=-23$. $-23+12=-11$. The answer is "
    "$\\boxed{-11}$. </think> <answer> -11 </answer>",
    "Solve for $x$: $3x+5=20$. We subtract 5 from both sides, so $3x=15$ and $x=5$. </think> "
    "<answer> 5 </answer>",
    "The sum of \\frac{1}{3} and \\frac{2}{5} is \\frac{11}{15}, because both are fifteenths.",
)


@dataclass(frozen=True, slots=True)
class Probe:
    """Token ids of the probe texts and the log-probability of each token after the first (nats)."""

    ids: list[list[int]]
    logprobs: list[list[float]]

    def gap(self, measured: list[list[float]]) -> float:
        """Return the mean absolute difference to measured log-probabilities, in nats a token."""
        pairs = [
            abs(ours - theirs)
            for ours_row, theirs_row in zip(self.logprobs, measured, strict=True)
            for ours, theirs in zip(ours_row, theirs_row, strict=True)
        ]
        return sum(pairs) / len(pairs)


@torch.no_grad()
def measure_probe(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> Probe:
    """Compute the probe in float32, with weights rounded to bfloat16, as they are saved.

    The gap to an engine's is then the engine's own rounding. Where the model is sharded every
    process must call this.

    Raises:
        FloatingPointError: when the weights have diverged.
    """
    ids = prompt_ids(tokenizer, PROBE_TEXTS)
    training = model.training
    model.eval()
    logprobs = []
    with _rounded_to_bfloat16(model), torch.autocast(device.type, enabled=False):
        for row in ids:
            tokens = torch.tensor([row], device=device)  # (1, T)
            logits = model(input_ids=tokens, use_cache=False).logits.float()  # (1, T, V)
            chosen = logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])  # (T - 1, 1)
            logprobs.append(chosen[:, 0].tolist())
    model.train(training)
    if not all(math.isfinite(value) for row in logprobs for value in row):
        raise FloatingPointError(
            "the weights have diverged: log-probabilities are not finite; lower the learning rate "
            "(train.learning_rate, in step 3 grpo.learning_rate) and start again"
        )
    return Probe(ids, logprobs)


def probe_of_files(folder: Path, tokenizer: PreTrainedTokenizerBase, *, trusted: bool) -> Probe:
    """Measure a saved model on the CPU, where the running one is shared out by DeepSpeed.

    Args:
        trusted: run the code that the model came with.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # launchers leave one
    try:
        saved = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=trusted
        )
        return measure_probe(saved, tokenizer, torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)


def write_probe(folder: Path, probe: Probe) -> None:
    """Store the probe beside a checkpoint."""
    write_json_atomic(folder / PROBE_FILE, asdict(probe))


def read_probe(folder: Path) -> Probe | None:
    """Read a checkpoint's probe; None where it has none (a model from elsewhere)."""
    file = folder / PROBE_FILE
    return Probe(**read_json(file)) if file.is_file() else None


@contextmanager
def _rounded_to_bfloat16(model: torch.nn.Module) -> Iterator[None]:
    """Round weights in place, shard by shard where they are sharded, and put them back exactly.

    The exact ones wait in host memory: on a GPU there is no room for a second copy.
    """
    own = [p.to_local() if isinstance(p, DTensor) else p.detach() for p in model.parameters()]
    exact = [tensor.to("cpu", copy=True) for tensor in own]
    for tensor in own:
        tensor.copy_(tensor.bfloat16())
    try:
        yield
    finally:
        for module in model.modules():
            # A sharded root stays gathered after a forward pass without a backward one.
            if isinstance(module, FSDPModule):
                module.reshard()
        for tensor, value in zip(own, exact, strict=True):
            tensor.copy_(value)
