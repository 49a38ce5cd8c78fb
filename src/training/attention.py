"""Attention over packed sequences that sees each one alone.

transformers' own packed path builds a mask over the whole row, whose cost grows with the square of
the row and which no fast kernel takes on a CPU. Here a GPU takes one call of torch's
variable-length kernel a layer, and a CPU one call of its causal kernel a sequence: exact, without
a mask, and on two CPU cores it trained a SmolLM2-shaped model 2.4 times as fast.

A prompt with several completions can be laid down once, with the completions behind it: each of
them attends to the prompt and to itself.

Takes no more than torch and transformers, so that the GPU benchmark can use it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from src.training.batching import GroupedBatch, PackedBatch

PACKED = "packed"
MODEL_TYPES = (
    *("gemma2", "gemma3_text", "llama", "mistral", "olmo2", "olmo3"),
    *("phi3", "qwen2", "qwen3", "smollm3"),
)
"""Architectures whose logits under `packed` are those of each sequence alone (tested)."""
_HALF = (torch.bfloat16, torch.float16)

# cuDNN plans its kernel anew for nearly every length and keeps each plan: 23 to 37 ms a call on an
# H100 (pytorch, kyutai-labs/pocket-tts#264, modelscope/FunASR#3704). vLLM switches it off as well.
torch.backends.cuda.enable_cudnn_sdp(False)


class Span(NamedTuple):
    """A run of queries, which attend to `prefix` tokens of the row and causally to themselves."""

    start: int
    length: int
    prefix_start: int
    prefix: int

    @property
    def keys(self) -> int:
        """Tokens that the last query sees."""
        return self.prefix + self.length


class Layout(NamedTuple):
    """How a packed row falls into spans, in the variable-length kernel's own terms."""

    query_edges: torch.Tensor  # (spans + 1,) int32
    key_edges: torch.Tensor  # (spans + 1,) int32
    most_queries: int
    most_keys: int
    key_places: torch.Tensor | None  # (keys,) places in the row; None where they are the row itself


def spans_of(batch: PackedBatch | GroupedBatch) -> tuple[Span, ...]:
    """Return the spans of a batch's row, in order."""
    if isinstance(batch, PackedBatch):
        ends = accumulate(batch.lengths)
        return tuple(
            Span(end - length, length, end - length, 0)
            for end, length in zip(ends, batch.lengths, strict=True)
        )
    return tuple(_group_spans(batch.groups))


def _group_spans(groups: Sequence[tuple[int, tuple[int, ...]]]) -> Iterator[Span]:
    place = 0
    for prefix, own in groups:
        prompt = place
        if prefix:
            yield Span(prompt, prefix, prompt, 0)
        place += prefix
        for length in own:
            yield Span(place, length, prompt, prefix)
            place += length


def layout_of(spans: Sequence[Span], device: torch.device) -> Layout:
    """Describe spans as the variable-length kernel wants them, on a device."""
    queries = [span.length for span in spans]
    keys = [span.keys for span in spans]
    places = None
    if any(span.prefix for span in spans):
        runs = [
            run
            for span in spans
            for run in (
                torch.arange(span.prefix_start, span.prefix_start + span.prefix),
                torch.arange(span.start, span.start + span.length),
            )
        ]
        places = torch.cat(runs).to(device)
    return Layout(_edges(queries, device), _edges(keys, device), max(queries), max(keys), places)


