"""The shape of the model, as far as estimates of memory need it; no weight is read."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.config.loading import ROOT
from src.config.schema import Config, ModelConfig
from src.config.training import AdapterSettings

_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SETTINGS = (
    *("parameters", "hidden_size", "intermediate_size", "layers", "query_width", "key_width"),
    *("vocabulary", "tied_embeddings"),
)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Numbers of parameters and widths of a decoder with gated MLPs (Qwen2, Llama and their like).

    Widths are numbers of elements a token, `query_width` and `key_width` those of all heads.
    """

    parameters: int
    hidden_size: int
    intermediate_size: int
    layers: int
    query_width: int
    key_width: int
    vocabulary: int
    tied_embeddings: bool
    assumed: bool = False
    """Whether it is the default model's, for want of the real one's."""

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; the output layer has as many, tied or not."""
        return self.vocabulary * self.hidden_size

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        embeddings = self.embedding * (1 if self.tied_embeddings else 2)
        return max(0, self.parameters - embeddings) // self.layers

    @property
    def matrices(self) -> dict[str, int]:
        """Inputs plus outputs of a layer's matrices, by name: what an adapter has a rank of."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key = hidden + self.query_width, hidden + self.key_width
        up = {"gate_proj": hidden + inner, "up_proj": hidden + inner, "down_proj": hidden + inner}
        heads = {"q_proj": query, "k_proj": key, "v_proj": key, "o_proj": query}
        # As Phi-3 fuses them.
        fused = {
            "qkv_proj": query + 2 * self.key_width, "gate_up_proj": hidden + 2 * inner,
        }  # fmt: skip
        return heads | up | fused

    @property
    def linear(self) -> int:
        """Weights of a layer's matrices, which 4 bits may keep."""
        heads = 2 * self.query_width + 2 * self.key_width
        return self.hidden_size * (heads + 3 * self.intermediate_size)

    def adapter_parameters(self, settings: AdapterSettings) -> int:
        """Count the parameters of an adapter: rank x inputs and outputs x rank for each matrix."""
        if settings.adapter == "none":
            return 0
        targets = settings.adapter_targets
        names = _LINEAR if targets == "all-linear" else targets
        return settings.adapter_rank * self.layers * sum(self.matrices.get(n, 0) for n in names)


def model_shape(config: Config) -> ModelShape:
    """Return the model's shape: of a local folder, of settings that were changed, of the hub cache.

    Where there is none of these it is Qwen2.5-Math-1.5B's, the schema's defaults.
    """
    model = config.model
    local = ROOT / model.path
    if (local / "config.json").is_file():
        return _read_shape(local)
    stated, default = (
        {name: getattr(source, name) for name in _SETTINGS} for source in (model, ModelConfig())
    )
    if stated == default and (cached := _cached_folder(model.path)) is not None:
        return _read_shape(cached)
    return ModelShape(**stated, assumed=stated == default and model.path != ModelConfig().path)


def _read_shape(folder: Path) -> ModelShape:
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = shape.get("text_config", shape)
    heads, width = shape["num_attention_heads"], shape["hidden_size"]
    head = shape.get("head_dim") or width // heads
    found = ModelShape(
        parameters=_stored_parameters(folder, shape),
        hidden_size=width,
        intermediate_size=shape["intermediate_size"],
        layers=shape["num_hidden_layers"],
        query_width=head * heads,
        key_width=head * shape.get("num_key_value_heads", heads),
        vocabulary=shape["vocab_size"],
        tied_embeddings=shape.get("tie_word_embeddings", False),
    )
    return found if found.parameters else replace(found, parameters=_counted(found))


def _stored_parameters(folder: Path, shape: dict[str, Any]) -> int:
    kind = str(shape.get("dtype") or shape.get("torch_dtype"))
    stored = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
    return stored // (4 if kind == "float32" else 2)


def _counted(shape: ModelShape) -> int:
    """Count the parameters of a model whose weights are not here: Qwen2's, biases included."""
    heads = shape.query_width + 2 * shape.key_width
    matrices = heads + shape.query_width + 3 * shape.intermediate_size
    layer = shape.hidden_size * (matrices + 2) + heads
    embeddings = shape.embedding * (1 if shape.tied_embeddings else 2)
    return embeddings + shape.layers * layer + shape.hidden_size


def _cached_folder(path: str) -> Path | None:
    """Return where the hub's client keeps a model it has downloaded; asks nobody."""
    # Imported here: a model in a folder does without.
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        found = try_to_load_from_cache(path, "config.json")
    except HFValidationError:  # neither a folder nor a hub id
        return None
    return Path(found).parent if isinstance(found, str) else None
