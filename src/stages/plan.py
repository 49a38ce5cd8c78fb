"""What a stage would do: devices, steps, batch arithmetic, estimated memory (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from src.benchmarks.asking import describe_benchmarks
from src.config.schema import Config
from src.data.prompts import load_prompt
from src.data.row_counts import sft_rows, test_rows, train_rows, validation_rows
from src.rewards.files import reward_identities
from src.run.devices import device_index, engine_config, is_cpu
from src.run.directory import BENCHMARKS, GRPO_STAGE, TRAINING_STAGES
from src.run.processes import (
    evaluation_device,
    evaluation_engines,
    gpu_count,
    local_process_count,
    process_count,
    thread_count,
    training_gpus,
)
from src.stages.cards import (
    ASSUMED_GB,
    card_memory_gib,
    engine_need,
    engine_sleeps,
    freed_by_sleep_gib,
    planned_fraction,
    usable_gib,
)
from src.stages.evaluation_engine import beside_training
from src.stages.memory import (
    STRATEGIES,
    grpo_memory_gib,
    host_memory_gib,
    training_memory_gib,
)
from src.stages.model_shape import model_shape
from src.stages.promises import broken_promises

_CHOICES = {
    "latest_near_highest": "the latest near the highest score",
    "highest": "that with the highest score",
}


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
        *(f"  {line}" for line in _devices(stage, config)),
    ]
    describe = {
        "step1_sft_hyper": _search,
        "step2_sft": _training,
        "step3_GRPO": _grpo,
        BENCHMARKS: describe_benchmarks,
    }.get(stage.partition("/")[0], _scoring)
    lines += [f"  {line}" for line in describe(config)]
    if stage != GRPO_STAGE:
        lines += [f"  {line}" for line in _engines(stage, config)]
    return "\n".join([*lines, *(f"  WARNING {line}" for line in broken_promises(stage, config))])


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
            f"generated: {train_rows(config)} train, {data.validation_rows} validation, "
            f"{test_rows(config)} test"
        )
    train, test = (_hub_set(data.hub_places(split)) for split in ("train", "test"))
    return f"from the hub: train {train}, test {test}"


def _hub_set(places: list[str]) -> str:
    name, _, subject = places[0].partition(":")
    return f"{name} ({len(places)} subjects)" if subject else name


def _devices(stage: str, config: Config) -> Iterator[str]:
    engines = evaluation_engines(config, trains=stage in TRAINING_STAGES)
    every = [("eval", device) for devices in engines for device in devices]
    for role, device in (("train", config.devices.train), *every):
        index = device_index(device, f"devices.{role}")
        if index is None:
            state = f"{thread_count(config, device)} threads"
        else:
            state = "present" if index < gpu_count() else "NOT PRESENT on this machine"
        yield f"{role + ' device':<13} {device} ({state})"
    shape = model_shape(config)
    yield (
        f"model         {config.model.path}: {shape.parameters / 1e6:,.1f} M parameters, hidden "
        f"{shape.hidden_size}, {shape.layers} layers"
        f"{' (ASSUMED: not here yet, and model.* does not say)' if shape.assumed else ''}"
    )


def _scoring(config: Config) -> Iterator[str]:
    yield _evaluation(config)


def _engines(stage: str, config: Config) -> Iterator[str]:
    """Say what each evaluation engine takes: its own card, or its own cache on a CPU."""
    trains = stage in TRAINING_STAGES
    engines = evaluation_engines(config, trains=trains)
    training = training_gpus(config) if trains else range(0)
    weights = engine_need(config, 1).weights / config.engine.tensor_parallel
    if len(engines) > 1:
        yield f"engines       {len(engines)}, which share the problems out"
    for devices in engines:
        share = engine_config(config, devices, training).engine.memory_fraction
        if is_cpu(devices[0]):
            takes = f"{config.engine.cpu_cache_gib} GiB of KV cache"
        else:
            half = (
                ", half of engine.memory_fraction" if share < config.engine.memory_fraction else ""
            )
            takes = f"{share:g} of {' and of '.join(devices)}{half}"
        each = " a card" if len(devices) > 1 else ""
        yield f"memory        evaluation engine: weights {weights:.2f} GiB{each}; it takes {takes}"


def _evaluation(config: Config) -> str:
    sampling = config.sampling
    return (
        f"evaluation    {test_rows(config)} test problems, T {sampling.temperature}, "
        f"top_p {sampling.top_p}, at most {sampling.max_completion_tokens} new tokens, "
        f"stop {sampling.stop!r}"
    )


def _training(config: Config) -> Iterator[str]:
    train, processes = config.train, process_count()
    rows = sft_rows(config)
    steps, scored = train.steps(rows), train.checkpoint_steps(rows)
    about = "about " if train.evaluate_every is None else ""
    yield (
        f"training      {rows} examples x {train.epochs} epochs = {steps} steps of "
        f"{train.batch_size} ({processes} process(es), packed into micro-batches of at most "
        f"{train.micro_batch_tokens:,} tokens)"
    )
    yield (
        f"evaluations   {len(scored)} in training, {about}every {scored[0]} steps and at the end, "
        f"each on {validation_rows(config, train.validation_rows)} validation problems"
    )
    yield from _training_memory(config, processes)
    yield _evaluation(config)


def _search(config: Config) -> Iterator[str]:
    search = config.search
    yield (
        f"search        {search.trials} trials of at most {search.examples} examples, scored at "
        f"{search.rung_examples} examples on "
        f"{validation_rows(config, search.validation_rows)} validation problems, pruned at "
        f"{search.pruning_rungs()}"
    )
    for path, space in search.space.items():
        yield f"  {path}: {space.model_dump()}"
    yield from _training(config)


def _grpo(config: Config) -> Iterator[str]:
    grpo, processes = config.grpo, process_count()
    one = grpo.steps_per_batch == 1
    yield (
        f"recipe        {grpo.recipe}: loss {grpo.loss}, {grpo.ratio} ratio, clip "
        f"{grpo.clip_low:g} / {grpo.clip_high:g}, advantage {grpo.advantage}, group std "
        f"{'on' if grpo.scale_rewards else 'off'}, dynamic sampling "
        f"{'on' if grpo.dynamic_sampling else 'off'}, KL {grpo.kl_beta:g}"
    )
    identities = reward_identities(config)
    yield "rewards       " + ", ".join(
        f"{name} {weight:g}"
        + (
            f" ({identities[name]['file']}, sha256 {identities[name]['sha256'][:12]})"
            if name in identities
            else ""
        )
        for name, weight in grpo.rewards.weights().items()
        if weight or name in identities
    )
    yield (
        f"rollouts      {grpo.prompts_per_step} prompts x {grpo.group_size} = "
        f"{grpo.completions_per_batch} completions a {'step' if one else 'batch'}, {grpo.steps} "
        f"steps, vLLM {grpo.mode}"
    )
    if not one:
        yield _updates(config)
    if grpo.mode == "split":
        yield _split(config)
    yield f"batch         {describe_batch(config, processes)}"
    yield (
        f"evaluations   {len(grpo.evaluation_steps)} in training, before the first step, every "
        f"{grpo.evaluate_every} steps and at the end, each on "
        f"{validation_rows(config, grpo.validation_rows)} validation problems; "
        f"{_CHOICES[grpo.choose]} goes on to test; "
        f"{len(grpo.save_steps)} resumable states"
    )
    yield from _grpo_memory(config, processes)
    if grpo.mode == "split":
        yield from _scoring(config)
    else:
        yield _evaluation(config)


def _updates(config: Config) -> str:
    """Say how often a rollout batch is trained on, and how old its rollouts get."""
    grpo = config.grpo
    return (
        f"updates       a batch is cut into {grpo.updates_per_batch} step(s), {grpo.iterations} "
        f"pass(es) over them: {-(-grpo.steps // grpo.steps_per_batch)} batches are drawn, by "
        f"weights up to {grpo.steps_per_batch - 1} updates old"
    )


def _split(config: Config) -> str:
    """Say which device does what, and when."""
    train, engine = config.devices.train, evaluation_device(config)
    if config.grpo.one_step_off:
        when = f"while {train} trains a step, {engine} draws the next one's rollouts"
    else:
        when = f"{engine} draws a step's rollouts, then {train} trains on them"
    weights = engine_need(config, 1).weights
    return (
        f"split         {when}; weights go over by shared memory ({weights:.2f} GiB), and "
        f"{engine} scores validation and test"
    )


def _training_memory(config: Config, processes: int) -> Iterator[str]:
    strategies = ("ddp", "fsdp2") if processes > 1 else ("ddp",)
    for strategy in strategies:
        items = training_memory_gib(config, processes, strategy)
        yield _itemised(strategy, items)
        if not is_cpu(config.devices.train):
            for name, card in _cards(config).items():
                yield f"              {name}: {beside_training(config, card, processes, strategy)}"
    yield from _host(config, checkpoints_copied=True)


def _grpo_memory(config: Config, processes: int) -> Iterator[str]:
    strategies = STRATEGIES if processes > 1 else ("ddp",)
    for strategy in strategies:
        yield _itemised(strategy, grpo_memory_gib(config, processes, strategy))
        if not is_cpu(config.devices.train):
            for name, card in _cards(config).items():
                fits = _rollout_engine(config, card, processes, strategy)
                yield f"              {name}: {fits}"
    yield from _host(config, checkpoints_copied=False)


def _rollout_engine(config: Config, card_gib: float, processes: int, strategy: str) -> str:
    share = planned_fraction(config, card_gib, processes, strategy)
    if share is None:
        return "does not fit"
    if config.grpo.mode != "colocate":
        return "fits"
    need, reserved, asleep = engine_need(config, processes), share * card_gib, ""
    if engine_sleeps(config, card_gib, processes, strategy):
        freed = freed_by_sleep_gib(config, reserved, processes)
        asleep = f"; it sleeps while the trainer trains and so frees {freed:.1f} GiB"
    return (
        f"rollout engine {share:g} = {reserved:.1f} GiB, room for {need.cached(reserved)} of "
        f"{need.sequences} whole sequences{asleep}"
    )


def _cards(config: Config) -> dict[str, float]:
    """Return the memory of the cards to speak of: those here, else the usual ones."""
    here = card_memory_gib(config)
    if here is not None:
        return {f"this GPU ({here:.1f} GiB)": here}
    return {f"{size} GB (assumed)": usable_gib(size) for size in ASSUMED_GB}


def _itemised(strategy: str, items: Mapping[str, float]) -> str:
    listed = listed_gib(items)
    return (
        f"memory        {strategy:<5} about {sum(items.values()):.1f} GiB a device"
        f"{f' ({listed})' if listed else ''}"
    )


def listed_gib(items: Mapping[str, float]) -> str:
    """List what takes memory, in GiB, but for what would read 0.0.

    >>> listed_gib({"weights": 2.94, "adapter": 0.01, "moments": 5.8})
    'weights 2.9, moments 5.8'
    """
    return ", ".join(f"{name} {size:.1f}" for name, size in items.items() if size >= 0.05)


def _host(config: Config, *, checkpoints_copied: bool) -> Iterator[str]:
    host = host_memory_gib(config, local_process_count(), checkpoints_copied=checkpoints_copied)
    if not is_cpu(config.devices.train):
        yield f"host memory   up to {host:.1f} GiB for weights and copies of them"
