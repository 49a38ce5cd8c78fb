"""Rows of supervised fine-tuning: exact texts, weights, held-out problems, files."""

from __future__ import annotations

import json
import logging
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.config.loading import build_config
from src.config.training import ColumnNames, WeightedFile
from src.data.prompts import PromptTemplate, load_prompt
from src.sft.examples import build_examples
from src.sft.rows import (
    SftRow,
    copies,
    rows_from_files,
    rows_from_problems,
    training_rows,
)
from utils.data.contained_texts import ContainedTexts
from utils.data.json_lines import DataError
from utils.data.problem import Problem, normalised_text
from utils.data.problem_generator import generate_problems
from utils.dataset_loader import ProblemSet

BOXED = PromptTemplate("Question: {question}\nAnswer:")


@pytest.fixture
def tagged():
    return load_prompt("prompts/rl_zero.prompt")


def problem(text, answer="2", solution="It is $\\boxed{2}$.", name="p"):
    return Problem(text, solution, answer, 1, "a", name)


def held_out(*texts, train=()):
    return ProblemSet(
        train=[problem(text, answer) for text, answer in train],
        validation=[problem(text) for text in texts[:1]],
        test=[problem(text) for text in texts[1:]],
    )


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path, template, problems=None, weight=1.0):
    files = [WeightedFile(file=str(path), weight=weight)]
    return rows_from_files(files, template, problems or held_out()).rows


def solutions(count):
    return [
        {"problem": f"How much is {i} + 0?", "solution": f"$\\boxed{{{i}}}$"} for i in range(count)
    ]


def test_problems_become_prompt_and_target_and_verify(tagged, tokenizer):
    problems = generate_problems(60, "train", 1)
    rows = rows_from_problems(problems, tagged)
    assert [row.prompt for row in rows] == [tagged.render(item) for item in problems]
    assert [row.target for row in rows] == [tagged.target(item) for item in problems]
    built = build_examples(rows, tokenizer, 512, "verified")
    assert built.left_out == {}
    assert [example.id for example in built.examples] == [item.unique_id for item in problems]


def test_a_target_states_what_the_solution_reaches_not_the_reference(tagged, tokenizer):
    row = rows_from_problems([problem("1+1?", solution="So $\\boxed{3}$.")], tagged)[0]
    assert row.target.endswith("<answer> 3 </answer>")
    built = build_examples([row], tokenizer, 512, "verified")
    assert built.left_out == {"target does not grade as correct": ["p"]}


def test_a_row_without_a_solution_teaches_nothing_and_is_counted(tmp_path, tagged, tokenizer):
    path = written(tmp_path / "a.jsonl", {"question": "1+1?", "answer": "2"}, {"question": "1+2?",
                   "answer": "Count <<1+2=3>>on.\n#### 3"})  # fmt: skip
    rows = rows_of(path, tagged)
    assert (rows[0].target, rows[0].answer) == ("", "2")
    built = build_examples(rows, tokenizer, 512, "all")
    assert built.left_out == {"empty target": ["a.jsonl:1"]}
    assert len(built.examples) == 1


def test_the_columns_of_a_file_are_named_in_its_entry(tmp_path, tagged):
    path = written(tmp_path / "a.jsonl", {"problem": "1+1?", "solution": "$\\boxed{1}$",
                   "output": "$\\boxed{2}$"})  # fmt: skip
    with pytest.raises(
        DataError, match=r"'solution' and 'output' .* sft\.files\[\]\.columns\.solution"
    ):
        rows_of(path, tagged)
    files = [WeightedFile(file=str(path), columns=ColumnNames(solution="output"))]
    (row,) = rows_from_files(files, tagged, held_out()).rows
    assert row.answer == "2"


def test_prompt_and_completion_rows_keep_their_exact_texts(tmp_path, tagged):
    texts = {"prompt": "  Odd {question}\t\u00e9\n", "completion": "\n two  \u2029 2 "}
    path = written(tmp_path / "a.jsonl", texts, {**texts, "answer": 2, "unique_id": "mine"})
    assert rows_of(path, tagged) == [
        SftRow("a.jsonl:1", texts["prompt"], texts["completion"], None),
        SftRow("mine", texts["prompt"], texts["completion"], "2"),
    ]


