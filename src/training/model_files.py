"""What can be seen of a model from its files before anything starts.

Everything but `check_weights` reads names and headers alone, in milliseconds. `check_weights` reads
every weight once: a tenth of a second for each GiB, beside the reading.
"""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from src.config.loading import ROOT, ConfigError
from src.training.checkpoints import DamagedCheckpointError, verify_checkpoint

_LOCAL_ROOTS = {"assets", "checkpoints", "model", "models", "output", "outputs", "results", "runs"}
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_CHECKED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def looks_like_hub_id(path: str) -> bool:
    """Tell `Qwen/Qwen2.5-Math-1.5B` from a folder that is not there, such as `models/mine`."""
    owner, slash, name = path.partition("/")
    local = (
        owner.startswith((".", "~"))
        or owner in _LOCAL_ROOTS
        or any((base / owner).is_dir() for base in (Path(), ROOT))
    )
    return bool(slash and owner and name) and "/" not in name and not local


def missing_folder(path: str) -> str:
    """Say that a model's folder is not there, and which ones nearby are."""
    wanted = Path(path).expanduser()
    named = {
        str(other.relative_to(base))
        for base in (Path(), ROOT)
        for other in (base / wanted).parent.glob("*")
        if (other / "config.json").is_file() and other.is_relative_to(base)
    }
    near = difflib.get_close_matches(path, sorted(named), n=3, cutoff=0.3)
    hint = f"there are {', '.join(near)}; " if near else ""
    return (
        f"model.path: {path}: no such folder; {hint}run the stage that writes it first, or give a "
        "hub id such as Qwen/Qwen2.5-Math-1.5B"
    )


def read_model_config(folder: Path) -> dict[str, Any]:
    """Read a model's `config.json`.

    Raises:
        ConfigError: it is no JSON object, or names no model type.
    """
    config = _read_object(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ConfigError(
            f"{folder / 'config.json'}: no model_type; this is not the configuration of a model"
        )
    return config


def check_checkpoint(folder: Path) -> None:
    """Check that a model folder is whole, by its recorded hashes where it has them.

    Raises:
        ConfigError: naming the missing or damaged file.
    """
    try:
        verify_checkpoint(folder)
    except DamagedCheckpointError as error:
        raise ConfigError(str(error)) from None
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{folder / 'adapter_config.json'}: an adapter beside the weights, which one program "
            "applies and another does not; merge it (peft: merge_and_unload, save_pretrained), or "
            "take the file away"
        )
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: {name} is missing; this is not a complete checkpoint")
    read_model_config(folder)
    shards = sorted(folder.glob("*.safetensors"))
    pickled = sorted(file.name for kind in _PICKLED for file in folder.glob(kind))
    if not shards and pickled:
        raise ConfigError(
            f"{folder}: its weights are pickled ({', '.join(pickled[:3])}), and loading a pickle "
            "runs whatever code it holds; convert them where you trust their source, and give "
            "model.safetensors: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        )
    if not shards:
        raise ConfigError(f"{folder}: no *.safetensors file; this is not a complete checkpoint")
    _check_index(folder, {shard.name: _tensor_names(shard) for shard in shards})


def check_weights(folder: Path) -> None:
    """Read every weight once.

    Raises:
        ConfigError: naming the first tensor that holds NaN or infinity.
    """
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                tensor = tensors.get_tensor(name)
                if tensor.dtype in _CHECKED and not _all_finite(tensor):
                    count = int((~torch.isfinite(tensor)).sum())
                    raise ConfigError(
                        f"{shard}: {name} holds {count:,} values of {tensor.numel():,} that are "
                        "NaN or infinite; use another checkpoint"
                    )


def _all_finite(tensor: torch.Tensor) -> bool:
    """Decide by the extremes, which NaN is among: 40 times as fast as isfinite in 16 bits."""
    return tensor.numel() == 0 or all(map(math.isfinite, map(float, torch.aminmax(tensor))))


def embedding_rows(folder: Path) -> int | None:
    """Return for how many tokens the weights have a vector; None where no file here says."""
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                if name.endswith(_EMBEDDINGS):
                    return int(tensors.get_slice(name).get_shape()[0])
    return None


def context_tokens(config: dict[str, Any]) -> int | None:
    """Return the longest text a model's configuration allows, stretched positions included."""
    shape = config.get("text_config") or config
    longest = shape.get("max_position_embeddings") or shape.get("n_positions")
    stretch = shape.get("rope_parameters") or shape.get("rope_scaling") or {}
    factor = stretch.get("factor") or 1
    return int(longest * factor) if longest else None


def _read_object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{file}: not valid JSON ({error}); the file is damaged: copy it again"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected a JSON object, got {type(found).__name__}")
    return found


def _tensor_names(shard: Path) -> set[str]:
    try:
        with safe_open(shard, framework="pt") as tensors:
            return set(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{shard}: damaged or cut short ({error}); write this checkpoint again or use another"
        ) from None


def _check_index(folder: Path, names: dict[str, set[str]]) -> None:
    """Refuse an index that names shards or weights that are not there."""
    file = folder / "model.safetensors.index.json"
    if not file.is_file():
        return
    places = _read_object(file).get("weight_map")
    if not isinstance(places, dict):
        raise ConfigError(f"{file}: no weight_map; the file is damaged: copy it again")
    absent = sorted({str(shard) for shard in places.values()} - names.keys())
    if absent:
        raise ConfigError(
            f"{folder}: {', '.join(absent)} named by {file.name} not there "
            f"({len(absent)} of {len(set(places.values()))} shards); copy the missing files"
        )
    lost = sorted(name for name, shard in places.items() if name not in names[shard])
    if lost:
        raise ConfigError(
            f"{folder / places[lost[0]]}: {lost[0]} is not in it though {file.name} says so "
            f"({len(lost)} such weights); copy the shard and the index from one checkpoint"
        )
