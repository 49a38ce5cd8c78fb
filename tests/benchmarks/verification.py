"""A made-up run of 50,000 completions on MATH, verified: seconds and peak memory.

    python -m tests.benchmarks.verification --data DIR      # of math_{train,test}.jsonl.gz

One stage with ten completions of each of the 5,000 test problems; one in three is right.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from src.config.loading import load_config
from src.config.schema import Config
from src.data.problems import load_problems
from src.data.prompts import load_prompt
from src.evaluation.figures import summarise
from src.evaluation.rows import grade_rows
from src.report.report import write_report
from src.report.verification import verify_run
from src.run.directory import Run
from src.run.files import write_jsonl_atomic
from src.stages.scoring import test_task
from tests.conftest import TINY_BASE
from utils.dataset_loader import ProblemSet

SAMPLES = 10


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--rows", type=int, default=5000, help="test problems")
    given = options.parse_args()
    with TemporaryDirectory() as folder:
        config = load_config(["config/baseline_config.yaml"], settings(given, folder))
        problems = load_problems(config)
        made = made_up(config, problems)
        write_report(made)
        started, processor = time.perf_counter(), time.process_time()
        found = verify_run(made)
        took, used = time.perf_counter() - started, time.process_time() - processor
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    count = SAMPLES * len(problems.test)
    print(f"{count:,} completions: {took:.1f} s ({used:.1f} s of this process), {memory:.2f} GiB")
    print("\n".join(found) or "all holds")


def settings(given: argparse.Namespace, folder: str) -> list[str]:
    files = {name: given.data / f"math_{name}.jsonl.gz" for name in ("train", "test")}
    return [
        f"run.output_root={folder}", "data.source=files", f"data.train_file={files['train']}",
        f"data.test_file={files['test']}", f"data.test_rows={given.rows}",
        f"sampling.samples={SAMPLES}",
    ]  # fmt: skip


def made_up(config: Config, problems: ProblemSet) -> Path:
    """Write one finished stage, as an evaluation of a model would, and return the run's folder."""
    run = Run("step0_baseline", config)
    run.begin(data=problems.provenance(), model=str(TINY_BASE))
    task = test_task(run, problems, load_prompt(config.data.prompt))
    rows = grade_rows([
        {
            "unique_id": problem.unique_id, "problem": problem.problem,
            "reference": problem.answer, "level": problem.level, "type": problem.type,
            "sample": sample, "form": "tags", "tokens": len(problem.solution) // 4,
            "completion": completion(number + sample, problem.solution, problem.answer),
            "truncated": False,
        }
        for number, problem in enumerate(problems.test)
        for sample in range(SAMPLES)
    ])  # fmt: skip
    write_jsonl_atomic(run.folder / "completions.jsonl", rows)
    report = summarise(rows, split="test", checkpoint=str(TINY_BASE), ks=[1, SAMPLES])
    run.finish(**report.outcome(), checkpoint=str(TINY_BASE), **task.yardstick(), variants={})
    return run.pipeline_folder


def completion(kind: int, solution: str, answer: str) -> str:
    """Write a solution that ends right, wrong, or without its tags."""
    if kind % 3 == 2:
        return f"{solution} So the answer is {answer}."
    stated = answer if kind % 3 == 0 else f"{answer}+{kind % 7 + 1}"
    return f"{solution} </think> <answer> {stated} </answer>"


if __name__ == "__main__":
    main()
