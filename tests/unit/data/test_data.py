"""Data: the generator's arithmetic recomputed, errors that name the line, disjoint splits."""

from __future__ import annotations

import gzip
import json
import re
from fractions import Fraction
from itertools import islice

import pytest

from src.config.loading import load_config
from utils.data.json_lines import DataError
from utils.data.problem import normalised_text
from utils.data.problem_generator import (
    LEVELS,
    PROBLEM_TYPES,
    generate_problems,
    stream_problems,
)
from utils.data.sources import Source
from utils.dataset_loader import SplitSizes, load_sources, load_synthetic
from utils.drgrpo_grader import r1_zero_reward_fn

SIZES = SplitSizes(train=None, validation=2, test=None)


def rows(count, prefix="p"):
    return [
        {"problem": f"{prefix}{i}?", "solution": f"It is $\\boxed{{{i}}}$.", "level": "Level 3"}
        for i in range(count)
    ]


def write(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def load(train, test, **options):
    return load_sources([Source(train)], [Source(test, "test")], SIZES, 0, **options)


def test_generated_problems_cover_types_levels_and_answer_forms():
    problems = generate_problems(2000, "train", seed=3)
    assert {problem.type for problem in problems} == set(PROBLEM_TYPES)
    assert {problem.level for problem in problems} == set(LEVELS)
    answers = [problem.answer for problem in problems]
    for form in (r"-\d+", r"-?\\frac\{\d+\}\{\d+\}", r"-?\d+\.\d", r"\(-?\d+,-?\d+\)", r"-?\d+x.*"):
        assert any(re.fullmatch(form, answer) for answer in answers), form


def test_generated_answers_are_right_by_independent_arithmetic():
    """Recompute sums of integers, decimals and fractions from the question alone."""
    checked = 0
    for problem in generate_problems(1500, "train", seed=4):
        if problem.type not in ("Arithmetic", "Decimals", "Fractions"):
            continue
        expression = re.search(r"\$(.+?)\$", problem.problem).group(1)
        terms = re.findall(r"([+-]?)(\\frac\{(\d+)\}\{(\d+)\}|[\d.]+)", expression)
        value = sum(
            (-1 if sign == "-" else 1) * (Fraction(int(n), int(d)) if n else Fraction(text))
            for sign, text, n, d in terms
        )
        answer = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", problem.answer)
        assert Fraction(answer) == value, problem
        checked += 1
    assert checked > 300


def test_every_generated_answer_grades_as_correct():
    for problem in generate_problems(300, "test", seed=5):
        response = f" {problem.solution} </think> <answer> {problem.answer} </answer>"
        assert r1_zero_reward_fn(response, problem.answer)["reward"] == 1.0, problem


def test_slips_make_wrong_but_consistent_solutions():
    right = generate_problems(500, "train", seed=6)
    slipped = list(islice(stream_problems("train", seed=6, error_rate=0.5), 500))
    assert all(problem.answer in problem.solution for problem in slipped)
    assert {p.answer for p in right} != {p.answer for p in slipped}


def test_splits_are_disjoint_by_text_and_reproducible():
    first, again = (
        load_synthetic(SplitSizes(500, 200, 200), seed=1),
        load_synthetic(SplitSizes(500, 200, 200), seed=1),
    )
    texts = {
        name: {normalised_text(problem.problem) for problem in first.split(name)}
        for name in ("train", "validation", "test")
    }
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & texts["test"]
    assert first == again


def test_files_are_loaded_split_and_cleaned(tmp_path):
    train = [*rows(10), *rows(1), {"problem": "no box", "solution": "nothing boxed"}]
    train.append({"problem": " T0? ", "solution": r"\boxed{0}"})
    loaded = load(
        write(tmp_path / "train.jsonl", train), write(tmp_path / "test.jsonl", rows(3, "t"))
    )
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (8, 2, 3)
    assert loaded.without_answer == [f"{tmp_path / 'train.jsonl'}:12"]
    assert loaded.overlap_removed == 2  # one repeats a training problem, one a test problem
    assert loaded.train[0].level == 3


def test_gzip_is_read(tmp_path):
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(5))
    loaded = load(tmp_path / "train.jsonl.gz", write(tmp_path / "test.jsonl", rows(3, "t")))
    assert len(loaded.train) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"train\.jsonl:3: not valid JSON"),
        ('{"solution": "x"}', r"train\.jsonl:3: key 'problem'"),
        ('{"problem": 3, "solution": "x"}', r"train\.jsonl:3: key 'problem'"),
        ("[1, 2]", r"train\.jsonl:3: expected an object"),
    ],
)
def test_a_malformed_row_names_its_line(tmp_path, line, message):
    train = write(tmp_path / "train.jsonl", rows(2))
    train.write_text(train.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        load(train, write(tmp_path / "test.jsonl", rows(3, "t")))


def test_missing_and_empty_files(tmp_path):
    test = write(tmp_path / "test.jsonl", rows(3, "t"))
    with pytest.raises(DataError, match="no such data file"):
        load(tmp_path / "absent.jsonl", test)
    with pytest.raises(DataError, match=r"train\.jsonl: no rows"):
        load(write(tmp_path / "train.jsonl", []), test)


def test_a_named_test_set_takes_its_marked_rows_alone(tmp_path):
    train = write(tmp_path / "train.jsonl", rows(8, "t"))
    marked = [row | {"in_math500": i % 3 == 0} for i, row in enumerate(rows(7))]
    test = write(tmp_path / "test.jsonl", marked)
    chosen = load(train, test, test_set="math500").test
    assert [problem.problem for problem in chosen] == ["p0?", "p3?", "p6?"]
    with pytest.raises(DataError, match="no row is marked in_math500"):
        load(train, write(tmp_path / "plain.jsonl", rows(3)), test_set="math500")


@pytest.mark.parametrize("name", ["math500", "math_5k"])
def test_the_yardsticks_are_valid_on_top_of_the_baseline(name):
    config = load_config(["config/baseline_config.yaml", f"config/yardsticks/{name}.yaml"])
    assert config.sampling.temperature == (0 if name == "math500" else 1)
    assert config.data.test_set == ("math500" if name == "math500" else "all")
