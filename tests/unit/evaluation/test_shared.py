"""An evaluation that several processes share gives the report and the rows of one."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from src.config.schema import SamplingConfig
from src.data.prompts import load_prompt
from src.engine.generator import Completion
from src.evaluation import evaluation
from src.evaluation.evaluation import EvalTask, evaluate
from utils.data.problem_generator import generate_problems

PROBLEMS = generate_problems(13, "test", 3)


class SeededGenerator:
    """Answers by the seed alone, as an engine with a seed a request does."""

    def __init__(self) -> None:
        self.asked = 0

    def stream(self, prompts, sampling, seeds):
        self.asked += len(prompts)
        for index, seed in enumerate(seeds):
            text = f" {seed} </think> <answer> {seed % 7} </answer>"
            yield index, Completion(text, 5 + seed % 3, truncated=False)

    def prompt_logprobs(self, ids):
        return []


class Ranks:
    """Threads that take part in a gathering as processes do."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._rank = threading.local()
        self._barrier = threading.Barrier(count)
        self._given: dict[int, list] = {}

    def enter(self, rank: int) -> None:
        self._rank.value = rank

    def rank(self) -> int:
        return self._rank.value

    def gathered(self, items: list) -> list:
        self._given[self.rank()] = items
        self._barrier.wait()
        found = [item for rank in range(self.count) for item in self._given[rank]]
        self._barrier.wait()
        return found


@pytest.mark.parametrize("count", [2, 3])
def test_shares_add_up_to_the_whole(tmp_path, monkeypatch, count):
    prompt = load_prompt("prompts/rl_zero.prompt")

    def task(name):
        file = tmp_path / name / "completions.jsonl"
        file.parent.mkdir()
        return EvalTask("test", PROBLEMS, prompt, SamplingConfig(), 5, completions_file=file)

    alone_task, shared_task = task("alone"), task("shared")
    alone = evaluate(SeededGenerator(), alone_task, checkpoint="model")
    ranks = Ranks(count)
    monkeypatch.setattr(evaluation, "process_rank", ranks.rank)
    monkeypatch.setattr(evaluation, "process_count", lambda: count)
    monkeypatch.setattr(evaluation, "gathered", ranks.gathered)
    generators = [SeededGenerator() for _ in range(count)]

    def one(rank):
        ranks.enter(rank)
        return evaluate(generators[rank], shared_task, checkpoint="model", shared=True)

    with ThreadPoolExecutor(count) as pool:
        reports = list(pool.map(one, range(count)))
    assert [generator.asked for generator in generators] == [
        len(PROBLEMS[rank::count]) for rank in range(count)
    ]
    for report in reports:
        assert report.outcomes == alone.outcomes
        assert report.accuracy == alone.accuracy
    files = [each.completions_file for each in (alone_task, shared_task)]
    rows = [[json.loads(line) for line in file.open()] for file in files]
    assert rows[0] == rows[1]
    assert sorted(p.name for p in files[1].parent.iterdir()) == ["completions.jsonl"]
