"""What a stage would do: devices, steps, batch arithmetic, estimated memory (`--dry-run`)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from src.config.loading import ROOT
from src.config.schema import Config
from src.data.prompts import load_prompt
from src.run.devices import device_index
from src.run.processes import gpu_count, process_count, thread_count

_GIB = 1024**3
_HUB_TRAIN_ROWS = 7_500
_HUB_TEST_ROWS = 5_000
_KV_SEQUENCES = 64
STRATEGIES = ("ddp", "zero2", "fsdp2", "zero3")


def describe_plan(stage: str, config: Config) -> str:
    """Return the plan of a stage as text.

    Raises:
        ConfigError: when the prompt template is missing or has no `{question}`.
    """
    prompt = load_prompt(config.data.prompt)
    lines = [
        f"plan of {stage}",
        f"  prompt        {config.data.prompt} (sha256 {prompt.sha256[:12]})",
        f"  data          {_data(config)}",
        *(f"  {line}" for line in _devices(config)),
    ]
    describe = {
        "step1_sft_hyper": _search,
        "step2_sft": _training,
        "step3_GRPO": _grpo,
    }.get(stage, _evaluation)
    return "\n".join([*lines, *(f"  {line}" for line in describe(config))])


def model_size(config: Config) -> tuple[int, int, int]:
    """Return (parameters, hidden width, layers), measured where the model is a local folder."""
    model = config.model
    file = ROOT / model.path / "config.json"
    if not file.is_file():
        return model.parameters, model.hidden_size, model.layers
    shape = json.loads(file.read_text(encoding="utf-8"))
    stored = sum(shard.stat().st_size for shard in file.parent.glob("*.safetensors"))
    return stored // 2, shape["hidden_size"], shape["num_hidden_layers"]


def key_width(config: Config) -> int:
    """Return the width of all key-value heads' keys, read where the model is a local folder."""
    file = ROOT / config.model.path / "config.json"
    if not file.is_file():
        return config.model.key_width
    shape = json.loads(file.read_text(encoding="utf-8"))
    heads = shape["num_attention_heads"]
    width = shape.get("head_dim") or shape["hidden_size"] // heads
    return width * shape.get("num_key_value_heads", heads)


def training_memory_gib(config: Config, tokens: int, checkpointing: bool) -> float:
    """Estimate the trainer's memory for one micro-batch of `tokens` tokens, in GiB.

    Weights, gradients and two Adam moments take 16 bytes a parameter in float32. Activations in
    bfloat16 take 2 bytes x hidden width a token and layer with checkpointing, about 34 x hidden
    width without (Korthikanti et al. 2022, section 4.1, without the attention matrix).
    """
    parameters, hidden, layers = model_size(config)
    activations = tokens * hidden * layers * (2 if checkpointing else 34)
    a_parameter = 16 if config.model.weight_dtype == "float32" else 8
    return (a_parameter * parameters + activations) / _GIB


