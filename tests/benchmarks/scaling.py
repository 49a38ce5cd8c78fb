"""How training time and memory grow with sequence length, rows a micro-batch and model size.

    python -m tests.benchmarks.scaling --figure results/scaling.png     # 5 minutes on 2 cores
    python -m tests.benchmarks.scaling --quick

Four points an axis, each in a process of its own, so that its peak memory is its own: our trainer
on a random Qwen2-shaped model (vocabulary 620) and random tokens, half of each sequence target.
Linear means that time grows as tokens x parameters. What it is over that has two factors, both
measured: FLOPs, which attention adds to in long sequences, and FLOP/s, which is how well the cores
are used.
"""

from __future__ import annotations

import random
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.benchmarks.processes import TINY, benchmark_config, training_process
from tests.benchmarks.table import Row, parser, report
from tests.benchmarks.workload import QWEN2_20M, TINY_BASE, Shape, build_model

if TYPE_CHECKING:
    from src.training.batching import Example

STEPS = 4


@dataclass(frozen=True, slots=True)
class Point:
    """One size: sequences of `length` tokens, `rows` of them in the only micro-batch of a step."""

    shape: Shape
    length: int
    rows: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One step at a point, in the median, and the memory of its process.

    `plain_flops` leaves attention's scores out; `start_gib` was held before there was a model.
    """

    point: Point
    parameters: int
    flops: float
    plain_flops: float
    seconds: float
    peak_gib: float
    start_gib: float

    @property
    def tokens(self) -> int:
        return self.point.rows * self.point.length

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def gflops_per_s(self) -> float:
        return self.flops / self.seconds / 1e9

    @property
    def size(self) -> float:
        """What time is proportional to if it grows linearly."""
        return self.tokens * self.parameters

    @property
    def attention_share(self) -> float:
        """Share of the FLOPs that are attention's scores."""
        return 1 - self.plain_flops / self.flops


