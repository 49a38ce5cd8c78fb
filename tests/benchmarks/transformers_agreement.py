"""Score a finished stage's checkpoint through transformers' own `generate`, beside vLLM's figure.

    python -m tests.benchmarks.transformers_agreement results/tiny step2_sft

An engine, a swap or a stop rule that were wrong would show as a gap between the two accuracies:
this path shares the grader and the problems with the pipeline, and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from src.config.loading import load_config
from src.data.problems import load_problems
from src.data.prompts import load_prompt
from src.run.files import read_json
from utils.drgrpo_grader import grade_batch
from utils.stats.statistics import newcombe_difference_interval, wilson_interval

BATCH = 125


def main(run: Path, stage: str) -> None:
    outcome = read_json(run / stage / "outcome.json")
    config = load_config([run / stage / "config.yaml"])
    problems, prompt = load_problems(config).test, load_prompt(config.data.prompt)
    tokenizer = AutoTokenizer.from_pretrained(outcome["checkpoint"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(outcome["checkpoint"], dtype=torch.bfloat16)
    torch.manual_seed(config.run.seed)
    correct = 0
    for start in range(0, len(problems), BATCH):
        batch = problems[start : start + BATCH]
        inputs = tokenizer(
            [prompt.render(problem) for problem in batch], padding=True, return_tensors="pt"
        )
        ids = model.generate(
            **inputs,
            do_sample=True,
            temperature=config.sampling.temperature,
            top_p=config.sampling.top_p,
            top_k=0,
            max_new_tokens=config.sampling.max_completion_tokens,
        )
        completions = ids[:, inputs.input_ids.shape[1] :]
        texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
        # The pipeline stops at the stop text; what generate writes after it never existed there.
        stop = config.sampling.stop
        texts = [text[: text.find(stop) + len(stop)] if stop in text else text for text in texts]
        grades = grade_batch(texts, [problem.answer for problem in batch])
        correct += sum(grade.outcome == "correct" for grade in grades)
    n, theirs = len(problems), outcome["outcomes"]["correct"]
    difference = newcombe_difference_interval(correct, n, theirs, n)
    for name, count in (("transformers", correct), ("vLLM", theirs)):
        low, high = wilson_interval(count, n)
        print(f"{name:<13} {count}/{n} = {count / n:.1%} [{low:.1%}, {high:.1%}]")
    print(f"difference    [{difference[0]:+.1%}, {difference[1]:+.1%}]")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
