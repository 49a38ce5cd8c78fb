"""Tiny random models of the families people bring, each with a tokenizer of its conventions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.conftest import TINY_BASE

WINDOW = 7  # shorter than the sequences
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.4,  # logits of some size
}
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
FAMILIES = {
    "gemma2": ("Gemma2", {**MIXED, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16}),
    "gemma3_text": ("Gemma3", {**MIXED, "query_pre_attn_scalar": 16}),
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "olmo2": ("Olmo2", {}),
    "olmo3": ("Olmo3", MIXED),
    "phi3": ("Phi3", {"sliding_window": WINDOW}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0, 1]}),
}

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
_PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
_OLMO = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Convention:
    """How a family's tokenizers begin and end texts.

    `stops` are ends beside `eos` by `generation_config.json`; `turn_end` is None where a turn ends
    as a document does, so that a chat model cannot be told from its base.
    """

    bos: str | None
    adds_bos: bool
    eos: str
    template: str
    turn_end: str | None = None
    stops: tuple[str, ...] = ()
    more: tuple[str, ...] = field(default=())


_IM = ("<|im_start|>", "<|im_end|>")
CONVENTIONS = {
    "gemma2": Convention(
        "<bos>", True, "<eos>", _GEMMA, "<end_of_turn>", ("<end_of_turn>",),
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    "gemma3_text": Convention(
        "<bos>", True, "<eos>", _GEMMA, "<end_of_turn>", ("<end_of_turn>",),
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    "llama": Convention(
        "<|begin_of_text|>", True, "<|eot_id|>", _LLAMA, "<|eot_id|>", ("<|end_of_text|>",),
        ("<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    ),
    "mistral": Convention("<s>", True, "</s>", _MISTRAL),
    "olmo2": Convention("<|endoftext|>", False, "<|endoftext|>", _OLMO),
    "olmo3": Convention(
        None, False, "<|endoftext|>", _CHATML, "<|im_end|>", ("<|im_end|>",), _IM
    ),
    "phi3": Convention(
        "<s>", False, "<|endoftext|>", _PHI, "<|end|>", ("<|end|>",),
        ("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "qwen2": Convention(None, False, "<|im_end|>", _CHATML, "<|im_end|>", ("<|endoftext|>",), _IM),
    "qwen3": Convention(None, False, "<|im_end|>", _CHATML, "<|im_end|>", ("<|endoftext|>",), _IM),
    "smollm3": Convention(None, False, "<|im_end|>", _CHATML, "<|im_end|>", (), _IM),
}  # fmt: skip


def family_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Build a tokenizer that cuts text as the tiny base's does, with a family's special tokens."""
    rule = CONVENTIONS[kind]
    inner = Tokenizer.from_file(str(TINY_BASE / "tokenizer.json"))
    texts = [text for text in (rule.bos, rule.eos, "<|pad|>", *rule.stops, *rule.more) if text]
    inner.add_special_tokens(list(dict.fromkeys(texts)))
    if rule.adds_bos:
        inner.post_processor = TemplateProcessing(
            single=f"{rule.bos} $A", special_tokens=[(rule.bos, inner.token_to_id(rule.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=rule.bos, eos_token=rule.eos, pad_token="<|pad|>",
        chat_template=rule.template, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def family_model(kind: str, **shape: Any) -> PreTrainedModel:
    """Build a random model of a family."""
    name, more = FAMILIES[kind]
    more = SHAPE | more | shape
    if "layer_types" in more:
        more["layer_types"] = more["layer_types"][: more["num_hidden_layers"]]
    suffix = "TextConfig" if kind == "gemma3_text" else "Config"
    config = getattr(transformers, f"{name}{suffix}")(**more)
    assert config.model_type == kind
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def write_family(kind: str, folder: Path, **shape: Any) -> Path:
    """Write a family's tiny model with its tokenizer and the ends it stops at; once."""
    if (folder / "generation_config.json").is_file():
        return folder
    tokenizer, rule = family_tokenizer(kind), CONVENTIONS[kind]
    ends = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(rule.stops))]
    bos = tokenizer.bos_token_id
    model = family_model(
        kind, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=bos,
        eos_token_id=ends[0], **shape,
    )  # fmt: skip
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    told = {"bos_token_id": bos, "eos_token_id": ends}
    (folder / "generation_config.json").write_text(json.dumps(told))
    return folder
