"""Target tokens a second of supervised fine-tuning: our trainer beside TRL's SFTTrainer, on a CPU.

    python -m tests.benchmarks.sft_speed --rows math_train.jsonl.gz     # 13 minutes on 2 cores
    python -m tests.benchmarks.sft_speed --quick

Both train on the same sequences, as many a step, with float32 weights under bf16 autocast and fused
AdamW. First each side tries its settings; then the best of each run in turn, in fresh processes,
each with a warm-up step that is not timed. Of TRL's packing strategies `bfd` is taken, which keeps
each sequence whole and apart; `wrapped` does not.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from tests.benchmarks.processes import SMOLLM2, TINY, training_process
from tests.benchmarks.table import Row, alternate, listed, parser, report
from tests.benchmarks.workload import TINY_BASE, qwen2_20m, rows_said, smollm2

if TYPE_CHECKING:
    from tests.benchmarks.sft_sides import Speed, TrlSetting, Work

Setting = TypeVar("Setting", bound=Hashable)
SIZES = (1, 2, 4, 8)
PACKED_TOKENS = (512, 1024, 2048)
GOALS = {"padded": ">= 1.5", "packed": ">= 1.1"}


def main() -> None:
    given = parser(__doc__).parse_args()
    report(measure(given.rows, given.quick), given.output)


def measure(rows: Path | None, quick: bool) -> list[Row]:
    """Compare on a real LLM's shape and on a scale model's."""
    from tests.benchmarks.sft_sides import Work

    if quick:
        return compare(Work(TINY, str(TINY_BASE), rows, 8, 1), "the tiny base", rounds=1)
    with TemporaryDirectory() as folder:
        large = smollm2(Path(folder) / "smollm2")
        small = qwen2_20m(Path(folder) / "20m")
        return [
            *compare(Work(SMOLLM2, large.path, rows, 8, 2), large.said, rounds=2),
            *compare(Work(TINY, small.path, rows, 8, 6), small.said, rounds=2),
        ]


def compare(work: Work, model: str, rounds: int) -> list[Row]:
    """Find the best setting of each side, then run them in turn."""
    from tests.benchmarks import sft_sides

    size, padded, packed = best_settings(work)
    found = alternate(
        {
            "ours": lambda: tried(work, sft_sides.ours, (size,))[size],
            "padded": lambda: tried(work, sft_sides.theirs, (padded,))[padded],
            "packed": lambda: tried(work, sft_sides.theirs, (packed,))[packed],
        },
        rounds,
    )
    rates = {name: [speed.per_s for speed in speeds] for name, speeds in found.items()}
    positions = {name: speeds[0].positions for name, speeds in found.items()}
    return [
        Row(
            f"sft_speed, {model}, {name}",
            f"TRL 1.16 SFTTrainer ({setting})",
            median(rates["ours"]) / median(rates[name]),
            GOALS[name],
            f"target tokens/s: ours {listed(rates['ours'], '.1f')} with {size} a micro-batch, "
            f"TRL {listed(rates[name], '.1f')}; {rows_said(work.rows)}, {work.batch_size} a step, "
            f"{work.steps} steps; positions computed: ours {positions['ours']}, TRL "
            f"{positions[name]}",
        )
        for name, setting in (("padded", padded), ("packed", packed))
    ]


def best_settings(work: Work) -> tuple[int, TrlSetting, TrlSetting]:
    """Time one step with each setting; return the fastest of ours, of TRL padded and packed."""
    from tests.benchmarks import sft_sides
    from tests.benchmarks.sft_sides import TrlSetting

    step = replace(work, steps=1)
    sizes = tried(step, sft_sides.ours, SIZES)
    balanced = [TrlSetting("batch_rebalance", size) for size in SIZES]
    packed = [TrlSetting("packed", 1, tokens) for tokens in PACKED_TOKENS]
    found = tried(step, sft_sides.theirs, (*balanced, *packed))
    padded = [max(balanced, key=lambda setting: found[setting].per_s)]
    padded.append(replace(padded[0], sampling="group_by_length"))
    found |= tried(replace(work, steps=2), sft_sides.theirs, padded)
    for setting, speed in {**sizes, **found}.items():
        print(f"    tried {setting}: {speed.per_s:.1f} target tokens/s", flush=True)
    return (
        max(sizes, key=lambda size: sizes[size].per_s),
        max(padded, key=lambda setting: found[setting].per_s),
        max(packed, key=lambda setting: found[setting].per_s),
    )


def tried(
    work: Work, side: Callable[[Work, Sequence[Any]], list[Speed]], settings: Sequence[Setting]
) -> dict[Setting, Speed]:
    """Run one side with some settings, one after the other in a fresh process."""
    speeds = training_process(work.config(), side, work, settings)
    return dict(zip(settings, speeds, strict=True))


if __name__ == "__main__":
    main()
