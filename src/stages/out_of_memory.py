"""What to do when memory runs out: one paragraph in place of a traceback.

The error may be torch's, vLLM's at the start of an engine, or text that came from the evaluation
worker. It is told by its words: nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from src.config.loading import with_values
from src.config.schema import Config
from src.run.devices import is_cpu
from src.run.directory import FITTING_STAGES, GRPO_STAGE, SEARCH_STAGE, TRAINING_STAGES, Run
from src.run.files import read_jsonl
from src.run.processes import gpu_count, launched_strategy, process_count, takes_turns
from src.run.stopping import end_told
from src.stages.cards import (
    ADAPTER_RATE,
    Change,
    card_memory_gib,
    engine_need,
    engine_sleeps,
    grpo_changes,
    planned_fraction,
    smaller,
)
from src.stages.evaluation_engine import evaluation_sleeps, shared_fraction
from src.stages.memory import GIB, grpo_memory_gib, training_memory_gib
from src.stages.model_shape import model_shape
from src.stages.plan import listed_gib

_NO_CACHE = r"No available memory for the cache blocks|larger than the available KV cache memory"
_NOT_FREE = r"Free memory on device .{0,120}?is less than desired"
_OUT = (
    r"out of memory\. Tried to allocate|OutOfMemoryError|CUDA [eE]rror: out of memory|"
    r"CUBLAS_STATUS_ALLOC_FAILED|DefaultCPUAllocator: (?:can't allocate|not enough) memory"
)
_KINDS = {"no cache": _NO_CACHE, "not free": _NOT_FREE, "out": _OUT}
_ENGINE = re.compile(
    r"could not be scored|(?:evaluation worker|rollout engine)[^\n]{0,20}? could not start|"
    r"rollout engine failed"
)
# The note that src/training/memory_rehearsal.py leaves on the error.
_REHEARSAL = re.compile(r"in the rehearsal of the largest micro-batch \([^)]*\)")
# Of the error, quoted.
_LONGEST_QUOTE = 200


@dataclass(frozen=True, slots=True)
class Shortage:
    """What ran out, and where."""

    kind: str
    quote: str
    in_engine: bool
    rehearsal: str | None = None
    """That it was in the rehearsal of the largest micro-batch, in words."""


def find_shortage(error: BaseException) -> Shortage | None:
    """Return what an error says about memory; None where it is about something else."""
    seen: BaseException | None = error
    texts: list[str] = []
    while seen is not None and len(texts) < 10:
        texts.append("\n".join([f"{type(seen).__name__}: {seen}", *_notes(seen)]))
        seen = seen.__cause__ or seen.__context__
    text = "\n".join(reversed(texts))
    for kind, pattern in _KINDS.items():
        if found := re.search(pattern, text, re.DOTALL):
            quote, rehearsal = _quoted(text, found.start()), _REHEARSAL.search(text)
            return Shortage(
                kind, quote, bool(_ENGINE.search(text)), rehearsal[0] if rehearsal else None
            )
    return None


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def end_out_of_memory(run: Run, error: BaseException) -> None:
    """Say what to change and end the process, if the error is about memory; else return.

    The traceback goes to the run's log file, or to the terminal where there is none yet.

    Raises:
        SystemExit: with code 1.
    """
    shortage = find_shortage(error)
    if shortage is None:
        return
    end_told(run.folder, explain(run.stage, run.config, shortage, _last_step(run.folder)), error)


def explain(stage: str, config: Config, shortage: Shortage, step: int | None) -> str:
    """Return the paragraph: what was done, what had been planned, what to change in which order."""
    doing = "in its engine's process" if shortage.in_engine else "in its own process"
    when = f"after step {step}" if step else "before a first step was logged"
    when = f"{shortage.rehearsal}, {when}" if shortage.rehearsal else when
    changes = list(islice(_changes(stage, config, shortage), 3))
    listed = "; ".join(f"({number}) {change}" for number, change in enumerate(changes, 1))
    goes_on = (
        "--resume goes on from the last saved state" if stage in TRAINING_STAGES else "start again"
    )
    if stage == SEARCH_STAGE:  # trials that failed count for the study's whole life
        goes_on = "start the search over, " + (
            "under another run.name" if config.search.shared
            else "by the same command without --resume, or with --fresh"
        )  # fmt: skip
    return (
        f"{stage}: memory ran out {when}, {doing}: {shortage.quote} "
        f"{_planned(stage, config)} Change, in this order: {listed}. Then {goes_on}."
    )


def _quoted(text: str, place: int) -> str:
    start = text.rfind("\n", 0, place) + 1
    quote = " ".join(text[start : start + 4 * _LONGEST_QUOTE].split())
    if len(quote) > _LONGEST_QUOTE:
        quote = quote[:_LONGEST_QUOTE].rsplit(". ", 1)[0].rstrip(".") + "."
    return quote if quote.endswith((".", "!")) else quote + "."


def _last_step(folder: Path) -> int | None:
    file = folder / "metrics.jsonl"
    rows = read_jsonl(file) if file.is_file() else []
    return max((row.get("step", 0) for row in rows), default=None)


def _planned(stage: str, config: Config) -> str:
    processes, strategy = process_count(), launched_strategy()
    shared = takes_turns(config)
    said = []
    if stage == GRPO_STAGE:
        said = [_itemised(grpo_memory_gib(config, processes, strategy))]
        card = card_memory_gib(config)
        if config.grpo.mode == "colocate" and card is not None:
            given = config.grpo.engine_memory_fraction
            planned = planned_fraction(config, card, processes, strategy)
            share = planned if given == "auto" else given
            if share is not None:
                said.append(f"{share * card:.1f} GiB of {card:.1f} for the rollout engine")
    elif stage in FITTING_STAGES:
        said = [_itemised(training_memory_gib(config, processes, strategy))]
        if shared and not is_cpu(config.devices.train):
            said.append(f"{config.engine.memory_fraction / 2:g} of the GPU for evaluation")
    else:
        weights = engine_need(config, 1).weights
        said = [f"{weights:.1f} GiB of weights in {config.engine.memory_fraction:g} of the GPU"]
    return f"The plan had estimated {' and '.join(said)}."


def _itemised(items: dict[str, float]) -> str:
    return f"{sum(items.values()):.1f} GiB for the trainer ({listed_gib(items)})"


def _changes(stage: str, config: Config, shortage: Shortage) -> Iterator[str]:
    """Yield what to change, first what costs least; more than three, of which three are told."""
    engine_alone = shortage.in_engine or stage not in TRAINING_STAGES
    if engine_alone:
        yield from _evaluation_changes(stage, config, shortage)
    elif stage == GRPO_STAGE:
        yield from _grpo_changes(config, shortage)
    else:
        yield from _sft_changes(stage, config)


def _grpo_changes(config: Config, shortage: Shortage) -> Iterator[str]:
    processes, strategy = process_count(), launched_strategy()
    before = sum(grpo_memory_gib(config, processes, strategy).values())
    found: dict[str, Change] = {}
    for change in grpo_changes(config, processes, strategy):
        found.setdefault(change.kind, change)
    smaller_passes = [found[kind] for kind in ("checkpointing", "micro-batch") if kind in found]
    if shortage.kind == "out":
        yield from (_told(change, before) for change in smaller_passes)
    if config.grpo.mode == "colocate" and not is_cpu(config.devices.train):
        yield _rollout_share(config, shortage)
    if shortage.kind != "out":
        yield from (_told(change, before) for change in smaller_passes)
    if "sleep" in found and not _sleep_gains_nothing(config):
        yield f"{found['sleep'].does}, so that the rollout engine gives its memory back meanwhile"
    for kind in ("optimizer", "adapter", "processes", "server"):
        if kind in found:
            yield f"{_told(found[kind], before)}, as a new run without --resume"


def _sleep_gains_nothing(config: Config) -> bool:
    """Tell whether nothing is to be gained by letting the rollout engine sleep."""
    card = card_memory_gib(config)
    if card is None:
        return is_cpu(config.devices.train)
    return engine_sleeps(config, card, process_count(), launched_strategy())


def _told(change: Change, before: float) -> str:
    """Say what a change of GRPO does to the trainer's memory."""
    after = sum(grpo_memory_gib(change.config, change.processes, change.strategy).values())
    return f"{change.does} ({after:.1f} GiB for the trainer in place of {before:.1f})"


