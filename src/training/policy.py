"""Check, load and save models and their tokenizers."""

from __future__ import annotations

import copy
import gc
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import cached_file

from src.config.loading import ROOT, ConfigError
from src.config.schema import Config
from src.config.training import AdapterSettings
from src.data.chat import end_turns
from src.run.processes import launched_sharding, training_device
from src.training.adapters import keep_products_in_half, plain_policy, quantization
from src.training.attention import MODEL_TYPES, PACKED
from src.training.model_files import check_checkpoint, looks_like_hub_id, missing_folder

LOGGER = logging.getLogger(__name__)
_SENSES = ("vision_config", "audio_config")
# Names by which model configurations multiply the output layer's logits.
_LOGIT_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")


def resolve_model(path: str) -> str:
    """Return an existing local folder as an absolute path, and a hub id unchanged.

    Raises:
        ConfigError: when the text looks like a folder and none is there, or its files are damaged.
    """
    for folder in (Path(path).expanduser(), ROOT / path):
        if folder.is_dir():
            check_checkpoint(folder)
            return str(folder.resolve())
    if not looks_like_hub_id(path):
        raise ConfigError(missing_folder(path))
    return path


def load_tokenizer(path: str, config: Config) -> PreTrainedTokenizerBase:
    """Load the tokenizer, whose end of text is a turn's where prompts are turns (`data.chat`).

    Labels are masked by position, never by id, so an equal id would still be safe in SFT; TRL masks
    by id and would never teach the model to stop.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        path, trust_remote_code=config.model.trust_remote_code
    )
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{path}: the tokenizer has no end-of-text token, so nothing can stop")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    end_turns(tokenizer, config, [tokenizer.eos_token_id, *_configured_ends(path, config)])
    return tokenizer


def _configured_ends(path: str, config: Config) -> list[int]:
    """Return the tokens at which a model stops by its `generation_config.json`, if it has one."""
    if config.data.chat != "auto":
        return []
    file = cached_file(path, "generation_config.json", _raise_exceptions_for_missing_entries=False)
    found = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    ends = found.get("eos_token_id")
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def torch_device(config: Config) -> torch.device:
    """Return this process's training device."""
    return torch.device(training_device(config))


def check_architecture(path: str, config: Config) -> None:
    """Refuse a model that the packed attention or the chunked loss would compute wrongly.

    Raises:
        ConfigError: naming the model's type and what to do, before anything is loaded.
    """
    whole = AutoConfig.from_pretrained(path, trust_remote_code=config.model.trust_remote_code)
    _check_text_model(path, whole)
    shape = whole.get_text_config()
    scaled = [name for name in _LOGIT_SCALES if getattr(shape, name, None) not in (None, 1, 1.0)]
    if scaled:
        raise ConfigError(
            f"model.path: {path}: models of type {shape.model_type} scale their logits "
            f"({', '.join(scaled)}), which training here does not; use another model"
        )
    if config.train.attention == PACKED and shape.model_type not in MODEL_TYPES:
        raise ConfigError(
            f"model.path: {path}: packed attention is not checked for models of type "
            f"{shape.model_type} (it is for {', '.join(MODEL_TYPES)}); use --set "
            "train.attention=sdpa, which is slower"
        )


def _check_text_model(path: str, shape: PretrainedConfig) -> None:
    """Refuse what is no causal language model of text alone."""
    senses = [name for name in _SENSES if getattr(shape, name, None) is not None]
    if senses:
        raise ConfigError(
            f"model.path: {path}: a model of type {shape.model_type} sees or hears "
            f"({', '.join(senses)}), and training here is of text models; use one of the family's "
            "text models (of Gemma 3: gemma-3-270m and gemma-3-1b)"
        )
    remote = "AutoModelForCausalLM" in (getattr(shape, "auto_map", None) or {})
    if not remote and type(shape) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"model.path: {path}: models of type {shape.model_type} are no causal language models "
            f"of transformers; use one such as {', '.join(MODEL_TYPES)}"
        )


def free_memory(device: torch.device) -> None:
    """Let go of policies that nothing but themselves refers to, and of a GPU's unused memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def load_policy(
    path: str,
    config: Config,
    attention: str = "sdpa",
    adapter: AdapterSettings | None = None,
) -> PreTrainedModel:
    """Load a causal language model to train on this process's device.

    One that is to be sharded stays on the CPU: whole on each GPU it would not fit.

    Args:
        attention: implementation by transformers' name, or `packed`.
        adapter: that will train over it, and may want it in 4 bits.
    """
    in_4_bits = quantization(config, adapter) if adapter else None
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=getattr(torch, config.model.weight_dtype),
        attn_implementation=attention,
        use_safetensors=True,
        trust_remote_code=config.model.trust_remote_code,
        # Each weight is packed where it will be, so that the whole model never is on the GPU.
        **({"quantization_config": in_4_bits, "device_map": {"": torch_device(config)}}
           if in_4_bits else {}),
    )  # fmt: skip
    model.config.use_cache = False
    if in_4_bits:
        keep_products_in_half(model)
    return model if launched_sharding() or in_4_bits else model.to(torch_device(config))


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Save bfloat16 weights and the tokenizer, loadable by `from_pretrained` and `vllm serve`.

    Args:
        weights: written in place of the model's own, which may be training on meanwhile, or under
            an adapter.
    """
    model = plain_policy(model)
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    saved = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in (weights or model.state_dict()).items()
        if name not in tied  # the second name of tied weights
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"dtype": "bfloat16", "use_cache": True}
    config.pop("quantization_config", None)  # of the frozen weights while they were trained over
    # Sharding renames the class.
    config["architectures"] = [type(model).__name__.removeprefix("FSDP")]
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    if model.generation_config is not None:
        _stopping_at(tokenizer.eos_token_id, model.generation_config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _stopping_at(end: int, told: GenerationConfig) -> GenerationConfig:
    """Let a model stop at its tokenizer's end of text too, which may end a chat's turn."""
    given = told.eos_token_id
    ends = given if isinstance(given, list) else [] if given is None else [given]
    if end in ends:
        return told
    changed = copy.deepcopy(told)
    changed.eos_token_id = [end, *ends]
    return changed
