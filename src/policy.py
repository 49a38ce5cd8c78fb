"""Check and load models: weights as float32, tokenizer with distinct end and padding tokens."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config_loading import ROOT, ConfigError
from src.config_schema import Config

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
    """Check that a model folder is whole, without loading it.

    Raises:
        ConfigError: naming the missing or damaged file.
    """
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


def load_policy(path: str, config: Config) -> PreTrainedModel:
    """Load a causal language model with float32 weights on the training device."""
    model = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=torch.float32,
        attn_implementation="sdpa",
        trust_remote_code=config.model.trust_remote_code,
    )
    model.config.use_cache = False
    return model.to(torch.device(config.devices.train))


def save_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save bfloat16 weights and the tokenizer, loadable by `from_pretrained` and `vllm serve`."""
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16) for name, tensor in _unique(model).items()
    }
    model.save_pretrained(folder, state_dict=weights)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "bfloat16"
    config["use_cache"] = True
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)


def _unique(model: PreTrainedModel) -> dict[str, Any]:
    """Return the state without the second name of tied weights."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
