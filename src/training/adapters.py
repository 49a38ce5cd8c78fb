"""Low-rank adapters (LoRA, arXiv:2106.09685) over a frozen policy, through peft.

A checkpoint and the rollout engine get the policy as one plain model: each adapted layer's weight
plus its update, added up in float32. Nothing is ever merged into the live weights, since taking an
update out again leaves what rounding made of them; a merged weight is computed where it is asked
for, layer by layer. With QLoRA (arXiv:2305.14314) the frozen weight is what 4 bits kept of it.

The only module that imports peft, and that only where there is an adapter: peft imports
bitsandbytes, which takes hold of every GPU it sees.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from src.config.loading import ConfigError
from src.config.schema import Config
from src.config.training import AdapterSettings, TrainConfig

if TYPE_CHECKING:
    from peft import LoraConfig

FOLDER = "adapter"
"""Of a checkpoint, in peft's format. Beside the weights, transformers would apply it once more."""
_NAME = "default"


def lora_config(settings: AdapterSettings) -> LoraConfig | None:
    """Return peft's configuration of an adapter; None where none is asked for."""
    if settings.adapter == "none":
        return None
    from peft import LoraConfig  # noqa: PLC0415

    return LoraConfig(
        r=settings.adapter_rank,
        lora_alpha=settings.adapter_alpha,
        lora_dropout=settings.adapter_dropout if isinstance(settings, TrainConfig) else 0.0,
        target_modules=settings.adapter_targets,
        task_type="CAUSAL_LM",
    )


def adapted(policy: PreTrainedModel, settings: AdapterSettings, seed: int) -> Any:
    """Return the policy under a fresh adapter, which changes nothing yet; itself without one.

    Its weights are frozen, and the adapter's are float32 whatever theirs are.
    """
    config = lora_config(settings)
    if config is None:
        return policy
    from peft import get_peft_model  # noqa: PLC0415

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(policy, config)


def remove_adapter(model: PreTrainedModel) -> None:
    """Put a model's own layers back, as they were before `adapted`."""
    for name, layer in list(_adapted_layers(model)):
        _put(model, name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def has_adapter(policy: torch.nn.Module) -> bool:
    """Tell whether a policy trains an adapter."""
    return hasattr(policy, "get_base_model")  # peft's wrapper; no model of transformers has it


def plain_policy(policy: Any) -> Any:
    """Return the model that a checkpoint is of: the one under the adapter, or itself."""
    return policy.get_base_model() if has_adapter(policy) else policy


def quantization(config: Config, settings: AdapterSettings) -> BitsAndBytesConfig | None:
    """Return how the frozen weights are kept: in 4 bits for QLoRA, as its paper does."""
    if settings.adapter != "qlora":
        return None
    compute = config.train.compute_dtype
    compute = config.model.weight_dtype if compute == "float32" else compute
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, compute),
    )


def keep_products_in_half(model: torch.nn.Module) -> None:
    """Let layers in 4 bits answer in the type they compute in, as autocast has whole ones do.

    bitsandbytes answers in the type it is asked in, that of a norm: float32, kept for the backward
    pass at twice the size.
    """
    from bitsandbytes.nn import Linear4bit  # noqa: PLC0415 - imports CUDA

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.register_forward_pre_hook(_cast_input)


def _cast_input(layer: Any, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (arguments[0].to(layer.compute_dtype),)


def check_adapter(path: str, config: Config, section: str) -> None:
    """Refuse an adapter of layers that the model does not have; no weight is read.

    Args:
        section: of the configuration, `train` or `grpo`.

    Raises:
        ConfigError: naming the layers that there are.
    """
    settings: AdapterSettings = getattr(config, section)
    targets = settings.adapter_targets
    if settings.adapter == "none" or targets == "all-linear":
        return
    trusted = config.model.trust_remote_code
    shape = AutoConfig.from_pretrained(path, trust_remote_code=trusted)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, trust_remote_code=trusted)
    output = model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    }
    if missing := sorted(set(targets) - linear):
        raise ConfigError(
            f"{section}.adapter_targets: {', '.join(missing)}: no layer of {path} that can be "
            f"adapted has this name; there are {', '.join(sorted(linear))} (the output layer is "
            "not adapted, as its weights are used without it)"
        )


