"""Print how probable a run's models find worked solutions, by whether SFT has seen them.

    python -m tests.benchmarks.solution_probability results/tiny [--problems 1000]

Says what sampled accuracy cannot: how much of the distance between training and test problems is
what SFT has learnt by heart. One pass over each solution, nothing is sampled.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from src.config.loading import load_config
from src.data.problems import load_problems
from src.data.prompts import PromptTemplate, load_prompt
from src.run.files import read_json
from src.training.policy import load_policy, load_tokenizer
from utils.data.problem import Problem
from utils.stats.statistics import normal_quantile

BATCH = 16


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("--problems", type=int, default=1000)
    given = options.parse_args()
    configs = {
        stage: load_config([given.run / stage / "config.yaml"], ["devices.train=cpu"])
        for stage in ("step2_sft", "step3_GRPO")
    }
    problems = load_problems(configs["step3_GRPO"])
    seen = {problem.unique_id for problem in load_problems(configs["step2_sft"]).train}
    groups = {
        "training, solution seen in SFT": [p for p in problems.train if p.unique_id in seen],
        "training, other": [p for p in problems.train if p.unique_id not in seen],
        "test": problems.test,
        "validation": problems.validation,
    }
    for stage, config in configs.items():
        path = read_json(given.run / stage / "outcome.json")["checkpoint"]
        model, tokenizer = load_policy(path, config).eval(), load_tokenizer(path, config)
        prompt = load_prompt(config.data.prompt)
        for name, group in groups.items():
            found = probabilities(model, tokenizer, prompt, group[: given.problems])
            mean = statistics.mean(found)
            half = normal_quantile(0.95) * statistics.stdev(found) / len(found) ** 0.5
            bounds = f"[{mean - half:.1%}, {mean + half:.1%}]"
            print(f"{stage:<11} {name:<31} n {len(found):>5,}  {mean:.1%} {bounds}")


@torch.no_grad()
def probabilities(
    model: torch.nn.Module, tokenizer: object, prompt: PromptTemplate, problems: list[Problem]
) -> list[float]:
    """Return the probability of each problem's worked solution after its prompt."""
    found: list[float] = []
    for start in range(0, len(problems), BATCH):
        some = problems[start : start + BATCH]
        asked = [tokenizer(prompt.render(p), add_special_tokens=False)["input_ids"] for p in some]
        told = [
            tokenizer(prompt.render(p) + prompt.target(p), add_special_tokens=False)["input_ids"]
            for p in some
        ]
        longest = max(map(len, told))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in told])
        logits = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        logprobs = logits.gather(-1, ids[:, 1:, None])[..., 0]
        for row, before, whole in zip(logprobs, asked, told, strict=True):
            found.append(row[len(before) - 1 : len(whole) - 1].sum().exp().item())
    return found


if __name__ == "__main__":
    main()