def test_the_reference_is_the_rows_own_then_the_training_problems_then_the_box(tmp_path, tagged):
    row = {"problem": "1 + 1?", "solution": "So $\\boxed{3}$."}
    path = written(tmp_path / "a.jsonl", {**row, "answer": 0}, row, {**row, "problem": "Other?"})
    rows = rows_of(path, tagged, held_out(train=[(" 1 +  1?", "2")]))
    assert [item.answer for item in rows] == ["0", "2", "3"]


def test_a_solution_without_any_answer_makes_no_tagged_target(tmp_path, tagged, tokenizer):
    path = written(tmp_path / "a.jsonl", {"problem": "1+1?", "solution": "Two."})
    rows = rows_of(path, tagged)
    assert (rows[0].target, rows[0].answer) == ("", None)
    verified = build_examples(rows, tokenizer, 512, "verified")
    assert verified.left_out == {"no reference answer to verify against": ["a.jsonl:1"]}
    assert build_examples(rows, tokenizer, 512, "all").left_out == {"empty target": ["a.jsonl:1"]}
    assert rows_of(path, BOXED) == [SftRow("a.jsonl:1", "Question: 1+1?\nAnswer:", " Two.", None)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "x"}, r"a\.jsonl:2: key 'solution' must be a text, got missing"),
        ({"prompt": [{"role": "user"}], "completion": "x"}, r"key 'prompt' must be .* got list"),
        ({"prompt": " ", "completion": "x"}, r"a\.jsonl:2: key 'prompt' is blank"),
        (
            {"problem": "x", "solution": "y", "answer": ["1", "2"]},
            r"key 'answer' must be .* got list",
        ),
        ({"question": "x", "answer": "y"}, r"a\.jsonl:2: key 'problem' .* 'question', 'answer'"),
    ],
)
def test_a_malformed_row_names_its_line_and_what_is_expected(tmp_path, tagged, row, message):
    path = written(tmp_path / "a.jsonl", *solutions(1), row)
    with pytest.raises(DataError, match=message) as caught:
        rows_of(path, tagged)
    assert "answer" in str(caught.value) or "{prompt, completion}" in str(caught.value)


def test_missing_and_empty_files_name_the_setting(tmp_path, tagged):
    with pytest.raises(DataError, match=r"no such data file; check sft\.files"):
        rows_of(tmp_path / "absent.jsonl", tagged)
    with pytest.raises(DataError, match=r"no rows; .* sft\.files"):
        rows_of(written(tmp_path / "a.jsonl"), tagged)


def test_a_whole_weight_repeats_each_row(tmp_path, tagged):
    path = written(tmp_path / "a.jsonl", *solutions(7))
    once, twice = rows_of(path, tagged), rows_of(path, tagged, weight=2)
    assert twice == [row for row in once for _ in range(2)]


def test_a_fractional_weight_takes_the_same_share_each_time(tmp_path, tagged):
    path = written(tmp_path / "a.jsonl", *solutions(1000))
    once, half = rows_of(path, tagged), rows_of(path, tagged, weight=0.5)
    assert 440 < len(half) < 560
    assert half == rows_of(path, tagged, weight=0.5)
    assert len(set(half)) == len(half)
    assert set(half) <= set(once)
    assert len(rows_of(path, tagged, weight=2.5)) == 2000 + len(half)


def test_the_share_does_not_depend_on_the_order_of_rows_with_names(tmp_path, tagged):
    named = [{**row, "unique_id": f"n{i}"} for i, row in enumerate(solutions(100))]
    forward = rows_of(written(tmp_path / "a.jsonl", *named), tagged, weight=0.3)
    back = rows_of(written(tmp_path / "b.jsonl", *reversed(named)), tagged, weight=0.3)
    assert back == list(reversed(forward))


@given(st.floats(0.01, 5), st.floats(0, 2), st.text(max_size=8))
def test_copies_are_the_weight_rounded_and_grow_with_it(weight, more, key):
    assert int(weight) <= copies(weight, key) <= int(weight) + 1
    assert copies(weight, key) <= copies(weight + more, key)


def test_the_share_does_not_depend_on_the_template(tmp_path, tagged):
    path = written(tmp_path / "a.jsonl", *solutions(100))
    ours, theirs = (rows_of(path, template, weight=0.3) for template in (tagged, BOXED))
    assert [row.id for row in ours] == [row.id for row in theirs]


