"""Score a stage's checkpoint through lm-evaluation-harness (EleutherAI), beside our figure.

    pip install lm-eval==0.4.13          # in an environment of its own: it is not pinned here
    python -m tests.benchmarks.harness_agreement results/tiny step2_sft
    ... results/tiny step2_sft --engine vllm         # instead of transformers' own generation

The harness generates, cuts the answer out of the tags by its own filter and compares texts; it
shares the problems and the prompt with the pipeline, and nothing else. So an answer that is equal
but written otherwise ("0.50" for "0.5") counts as wrong there: a second line grades its completions
with our grader.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from src.config.loading import load_config
from src.config.schema import Config
from src.data.problems import load_problems
from src.data.prompts import load_prompt
from src.run.files import read_json, read_jsonl
from src.run.processes import worker_environment
from utils.drgrpo_grader import grade
from utils.stats.statistics import wilson_interval

TASK = "stage_problems"


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("run", type=Path, help="folder of the run")
    made.add_argument("stage", help="whose checkpoint is scored, such as step2_sft")
    made.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    given = made.parse_args()
    folder = given.run / given.stage
    outcome = read_json(folder / "outcome.json")
    config = load_config([folder / "config.yaml"])
    with TemporaryDirectory() as name:
        samples = run_harness(config, outcome["checkpoint"], given.engine, Path(name))
    n = len(samples)
    exact = sum(sample["exact_match"] for sample in samples)
    # The harness takes the stop text off; the grader wants it.
    ours = sum(grade(s["resps"][0][0] + "</answer>", s["target"]).reward for s in samples)
    low, high = outcome["accuracy_ci95"]
    for name, count in (("the harness, exact match", exact), ("its completions, our grader", ours)):
        bounds = wilson_interval(count, n)
        inside = "inside" if low <= count / n <= high else "OUTSIDE"
        print(f"{name:<28} {count / n:.1%} [{bounds[0]:.1%}, {bounds[1]:.1%}], n {n}, {inside}")
    print(
        f"{'the pipeline':<28} {outcome['accuracy']:.1%} [{low:.1%}, {high:.1%}], n {outcome['n']}"
    )


def run_harness(config: Config, checkpoint: str, engine: str, folder: Path) -> list[dict[str, Any]]:
    """Write the task, run the harness on it and return its samples."""
    problems, prompt = load_problems(config).test, load_prompt(config.data.prompt)
    rows = [{"prompt": prompt.render(p), "answer": p.answer} for p in problems]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "problems.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {
            "until": [config.sampling.stop],
            "do_sample": config.sampling.temperature > 0,
            "temperature": config.sampling.temperature,
            "top_p": config.sampling.top_p,
            "top_k": 0,
            "max_gen_toks": config.sampling.max_completion_tokens,
        },
        "filter_list": [
            {
                "name": "tagged",
                "filter": [
                    {"function": "regex", "regex_pattern": r"</think> <answer>\s*(.*?)\s*$"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match"}],
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    model = f"pretrained={checkpoint},dtype={config.engine.dtype}"
    asked = {
        "transformers": ["hf", "--device", "cpu", "--batch_size", "125", "--model_args", model],
        "vllm": ["vllm", "--batch_size", "auto", "--model_args",
                 f"{model},max_model_len={config.engine.max_model_tokens}"],
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", *asked[engine]),
        *("--tasks", TASK, "--include_path", str(folder)),
        *("--output_path", str(folder / "out"), "--log_samples", "--seed", str(config.run.seed)),
    ]
    with worker_environment(config):
        subprocess.run(command, check=True)
    return read_jsonl(next((folder / "out").rglob("samples_*.jsonl")))


if __name__ == "__main__":
    main()
