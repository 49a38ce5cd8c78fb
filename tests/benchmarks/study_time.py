"""Wall time of one study of the tiny profile: one engine and one policy, or new ones each time.

    python -m tests.benchmarks.study_time                               # 7 minutes on 2 cores
    python -m tests.benchmarks.study_time --quick

First the study itself runs: its trials, without the closing scores. Then the very same trials run
again, with the values and the early ends that the study gave them, but as the original pipeline
ran them: the model is loaded for each trial and an engine is started for each checkpoint. Both
train and score with the same code, so the work is the same; only what is built again differs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.benchmarks.processes import TINY, benchmark_config, training_process
from tests.benchmarks.table import Row, alternate, listed, parser, report

if TYPE_CHECKING:
    from src.config.schema import Config
    from src.evaluation.evaluation import EvalTask
    from src.evaluation.figures import Reports
    from src.run.directory import Run
    from src.training.checkpoints import Checkpoint

GOAL = ">= 3"
SEARCH = TINY.replace("sft_config", "sft_hyper_config")


@dataclass(frozen=True, slots=True)
class Trials:
    """What a study tried: the values, the rungs and the end of each trial."""

    seconds: float
    tried: list[PastTrial]

    @property
    def evaluations(self) -> int:
        """Checkpoints that were scored."""
        return sum(len(trial.rungs) for trial in self.tried)


@dataclass
class PastTrial:
    """Stand in for Optuna's trial: give the same values and the same early end again."""

    number: int
    params: dict[str, Any]
    rungs: list[int]
    pruned: bool
    reported: list[int] = field(default_factory=list)

    def suggest_float(self, name: str, *_: object, **__: object) -> float:
        return self.params[name]

    def suggest_categorical(self, name: str, *_: object) -> Any:
        return self.params[name]

    def report(self, _: float, step: int) -> None:
        self.reported.append(step)

    def should_prune(self) -> bool:
        return self.pruned and self.reported == self.rungs

    def set_user_attr(self, *_: object) -> None:
        """Nothing is stored."""


@dataclass
class RebuiltWorker:
    """Stand in for the evaluation worker: a new engine for each checkpoint."""

    config: Config
    tasks: Mapping[str, EvalTask]
    in_turn: bool = True
    waiting: list[tuple[Checkpoint, tuple[str, ...]]] = field(default_factory=list)

    def submit(self, checkpoint: Checkpoint, *splits: str) -> None:
        self.waiting.append((checkpoint, splits))

    def finished(self) -> Iterator[tuple[Checkpoint, Reports]]:
        from src.eval_worker import EvalWorker

        while self.waiting:
            checkpoint, splits = self.waiting.pop(0)
            with EvalWorker(self.config, str(checkpoint.folder), self.tasks) as worker:
                yield checkpoint, worker.evaluate(checkpoint, *splits)

    drain = finished

    def discard(self) -> None:
        self.waiting.clear()


def main() -> None:
    given = parser(__doc__).parse_args()
    report(measure(given.rows, given.quick), given.output)


def measure(_: Path | None, quick: bool) -> list[Row]:
    """Run the study and half of its repetition in turn; the profile makes its own problems."""
    values: dict[str, object] = {"search.trials": 2} if quick else {}
    studies: list[Trials] = []
    with TemporaryDirectory() as folder:

        def study() -> float:
            config = _config(values, f"{folder}/{len(studies)}")
            studies.append(training_process(config, run_study, config))
            return studies[-1].seconds

        def half_again() -> float:
            config = _config(values, f"{folder}/{len(studies)}-again")
            tried = studies[-1].tried
            halves = tried[: len(tried) // 2], tried[len(tried) // 2 :]
            return training_process(config, run_again, config, halves[len(studies) - 1])

        found = alternate({"study": study, "again": half_again}, rounds=2)
    pruned = [sum(trial.pruned for trial in one.tried) for one in studies]
    return [
        Row(
            "study_time, tiny profile",
            "the same trials, model and engine built again for each",
            sum(found["again"]) / median(found["study"]),
            GOAL,
            f"{len(studies[0].tried)} trials, {pruned} pruned, "
            f"{[one.evaluations for one in studies]} evaluations in the studies; s: the study "
            f"{listed(found['study'], '.0f')}, built again each time, half of the trials after "
            f"each study, {listed(found['again'], '.0f')}; both without the closing scores; "
            "generated problems",
        )
    ]


def run_study(config: Config) -> Trials:
    """Run the study as step 1 does, from starting the engine to the last trial."""
    from src.eval_worker import EvalWorker
    from src.search.study import open_study
    from src.search.trials import TRIAL_FAILURES, TrialRunner, keep_best
    from src.training.policy import load_policy

    run, tokenizer, examples, tasks = _prepared(config)
    started = time.perf_counter()
    queue = open_study(run.folder, config, TRIAL_FAILURES)
    with EvalWorker(config, config.model.path, tasks) as worker:
        policy = load_policy(config.model.path, config, config.train.attention)
        runner = TrialRunner(run, policy, tokenizer, examples, worker)
        queue.work(runner, after_trial=lambda: keep_best(queue, config.search.rescore_top))
        seconds = time.perf_counter() - started
    tried = [
        PastTrial(
            trial.number,
            trial.params,
            sorted(trial.intermediate_values),
            trial.state.name == "PRUNED",
        )
        for trial in queue.trials("COMPLETE", "PRUNED")
    ]
    return Trials(seconds, tried)


def run_again(config: Config, tried: list[PastTrial]) -> float:
    """Run past trials with a policy of their own each and an engine for each checkpoint."""
    from src.search.study import TrialPruned
    from src.search.trials import TrialRunner
    from src.training.policy import load_policy

    run, tokenizer, examples, tasks = _prepared(config)
    started = time.perf_counter()
    for trial in tried:
        policy = load_policy(config.model.path, config, config.train.attention)
        runner = TrialRunner(run, policy, tokenizer, examples, RebuiltWorker(config, tasks))
        try:
            runner(trial)
        except TrialPruned:
            continue
    seconds = time.perf_counter() - started
    for trial in tried:
        if trial.reported != trial.rungs:
            raise RuntimeError(f"trial {trial.number} was scored at {trial.reported} this time")
    return seconds


def _config(values: Mapping[str, object], output_root: str) -> Config:
    return benchmark_config(SEARCH, {**values, "run.output_root": output_root})


def _prepared(config: Config) -> tuple[Run, Any, list[Any], dict[str, EvalTask]]:
    """Return what step 1 has before it starts its engine; what both sides import is imported."""
    import src.search.trials  # noqa: F401
    from src.data.problems import load_problems
    from src.data.prompts import load_prompt
    from src.run.directory import SEARCH_STAGE, Run
    from src.search.data import search_tasks
    from src.sft.examples import build_examples
    from src.sft.rows import training_rows
    from src.training.policy import load_tokenizer

    run = Run(SEARCH_STAGE, config)
    run.folder.mkdir(parents=True)
    problems, prompt = load_problems(config), load_prompt(config.data.prompt)
    tokenizer = load_tokenizer(config.model.path, config)
    rows = training_rows(config, problems, prompt).rows
    examples = build_examples(rows, tokenizer, config.train.max_tokens, config.sft.keep).examples
    return run, tokenizer, examples, search_tasks(config, problems, prompt, tokenizer)


if __name__ == "__main__":
    main()
