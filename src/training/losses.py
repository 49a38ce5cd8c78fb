"""Losses and log-probabilities of packed rows: targets alone, nothing padded.

SFT sums the loss of its target tokens. GRPO wants the log-probability of each completion token:
TRL runs a batch as a rectangle, padded to its longest prompt and longest completion, and each
prompt once for every completion. Here the same sequences go end to end through the policy's packed
attention, and where that can do it the members of a group share one copy of their prompt.

Shapes: B sequences, P prompt and C completion columns, T tokens of a packed row, V vocabulary,
N target tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from src.training.attention import PACKED, packing_arguments
from src.training.batching import Example, GroupedBatch, PackedBatch, pack, pack_groups

# 256 MiB in float32: 441 tokens of a vocabulary of 151,936. A smaller chunk would move the weight's
# gradient through memory more often than it computes.
_LOGITS_AT_ONCE = 2**26


class ChunkedScores(NamedTuple):
    """What a model with `add_chunked_loss` returns for the targets of a packed row, in nats."""

    nll: torch.Tensor
    """Summed negative log-likelihood, float32."""
    entropy: torch.Tensor | None
    """Summed entropy of the next-token distributions, where it was asked for; no gradient."""


def add_chunked_loss(model: Any) -> None:
    """Let `model(..., targets=(predicts, targets))` return the targets' summed loss.

    The output layer runs on the positions that predict a target alone, some hundred at a time: with
    a vocabulary of 150,000 whole logits and their gradient take gigabytes. It stands in `forward`,
    where data-parallel and sharded models gather their weights and gradients.
    """
    if getattr(model, "has_chunked_loss", False):
        return  # of an earlier trial
    original = model.forward
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    @functools.wraps(type(model).forward)
    def forward(
        *arguments: Any,
        targets: tuple[torch.Tensor, torch.Tensor] | None = None,
        wants_entropy: bool = False,
        **more: Any,
    ) -> Any:
        if targets is None:
            return original(*arguments, **more)
        predicts, wanted = targets
        hidden = model.base_model(*arguments, **more).last_hidden_state[0, predicts]  # (N, H)
        head = model.get_output_embeddings()
        weight, bias = _whole(head.weight), getattr(head, "bias", None)
        bias = None if bias is None else _whole(bias)
        nll = _ChunkedNll.apply(hidden, weight, bias, wanted, softcap)
        entropy = _entropy(hidden, weight, bias, softcap) if wants_entropy else None
        return ChunkedScores(nll, entropy)

    model.forward, model.has_chunked_loss = forward, True


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class _ChunkedNll(torch.autograd.Function):
    """Summed cross-entropy of an output layer whose gradient is made along with the loss.

    Nothing is computed twice, and of the logits one chunk is alive at a time. Gradients of the
    weight add up in float32 whatever autocast says.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        total = hidden.new_zeros((), dtype=exact)
        learns = ctx.needs_input_grad[:3]  # not the weight, where an adapter trains over it
        grads: list[Any] = [torch.zeros_like(t, dtype=exact) if t is not None and own else None
                 for t, own in zip((hidden, weight, bias), learns, strict=True)]  # fmt: skip
        for place, inputs, matrix, logits in _logit_chunks(hidden, weight, bias, softcap):
            wanted = targets[place, None]
            log_sum = logits.logsumexp(-1, keepdim=True)
            total += (log_sum - logits.gather(1, wanted)).sum()
            if not any(learns):
                continue
            slope = 1 - (logits / softcap) ** 2 if softcap else None
            error = logits.sub_(log_sum).exp_()  # (n, V): probabilities, less 1 at the target
            error.scatter_add_(1, wanted, torch.full_like(log_sum, -1.0))
            error = (error if slope is None else error.mul_(slope)).to(inputs.dtype)
            if grads[0] is not None:
                grads[0][place] = error @ matrix
            if grads[1] is not None:
                _add_product(grads[1], error.T, inputs)
            if grads[2] is not None:
                grads[2] += error.sum(0, dtype=exact)
        ctx.grads = [
            None if grad is None or tensor is None else grad.to(tensor.dtype)
            for grad, tensor in zip(grads, (hidden, weight, bias), strict=True)
        ]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None
        return (*(None if grad is None else grad.mul_(upstream) for grad in grads), None, None)


