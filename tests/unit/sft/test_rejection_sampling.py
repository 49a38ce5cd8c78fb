"""Self-made traces: which completions are kept, and when a drawn file is taken again."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from src.config.loading import ConfigError, build_config
from src.data.prompts import load_prompt
from src.run.files import append_jsonl
from src.sft.examples import build_examples
from src.sft.rejection_sampling import draw_traces, select_traces, trace_task
from src.training.checkpoints import Checkpoint
from utils.data.problem_generator import generate_problems
from utils.dataset_loader import ProblemSet

PROBLEMS = generate_problems(6, "train", 1)


@pytest.fixture(scope="module")
def template():
    return load_prompt("prompts/rl_zero.prompt")


def completion(problem, sample, text, outcome="correct", *, truncated=False):
    """Return a row as an evaluation writes it."""
    return {
        "unique_id": problem.unique_id,
        "problem": problem.problem,
        "reference": problem.answer,
        "completion": text,
        "outcome": outcome,
        "tokens": len(text.split()),
        "truncated": truncated,
        "sample": sample,
    }


def random_round(seed, samples=8):
    """Draw rows with few distinct texts, so that they repeat within and across rounds."""
    rng = random.Random(seed)
    outcomes = ("correct", "correct", "wrong_answer", "format_failure", "unscorable")
    return [
        completion(
            problem,
            sample,
            f" way{rng.choice([' ', '  '])}{rng.randrange(5)}",
            rng.choice(outcomes),
            truncated=rng.random() < 0.1,
        )
        for problem in PROBLEMS
        for sample in range(samples)
    ]


def folded(text):
    return " ".join(text.split())


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("rounds", [1, 3])
def test_kept_traces_are_correct_distinct_and_limited_whatever_was_drawn(template, limit, rounds):
    drawn = [random_round(seed) for seed in range(rounds)]
    traces = select_traces(drawn, template, limit)
    usable = {
        (template.render(problem), folded(row["completion"]))
        for rows in drawn
        for row in rows
        for problem in PROBLEMS
        if problem.problem == row["problem"]
        and row["outcome"] == "correct"
        and not row["truncated"]
    }
    kept = [(row.prompt, folded(row.target)) for row in traces.rows]
    assert len(set(kept)) == len(kept)
    assert set(kept) <= usable
    available = Counter(prompt for prompt, _ in usable)
    assert Counter(prompt for prompt, _ in kept) == {
        prompt: min(limit, count) for prompt, count in available.items()
    }
    counts = traces.counts
    assert counts.drawn == 48 * rounds
    assert counts.correct == counts.duplicates + counts.over_limit + counts.kept
    assert counts.duplicates + len(usable) == counts.correct
    assert (counts.kept, counts.problems, counts.problems_solved) == (
        len(kept), 6, len(available),
    )  # fmt: skip
    assert counts.outcome()["kept"] == len(kept)


def test_the_choice_is_the_same_each_time_and_in_any_order(template):
    drawn = random_round(1)
    shuffled = random.Random(2).sample(drawn, len(drawn))
    first, again, other = (
        select_traces([rows], template, 2).rows for rows in (drawn, drawn, shuffled)
    )
    assert first == again
    assert {(row.prompt, folded(row.target)) for row in first} == {
        (row.prompt, folded(row.target)) for row in other
    }


def test_the_choice_favours_neither_short_nor_early_traces(template):
    """Of eight lengths half are kept: at random the mean place is 3.5, shortest-first 1.5."""
    problems = generate_problems(200, "train", 2)
    drawn = [
        completion(problem, sample, " step" * (sample + 1))
        for problem in problems
        for sample in range(8)
    ]
    rows = select_traces([drawn], template, 4).rows
    places = [len(row.target.split()) - 1 for row in rows]
    assert sum(places) / len(places) == pytest.approx(3.5, abs=0.3)


def test_later_rounds_add_to_earlier_ones_within_the_limit(template):
    problem = PROBLEMS[0]
    first = [completion(problem, n, f" a{n}") for n in range(2)]
    second = [completion(problem, 0, " a1"), completion(problem, 1, " b")]
    traces = select_traces([first, second], template, 4)
    assert {(row.id.removeprefix(problem.unique_id), row.target) for row in traces.rows} == {
        ("#1.0", " a0"), ("#1.1", " a1"), ("#2.1", " b"),
    }  # fmt: skip
    assert (traces.counts.duplicates, traces.counts.over_limit) == (1, 0)
    assert select_traces([first, second], template, 2).counts.over_limit == 1


def test_texts_are_exact_and_verify_again(template, tokenizer):
    problem = PROBLEMS[0]
    text = f"  one\n\n two </think> <answer> {problem.answer} </answer>"
    rows = select_traces([[completion(problem, 3, text)]], template, 4).rows
    assert (rows[0].prompt, rows[0].target) == (template.render(problem), text)
    assert rows[0].answer == problem.answer
    assert len(build_examples(rows, tokenizer, 512, "verified").examples) == 1


def test_a_round_without_a_correct_completion_names_remedies(template):
    good = [completion(PROBLEMS[0], 0, "a")]
    bad = [
        completion(PROBLEMS[0], 0, "a", "wrong_answer"),
        completion(PROBLEMS[0], 1, "a", "format_failure"),
        completion(PROBLEMS[0], 2, "b", "format_failure"),
    ]
    message = (
        r"none of the 3 completions of round 2 is correct and whole \(2 format_failure, "
        r"1 wrong_answer\).*sft\.samples.*easier.*sft\.source=solutions"
    )
    with pytest.raises(ConfigError, match=message):
        select_traces([good, bad], template, 4)
    with pytest.raises(ConfigError, match=r"none of .*\(1 correct\)"):
        select_traces([[completion(PROBLEMS[0], 0, "a", truncated=True)]], template, 4)


class FakeWorker:
    """Write what a worker writes, and remember what it was asked."""

    def __init__(self):
        self.defined, self.asked = {}, []

    def define(self, task):
        self.defined[task.split] = task

    def evaluate(self, checkpoint, *splits):
        self.asked.append((checkpoint, *splits))
        task = self.defined[splits[0]]
        rows = [
            completion(problem, sample, f" drawn {len(self.asked)}")
            for problem in task.problems
            for sample in range(task.samples)
        ]
        task.completions_file.unlink(missing_ok=True)
        append_jsonl(task.completions_file, rows)
        return {}


@pytest.fixture
def task(template, tmp_path):
    config = build_config({"sft": {"source": "rejection_sampling", "samples": 3}})
    return trace_task(config, ProblemSet(PROBLEMS, [], []), template, tmp_path, 2)


CHECKPOINT = Checkpoint(Path("somewhere"), 0, 0)


def test_a_rounds_task_asks_for_samples_of_the_training_problems(task, tmp_path):
    assert (task.split, task.samples) == ("traces_2", 3)
    assert list(task.problems) == PROBLEMS
    assert task.completions_file == tmp_path / "traces_2.jsonl"


def test_traces_are_drawn_once_and_taken_again(task):
    worker = FakeWorker()
    first = draw_traces(worker, CHECKPOINT, task)
    assert len(first) == 18
    assert worker.asked == [(CHECKPOINT, "traces_2")]
    assert draw_traces(worker, CHECKPOINT, task) == first
    assert len(worker.asked) == 1


@pytest.mark.parametrize(
    "damaged",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines[:-1], lines[-1][:20]],
        lambda lines: [*lines[:-1], lines[0]],
        lambda lines: [*lines[:-1], json.dumps({**json.loads(lines[-1]), "problem": "x"}) + "\n"],
        lambda lines: [],
    ],
    ids=["a row short", "cut in a row", "a row twice", "another problem", "empty"],
)
def test_traces_that_are_not_whole_are_drawn_again(task, damaged):
    worker, file = FakeWorker(), task.completions_file
    draw_traces(worker, CHECKPOINT, task)
    file.write_text("".join(damaged([line + "\n" for line in file.read_text().split("\n")[:-1]])))
    assert {row["completion"] for row in draw_traces(worker, CHECKPOINT, task)} == {" drawn 2"}


def test_a_larger_draw_is_not_answered_by_a_smaller_file(task):
    worker = FakeWorker()
    draw_traces(worker, CHECKPOINT, task)
    assert len(draw_traces(worker, CHECKPOINT, replace(task, samples=4))) == 24


def test_a_task_without_a_file_is_refused(task):
    with pytest.raises(ValueError, match="completions_file is needed"):
        draw_traces(FakeWorker(), CHECKPOINT, replace(task, completions_file=None))
