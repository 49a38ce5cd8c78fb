"""From a written checkpoint to the first token of its evaluation: verified swap or new engine.

    python -m tests.benchmarks.swap_latency --rows math_train.jsonl.gz  # 5 minutes on 2 cores
    python -m tests.benchmarks.swap_latency --quick

Ours is the evaluation worker's whole way: the request, the checkpoint's hashes, the swap, its
verification against the trainer's log-probabilities, one token, its grade and the answer. The other
is `LLM(...)` and one token in a process that has vLLM imported: with the engine process that vLLM
starts by default, which is how the original pipeline had it, and inside the process itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from src.config.loading import ROOT
from src.config.schema import Config
from src.run.processes import worker_environment
from tests.benchmarks.processes import SMOLLM2, TINY, benchmark_config, training_process
from tests.benchmarks.table import Row, alternate, listed, parser, report
from tests.benchmarks.workload import (
    TINY_BASE,
    Model,
    read_problems,
    rows_said,
    smollm2,
    write_checkpoints,
)

if TYPE_CHECKING:
    from src.eval_worker import EvalWorker
    from src.evaluation.evaluation import EvalTask
    from src.training.checkpoints import Checkpoint

GOAL = ">= 20"
SPLIT = "first"


@dataclass(frozen=True, slots=True)
class Case:
    """A model with its profile and what it is trained on for its checkpoints."""

    model: Model
    config_file: str
    rows: Path | None
    batch_size: int

    @property
    def config(self) -> Config:
        """The profile on this model, one token a completion."""
        values = {
            "model.path": self.model.path,
            "sampling.max_completion_tokens": 1,
            "train.batch_size": self.batch_size,
        }
        return benchmark_config(self.config_file, values)


def main() -> None:
    given = parser(__doc__).parse_args()
    report(measure(given.rows, given.quick), given.output)


def measure(rows: Path | None, quick: bool) -> list[Row]:
    """Compare on the tiny base and on a real LLM."""
    tiny = Case(Model(str(TINY_BASE), "the tiny base"), TINY, rows, 8)
    if quick:
        return [compare(tiny, rounds=1)]
    with TemporaryDirectory() as folder:
        large = Case(smollm2(Path(folder)), SMOLLM2, rows, 2)
        return [compare(tiny, rounds=3), compare(large, rounds=2)]


def compare(case: Case, rounds: int) -> Row:
    """Let the persistent engine and new ones take the same checkpoints in turn."""
    from src.eval_worker import EvalWorker

    config, task = case.config, first_token_task(case)
    with TemporaryDirectory() as folder:
        steps = list(range(1, rounds + 2))
        arguments = (config, case.rows, steps, Path(folder))
        written = training_process(config, write_checkpoints, *arguments)
        with EvalWorker(config, case.model.path, {SPLIT: task}) as worker:
            worker.evaluate(written[0], SPLIT)  # the engine has started
            ours, default, inside = (cycle(written[1:]) for _ in range(3))
            prompt = task.prompt.render(task.problems[0])
            found = alternate(
                {
                    "swap": lambda: swap_s(worker, next(ours)),
                    "default": lambda: new_engine_s(case, next(default), prompt, "1"),
                    "inside": lambda: new_engine_s(case, next(inside), prompt, "0"),
                },
                rounds,
            )
    swap, default_s, inside_s = (median(found[name]) for name in ("swap", "default", "inside"))
    return Row(
        f"swap_latency, {case.model.said}",
        "a new vLLM engine for each checkpoint (vLLM's defaults)",
        default_s / swap,
        GOAL,
        f"checkpoint to first token, s: verified swap {listed(found['swap'])}, new engine "
        f"{listed(found['default'], '.1f')}, new engine without a process of its own "
        f"{listed(found['inside'], '.1f')} ({inside_s / swap:.1f} x ours); starting Python and "
        f"importing vLLM not counted; {rows_said(case.rows)}",
    )


def first_token_task(case: Case) -> EvalTask:
    """Return an evaluation of one problem and one token."""
    from src.data.prompts import load_prompt
    from src.evaluation.evaluation import EvalTask

    config, problems = case.config, read_problems(case.rows, 1)
    return EvalTask(SPLIT, problems, load_prompt(config.data.prompt), config.sampling, seed=1)


def swap_s(worker: EvalWorker, checkpoint: Checkpoint) -> float:
    """Return the seconds until the worker has the first token of a checkpoint."""
    started = time.perf_counter()
    reports = worker.evaluate(checkpoint, SPLIT)
    seconds = time.perf_counter() - started
    if reports[SPLIT].probe_gap is None:
        raise RuntimeError(f"{checkpoint.folder}: nothing was swapped")
    return seconds


def new_engine_s(case: Case, checkpoint: Checkpoint, prompt: str, own_process: str) -> float:
    """Return the seconds of a new engine, `own_process` being vLLM's multiprocessing switch."""
    command = [
        *("env", f"VLLM_ENABLE_V1_MULTIPROCESSING={own_process}"),
        *(sys.executable, "-m", "tests.benchmarks.fresh_engine"),
        *(str(checkpoint.folder), case.config_file, prompt),
    ]
    with worker_environment(case.config):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:5])} failed:\n{done.stderr[-4000:]}")
    return float(done.stdout.rpartition("seconds ")[2])


if __name__ == "__main__":
    main()
