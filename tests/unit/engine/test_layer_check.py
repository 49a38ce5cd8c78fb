"""Layers that several processes share: each is compared with the part it holds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from src.engine.layer_check import LiveTensors, layers_unlike

HEAD, HEADS, SHARED, HIDDEN, INSIDE, VOCABULARY = 4, 8, 2, 32, 48, 40


class Method:
    """A linear layer's multiplication, as vLLM calls it."""

    def apply(self, layer, rows, bias=None):
        return rows @ layer.weight.T


def layer(weight, size, rank, *, bias=None, **attributes):
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(weight.clone())
    module.quant_method, module.tp_size, module.tp_rank = Method(), size, rank
    if bias is not None:
        module.bias = torch.nn.Parameter(bias.clone())
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    shapes = {
        "attn.q_proj.weight": (HEADS * HEAD, HIDDEN),
        "attn.k_proj.weight": (SHARED * HEAD, HIDDEN),
        "attn.v_proj.weight": (SHARED * HEAD, HIDDEN),
        "attn.q_proj.bias": (HEADS * HEAD,),
        "attn.k_proj.bias": (SHARED * HEAD,),
        "attn.v_proj.bias": (SHARED * HEAD,),
        "attn.o_proj.weight": (HIDDEN, HEADS * HEAD),
        "mlp.gate_proj.weight": (INSIDE, HIDDEN),
        "mlp.up_proj.weight": (INSIDE, HIDDEN),
        "mlp.down_proj.weight": (HIDDEN, INSIDE),
        "embed.weight": (VOCABULARY, HIDDEN),
        "norm.weight": (HIDDEN,),
    }
    return {name: torch.randn(*shape) for name, shape in shapes.items()}


def part(tensor, count, number):
    return tensor.chunk(count, 0)[number]


def held_by(tensors, size, rank):
    """Build what one of `size` processes holds, by vLLM's own rules of dealing out."""
    copies = max(1, size // SHARED)
    place = {"q": (size, rank), "k": (size // copies, rank // copies)}
    place["v"] = place["k"]
    fused = [part(tensors[f"attn.{n}_proj.weight"], *place[n]) for n in "qkv"]
    biases = [part(tensors[f"attn.{n}_proj.bias"], *place[n]) for n in "qkv"]
    gates = [part(tensors[f"mlp.{n}_proj.weight"], size, rank) for n in ("gate", "up")]
    qkv, gate_up = torch.cat(fused), torch.cat(gates)
    model = torch.nn.Module()
    model.packed_modules_mapping = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    model.attn, model.mlp, model.norm = torch.nn.Module(), torch.nn.Module(), torch.nn.Module()
    dealt = {"input_size_per_partition": HIDDEN, "num_kv_head_replicas": copies}
    model.attn.qkv_proj = layer(
        qkv, size, rank, bias=torch.cat(biases), **dealt,
        output_size=size * len(qkv), output_size_per_partition=len(qkv),
    )  # fmt: skip
    model.mlp.gate_up_proj = layer(
        gate_up, size, rank, input_size_per_partition=HIDDEN,
        output_size=size * len(gate_up), output_size_per_partition=len(gate_up),
    )  # fmt: skip
    for outer, name, width in (
        (model.attn, "o_proj", HEADS * HEAD),
        (model.mlp, "down_proj", INSIDE),
    ):
        whole = tensors[f"{'attn' if name == 'o_proj' else 'mlp'}.{name}.weight"]
        own = whole.chunk(size, 1)[rank]
        module = layer(own, size, rank, input_size_per_partition=width // size)
        module.output_size = module.output_size_per_partition = HIDDEN
        setattr(outer, name, module)
    rows = range(rank * VOCABULARY // size, (rank + 1) * VOCABULARY // size)
    model.embed = layer(part(tensors["embed.weight"], size, rank), size, rank)
    model.embed.shard_indices = SimpleNamespace(
        org_vocab_start_index=rows.start, org_vocab_end_index=rows.stop
    )
    model.norm.weight = torch.nn.Parameter(tensors["norm.weight"].clone())
    return model


SPLITS = [(size, rank) for size in (1, 2, 4) for rank in range(size)]


@pytest.mark.parametrize(("size", "rank"), SPLITS)
def test_each_process_holds_its_part(tensors, size, rank):
    assert layers_unlike(held_by(tensors, size, rank), LiveTensors(tensors)) == []


@pytest.mark.parametrize(("size", "rank"), SPLITS)
def test_a_stale_part_is_named_in_each_process(tensors, size, rank):
    model = held_by(tensors, size, rank)
    newer = {name: tensor + 1 for name, tensor in tensors.items()}
    assert layers_unlike(model, LiveTensors(newer)) == [
        *("attn.o_proj", "attn.qkv_proj", "embed", "mlp.down_proj", "mlp.gate_up_proj", "norm"),
    ]


@pytest.mark.parametrize(("size", "rank"), [(2, 1), (4, 3)])
def test_another_processs_part_is_not_taken_for_its_own(tensors, size, rank):
    model = held_by(tensors, size, 0)
    for module in model.modules():
        if hasattr(module, "tp_rank"):
            module.tp_rank = rank
    assert "attn.qkv_proj" in layers_unlike(model, LiveTensors(tensors))
    assert "mlp.down_proj" in layers_unlike(model, LiveTensors(tensors))
