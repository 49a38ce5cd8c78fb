"""What checkpoints and their evaluations cost the trainer of step 2, where the engine has a device.

    python -m tests.benchmarks.overlap_cost                             # 7 minutes on 2 cores
    python -m tests.benchmarks.overlap_cost --quick

The trainer has one core (`devices.train: cpu:0`) and the engine the other (`cpu:1`). The same steps
run with checkpoints that are saved, probed, written and scored meanwhile, and without any. The
trainer's time ends with its last step and the writing of what that saved; scores that are still to
come keep nobody waiting. Its steps themselves slow down where the cores share memory and caches,
which no program can prevent: that part is told apart.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from src.config.schema import Config
from tests.benchmarks.processes import TINY, benchmark_config, training_process
from tests.benchmarks.table import Row, alternate, listed, parser, report

GOAL = "<= 1.05"


@dataclass(frozen=True, slots=True)
class Trained:
    """Seconds of one training: all of it, its optimizer steps, its saving, the engine's work.

    `scored` counts the checkpoints whose scores arrived before training ended, each on `problems`.
    """

    wall_s: float
    steps_s: float
    saving_s: float = 0.0
    engine_s: float = 0.0
    scored: int = 0
    problems: int = 0


class SavingTime:
    """Add up what the trainer says it spent on saving."""

    seconds = 0.0

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.seconds += values.get("system/save_s", 0.0)


def main() -> None:
    given = parser(__doc__).parse_args()
    report(measure(given.rows, given.quick), given.output)


def measure(_: Path | None, quick: bool) -> list[Row]:
    """Train the tiny base with and without; the tiny profile makes its own problems."""
    steps, every, rounds = (8, 4, 1) if quick else (150, 50, 2)
    values: dict[str, object] = {
        "devices.train": "cpu:0",
        "devices.eval": "cpu:1",
        "data.train_rows": 16 * steps,
        "train.evaluate_every": every,
    }
    config = benchmark_config(TINY, values)
    with_scores = partial(training_process, config, train_with_scores, config)
    alone = partial(training_process, config, train_alone, config)
    found = alternate({"with": with_scores, "without": alone}, rounds)
    ours, theirs = found["with"], found["without"]
    wall = {name: median(one.wall_s for one in runs) for name, runs in found.items()}
    slower = median(one.steps_s for one in ours) / median(one.steps_s for one in theirs) - 1
    others = median((one.wall_s - one.steps_s) for one in ours) / wall["without"]
    return [
        Row(
            "overlap_cost, the tiny base",
            "the same training without checkpoints",
            wall["with"] / wall["without"],
            GOAL,
            f"trainer s: with {listed([one.wall_s for one in ours], '.1f')}, without "
            f"{listed([one.wall_s for one in theirs], '.1f')}; {steps} steps of 16 rows, a "
            f"checkpoint every {every}, each scored on {ours[0].problems} problems: the engine "
            f"worked "
            f"{listed([one.engine_s for one in ours], '.1f')} s and had scored "
            f"{[one.scored for one in ours]} checkpoints when training ended; of the cost "
            f"{slower:+.1%} is slower steps and {others:.1%} time outside steps (saving "
            f"{listed([one.saving_s for one in ours])} s, the rest held-out entropy and the last "
            "write); generated problems",
        )
    ]


def train_with_scores(config: Config) -> Trained:
    """Train as step 2 does, after the engine has started and scored the base model once."""
    from src.eval_worker import EvalWorker
    from src.run.metrics import MetricLog
    from src.sft.fine_tuning import fine_tuning_tasks
    from src.stages.scoring import record_validation
    from src.training.checkpoints import Checkpoint
    from src.training.optimization import Schedule

    problems, prompt, tokenizer, examples = _data(config)
    tasks = fine_tuning_tasks(config, problems, prompt, tokenizer)
    clock = SavingTime()
    engine: list[float] = []
    with TemporaryDirectory() as folder, EvalWorker(config, config.model.path, tasks) as worker:
        worker.evaluate(Checkpoint(Path(config.model.path), 0, 0), "validation")
        targets = tasks["validation"].targets
        trainer, store = _trainer(config, tokenizer, Path(folder), clock, targets)
        started = time.perf_counter()

        def take(mail: Any) -> None:
            for scored, reports in mail:
                record_validation(store, MetricLog([]), scored, reports)
                engine.append(sum(_engine_s(scored.seconds) for scored in reports.values()))

        for written in trainer.train(examples, Schedule.by_steps(config.train, len(examples))):
            if written is not None:
                worker.submit(written, *tasks)
            take(worker.finished())
        wall_s, scored = time.perf_counter() - started, len(engine)
        take(worker.drain())
    scored_on = sum(len(task.problems) for task in tasks.values())
    return Trained(wall_s, trainer.busy_s, clock.seconds, sum(engine), scored, scored_on)


def train_alone(config: Config) -> Trained:
    """Take the same steps and save nothing."""
    from src.training.optimization import Schedule

    _, _, tokenizer, examples = _data(config)
    steps = Schedule.by_steps(config.train, len(examples)).steps
    with TemporaryDirectory() as folder:
        trainer, _ = _trainer(config, tokenizer, Path(folder), SavingTime(), ())
        started = time.perf_counter()
        for _ in trainer.train(examples, Schedule(steps, frozenset(), len(examples))):
            pass
        return Trained(time.perf_counter() - started, trainer.busy_s)


def _data(config: Config) -> tuple[Any, Any, Any, list[Any]]:
    from src.data.problems import load_problems
    from src.data.prompts import load_prompt
    from src.sft.examples import build_examples
    from src.sft.rows import training_rows
    from src.training.policy import load_tokenizer

    problems, prompt = load_problems(config), load_prompt(config.data.prompt)
    tokenizer = load_tokenizer(config.model.path, config)
    rows = training_rows(config, problems, prompt).rows
    built = build_examples(rows, tokenizer, config.train.max_tokens, config.sft.keep)
    return problems, prompt, tokenizer, built.examples


def _trainer(
    config: Config, tokenizer: Any, folder: Path, clock: SavingTime, held_out: Any
) -> tuple[Any, Any]:
    """Return step 2's trainer on a device of its own, and its store."""
    from src.run.metrics import MetricLog
    from src.training.checkpoints import CheckpointStore
    from src.training.policy import load_policy
    from src.training_worker import SftTrainer

    policy = load_policy(config.model.path, config, config.train.attention)
    store = CheckpointStore(folder, config.train.keep)
    metrics = MetricLog([clock])  # type: ignore[list-item]
    seed, train = config.run.seed, config.train
    trainer = SftTrainer(
        policy, tokenizer, train, store, metrics, seed, overlap=True, held_out=held_out
    )
    return trainer, store


def _engine_s(seconds: Mapping[str, float]) -> float:
    return sum(seconds[name] for name in ("swap", "generate", "grade_wait"))


if __name__ == "__main__":
    main()
