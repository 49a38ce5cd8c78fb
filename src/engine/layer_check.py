"""Tell, to the bit, which layers of a running engine hold other weights than they should.

A layer's weights may have been packed into a form that cannot be read back, and that is just where
they go stale. But a linear layer multiplies a one-hot row by its weights without any rounding: what
comes out is a column of the weights as the engine really uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

# Enough to meet a changed weight in any layer that training has touched.
_COLUMNS = 16
_ROWS = 256


class Tensors(Protocol):
    """The weights an engine should hold, by their names in a checkpoint."""

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> Sequence[int]:
        """Return a tensor's shape."""

    def rows(self, name: str, count: int, start: int = 0) -> torch.Tensor:
        """Return some rows of a tensor."""


class LiveTensors:
    """A policy's own tensors, by name."""

    def __init__(self, named: Mapping[str, torch.Tensor]) -> None:
        self._named = named

    def __contains__(self, name: str) -> bool:
        return name in self._named

    def shape(self, name: str) -> Sequence[int]:
        """Return a tensor's shape."""
        return self._named[name].shape

    def rows(self, name: str, count: int, start: int = 0) -> torch.Tensor:
        """Return some rows of a tensor."""
        return self._named[name].detach()[start : start + count]


class RecordedTensors:
    """What is compared of tensors that pass by once, as those gathered from shards do."""

    def __init__(self) -> None:
        self._rows: dict[str, torch.Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}

    def recording(
        self, named: Iterable[tuple[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Pass tensors on, copied, since their source may be freed before they are read."""
        for name, tensor in named:
            self._rows[name] = tensor.detach()[:_ROWS].clone()
            self._shapes[name] = tensor.shape
            yield name, tensor.detach().clone()

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def shape(self, name: str) -> Sequence[int]:
        """Return a tensor's shape."""
        return self._shapes[name]

    def rows(self, name: str, count: int, start: int = 0) -> torch.Tensor:
        """Return some rows of a tensor."""
        return self._rows[name][start : start + count]


class CheckpointTensors:
    """Slices of a checkpoint's tensors, by name."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._slices: dict[str, Any] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            opened = stack.enter_context(safe_open(shard, framework="pt"))
            self._slices |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118

    def __contains__(self, name: str) -> bool:
        return name in self._slices

    def shape(self, name: str) -> Sequence[int]:
        """Return a tensor's shape."""
        return self._slices[name].get_shape()

    def rows(self, name: str, count: int, start: int = 0) -> torch.Tensor:
        """Return some rows of a tensor."""
        return self._slices[name][start : start + count]


def differing_layers(model: torch.nn.Module, folder: Path) -> list[str]:
    """List the layers of vLLM's `model` whose weights are not those of the checkpoint."""
    with ExitStack() as stack:
        return layers_unlike(model, CheckpointTensors(folder, stack))


@torch.inference_mode()
def layers_unlike(model: torch.nn.Module, tensors: Tensors) -> list[str]:
    """List the layers of vLLM's `model` that hold other weights than `tensors`.

    Raises:
        RuntimeError: when no layer could be compared.
    """
    differing, compared = [], 0
    for name, module in model.named_modules():
        for same in _comparisons(name, module, tensors, model):
            compared += 1
            if not same:
                differing.append(name)
    if not compared:
        raise RuntimeError(
            "no tensor has the name of a layer of the engine, so the weights cannot be compared; "
            "is it a checkpoint of the same architecture?"
        )
    return sorted(set(differing))


def _comparisons(
    name: str, module: torch.nn.Module, tensors: Tensors, model: torch.nn.Module
) -> Iterator[bool]:
    """Yield for each tensor behind a module whether the engine holds its values."""
    method = getattr(module, "quant_method", None)
    sources = [f"{part}.weight" for part in _parts(name, model)]
    if name == "lm_head" and "lm_head.weight" not in tensors:
        sources = ["model.embed_tokens.weight"]  # tied
    if not all(source in tensors for source in sources):
        return
    is_embedding = hasattr(module, "shard_indices") and name != "lm_head"
    if method is None or is_embedding:
        weight = getattr(module, "weight", None)  # norms and embeddings are read as they are
        if weight is not None:
            held = _held(module, 0, tensors.shape(sources[0]))
            wanted = tensors.rows(sources[0], min(_ROWS, len(held.rows)), held.rows.start)
            yield torch.equal(weight[: len(wanted)], wanted.to(weight))
        if not is_embedding or module is not getattr(model, "lm_head", module):
            return  # else it makes logits as well, and may be packed for that
    yield from _columns_agree(module, sources, tensors, next(model.parameters()))


def _columns_agree(
    module: Any, sources: list[str], tensors: Tensors, like: torch.Tensor
) -> Iterator[bool]:
    """Compare columns and bias of a linear layer, part by part where several were fused into it."""
    columns = _held(module, 0, tensors.shape(sources[0])).columns
    width = len(columns)
    places = torch.linspace(0, width - 1, min(_COLUMNS, width)).round().long()
    one_hot = torch.zeros(len(places), width, dtype=like.dtype, device=like.device)
    one_hot[range(len(places)), places.to(like.device)] = 1
    outputs = module.quant_method.apply(module, one_hot, bias=None)  # (columns, outputs)
    held_bias = getattr(module, "bias", None)
    start = 0
    for number, source in enumerate(sources):
        rows = _held(module, number, tensors.shape(source)).rows
        count = min(_ROWS, len(rows))
        wanted = tensors.rows(source, count, rows.start)[:, places + columns.start].to(like).T
        yield torch.equal(outputs[:, start : start + wanted.shape[1]], wanted)
        bias = source.replace(".weight", ".bias")
        if bias in tensors and held_bias is not None:
            wanted = tensors.rows(bias, count, rows.start).to(like)
            yield torch.equal(held_bias[start : start + len(wanted)], wanted)
        start += len(rows)


@dataclass(frozen=True, slots=True)
class _Held:
    """Which part of a checkpoint's tensor a layer holds; all of it, but for tensor parallelism."""

    rows: range
    columns: range


def _held(module: Any, number: int, shape: Sequence[int]) -> _Held:
    """Say what this process's layer holds of the `number`-th tensor that was fused into it.

    Embeddings are dealt out by rows, and so are layers that make heads or the inside of an MLP;
    those that come after are dealt out by columns (Megatron-LM, arXiv:1909.08053). A key-value head
    lies in several processes where there are fewer of them than processes.
    """
    rows, columns = range(shape[0]), range(shape[1] if len(shape) > 1 else 0)
    size, rank = getattr(module, "tp_size", 1), getattr(module, "tp_rank", 0)
    indices = getattr(module, "shard_indices", None)
    if indices is not None:
        return _Held(range(indices.org_vocab_start_index, indices.org_vocab_end_index), columns)
    if getattr(module, "input_size_per_partition", len(columns)) < len(columns):
        own = len(columns) // size
        return _Held(rows, range(rank * own, (rank + 1) * own))
    if getattr(module, "output_size_per_partition", 0) < getattr(module, "output_size", 0):
        copies = getattr(module, "num_kv_head_replicas", 1) if number else 1
        own = len(rows) * copies // size
        first = rank // copies * own
        return _Held(range(first, first + own), columns)
    return _Held(rows, columns)


def _parts(name: str, model: torch.nn.Module) -> list[str]:
    """Return the checkpoint's names of what vLLM fused into one layer.

    `model.layers.0.self_attn.qkv_proj` is made of `q_proj`, `k_proj` and `v_proj`.
    """
    parent, dot, own = name.rpartition(".")
    fused = getattr(model, "packed_modules_mapping", {}).get(own, [own])
    return [f"{parent}{dot}{part}" for part in fused]