def _rollout_share(config: Config, shortage: Shortage) -> str:
    """Say which share of the GPU the rollout engine should take."""
    card, processes, strategy = card_memory_gib(config), process_count(), launched_strategy()
    need = engine_need(config, processes)
    free = re.search(r"\(([\d.]+)/([\d.]+) GiB\)", shortage.quote)
    now = planned_fraction(config, card, processes, strategy) if card else None
    if shortage.kind == "not free" and free:
        share = max(0.01, (float(free[1]) - 0.5) / float(free[2]))
        why = f"as {free[1]} GiB are free; nvidia-smi lists what holds the rest"
    elif shortage.kind == "no cache":
        share = (need.least + 1) / card if card else (now or 0.35) + 0.05
        why = "so that its KV cache has room"
    else:
        least = need.least / card if card else 0.05
        share = max(least, (now or 0.35) - 0.05)
        why = f"now {now:g}" if now else "less than it takes now"
    return f"--set grpo.engine_memory_fraction={share:.2f} ({why})"


def _sft_changes(stage: str, config: Config) -> Iterator[str]:
    processes, strategy = process_count(), launched_strategy()
    before = sum(training_memory_gib(config, processes, strategy).values())

    def told(does: str, changed: Config, count: int = processes, by: str = strategy) -> str:
        after = sum(training_memory_gib(changed, count, by).values())
        return f"{does} ({after:.1f} GiB for the trainer in place of {before:.1f})"

    train = config.train
    if not train.gradient_checkpointing:
        name = "train.gradient_checkpointing"
        yield told(f"--set {name}=true", with_values(config, {name: True}))
    for size in smaller(train.micro_batch_size)[:1]:
        name = "train.micro_batch_size"
        yield told(f"--set {name}={size}", with_values(config, {name: size}))
    on_gpu = not is_cpu(config.devices.train)
    if takes_turns(config) and on_gpu and not evaluation_sleeps(config):
        yield "--set engine.sleep=on, which gives the engine's memory back while the trainer trains"
    if takes_turns(config) and on_gpu:
        card = card_memory_gib(config)
        fits = shared_fraction(config, card, before) if card else None
        now = config.engine.memory_fraction
        yield (
            f"--set engine.memory_fraction={min(fits or now, 0.7 * now):.2f} (now {now:g}, half of "
            "which evaluation takes beside the trainer), or devices.eval on a GPU of its own"
        )
    if train.optimizer == "adamw" and train.adapter == "none" and on_gpu and strategy == "ddp":
        name = "train.optimizer"
        does = f"--set {name}=adamw_8bit, as a new run"
        yield told(does, with_values(config, {name: "adamw_8bit"}))
    if on_gpu and stage != SEARCH_STAGE:
        more = f"--config_file config/accelerate/fsdp2.yaml --num_processes {2 * processes}"
        yield told(f"accelerate launch {more}", config, 2 * processes, "fsdp2")
    if train.adapter == "none" and strategy == "ddp":
        adapted = with_values(config, {"train.adapter": "lora"})
        yield told(f"--set train.adapter=lora, {ADAPTER_RATE}, as a new run", adapted)
    tokens = train.max_tokens * 2 // 3
    cut = with_values(config, {"train.max_tokens": tokens})
    does = f"--set train.max_tokens={tokens}, which leaves longer examples out, as a new run"
    yield told(does, cut)


def _evaluation_changes(stage: str, config: Config, shortage: Shortage) -> Iterator[str]:
    engine = config.engine
    fraction, shape = engine.memory_fraction, model_shape(config)
    share = min(0.95, fraction + 0.1) if shortage.kind == "no cache" else max(0.1, fraction - 0.15)
    yield f"--set engine.memory_fraction={share:.2f} (now {fraction:g} of the GPU)"
    if stage in TRAINING_STAGES and takes_turns(config):
        yield "devices.eval on a GPU that nothing trains on, where there is one"
    elif gpu_count() > 1:
        more = 2 * engine.tensor_parallel
        yield f"--set engine.tensor_parallel={more} (an engine shared out over {more} GPUs)"
    sequences = max(1, engine.max_sequences // 2)
    tables = 16 * sequences * shape.vocabulary / GIB
    yield f"--set engine.max_sequences={sequences} (the sampler takes {tables:.1f} GiB less)"
    yield "--set engine.enforce_eager=true (no CUDA graphs, about 0.5 GiB less; slower)"
