"""Check, load and save models and their tokenizers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.loading import ROOT, ConfigError
from src.config.schema import Config
from src.run.processes import training_device
from src.training.attention import best_attention
from src.training.checkpoints import DamagedCheckpointError, verify_checkpoint

LOGGER = logging.getLogger(__name__)


def resolve_model(path: str) -> str:
    """Return an existing local folder as an absolute path, and a hub id unchanged.

    Raises:
        ConfigError: when the text looks like a folder and none is there, or its files are damaged.
    """
    for folder in (Path(path).expanduser(), ROOT / path):
        if folder.is_dir():
            check_checkpoint(folder)
            return str(folder.resolve())
    looks_like_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "assets/"))
    if not looks_like_hub_id:
        raise ConfigError(
            f"model.path: {path}: no such folder; run the stage that writes it first, or give a "
            "hub id such as Qwen/Qwen2.5-Math-1.5B"
        )
    return path


def check_checkpoint(folder: Path) -> None:
    """Check that a model folder is whole, by its recorded hashes where it has them.

    Raises:
        ConfigError: naming the missing or damaged file.
    """
    try:
        verify_checkpoint(folder)
    except DamagedCheckpointError as error:
        raise ConfigError(str(error)) from None
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: {name} is missing; this is not a complete checkpoint")
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ConfigError(f"{folder}: no *.safetensors file; this is not a complete checkpoint")
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as tensors:
                list(tensors.keys())
        except (SafetensorError, OSError) as error:
            raise ConfigError(
                f"{shard}: damaged or cut short ({error}); write this checkpoint again or use "
                "another"
            ) from None


def load_tokenizer(path: str, config: Config) -> PreTrainedTokenizerBase:
    """Load the tokenizer; refuse one that pads with its end-of-text token.

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
    return tokenizer


def torch_device(config: Config) -> torch.device:
    """Return this process's training device."""
    return torch.device(training_device(config))


def choose_attention(config: Config) -> str:
    """Return the attention implementation to load the model to train with.

    Raises:
        ConfigError: when FlashAttention is asked for and cannot run.
    """
    setting, device = config.train.attention, torch_device(config)
    best = best_attention(device)
    if setting == "flash_attention_2" and setting != best:
        raise ConfigError(
            f"train.attention: flash_attention_2 needs a GPU and the package flash-attn (device "
            f"{device}); install it or use --set train.attention=packed_sdpa"
        )
    return best if setting == "auto" else setting


def load_policy(path: str, config: Config, attention: str = "sdpa") -> PreTrainedModel:
    """Load a causal language model on the training device.

    Args:
        attention: implementation by transformers' name, or `packed_sdpa`.
    """
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=getattr(torch, config.model.weight_dtype),
        attn_implementation=attention,
        trust_remote_code=config.model.trust_remote_code,
    )
    model.config.use_cache = False
    return model.to(torch_device(config))


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Save bfloat16 weights and the tokenizer, loadable by `from_pretrained` and `vllm serve`.

    Args:
        weights: written in place of the model's own, which may be training on meanwhile.
    """
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    saved = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in (weights or model.state_dict()).items()
        if name not in tied  # the second name of tied weights
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"dtype": "bfloat16", "use_cache": True}
    config["architectures"] = [type(model).__name__]
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