@torch.no_grad()
def merged_weight(layer: Any) -> torch.Tensor:
    """Return a layer's weight in float32: out of its 4 bits, with its update, where it has them."""
    held = _base_layer(layer).weight
    state = getattr(held, "quant_state", None)
    if state is not None:
        from peft.utils.integrations import dequantize_bnb_weight  # noqa: PLC0415

        held = dequantize_bnb_weight(held, state=state)
    if not _is_adapted(layer):
        return held.float()
    with torch.autocast(held.device.type, enabled=False):
        return held.float() + layer.get_delta_weight(_NAME).float()


class MergedTensors:
    """An adapted policy's weights by their names in a checkpoint, merged anew at each look."""

    def __init__(self, policy: Any) -> None:
        model = plain_policy(policy)
        layers = dict(_composed_layers(model))
        # In the model's own order: an engine keeps what it gets of a layer until it has all of it.
        self._held: dict[str, Any] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                continue  # the adapter's own
            published = name.replace(".base_layer.", ".")
            layer = layers.get(published.removesuffix(".weight"))
            is_weight = layer is not None and published.endswith(".weight")
            self._held[published] = layer if is_weight else parameter

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def shape(self, name: str) -> Sequence[int]:
        """Return a tensor's shape."""
        held = self._held[name]
        whole = isinstance(held, torch.Tensor)
        return held.shape if whole else (held.out_features, held.in_features)

    def rows(self, name: str, count: int, start: int = 0) -> torch.Tensor:
        """Return some rows of a tensor.

        It is merged whole first: rows alone might be rounded otherwise.
        """
        return self._whole(name)[start : start + count]

    def named(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor), one merged at a time."""
        for name in self._held:
            yield name, self._whole(name)

    def _whole(self, name: str) -> torch.Tensor:
        held = self._held[name]
        return held.detach() if isinstance(held, torch.Tensor) else merged_weight(held)


def published_weights(policy: Any) -> dict[str, torch.Tensor]:
    """Copy an adapted policy's merged weights to host memory, as they are saved."""
    return {
        name: tensor.to("cpu", torch.bfloat16, copy=True)
        for name, tensor in MergedTensors(policy).named()
    }


@contextmanager
def computing_merged(policy: torch.nn.Module) -> Iterator[None]:
    """Let layers compute with the weights that are saved; does nothing where they do already.

    They then have no parameters of their own, so what rounds the others leaves them alone.
    """
    model = plain_policy(policy)
    layers = list(_composed_layers(model))
    for name, layer in layers:
        _put(model, name, _MergedLinear(layer))
    try:
        yield
    finally:
        for name, layer in layers:
            _put(model, name, layer)


class _MergedLinear(torch.nn.Module):
    """A linear layer with another's merged weight, rounded to bfloat16."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._layer = (layer,)  # no child of this module

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        (layer,) = self._layer
        bias = getattr(_base_layer(layer), "bias", None)
        weight = merged_weight(layer).bfloat16().to(inputs.dtype)
        return F.linear(inputs, weight, None if bias is None else bias.bfloat16().to(inputs.dtype))


def adapter_state(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy the adapter's own tensors to host memory, by the policy's names."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in _trained(policy)}


@torch.no_grad()
def load_adapter_state(policy: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Take the adapter's tensors from a state.

    Raises:
        KeyError: when the state is of another adapter.
    """
    for name, tensor in _trained(policy):
        tensor.copy_(state[name])


def save_adapter(policy: Any, folder: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Save the adapter alone in peft's format, for `PeftModel.from_pretrained`.

    Args:
        state: of `adapter_state`.
    """
    from peft import get_peft_model_state_dict  # noqa: PLC0415

    config = copy.copy(policy.peft_config[_NAME])
    config.inference_mode, config.target_modules = True, sorted(config.target_modules)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    own = get_peft_model_state_dict(
        policy, state_dict=dict(state), adapter_name=_NAME, save_embedding_layers=False
    )
    save_file(own, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _trained(policy: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def _is_adapted(module: torch.nn.Module) -> bool:
    return hasattr(module, "lora_A")


def _adapted_layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if _is_adapted(module):
            yield name, module


def _composed_layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the layers whose weight is not what they hold: adapted ones, and those in 4 bits."""
    for name, module in model.named_modules():
        held = None if name.endswith(".base_layer") else getattr(module, "weight", None)
        if _is_adapted(module) or getattr(held, "quant_state", None) is not None:
            yield name, module


def _base_layer(layer: Any) -> Any:
    return layer.get_base_layer() if _is_adapted(layer) else layer


def _put(model: torch.nn.Module, name: str, module: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
