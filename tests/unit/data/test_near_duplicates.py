"""Copies between training and test: each kind planted, recall against brute force, the switch."""

from __future__ import annotations

import doctest
import json
import random
from pathlib import Path

import pytest

from src.config.loading import with_values
from src.config.schema import Config
from src.data.problems import load_problems
from utils.data import near_duplicates
from utils.data.json_lines import DataError
from utils.data.near_duplicates import THRESHOLD, find_duplicates, jaccard, shingles

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
MATH = (DATA / "math_train.jsonl.gz", DATA / "math_test.jsonl.gz")
WORDS = [f"word{letter}" for letter in "abcdefghijklmn"]


def sentence(draw, length=40):
    return " ".join(draw.choices(WORDS, k=length))


def test_each_kind_of_copy_is_told_apart():
    draw = random.Random(1)
    base = [sentence(draw) + f" and {n} apples" for n in range(20)]
    near = base[3].split()
    near[30] = "omega"
    planted = [base[0], base[1].upper(), base[2].replace("2 apples", "99 apples"), " ".join(near)]
    found = list(find_duplicates([*planted, sentence(draw)], base))
    assert [(match.kind, match.index, match.other) for match in found] == [
        ("exact", 0, 0), ("normalised", 1, 1), ("numbers", 2, 2), ("near", 3, 3),
    ]  # fmt: skip
    assert THRESHOLD <= found[3].similarity < 1


def test_short_sums_are_not_copies_of_one_another():
    assert not list(find_duplicates(["Find $2+2$.", "What is 7?"], ["Find $3+5$.", "What is 9?"]))


def test_nearly_all_that_brute_force_finds_is_found():
    draw = random.Random(2)
    others = [sentence(draw) for _ in range(300)]
    texts = []
    for other in others:
        words = other.split()
        for _ in range(draw.randint(0, 4)):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        texts.append(" ".join(words))
    cut = [shingles(other) for other in others]
    wanted = {
        place
        for place, text in enumerate(texts)
        if max(jaccard(shingles(text), other) for other in cut) >= THRESHOLD
    }
    found = {match.index for match in find_duplicates(texts, others)}
    assert found <= wanted
    assert len(found) >= 0.98 * len(wanted) > 50


@pytest.mark.parametrize(("remove", "left"), [("exact", 28), ("numbers", 27), ("near", 26)])
def test_the_switch_leaves_copies_of_test_problems_out(tmp_path, remove, left, caplog):
    draw = random.Random(3)
    test = [sentence(draw) + f" with {n} apples" for n in range(4)]
    near = test[2].split()
    near[20] = "omega"
    planted = [test[0], test[1].replace("1 apples", "77 apples"), " ".join(near)]
    config = write_problems(tmp_path, [*planted, *(sentence(draw) for _ in range(30))], test)
    caplog.set_level("INFO")
    problems = load_problems(with_values(config, {"data.remove_duplicates": remove}))
    fitted = [*problems.train, *problems.validation]
    # The exact copy is always left out; 32 rows remain, 4 of them for validation.
    assert len(fitted) == left + 4
    assert problems.overlap_removed == 1
    assert problems.duplicates["numbers"]["count"] == 1
    assert problems.provenance()["duplicates"]["near"]["examples"][0]["held_out"] == test[2]
    assert problems.duplicates["exact"]["examples"] == [{"fitted": test[0], "held_out": test[0]}]
    assert "repeat a test problem (numbers)" in caplog.text


def test_a_training_file_of_copies_alone_is_refused(tmp_path):
    boxes = [f"If one box holds {n} apples, how many apples do two boxes hold?" for n in range(9)]
    test, copies = boxes[:3], boxes[3:]
    config = write_problems(tmp_path, copies, test, validation=2)
    with pytest.raises(DataError, match="remove less"):
        load_problems(with_values(config, {"data.remove_duplicates": "near"}))


@pytest.mark.skipif(not MATH[0].is_file(), reason="the MATH files lie beside some checkouts only")
def test_what_is_in_math_is_found():
    """Brute force over all pairs finds 490 at this threshold, as numbers and near together are."""
    config = with_values(
        Config(),
        {"data.source": "files", "data.train_file": str(MATH[0]), "data.test_file": str(MATH[1])},
    )
    problems = load_problems(config)
    assert len(problems.train) + len(problems.validation) == 7496
    assert problems.duplicates["numbers"]["count"] == 251
    assert problems.duplicates["near"]["count"] == 239
    for kind in ("numbers", "near"):
        for example in problems.duplicates[kind]["examples"]:
            one, other = (shingles(example[key]) for key in ("fitted", "held_out"))
            assert jaccard(one, other) == pytest.approx(example["similarity"], abs=1e-3)


def write_problems(folder, train, test, validation=4):
    for name, texts in (("train", train), ("test", test)):
        rows = [{"problem": text, "solution": "\\boxed{1}", "answer": "1"} for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values = {
        "data.source": "files",
        "data.train_file": str(folder / "train.jsonl"),
        "data.test_file": str(folder / "test.jsonl"),
        "data.validation_rows": validation,
    }
    return with_values(Config(), values)


def test_the_worked_examples_hold():
    assert doctest.testmod(near_duplicates).failed == 0
