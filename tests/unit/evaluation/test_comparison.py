"""Comparing evaluations, grading again, going on after a kill: from completions alone."""

from __future__ import annotations

import doctest
import json
from dataclasses import replace

import pytest

from src.config.loading import ConfigError
from src.config.schema import SamplingConfig
from src.data.prompts import PromptTemplate, load_prompt
from src.engine.generator import Completion
from src.evaluation.comparison import compare, paired_difference, read_scored
from src.evaluation.evaluation import EvalTask, evaluate
from src.evaluation.figures import summarise
from src.evaluation.regrading import regrade
from src.evaluation.rows import grade_rows
from src.run.files import read_json, read_jsonl, write_json_atomic, write_jsonl_atomic
from src.stages import evaluate_model
from src.stages.evaluate_model import main
from utils.data.problem import Problem

RIGHT, WRONG = "x</think> <answer>{}</answer>", "x</think> <answer>-1</answer>"
MALFORMED = "it is \\boxed{{{}}}"


def row(number, text, *, sample=0, tokens=10):
    return {
        **{"unique_id": f"p{number}", "problem": f"What is {number}?", "reference": str(number)},
        **{"level": number % 2 + 1, "type": "Algebra", "sample": sample, "form": "tags"},
        **{"completion": text.format(number), "tokens": tokens, "truncated": False},
    }


def write_evaluation(folder, texts, **measured):
    """Write an evaluation of one completion a problem."""
    folder.mkdir(parents=True)
    rows = grade_rows([row(number, text) for number, text in enumerate(texts, 1)])
    write_jsonl_atomic(folder / "completions.jsonl", rows)
    figures = summarise(rows, split="test", checkpoint="-").outcome()
    yardstick = {
        "test_set": {"n": len(rows), "sha256": "a"},
        "sampling": {"temperature": 1.0},
        "prompt_sha256": "b",
    }
    write_json_atomic(folder / "outcome.json", figures | yardstick | measured)
    return folder


@pytest.fixture
def two(tmp_path):
    """A model that answers 2 of 6 and one that answers 4, losing one and winning three."""
    first = [RIGHT, RIGHT, WRONG, MALFORMED, WRONG, MALFORMED]
    second = [RIGHT, WRONG, RIGHT, RIGHT, RIGHT, MALFORMED]
    return (
        write_evaluation(tmp_path / "run" / "first", first),
        write_evaluation(tmp_path / "run" / "second", second),
    )


def test_a_comparison_counts_what_was_won_and_lost(two):
    found = compare(*map(read_scored, two))
    assert found["accuracy"] == pytest.approx([2 / 6, 4 / 6])
    assert (found["n"], found["won"], found["lost"]) == (6, 3, 1)
    assert found["p_value"] == pytest.approx(10 / 16)  # 2 (1 + 4) / 2^4
    assert found["by_level"]["1"]["won"] + found["by_level"]["2"]["won"] == 3
    assert found["by_type"]["Algebra"]["difference"] == pytest.approx(found["difference"])
    assert [item["unique_id"] for item in found["won_examples"]] == ["p3", "p4", "p5"]
    assert [item["unique_id"] for item in found["lost_examples"]] == ["p2"]
    assert found["lost_examples"][0]["second"]["answer"] == "-1"
    assert "3 won, 1 lost" in str(paired_difference({"a": 0, "b": 0, "c": 0, "d": 1},
                                                    {"a": 1, "b": 1, "c": 1, "d": 0}))  # fmt: skip


def test_many_samples_a_problem_are_compared_by_their_means():
    before = {str(i): 0.25 for i in range(40)}
    after = {str(i): 0.5 if i % 2 else 0.25 for i in range(40)}
    found = paired_difference(before, after)
    assert found.difference == pytest.approx(0.125)
    assert 0.08 < found.ci95[0] < 0.125 < found.ci95[1] < 0.17
    assert (found.won, found.lost) == (20, 0)


@pytest.mark.parametrize("changed", [{"sampling": {"temperature": 0.0}}, {"test_set": {"n": 9}}])
def test_different_yardsticks_are_refused(two, tmp_path, changed):
    other = write_evaluation(tmp_path / "run" / "third", [RIGHT] * 6, **changed)
    with pytest.raises(ConfigError, match="not measured alike"):
        compare(read_scored(two[0]), read_scored(other))