def _logit_chunks(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, softcap: float | None
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield chunk by chunk: place, inputs (n, H), the weight (V, H), logits (n, V) in float32."""
    device = hidden.device.type
    lowered = torch.is_autocast_enabled(device)
    kind = torch.get_autocast_dtype(device) if lowered else hidden.dtype
    with torch.autocast(device, enabled=False):
        matrix = weight.to(kind)
        rows = max(1, _LOGITS_AT_ONCE // len(weight))
        for start in range(0, len(hidden), rows):
            place = slice(start, start + rows)
            inputs = hidden[place].to(kind)
            logits = (inputs @ matrix.T).to(torch.promote_types(kind, torch.float32))
            if bias is not None:
                logits += bias
            if softcap:
                logits = softcap * torch.tanh(logits / softcap)
            yield place, inputs, matrix, logits


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add `left @ right` to a float32 total without rounding the product to their own type."""
    if total.device.type == "cuda" and left.dtype != torch.float32:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))


@torch.no_grad()
def _entropy(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, softcap: float | None
) -> torch.Tensor:
    total = hidden.new_zeros((), dtype=torch.float64)
    for _, _, _, logits in _logit_chunks(hidden, weight, bias, softcap):
        logprobs = logits.log_softmax(-1)
        total -= (logprobs.exp() * logprobs).sum()
    return total


def target_scores(
    model: torch.nn.Module, implementation: str, batch: PackedBatch, *, entropy: bool = False
) -> ChunkedScores:
    """Return the summed loss of a row's target tokens, under a model with `add_chunked_loss`.

    Args:
        implementation: the attention the model was loaded with.
    """
    return model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        use_cache=False,
        targets=(batch.predicts, batch.targets),
        wants_entropy=entropy,
        **packing_arguments(implementation, batch),
    )


def summed_nll(model: torch.nn.Module, implementation: str, batch: PackedBatch) -> torch.Tensor:
    """Return the summed negative log-likelihood of the target tokens, in nats.

    The caller divides by the whole step's target count, so that the gradient does not depend on
    how the step was cut into micro-batches.
    """
    return target_scores(model, implementation, batch).nll


@dataclass(frozen=True, slots=True)
class CompletionScores:
    """Log-probabilities and entropies (B, C) in nats, 0 where there is no token."""

    logprobs: torch.Tensor
    entropies: torch.Tensor
    lengths: tuple[int, ...]
    """Real tokens of each sequence."""
    shared: tuple[int, ...]
    """Prompt tokens that some of them did not have to run, as another had."""
    targets: int
    """Completion tokens of all sequences."""


def completion_scores(
    model: torch.nn.Module,
    implementation: str,
    ids: torch.Tensor,
    mask: torch.Tensor,
    completion_columns: int,
) -> CompletionScores:
    """Score completions under a model that has TRL's fused output layer.

    Args:
        implementation: the attention the model was loaded with.
        ids: prompts padded left and completions padded right (B, P + C).
        mask: 1 on real tokens (B, P + C).
    """
    present = mask.bool()
    # Read to the host at once: each tensor read on its own would wait for the device.
    rows, kept = ids.tolist(), present.tolist()
    examples = [
        Example(
            tuple(token for token, real in zip(row, reals, strict=True) if real),
            sum(reals[:-completion_columns]),
            "rollout",
        )
        for row, reals in zip(rows, kept, strict=True)
    ]
    shares = implementation == PACKED
    batch = (pack_groups if shares else pack)(examples, ids.device)
    output = model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        labels=_labels(batch),
        fused_lm_head=True,
        **packing_arguments(implementation, batch),
    )
    completions = present[:, -completion_columns:]  # (B, C), row by row as they were packed
    empty = output.log_probs.new_zeros(completions.shape)
    return CompletionScores(
        empty.masked_scatter(completions, output.log_probs[0, batch.predicts]),
        empty.masked_scatter(completions, output.entropy[0, batch.predicts].detach())
        if output.entropy is not None
        else empty,
        tuple(len(example.ids) for example in examples),
        _shared(batch) if isinstance(batch, GroupedBatch) else (),
        len(batch.targets),
    )


def _shared(batch: GroupedBatch) -> tuple[int, ...]:
    return tuple(prefix for prefix, own in batch.groups for _ in own[1:])


def _labels(batch: PackedBatch | GroupedBatch) -> torch.Tensor:
    """Return the row's tokens where they are targets and -100 elsewhere, (1, T)."""
    labels = torch.full_like(batch.ids, -100)
    labels[0, batch.predicts + 1] = batch.targets
    return labels