GROWS: dict[str, Callable[[Measured], float]] = {
    "sequence length": lambda found: found.point.length,
    "rows a micro-batch": lambda found: found.point.rows,
    "parameters, M": lambda found: found.parameters / 1e6,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--figure", type=Path, metavar="FILE", help="draw the curves here")
    given = options.parse_args()
    report(measure(given.quick, given.figure), given.output)


def measure(quick: bool, figure: Path | None = None) -> list[Row]:
    """Measure all axes."""
    found = {name: [run(point) for point in points] for name, points in axes(quick).items()}
    said = {name: explained(name, points) for name, points in found.items()}
    if figure is not None:
        draw(found, list(said.values()), figure)
    return [
        Row(
            f"scaling, {name}",
            "time that grows linearly with tokens and parameters",
            over_linear(points[0], points[-1]),
            "",
            said[name],
        )
        for name, points in found.items()
    ]


def axes(quick: bool) -> dict[str, list[Point]]:
    """Return each axis's points; they meet at 20 M parameters and one row of 512 tokens."""
    base = Point(QWEN2_20M, 512, 1)
    lengths, rows = [256, 512, 1024, 2048], [1, 2, 4, 8]
    shapes = [
        Shape("Qwen2", 192, 768, 7, 6, 2),
        QWEN2_20M,
        Shape("Qwen2", 576, 2304, 12, 9, 3),
        Shape("Qwen2", 768, 3072, 18, 12, 4),
    ]
    if quick:
        base = Point(shapes[0], 64, 1)
        lengths, rows, shapes = [32, 64], [1, 2], [Shape("Qwen2", 96, 384, 4, 3, 1), shapes[0]]
    points = (
        [replace(base, length=length) for length in lengths],
        [replace(base, rows=count) for count in rows],
        [replace(base, shape=shape) for shape in shapes],
    )
    return dict(zip(GROWS, points, strict=True))


def run(point: Point) -> Measured:
    """Train some steps at a point in a fresh process."""
    found = training_process(benchmark_config(TINY), train, point)
    size = f"{found.parameters / 1e6:.1f} M, {point.rows} x {point.length} tokens"
    print(f"    {size}: {found.seconds:.2f} s a step, {found.peak_gib:.2f} GiB", flush=True)
    return found


def train(point: Point) -> Measured:
    """Take a warm-up step and some timed ones."""
    import torch
    from transformers import AutoTokenizer

    from src.run.metrics import MetricLog
    from src.training.attention import PACKED
    from src.training.checkpoints import CheckpointStore
    from src.training.optimization import Schedule
    from src.training.throughput import memory_gib, training_flops
    from src.training_worker import SftTrainer

    values = {"train.batch_size": point.rows, "train.micro_batch_size": point.rows}
    config = benchmark_config(TINY, values).train
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    cpu = torch.device("cpu")
    start_gib = memory_gib(cpu)
    model = build_model(point.shape, tokenizer, PACKED)
    examples = random_examples(len(tokenizer), point.length, point.rows * (1 + STEPS))
    with TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), keep=1)
        trainer = SftTrainer(model, tokenizer, config, store, MetricLog([]), 17, resumable=False)
        schedule = Schedule(1 + STEPS, frozenset(), len(examples))
        ends = [time.perf_counter() for _ in trainer.train(examples, schedule)]
    tokens = point.rows * point.length
    flops, plain_flops = (
        training_flops(model, lengths, tokens // 2)
        for lengths in ([point.length] * point.rows, [1] * tokens)
    )
    return Measured(
        point,
        sum(parameter.numel() for parameter in model.parameters()),
        flops,
        plain_flops,
        median(end - begin for begin, end in zip(ends, ends[1:], strict=False)),
        memory_gib(cpu),
        start_gib,
    )


def random_examples(vocabulary: int, length: int, count: int) -> list[Example]:
    """Return sequences of one length, the second half of each its target."""
    from src.training.batching import Example

    generator = random.Random(0)
    return [
        Example(tuple(generator.choices(range(vocabulary), k=length)), length // 2, f"random/{n}")
        for n in range(count)
    ]


def over_linear(first: Measured, last: Measured) -> float:
    """Return how many times longer the last point takes than linear growth from the first."""
    return last.seconds / first.seconds / (last.size / first.size)


def explained(name: str, points: Sequence[Measured]) -> str:
    """Split the deviation from linear growth into FLOPs and FLOP/s; say how memory grows."""
    first, last = points[0], points[-1]
    more_flops = last.flops / first.flops / (last.size / first.size)
    slower = first.gflops_per_s / last.gflops_per_s
    return (
        f"{name} {GROWS[name](first):.4g} to {GROWS[name](last):.4g}: time "
        f"{over_linear(first, last):.2f} x linear = {more_flops:.2f} by FLOPs "
        f"(attention's share {first.attention_share:.0%} to {last.attention_share:.0%}) "
        f"x {slower:.2f} by the cores' use ({first.gflops_per_s:.0f} to {last.gflops_per_s:.0f} "
        "GFLOP/s); "
        f"{' '.join(f'{point.tokens_per_s:.0f}' for point in points)} tokens/s; peak memory "
        f"{' '.join(f'{point.peak_gib:.2f}' for point in points)} GiB, {memory_growth(points)}"
    )


def memory_growth(points: Sequence[Measured]) -> str:
    """Say what a thousand tokens or a parameter add, and how far from a line the points lie."""
    by_tokens = points[-1].tokens != points[0].tokens
    places = [point.tokens if by_tokens else point.parameters for point in points]
    net = [point.peak_gib - point.start_gib for point in points]
    slope = (net[-1] - net[0]) / (places[-1] - places[0])
    line = [net[0] + slope * (place - places[0]) for place in places]
    off = max(abs(value / straight - 1) for value, straight in zip(net, line, strict=True))
    if by_tokens:
        added = f"{slope * 1000 * 1024:.0f} MiB a thousand tokens"
    else:
        added = f"{slope * 2**30:.1f} bytes a parameter (weight, gradient and Adam are 16)"
    return f"{added}, at most {off:.0%} off a line"


def draw(found: dict[str, list[Measured]], said: Sequence[str], file: Path) -> None:
    """Draw tokens/s and memory of each axis beside linear growth, the explanation below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.5))
    panels = figure.subplots(2, len(found))
    for (name, points), speed, memory in zip(found.items(), *panels, strict=True):
        places, first = [GROWS[name](point) for point in points], points[0]
        linear = [first.tokens_per_s * first.parameters / point.parameters for point in points]
        by_flops = [first.gflops_per_s * 1e9 * point.tokens / point.flops for point in points]
        speed.plot(places, [point.tokens_per_s for point in points], "o-", label="measured")
        speed.plot(places, linear, "--", color="gray", label="linear")
        speed.plot(places, by_flops, ":", color="tab:orange", label="linear in FLOPs")
        memory.plot(places, [point.peak_gib for point in points], "o-", label="measured")
        ends = [first.peak_gib, points[-1].peak_gib]
        memory.plot([places[0], places[-1]], ends, "--", color="gray", label="linear")
        for panel, label in ((speed, "tokens/s"), (memory, "peak memory, GiB")):
            panel.set(xlabel=name, ylabel=label, ylim=(0, 1.15 * panel.get_ylim()[1]))
            panel.legend(frameon=False)
        if linear[-1] < linear[0]:
            speed.set(xscale="log", yscale="log", ylim=(linear[-1] / 2, None))
    figure.subplots_adjust(left=0.06, right=0.99, top=0.98, bottom=0.22, hspace=0.25)
    lines = "\n".join(textwrap.fill(line, 190) for line in said)
    figure.text(0.02, 0.02, lines, fontsize=8, va="bottom")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
