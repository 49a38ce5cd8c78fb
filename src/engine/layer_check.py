"""Tell, to the bit, which layers of a running engine hold other weights than they should.

A layer's weights may have been packed into a form that cannot be read back, and that is just where
they go stale. But a linear layer multiplies a one-hot row by its weights without any rounding: what
comes out is a column of the weights as the engine really uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
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

    def rows(self, name: str, count: int) -> torch.Tensor:
        """Return the first rows of a tensor."""


class LiveTensors:
    """A policy's own tensors, by name."""

    def __init__(self, named: Mapping[str, torch.Tensor]) -> None:
        self._named = named

    def __contains__(self, name: str) -> bool:
        return name in self._named

    def shape(self, name: str) -> Sequence[int]:
        """Return a tensor's shape."""
        return self._named[name].shape

    def rows(self, name: str, count: int) -> torch.Tensor:
        """Return the first rows of a tensor."""
        return self._named[name].detach()[:count]


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

    def rows(self, name: str, count: int) -> torch.Tensor:
        """Return the first rows of a tensor."""
        return self._rows[name][:count]


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

    def rows(self, name: str, count: int) -> torch.Tensor:
        """Return the first rows of a tensor."""
        return self._slices[name][:count]


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
            wanted = tensors.rows(sources[0], _ROWS).to(weight)
            yield torch.equal(weight[: len(wanted)], wanted)
        return
    yield from _columns_agree(module, sources, tensors, next(model.parameters()))


def _columns_agree(
    module: Any, sources: list[str], tensors: Tensors, like: torch.Tensor
) -> Iterator[bool]:
    """Compare columns and bias of a linear layer, part by part where several were fused into it."""
    width = tensors.shape(sources[0])[1]
    places = torch.linspace(0, width - 1, min(_COLUMNS, width)).round().long()
    one_hot = torch.zeros(len(places), width, dtype=like.dtype, device=like.device)
    one_hot[range(len(places)), places.to(like.device)] = 1
    columns = module.quant_method.apply(module, one_hot, bias=None)  # (columns, outputs)
    held_bias = getattr(module, "bias", None)
    start = 0
    for source in sources:
        wanted = tensors.rows(source, _ROWS)[:, places].to(like).T
        yield torch.equal(columns[:, start : start + wanted.shape[1]], wanted)
        bias = source.replace(".weight", ".bias")
        if bias in tensors and held_bias is not None:
            wanted = tensors.rows(bias, _ROWS).to(like)
            yield torch.equal(held_bias[start : start + len(wanted)], wanted)
        start += tensors.shape(source)[0]


def _parts(name: str, model: torch.nn.Module) -> list[str]:
    """Return the checkpoint's names of what vLLM fused into one layer.

    `model.layers.0.self_attn.qkv_proj` is made of `q_proj`, `k_proj` and `v_proj`.
    """
    parent, dot, own = name.rpartition(".")
    fused = getattr(model, "packed_modules_mapping", {}).get(own, [own])
    return [f"{parent}{dot}{part}" for part in fused]