def test_other_problems_under_the_same_name_are_refused():
    with pytest.raises(ConfigError, match="not scored on the same problems"):
        paired_difference({"a": 1.0}, {"b": 1.0})


def test_the_command_compares_and_writes(two, tmp_path, capsys):
    settings = ["--set", f"run.output_root={tmp_path}", "--set", "run.name=run"]
    config = "config/tiny/baseline_config.yaml"
    assert main(["--compare", *map(str, two), "--config", config, *settings], config) == 0
    said = capsys.readouterr().out
    assert "second (66.7 %) over run/first (33.3 %)" in said
    assert "problems lost" in said
    written = read_json(tmp_path / "run" / "comparisons" / "run_first__run_second.json")
    assert written["won"] == 3
    stage = write_evaluation(tmp_path / "other" / "step2_sft", [RIGHT] * 6)
    assert main(["--compare", str(two[0]), str(stage)], config) == 0
    assert list((tmp_path / "other" / "comparisons").glob("run_first__other_step2_sft.json"))
    assert main(["--compare", str(two[0]), str(tmp_path / "run")], config) == 2
    assert main(["some_model", "--greedy"], config) is None


def test_grading_again_finds_what_a_hand_changed(two, capsys, tmp_path):
    file = two[1] / "completions.jsonl"
    rows = read_jsonl(file)
    rows[1] |= {"outcome": "correct"}
    write_jsonl_atomic(file, rows)
    found = regrade(file)
    assert [new["unique_id"] for _, new in found.changed] == ["p2"]
    assert (found.before.outcomes["correct"], found.after.outcomes["correct"]) == (5, 4)
    output = tmp_path / "again.jsonl"
    assert main(["--regrade", str(file), "--output", str(output)], "config/tiny/base.yaml") == 0
    assert "1 completions are graded otherwise" in capsys.readouterr().out
    assert not regrade(output).changed


@pytest.mark.parametrize("column", ["found", "level", "fault", "answer"])
def test_rows_that_lack_a_column_are_named(two, column):
    file = two[1] / "completions.jsonl"
    rows = [
        {name: value for name, value in row.items() if name != column} for row in read_jsonl(file)
    ]
    write_jsonl_atomic(file, rows)
    with pytest.raises(ConfigError, match=f"completions.jsonl:1: {column} missing"):
        regrade(file)


@pytest.mark.parametrize("content", ["", '{"answer": "5"}\n', '{"unique_id": "p1", "compl'])
def test_what_is_no_evaluation_is_not_graded_again(tmp_path, content):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(ConfigError):
        regrade(file)


def test_the_figures_of_many_samples():
    texts = {1: [RIGHT, RIGHT, WRONG], 2: [MALFORMED, WRONG, "x</think> <answer>-2/2</answer>"],
             3: [RIGHT, MALFORMED, MALFORMED]}  # fmt: skip
    rows = grade_rows(
        [
            row(number, text, sample=place, tokens=10 * number)
            for number, drawn in texts.items()
            for place, text in enumerate(drawn)
        ]
    )
    report = summarise(rows, split="test", checkpoint="-", ks=[1, 3])
    figures = report.figures()
    assert report.accuracy == pytest.approx(3 / 9)
    assert report.pass_at == pytest.approx({1: 3 / 9, 3: 2 / 3})
    # The vote: p1 two to one; p2 -1 and -2/2 agree on the wrong; p3's only voter is right.
    assert report.majority_at == pytest.approx({1: 3 / 9, 3: 2 / 3})
    assert figures["accuracy_anywhere"] == pytest.approx(6 / 9)
    assert figures["accuracy_well_formed"] == pytest.approx(3 / 6)
    assert figures["faults"] == {"right_answer_wrong_place": 3, "wrong_value": 3}
    assert sum(part[3] for part in figures["by_length"]) == 9
    low, high = figures["pass_at_ci95"]["3"]
    assert 0 <= low < 2 / 3 < high <= 1