def _edges(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(tuple(accumulate(lengths, initial=0)), dtype=torch.int32, device=device)


def packing_arguments(implementation: str, batch: PackedBatch | GroupedBatch) -> dict[str, Any]:
    """Return what a model's forward needs beside ids and positions to keep sequences apart.

    Plain `sdpa` needs nothing: transformers finds the boundaries where positions restart.
    """
    if implementation != PACKED:
        return {}
    spans, device = spans_of(batch), batch.ids.device
    # The kernel wants an Ampere card or a newer one.
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    layout = layout_of(spans, device) if fast else None
    return {"packed_spans": spans, "packed_layout": layout}


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_spans: tuple[Span, ...] | None = None,
    packed_layout: Layout | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each span of a row (1, heads, T, D); return (1, T, heads, D).

    Without `packed_spans` every row is one sequence.

    Args:
        sliding_window: tokens that a query sees at most, itself included.
        softcap: scores are squeezed below it, `softcap * tanh(score / softcap)` (Gemma 2).
    """
    device = query.device.type
    autocast = torch.is_autocast_enabled(device)
    kernel_type = torch.get_autocast_dtype(device) if autocast else query.dtype
    fast = packed_layout is not None and kernel_type in _HALF and not softcap and not dropout
    if fast and packed_layout is not None:
        query_, key_, value_ = (tensor.to(kernel_type) for tensor in (query, key, value))
        attended = _attend_in_one_call(query_, key_, value_, packed_layout, scaling, sliding_window)
        return attended.to(query.dtype), None
    spans = packed_spans or (Span(0, query.shape[2], 0, 0),)
    copies = query.shape[1] // key.shape[1]
    whole: tuple[torch.Tensor, ...] = (
        query,
        key.repeat_interleave(copies, 1),
        value.repeat_interleave(copies, 1),
    )
    if device == "cpu":
        # torch's CPU kernel takes up to twice as long in bfloat16, for a coarser result.
        whole = tuple(tensor.float() for tensor in whole)
    with torch.autocast(device, enabled=device != "cpu" and autocast):
        parts = [
            _attend(query, key, value, scaling, dropout, sliding_window, softcap)
            for query, key, value in _cut(whole, spans)
        ]
    return torch.cat(parts, 2).transpose(1, 2).to(query.dtype).contiguous(), None


def _attend_in_one_call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attend in all spans at once; heads as they are in the model, half precision, on a GPU.

    The kernel lets the last query of a span see its last key, so a span's queries see its prefix
    whole and themselves causally.
    """
    query, key, value = (
        tensor[0].transpose(0, 1) for tensor in (query, key, value)
    )  # (T, heads, D)
    if layout.key_places is not None:
        key, value = (tensor.index_select(0, layout.key_places) for tensor in (key, value))
    attended: torch.Tensor = varlen_attn(  # type: ignore[assignment]
        query,
        key,
        value,
        layout.query_edges,
        layout.key_edges,
        layout.most_queries,
        layout.most_keys,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
    )
    return attended[None]  # (1, T, heads, D)


def _cut(
    heads: Sequence[torch.Tensor], spans: Sequence[Span]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield each span's queries with the keys and values they may see, (1, heads, T, D).

    A row is split once: the gradient of each slice on its own would be as long as the row.
    """
    lengths = [span.length for span in spans]
    queries, keys, values = (tensor.split(lengths, 2) for tensor in heads)
    places = {span.start: number for number, span in enumerate(spans)}
    for number, span in enumerate(spans):
        key, value = keys[number], values[number]
        if span.prefix:
            shared = places[span.prefix_start]
            key, value = torch.cat([keys[shared], key], 2), torch.cat([values[shared], value], 2)
        yield queries[number], key, value


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    dropout: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attend causally in one span, (1, heads, T, D); the last query sees the last key."""
    queries, keys = query.shape[2], key.shape[2]
    windowed = window is not None and window < keys
    if queries == keys and not windowed and not softcap:
        return F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, dropout_p=dropout
        )
    sees = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    if window is not None and windowed:
        sees = sees.triu(keys - queries - window + 1)
    if not softcap:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=sees, scale=scaling, dropout_p=dropout
        )
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    shares = scores.masked_fill(~sees, -torch.inf).softmax(-1, dtype=torch.float32)
    return F.dropout(shares.to(value.dtype), dropout) @ value


AttentionInterface.register(PACKED, packed_attention)
