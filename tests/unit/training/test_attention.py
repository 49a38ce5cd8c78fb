"""Packed attention over the families of models people bring, and what the GPU kernel is told."""

from __future__ import annotations

import pytest
import torch
import transformers

from src.config.loading import ConfigError, load_config, with_values
from src.training import attention
from src.training.attention import MODEL_TYPES, layout_of, packing_arguments, spans_of
from src.training.batching import Example, pack, pack_groups
from src.training.policy import check_architecture
from tests.family_models import FAMILIES, SHAPE, family_model

CPU = torch.device("cpu")


def build(kind: str, implementation: str):
    return family_model(kind, attn_implementation=implementation)


def sequences(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        Example(tuple(torch.randint(3, 128, (n,), generator=generator).tolist()), n // 2, str(i))
        for i, n in enumerate(lengths)
    ]


def logits_of(model, batch):
    return model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        use_cache=False,
        **packing_arguments("packed", batch),
    ).logits[0]


def test_every_family_has_a_test():
    assert sorted(FAMILIES) == sorted(MODEL_TYPES)


@torch.no_grad()
@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_in_a_packed_row_are_those_of_each_sequence_alone_under_eager(kind):
    examples = sequences([23, 9, 40, 5])
    eager, packed = build(kind, "eager"), build(kind, "packed")
    alone = [eager(input_ids=torch.tensor([e.ids]), use_cache=False).logits[0] for e in examples]
    found = logits_of(packed, pack(examples, CPU))
    scale = torch.cat(alone).abs().max()
    assert scale > 1
    assert (found - torch.cat(alone)).abs().max() < 2e-5 * max(1, scale)


@torch.no_grad()
@pytest.mark.parametrize("kind", FAMILIES)
def test_completions_behind_one_prompt_score_as_each_sequence_alone(kind):
    prompt = sequences([19])[0].ids
    examples = [
        Example(prompt + tail.ids, len(prompt), "group") for tail in sequences([6, 21, 11], 1)
    ]
    eager, packed = build(kind, "eager"), build(kind, "packed")
    batch = pack_groups(examples, CPU)
    found = logits_of(packed, batch)[batch.predicts]
    alone = torch.cat([
        eager(input_ids=torch.tensor([e.ids]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        for e in examples
    ])  # fmt: skip
    assert (found - alone).abs().max() < 2e-5 * max(1, alone.abs().max())


def reference_varlen(query, key, value, query_edges, key_edges, most_q, most_k, **options):
    """What torch documents of `varlen_attn`, span by span in float32."""
    assert options.pop("enable_gqa") is True
    left, right = options.pop("window_size")
    scale = options.pop("scale")
    assert right == 0
    assert options == {}
    copies = query.shape[1] // key.shape[1]
    out = torch.zeros_like(query)
    spans = list(zip(query_edges.tolist(), query_edges.tolist()[1:], strict=False))
    keys = list(zip(key_edges.tolist(), key_edges.tolist()[1:], strict=False))
    assert max(b - a for a, b in spans) == most_q
    assert max(b - a for a, b in keys) == most_k
    for (q0, q1), (k0, k1) in zip(spans, keys, strict=True):
        k, v = (t[k0:k1].repeat_interleave(copies, 1).float() for t in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[q0:q1].float(), k) * scale
        places = torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0)
        other = torch.arange(k1 - k0)[None]
        sees = (other <= places) & ((places - other <= left) if left >= 0 else True)
        shares = scores.masked_fill(~sees, -torch.inf).softmax(-1)
        out[q0:q1] = torch.einsum("hqk,khd->qhd", shares, v).to(out.dtype)
    return out


@torch.no_grad()
@pytest.mark.parametrize("kind", ["qwen2", "olmo3"])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_layout_for_the_gpu_kernel_says_the_same(kind, grouped, monkeypatch):
    """The kernel needs a GPU; what it is told is checked against its documented meaning."""
    prompts = [example.ids for example in sequences([12, 1], 2)]
    examples = [
        Example(prompts[i // 2] + tail.ids, len(prompts[i // 2]), "group")
        for i, tail in enumerate(sequences([9, 17, 30, 4], 3))
    ]
    batch = pack_groups(examples, CPU) if grouped else pack(examples, CPU)
    model = build(kind, "packed").bfloat16()
    expected = logits_of(model, batch)
    calls = []

    def seen(*arguments, **options):
        calls.append(arguments)
        return reference_varlen(*arguments, **options)

    monkeypatch.setattr(attention, "varlen_attn", seen)
    spans = spans_of(batch)
    found = model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        use_cache=False,
        packed_spans=spans,
        packed_layout=layout_of(spans, CPU),
    ).logits[0]
    assert len(calls) == SHAPE["num_hidden_layers"]
    assert calls[0][1].shape[1] == SHAPE["num_key_value_heads"]  # no copies of keys
    gap = (found[batch.predicts] - expected[batch.predicts]).float().abs()
    assert gap.mean() < 0.05
    assert gap.mean() < 0.02 * expected.float().abs().mean()


def test_the_kernel_is_called_as_torch_defines_it():
    import inspect

    names = inspect.signature(attention.varlen_attn).parameters
    positional = ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert list(names)[:7] == positional
    assert {"scale", "window_size", "enable_gqa"} <= set(names)


def test_models_that_would_be_computed_wrongly_are_refused_by_name(tmp_path):
    config = load_config(["config/tiny/sft_config.yaml"])
    transformers.GraniteConfig(**SHAPE, logits_scaling=8.0).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"type granite scale their logits \(logits_scaling\)"):
        check_architecture(str(tmp_path), config)
    transformers.Gemma3Config().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"type gemma3 sees .*vision_config.*gemma-3-1b"):
        check_architecture(str(tmp_path), config)
    transformers.T5Config().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"type t5 are no causal language models"):
        check_architecture(str(tmp_path), config)
    transformers.GptOssConfig(**SHAPE).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"type gpt_oss .*--set train\.attention=sdpa"):
        check_architecture(str(tmp_path), config)
    check_architecture(str(tmp_path), with_values(config, {"train.attention": "sdpa"}))