def test_completions_cut_short_are_refused():
    rows = grade_rows([row(1, RIGHT), row(1, RIGHT, sample=1), row(2, RIGHT)])
    with pytest.raises(ValueError, match="cut short"):
        summarise(rows, split="test", checkpoint="-")


class Engine:
    """Answer each problem with its number; die after some completions."""

    def __init__(self, dies_after=None):
        self.asked, self._dies_after = [], dies_after

    def stream(self, prompts, sampling, seeds):
        for index, prompt in enumerate(prompts):
            if index == self._dies_after:
                raise KeyboardInterrupt
            self.asked.append(seeds[index])
            text = RIGHT.format(prompt.split("What is ")[-1].split("?")[0])
            yield index, Completion(text, 10, truncated=False)


def test_an_evaluation_goes_on_where_it_was_killed(tmp_path):
    problems = [Problem(f"What is {i}?", "", str(i), 1, "t", f"p{i}") for i in range(200)]
    file = tmp_path / "completions.jsonl"
    prompt = PromptTemplate("{question} <answer>")
    task = EvalTask("test", problems, prompt, SamplingConfig(), 17, completions_file=file)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Engine(dies_after=150), task, checkpoint="a")
    partial = tmp_path / "completions.jsonl.partial"
    assert not file.exists()
    with partial.open("a") as stream:
        stream.write('{"unique_id": "p19')  # the line that the kill cut
    second = Engine()
    report = evaluate(second, task, checkpoint="a")
    assert len(second.asked) == 200 - 128  # whole batches of 64 had been graded
    assert (report.n, report.accuracy) == (200, 1.0)
    assert [json.loads(line)["unique_id"] for line in file.read_text().split("\n")[:-1]] == [
        problem.unique_id for problem in problems
    ]
    assert not partial.exists()


def test_what_was_left_by_another_checkpoint_or_task_is_not_taken(tmp_path):
    problems = [Problem(f"What is {i}?", "", str(i), 1, "t", f"p{i}") for i in range(100)]
    prompt = PromptTemplate("{question} <answer>")
    file = tmp_path / "completions.jsonl"
    task = EvalTask("test", problems, prompt, SamplingConfig(), 17, completions_file=file)
    for checkpoint, other in [("b", task), ("a", replace(task, seed=18))]:
        with pytest.raises(KeyboardInterrupt):
            evaluate(Engine(dies_after=90), task, checkpoint="a")
        engine = Engine()
        evaluate(engine, other, checkpoint=checkpoint)
        assert len(engine.asked) == 100


def test_prompts_by_name_and_with_worked_examples():
    examples = [Problem("1+1?", "One more: \\boxed{2}", "2", 1, "t", "a")]
    few = load_prompt("few_shot", examples)
    plain = load_prompt("rl_zero")
    worked = "User: 1+1?\nAssistant: <think> One more: \\boxed{2} </think> <answer> 2 </answer>\n"
    assert few.text == plain.text.replace("User: {question}", worked + "User: {question}")
    assert few.form == plain.form == "tags"
    assert load_prompt("question_only").text == "{question}"
    assert load_prompt("qwen_boxed").form == "boxed"
    assert load_prompt("qwen_boxed").text.endswith("<|im_start|>assistant\n")
    with pytest.raises(ConfigError, match="evaluation.prompts"):
        load_prompt("few_shot")
    with pytest.raises(ConfigError, match="few_shot, question_only, qwen_boxed, rl_zero"):
        load_prompt("rl_one")


def test_the_worked_examples_hold():
    assert doctest.testmod(evaluate_model).failed == 0


def test_an_echo_is_a_fault_of_its_own_and_grades_so_again(tmp_path):
    texts = ["x</think> <answer>2+3</answer>", "x</think> <answer>5</answer>"]
    rows = [row(i, t) | {"problem": "What is $2+3$?", "reference": "5"}
            for i, t in enumerate(texts)]  # fmt: skip
    file = tmp_path / "completions.jsonl"
    write_jsonl_atomic(file, grade_rows(rows))
    again = regrade(file)
    assert not again.changed
    assert again.before.faults == again.after.faults == {"echoed_problem": 1}
