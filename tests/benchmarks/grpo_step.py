"""Seconds of a GRPO step: ours with vLLM beside TRL's trainer with transformers' generate.

    python -m tests.benchmarks.grpo_step                                # 6 minutes on 2 cores
    python -m tests.benchmarks.grpo_step --quick

Same model, same prompts in the same order, same completions a step, recipe and micro-batch. Each
process takes one step that is not timed. TRL's transformers path knows no stop text, so its
completions end at end-of-text or the token limit; the table says how long they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.benchmarks.processes import benchmark_config, training_process
from tests.benchmarks.table import Row, alternate, listed, parser, report
from tests.benchmarks.workload import TINY_BASE, read_problems, rows_said

if TYPE_CHECKING:
    from src.config.schema import Config
    from src.grpo.problem_stream import ProblemStream

GRPO = "config/tiny/grpo_config.yaml"
PARTS = ("generate", "grade", "logprobs", "train", "sync")


@dataclass(frozen=True, slots=True)
class Step:
    """One timed step: its seconds, the whole under `step`, and the tokens of a completion."""

    seconds: dict[str, float]
    completion_tokens: float


def ours(config: Config, rows: Path | None, steps: int) -> list[Step]:
    """Take steps with the project's trainer; for a training process."""
    from transformers import TrainerCallback

    from src.grpo.rollout_source import RolloutSource
    from src.grpo.trainer import build_trainer
    from src.training.policy import load_tokenizer

    model = config.model.path
    tokenizer = load_tokenizer(model, config)
    source = RolloutSource(_stream(config, rows, tokenizer), config)
    taken: list[Step] = []
    with TemporaryDirectory() as folder:
        trainer = build_trainer(model, tokenizer, source, config, Path(folder))

        class Clock(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                trainer.begin_step()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                seconds = {**dict.fromkeys(PARTS, 0.0), **trainer.clock.end()}
                lengths = [len(r.ids) for group in trainer.drawn.groups for r, _ in group.members]
                taken.append(Step(seconds, sum(lengths) / len(lengths)))

        trainer.add_callback(Clock())
        trainer.train()
    return taken[1:]


def theirs(config: Config, rows: Path | None, steps: int) -> list[Step]:
    """Take steps with TRL's own trainer and transformers' generate; for a training process."""
    import time

    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    from src.grpo.trainer import trl_arguments
    from src.training.policy import load_policy, load_tokenizer
    from utils.drgrpo_grader import grade_batch

    model, grpo = config.model.path, config.grpo
    tokenizer = load_tokenizer(model, config)
    stream = _stream(config, rows, tokenizer)
    problems = [stream.at(place) for place in range(grpo.prompts_per_step * grpo.steps)]

    def accuracy(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [grade.reward for grade in grade_batch(completions, answer)]

    taken: list[Step] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds = time.perf_counter() - self.began

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if "loss" in (logs or {}):
                length = (logs or {})["completions/mean_length"]
                taken.append(Step({"step": self.seconds}, length))

    with TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=load_policy(model, config),
            reward_funcs=[accuracy],
            args=trl_arguments(
                config, Path(folder), use_vllm=False, reward_weights=[1.0], shuffle_dataset=False
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": problem.prompt, "answer": problem.answer} for problem in problems]
            ),
            processing_class=tokenizer,
        )
        trainer.add_callback(Clock())
        trainer.train()
    return taken[1:]


def _stream(config: Config, rows: Path | None, tokenizer: Any) -> ProblemStream:
    from src.data.prompts import load_prompt
    from src.grpo.problems import problem_stream, usable_problems

    prompt = load_prompt(config.data.prompt)
    problems = read_problems(rows, config.grpo.prompts_per_step * (config.grpo.steps + 4))
    usable = usable_problems(problems, prompt, tokenizer, config)
    return problem_stream(config.model.path, usable, prompt, tokenizer, config)


def rows_of(sides: dict[str, list[list[Step]]], said: str) -> list[Row]:
    """Return the table's rows: the ratio, and what our step is spent on."""
    whole = {
        name: [median(step.seconds["step"] for step in steps) for steps in rounds]
        for name, rounds in sides.items()
    }
    tokens = {
        name: median(step.completion_tokens for steps in rounds for step in steps)
        for name, rounds in sides.items()
    }
    mine = [step.seconds for steps in sides["ours"] for step in steps]
    total = sum(step["step"] for step in mine)
    share = {part: sum(step[part] for step in mine) / total for part in PARTS}
    split = ", ".join(f"{part} {value:.1%}" for part, value in share.items())
    return [
        Row(
            "grpo_step, the tiny base",
            "TRL 1.16 GRPOTrainer with transformers' generate",
            median(whole["theirs"]) / median(whole["ours"]),
            ">= 3",
            f"s a step: ours {listed(whole['ours'])}, TRL {listed(whole['theirs'])}; "
            f"{tokens['ours']:.0f} and {tokens['theirs']:.0f} tokens a completion; {said}",
        ),
        Row("grpo_step, generate and train", "the whole step",
            share["generate"] + share["train"], ">= 0.85", split),
        Row("grpo_step, weight sync with its check", "the whole step",
            share["sync"], "<= 0.03", split),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser(__doc__).parse_args(arguments)
    steps = 2 if given.quick else 5
    values: dict[str, object] = {
        "model.path": str(TINY_BASE),
        "grpo.recipe": "grpo",
        "grpo.dynamic_sampling": False,
        "grpo.loss": "grpo",
        "grpo.clip_high": 0.2,
        "grpo.rewards.overlong": 0.0,
        "grpo.steps": steps,
        "grpo.save_every": 1000,
        "grpo.prompts_per_step": 4 if given.quick else 16,
        "grpo.micro_batch_size": 16 if given.quick else 64,
    }
    config = benchmark_config(GRPO, values)
    sides = alternate(
        {
            "ours": lambda: training_process(config, ours, config, given.rows, steps),
            "theirs": lambda: training_process(config, theirs, config, given.rows, steps),
        },
        rounds=1 if given.quick else 2,
    )
    report(rows_of(sides, rows_said(given.rows)), given.output)


if __name__ == "__main__":
    main()
