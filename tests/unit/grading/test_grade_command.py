"""`python -m utils.grade`: one answer, a labelled file, and what it says to bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from src.run.files import read_jsonl
from utils.grade import main

ROWS = [
    {"gold": "1/2", "pred": "0.5", "equal": True},
    {"gold": "1/2", "pred": "0.25", "equal": False},
    {"gold": r"\tan^2 x", "pred": r"\sec^2 x - 1", "equal": True},
    {"gold": "5", "pred": "not 5", "equal": True},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("answer", "code", "verdict"),
    [("0.5", 0, "correct (exact)"), ("0.25", 1, "wrong_answer (exact)")],
)
def test_one_answer(capsys, answer, code, verdict):
    assert main(["--gold", r"so \boxed{\frac12}", "--answer", answer, "--explain"]) == code
    printed = capsys.readouterr().out
    assert printed.startswith(verdict)
    assert "normal forms" in printed


def test_a_labelled_file(tmp_path, capsys):
    output = tmp_path / "grades.jsonl"
    command = [write(tmp_path / "rows.jsonl", ROWS), "--output", str(output)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "agreement 3/4 = 0.7500" in printed
    assert "labelled True, wrong_answer" in printed
    grades = read_jsonl(output)
    assert [grade["outcome"] for grade in grades] == [
        "correct", "wrong_answer", "correct", "wrong_answer",
    ]  # fmt: skip
    assert grades[2]["stage"] == "symbolic"
    assert grades[0]["pred"] == "0.5"


def test_completions_are_graded_with_their_format(tmp_path, capsys):
    rows = [
        {"completion": "2</think> <answer>2</answer>", "reference": "2"},
        {"completion": "the answer is 2", "reference": "2"},
    ]
    assert main([write(tmp_path / "completions.jsonl", rows)]) == 0
    printed = capsys.readouterr().out
    assert "2 rows" in printed
    assert "format_failure" in printed


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"gold": 1', [], "rows.jsonl:1: not valid JSON"),
        ('{"gold": 1}\n[1]\n', [], "rows.jsonl:2: expected an object"),
        ("", [], "no rows"),
        ('{"a": 1}\n', [], "name theirs with --gold-key"),
        ('{"gold": 1}\n', [], "name theirs with --answer-key"),
        ('{"gold": 1, "pred": 1}\n', ["--label-key", "right"], "row 1 has no 'right'"),
        ('{"gold": 1, "pred": 1, "equal": "maybe"}\n', [], "row 1: the label 'maybe'"),
        ('{"gold": 1, "pred": 1, "equal": null}\n', [], "row 1: the label None"),
        ('{"gold": 1, "pred": 1}\n', ["--output", "absent/out"], "no folder absent"),
        ('{"gold": 1, "pred": 1}\n', ["--children", "0"], "at least one"),
    ],
)
def test_bad_input_is_named(tmp_path, capsys, content, options, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    assert main([str(file), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_and_missing_options(tmp_path, capsys):
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--gold", "5"])


def test_labels_say_what_their_text_says(tmp_path, capsys):
    labels = [True, 1, "true", "1", " True", False, 0, "false", "0", "FALSE"]
    rows = [{"gold": "5", "pred": "5", "equal": label} for label in labels]
    assert main([write(tmp_path / "rows.jsonl", rows)]) == 0
    assert "agreement 5/10" in capsys.readouterr().out


def test_a_reader_that_leaves_takes_no_grades_along(tmp_path):
    rows = [{"gold": "5", "pred": f"4\u2028{i}", "equal": True} for i in range(2000)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    command = [sys.executable, "-m", "utils.grade", str(file), "--output", str(tmp_path / "out")]
    grading = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    grading.stdout.readline()
    grading.stdout.close()
    assert grading.stderr.read() == ""
    assert grading.wait() == 0
    assert (tmp_path / "out").read_text().count("\n") == 2000


def test_a_problem_column_tells_echoes(tmp_path, capsys):
    rows = [{"problem": "What is $2+3$?", "gold": "5", "pred": answer} for answer in ("2+3", "5")]
    output = tmp_path / "grades.jsonl"
    assert main([write(tmp_path / "rows.jsonl", rows), "--output", str(output)]) == 0
    reasons = [json.loads(line)["reason"] for line in output.read_text().splitlines()]
    assert reasons == ["echoed_problem", ""]
    given = ["--gold", "5", "--answer", "2+3"]
    assert main([*given, "--problem", "What is $2+3$?"]) == 1
    assert main(given) == 0
    assert "wrong_answer (echo): echoed_problem" in capsys.readouterr().out