def grpo_memory_gib(config: Config, processes: int, strategy: str) -> dict[str, float]:
    """Estimate GRPO's memory on each device by what it goes to, in GiB.

    Trainer: 16 bytes a parameter (float32 weights, gradients and two Adam moments), of which ZeRO-2
    shares out the last 12 and FSDP2 and ZeRO-3 all. Activations as in `training_memory_gib`.
    Colocated engine: bfloat16 weights and a KV cache with room for 64 sequences of
    `engine.max_model_tokens`, fewer where a process has fewer; a server has them elsewhere.
    """
    grpo = config.grpo
    parameters, hidden, layers = model_size(config)
    whole = {"ddp": 16.0, "zero2": 4 + 12 / processes}.get(strategy, 16 / processes)
    tokens = grpo.micro_batch_size * config.sampling.max_completion_tokens
    factor = 2 if grpo.gradient_checkpointing else 34
    parts = {"trainer": whole * parameters, "activations": tokens * hidden * layers * factor}
    if grpo.mode == "colocate":
        sequences = min(_KV_SEQUENCES, grpo.completions_per_step // processes)
        # Keys and values in bfloat16.
        a_token = 2 * 2 * layers * key_width(config)
        parts["engine"] = 2 * parameters
        parts["KV cache"] = sequences * config.engine.max_model_tokens * a_token
    return {name: value / _GIB for name, value in parts.items()}


def describe_batch(config: Config, processes: int) -> str:
    """Say how a step of GRPO is cut; its completions are the same for any number of processes."""
    grpo = config.grpo
    return (
        f"{processes} process(es) x {grpo.micro_batch_size} a micro-batch x "
        f"{grpo.accumulation(processes)} accumulated = {grpo.completions_per_step} completions"
    )


def _data(config: Config) -> str:
    data = config.data
    if data.source == "files":
        return f"{data.train_file} / {data.test_file}"
    if data.source == "synthetic":
        return (
            f"generated: {data.train_rows or 1600} train, {data.validation_rows} validation, "
            f"{data.test_rows or 1000} test"
        )
    source = data.numina_dataset if data.source == "numina" else data.hub_dataset
    return f"{source} from the hub ({len(data.subjects)} subjects), test {data.hub_dataset}"


def _train_rows(config: Config) -> int:
    known = config.data.train_rows
    return known or max(1, _HUB_TRAIN_ROWS - config.data.validation_rows)


def _devices(config: Config) -> Iterator[str]:
    for role in ("train", "eval"):
        device = getattr(config.devices, role)
        index = device_index(device, f"devices.{role}")
        if index is None:
            state = f"{thread_count(config, device)} threads"
        else:
            state = "present" if index < gpu_count() else "NOT PRESENT on this machine"
        yield f"{role + ' device':<13} {device} ({state})"
    parameters, hidden, layers = model_size(config)
    yield (
        f"model         {config.model.path}: {parameters / 1e6:,.1f} M parameters, hidden "
        f"{hidden}, {layers} layers"
    )


def _evaluation(config: Config) -> Iterator[str]:
    sampling = config.sampling
    rows = config.data.test_rows or _HUB_TEST_ROWS
    parameters, _, _ = model_size(config)
    yield (
        f"evaluation    {rows} test problems, T {sampling.temperature}, top_p {sampling.top_p}, "
        f"at most {sampling.max_completion_tokens} new tokens, stop {sampling.stop!r}"
    )
    yield (
        f"memory        engine weights {2 * parameters / _GIB:.2f} GiB on {config.devices.eval}, "
        "the rest of its share for the KV cache"
    )


def _training(config: Config) -> Iterator[str]:
    train, processes = config.train, process_count()
    rows = _train_rows(config)
    steps = train.steps(rows)
    yield (
        f"training      {rows} examples x {train.epochs} epochs = {steps} steps of "
        f"{train.batch_size} ({processes} process(es) x {train.accumulation(processes)} "
        f"micro-batches of {train.micro_batch_size}, packed)"
    )
    yield (
        f"checkpoints   every {train.evaluate_every} steps and at the end, each scored on "
        f"{min(train.validation_rows, config.data.validation_rows)} validation problems"
    )
    memory = training_memory_gib(
        config, train.micro_batch_size * train.max_tokens, train.gradient_checkpointing
    )
    yield f"memory        about {memory:.1f} GiB on {config.devices.train}, logits not counted"
    yield from _evaluation(config)


def _search(config: Config) -> Iterator[str]:
    search = config.search
    yield (
        f"search        {search.trials} trials of at most {search.examples} examples, scored at "
        f"{search.rung_examples} examples on "
        f"{min(search.validation_rows, config.data.validation_rows)} validation problems"
    )
    for path, space in search.space.items():
        yield f"  {path}: {space.model_dump()}"
    yield from _training(config)


def _grpo(config: Config) -> Iterator[str]:
    grpo, processes = config.grpo, process_count()
    yield (
        f"recipe        {grpo.recipe}: loss {grpo.loss}, clip {grpo.clip_low:g} / "
        f"{grpo.clip_high:g}, group std {'on' if grpo.scale_rewards else 'off'}, dynamic sampling "
        f"{'on' if grpo.dynamic_sampling else 'off'}, KL {grpo.kl_beta:g}"
    )
    yield (
        f"rollouts      {grpo.prompts_per_step} prompts x {grpo.group_size} = "
        f"{grpo.completions_per_step} completions a step, {grpo.steps} steps, vLLM {grpo.mode}"
    )
    yield f"batch         {describe_batch(config, processes)}"
    for strategy in STRATEGIES:
        parts = grpo_memory_gib(config, processes, strategy)
        listed = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
        yield (
            f"memory        {strategy:<5} about {sum(parts.values()):.1f} GiB a device ({listed})"
        )
    yield from _evaluation(config)