def test_files_are_mixed_in_order(tmp_path, tagged):
    first = written(tmp_path / "a.jsonl", *solutions(2))
    second = written(tmp_path / "b.jsonl", {"prompt": "p", "completion": "c"})
    files = [WeightedFile(file=str(second), weight=2), WeightedFile(file=str(first))]
    rows = rows_from_files(files, tagged, held_out()).rows
    assert [row.id for row in rows] == ["b.jsonl:1"] * 2 + ["a.jsonl:1", "a.jsonl:2"]


def test_held_out_problems_are_left_out_of_both_kinds_and_counted(tmp_path, tagged, caplog):
    question = "What is $1+1$?"
    path = written(
        tmp_path / "a.jsonl",
        {"problem": " what  is $1+1$?\n", "solution": "$\\boxed{2}$"},
        {"prompt": f"User: {question}\nAssistant:", "completion": "2"},
        {"prompt": "User:What is\n$1+2$?", "completion": "3"},
        {"problem": "What is $1+1$ plus one?", "solution": "$\\boxed{3}$"},
        {"prompt": "What is the sum?", "completion": question},
    )
    with caplog.at_level(logging.INFO):
        rows = rows_of(path, tagged, held_out("what is $1+2$?", question))
    assert [row.id for row in rows] == ["a.jsonl:4", "a.jsonl:5"]
    assert (
        "2 rows an epoch from 1 files; left out: 3 held out for validation or test "
        "(a.jsonl:1, a.jsonl:2, a.jsonl:3)" in caplog.text
    )


def test_contained_texts_equal_a_plain_search():
    """Against a search for every text at every place, boundaries of words included."""
    rng = random.Random(0)

    def text(length):
        return "".join(rng.choice("ab1 +") for _ in range(length))

    parts = [text(rng.randrange(0, 24)) for _ in range(60)]
    index = ContainedTexts(parts)
    patterns = [
        (r"(?<![a-z0-9])" if part[0].isalnum() else "")
        + re.escape(part)
        + (r"(?![a-z0-9])" if part[-1].isalnum() else "")
        for part in map(normalised_text, parts)
        if part
    ]
    found = []
    for _ in range(300):
        whole = text(rng.randrange(0, 12)) + rng.choice(["", rng.choice(parts)]) + text(3)
        expected = any(re.search(pattern, normalised_text(whole)) for pattern in patterns)
        assert index.found_in(whole) == expected, whole
        found.append(expected)
    assert 30 < sum(found) < 290


def test_rows_come_from_the_files_where_there_are_any(tmp_path, tagged):
    path = written(tmp_path / "a.jsonl", *solutions(3))
    problems = held_out(train=[("1+1?", "2")])
    own, files = build_config({}), build_config({"sft": {"files": [{"file": str(path)}]}})
    assert [row.id for row in training_rows(own, problems, tagged).rows] == ["p"]
    assert training_rows(own, problems, tagged).files == []
    taught = training_rows(files, problems, tagged)
    assert len(taught.rows) == 3
    assert [source.place for source in taught.files] == [path]


def test_rows_that_repeat_a_held_out_problem_are_described_in_the_manifest(tmp_path, tagged):
    words = "A baker packs {} loaves in every crate and sends {} crates to each of the shops"
    asked = words.format(12, 7)
    other = tagged.text.replace("{question}", words.format(3, 5))
    path = written(
        tmp_path / "a.jsonl",
        *solutions(2),
        {"problem": f"{asked}. How many loaves are sent?", "solution": "$\\boxed{84}$"},
        {"prompt": other, "completion": "15"},
    )
    problems = held_out("Something else?", asked)
    files = [WeightedFile(file=str(path))]
    kept = rows_from_files(files, tagged, problems)
    assert [row.id for row in kept.rows] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:4"]
    assert kept.repeats["contained"]["examples"][0]["row"] == "a.jsonl:3"
    # The template's own words do not hide that the question is the same but for its numbers.
    assert kept.repeats["numbers"] == {
        "count": 1,
        "removed": 0,
        "examples": [{"similarity": 1.0, "fitted": words.format(3, 5), "held_out": asked}],
    }
    assert kept.provenance(problems)["sft_files_duplicates"] == kept.repeats
    fewer = rows_from_files(files, tagged, problems, "numbers")
    assert [row.id for row in fewer.rows] == ["a.jsonl:1", "a.jsonl:2"]
