"""Estimate what training takes of each device's memory, by item, before anything is loaded.

What is kept over a step (weights, gradients, moments) follows from the number of parameters and the
strategy. What comes and goes follows from the model's shape and the tokens of a micro-batch, and is
largest in one of a few phases of a pass; the fullest one counts. Formulas were checked against
tensors alive in real passes of Qwen2 shapes (`tests/unit/stages/test_memory.py`); no GPU has.

Letters: T tokens of a micro-batch, N of them targets, H hidden width, I width inside an MLP, Q and
K widths of queries and keys, V vocabulary, L layers, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from src.config.schema import Config
from src.config.training import AdapterSettings
from src.run.devices import is_cpu
from src.stages.model_shape import ModelShape, model_shape

GIB = 1024**3
STRATEGIES = ("ddp", "zero2", "fsdp2", "zero3")
Loss = Literal["chunked", "fused"]
"""How logits are kept from being whole: SFT's own chunks, or TRL's fused output layer."""

# Of SFT's loss: logits at once (src/training/losses.py).
_LOGITS_AT_ONCE = 2**26
# Of TRL's fused output layer: tokens and vocabulary entries of a tile (trl/kernels/
# chunked_logprob.py, trl/trainer/utils.py).
_TILE_TOKENS, _TILE_ENTRIES = 4096, 32768
# A template and a long problem; a group's completions share one copy.
_PROMPT_TOKENS = 256
# DeepSpeed's defaults (runtime/zero/config.py): elements of a bucket and parameters gathered.
_ZERO_BUCKET, _ZERO_LIVE = 5e8, 1e9
# Of a weight in 4 bits: its half byte, a byte for 64 of them and a float32 for 256 of those bytes
# (QLoRA, arXiv:2305.14314, section 3).
_FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
# CUDA's context, cuBLAS' workspaces, Triton's and NCCL's buffers.
_CUDA_GIB = 1.0
# The allocator's blocks that fit nothing, as a share of what comes and goes in varying lengths.
_FRAGMENTATION = 0.1


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes an element, in weights, between layers and inside them.

    `norms` counts the bytes x H a token that a layer's two norms, its residual stream and the
    casts of its matrices' inputs keep for the backward pass.
    """

    weight: int
    residual: int
    inside: int
    norms: int
    autocast: bool
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass of a device."""

    tokens: int
    targets: int
    checkpointing: bool
    loss: Loss
    adapter: AdapterSettings

    @property
    def frozen(self) -> bool:
        """Whether an adapter trains and the weights have no gradients."""
        return self.adapter.adapter != "none"


def training_memory_gib(
    config: Config, processes: int = 1, strategy: str = "ddp"
) -> dict[str, float]:
    """Estimate what SFT takes of each device for its longest micro-batch, in GiB by item."""
    train, tokens = config.train, config.train.micro_batch_tokens
    one = Pass(tokens, tokens, train.gradient_checkpointing, "chunked", train)
    return _by_item(config, one, processes, strategy)


def grpo_memory_gib(config: Config, processes: int, strategy: str) -> dict[str, float]:
    """Estimate what GRPO's trainer takes of each device, without the engine, in GiB by item."""
    grpo = config.grpo
    targets = grpo.micro_batch_size * config.sampling.max_completion_tokens
    prompts = -(-grpo.micro_batch_size // grpo.group_size)
    tokens = targets + prompts * _PROMPT_TOKENS
    one = Pass(tokens, targets, grpo.gradient_checkpointing, "fused", grpo)
    return _by_item(config, one, processes, strategy)


def training_between_steps_gib(config: Config, processes: int, strategy: str) -> float:
    """Estimate what SFT's trainer keeps of each device while a checkpoint is scored, in GiB."""
    return _between_steps(config, Pass(0, 0, True, "chunked", config.train), processes, strategy)


def grpo_between_steps_gib(config: Config, processes: int, strategy: str) -> float:
    """Estimate what GRPO's trainer keeps of each device while rollouts are drawn, in GiB."""
    return _between_steps(config, Pass(0, 0, True, "fused", config.grpo), processes, strategy)


def host_memory_gib(config: Config, processes: int, *, checkpoints_copied: bool) -> float:
    """Estimate the largest load on a machine's own memory, in GiB.

    Each process of the machine loads the policy there, whole, before it is moved or sharded.

    Args:
        checkpoints_copied: weights and both moments are copied for the thread that writes them.
    """
    weight = _weight_bytes(config)
    copies = max(processes, 3) if checkpoints_copied else processes
    return copies * weight * model_shape(config).parameters / GIB


def precision(config: Config, strategy: str) -> Precision:
    """Say in how many bytes a strategy keeps what; DeepSpeed computes in bfloat16 throughout."""
    autocast = config.train.compute_dtype != "float32"
    if config.model.weight_dtype == "bfloat16" or (strategy.startswith("zero") and autocast):
        return Precision(2, 2, 2, 17, autocast=False)
    if autocast:
        return Precision(4, 4, 2, 26, autocast=True, cached=strategy != "fsdp2")
    return Precision(4, 4, 4, 24, autocast=False)


def _by_item(config: Config, one: Pass, processes: int, strategy: str) -> dict[str, float]:
    shape, sizes = model_shape(config), precision(config, strategy)
    held = _held(config, shape, one, processes, strategy)
    phases = (_forward, _output_layer, _layers_backward, _embedding_backward)
    whole = _Whole(sizes.weight if strategy == "fsdp2" else 0, shape)
    passing = max(
        (phase(shape, sizes, one, whole) for phase in phases),
        key=lambda items: sum(items.values()),
    )
    spare = {"fragmentation": _FRAGMENTATION * sum(passing.values())}
    if not is_cpu(config.devices.train):
        spare = {"CUDA and fragmentation": _CUDA_GIB * GIB + spare["fragmentation"]}
    items = held | passing | spare
    return {name: size / GIB for name, size in items.items() if size}


def _held(
    config: Config, shape: ModelShape, one: Pass, processes: int, strategy: str
) -> dict[str, float]:
    """Return the bytes that stay from step to step.

    ZeRO keeps a float32 master copy and float32 moments, shared out, beside weights and gradients
    (Rajbhandari et al. 2020, section 3.1).
    """
    weight, count = precision(config, strategy).weight, shape.parameters
    if one.frozen:
        return _held_by_adapter(config, shape, one, processes)
    zero = strategy.startswith("zero")
    part = 1 if strategy == "ddp" else 1 / processes
    weights = weight * count * (1 if strategy in ("ddp", "zero2") else part)
    held = {
        "weights": weights,
        "gradients": weight * count * part,
        "optimizer": (12 if zero else _optimizer_bytes(config, one, weight)) * count * part,
    }
    if strategy == "ddp" and processes > 1 and one.loss == "fused":
        # transformers leaves gradient_as_bucket_view off, so each gradient lies in a bucket too;
        # SFT's own processes set it (src/training/parallel.py).
        held["DDP's buckets"] = weight * count
    if zero:
        live = min(_ZERO_LIVE, count) if strategy == "zero3" else 0
        held["DeepSpeed's buffers"] = weight * (min(_ZERO_BUCKET, count) + live)
    if one.loss == "fused" and config.grpo.kl_beta > 0:
        held["reference model"] = weights  # loaded in the policy's type, sharded as it is
    return held


def _held_by_adapter(
    config: Config, shape: ModelShape, one: Pass, processes: int
) -> dict[str, float]:
    """Return the bytes that stay where a float32 adapter trains; without it, the reference."""
    weight, own = _weight_bytes(config), shape.adapter_parameters(one.adapter)
    packed = shape.layers * shape.linear if one.adapter.adapter == "qlora" else 0
    held = {
        "weights": weight * (shape.parameters - packed) + _FOUR_BITS * packed,
        "adapter": 4.0 * own,
        "gradients": 4.0 * own,
        "optimizer": _optimizer_bytes(config, one, 4) * own,
    }
    return held | ({"DDP's buckets": 4.0 * own} if processes > 1 and one.loss == "fused" else {})


def _weight_bytes(config: Config) -> int:
    return 2 if config.model.weight_dtype == "bfloat16" else 4


def _optimizer_bytes(config: Config, one: Pass, weight: int) -> float:
    """Return the bytes a parameter of the optimizer's state: two moments, and what belongs to them.

    8-bit moments have a float32 scale for every 256 (bitsandbytes); Kahan summation keeps the
    moments and a remainder in the type of the weights.
    """
    name = (config.train if one.loss == "chunked" else config.grpo).optimizer
    return {"adamw": 2 * weight, "adamw_8bit": 2 + 8 / 256, "adamw_bf16_kahan": 3 * weight}[name]


def _between_steps(config: Config, one: Pass, processes: int, strategy: str) -> float:
    """Gradients are let go of after a step, but for DeepSpeed's, which has buffers for them."""
    held = _held(config, model_shape(config), one, processes, strategy)
    if not strategy.startswith("zero"):
        del held["gradients"]
    return sum(held.values()) / GIB + (0 if is_cpu(config.devices.train) else _CUDA_GIB)


class _Whole:
    """Bytes that FSDP2 holds whole for a moment: gathered weights, gradients on their way out.

    A layer is gathered in the type of the shards, the next one ahead of its turn, and the
    collectives have flat copies; so much was seen alive between two processes.
    """

    def __init__(self, weight: int, shape: ModelShape) -> None:
        self._layer, self._embedding = weight * shape.layer, weight * shape.embedding

    def __call__(self, layers: int, embeddings: int) -> dict[str, float]:
        whole = layers * self._layer + embeddings * self._embedding
        return {"gathered by FSDP2": float(whole)}


def _forward(shape: ModelShape, sizes: Precision, one: Pass, whole: _Whole) -> dict[str, float]:
    """Return the bytes at the end of the forward pass: the last MLP or a tile of GRPO's logits."""
    layer = 3 * sizes.inside * one.tokens * shape.intermediate_size
    layer += 2 * _inputs(shape, sizes, one)
    tile = _tile(shape, sizes, one) if one.loss == "fused" else 0
    return {
        **_kept(shape, sizes, one),
        **_autocast_copies(shape, sizes, one, inside=True),
        "one layer": layer if layer > tile else 0,
        "logits": tile if tile >= layer else 0,
        **whole(3, 1),
    }


def _output_layer(
    shape: ModelShape, sizes: Precision, one: Pass, whole: _Whole
) -> dict[str, float]:
    """Return the bytes where loss and logits are made.

    SFT makes the gradients with the loss, inside autocast: 4 V H and 4 N H in float32, the weight
    in bfloat16, and two chunks of logits, as one is let go when the next is there, in float32 and
    bfloat16. GRPO makes them in the backward pass, from a tile of logits at a time.
    """
    gradient = 0 if one.frozen else (4 + (2 if sizes.weight == 2 else 0)) * shape.embedding
    gradient += 4 * one.targets * shape.hidden_size
    if one.loss == "chunked":
        logits = min(one.targets * shape.vocabulary, 2 * _LOGITS_AT_ONCE)
        logits *= 4 + (sizes.inside if sizes.inside < 4 else 0)
        gradient += (sizes.inside if sizes.autocast else 0) * shape.embedding
    else:
        logits = _tile(shape, sizes, one)
    return {
        **_kept(shape, sizes, one),
        **_autocast_copies(shape, sizes, one, inside=one.loss == "chunked"),
        "output layer's gradient": gradient,
        "logits": logits,
        **whole(1, 1 if shape.tied_embeddings else 2),
    }


def _tile(shape: ModelShape, sizes: Precision, one: Pass) -> int:
    """Return the bytes of TRL's tile of logits and of the piece of the weight it is made of."""
    logits = sizes.inside * min(one.targets, _TILE_TOKENS)
    return _TILE_ENTRIES * (logits + (sizes.inside if sizes.autocast else 0) * shape.hidden_size)


def _layers_backward(
    shape: ModelShape, sizes: Precision, one: Pass, whole: _Whole
) -> dict[str, float]:
    """Return the bytes of the last layer's backward pass, computed again first if checkpointed.

    Gradients of two widths of the MLP, of three inputs and of a matrix are alive at once. A tied
    output layer's gradient waits for the embedding's.
    """
    layer = 2 * sizes.inside * one.tokens * shape.intermediate_size
    layer += 3 * _inputs(shape, sizes, one)
    matrix = shape.intermediate_size * shape.hidden_size
    gradient = 0 if one.frozen else sizes.weight
    layer += (gradient + (2 if sizes.autocast else 0)) * matrix
    if one.frozen and sizes.inside < 4:  # peft casts the adapter's input to float32
        layer += 4 * one.tokens * shape.intermediate_size
    if one.checkpointing:
        layer += _saved(shape, sizes, one) - _inputs(shape, sizes, one)
    waits = shape.tied_embeddings and not one.frozen
    waiting = sizes.weight * shape.embedding if waits else 0
    return {
        **_kept(shape, sizes, one),
        **_autocast_copies(shape, sizes, one, inside=False),
        "one layer": layer,
        "output layer's gradient": waiting,
        **whole(4, 1),
    }


def _embedding_backward(
    shape: ModelShape, sizes: Precision, one: Pass, whole: _Whole
) -> dict[str, float]:
    """Return the bytes at the end, where the embedding's gradient joins a tied output layer's."""
    if one.frozen:
        return {}
    gradients = sizes.weight * shape.embedding * (2 if shape.tied_embeddings else 1)
    return {"embedding's gradient": gradients, **whole(1, 1 if shape.tied_embeddings else 2)}


def _kept(shape: ModelShape, sizes: Precision, one: Pass) -> dict[str, float]:
    """Return the bytes kept for the backward pass: inputs of the layers, or all they compute.

    Three more of the size of an input belong to the last norm and the output layer.
    """
    each = (_inputs if one.checkpointing else _saved)(shape, sizes, one)
    kept = shape.layers * each + 3 * _inputs(shape, sizes, one)
    return {"kept for backward": float(kept)}


def _inputs(shape: ModelShape, sizes: Precision, one: Pass) -> int:
    return sizes.residual * one.tokens * shape.hidden_size


def _saved(shape: ModelShape, sizes: Precision, one: Pass) -> int:
    """Return the bytes a layer keeps: norms and residuals, queries, keys, values, output, MLP.

    By the tensors that autograd saves in transformers' Qwen2; attention keeps no matrix.
    """
    widths = 2 * shape.query_width + 2 * shape.key_width + 4 * shape.intermediate_size
    return one.tokens * (sizes.norms * shape.hidden_size + sizes.inside * widths)


def _autocast_copies(
    shape: ModelShape, sizes: Precision, one: Pass, *, inside: bool
) -> dict[str, float]:
    """Return the bytes of the layers' weights that autocast has cast.

    They live in its cache, and in what is kept for the backward pass where that is everything.

    Args:
        inside: the moment lies inside the autocast block.
    """
    cached = inside and sizes.cached and not one.frozen  # of what takes a gradient alone
    held = sizes.autocast and (not one.checkpointing or cached)
    return {"autocast's copies": float(held * sizes.inside * shape.layers * shape.layer)}
