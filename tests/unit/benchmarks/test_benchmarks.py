"""Benchmarks: what each is asked with, files in each set's published shape, refusals, the table."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from src.benchmarks.asking import benchmark_sampling, describe_benchmarks
from src.benchmarks.loading import load_benchmarks, missing_files, provenance
from src.benchmarks.scoring import benchmark_tasks
from src.benchmarks.table import COLUMNS, read_benchmarks, rows_of, table
from src.config.benchmarks import BENCHMARKS
from src.config.loading import ConfigError, load_config, with_values
from src.data.prompts import load_prompt
from src.evaluation.comparison import read_scored
from src.evaluation.figures import summarise
from src.report.benchmarks import build_benchmarks, show_benchmarks
from src.run.directory import Run
from tests.family_models import write_family

# Two rows of each set, made up, with the columns of its card on the hub.
ROWS = {
    "math500": {"problem": "1+{}?", "solution": "so $\\boxed{{9}}$", "answer": "9", "level": 5,
                "subject": "Algebra", "unique_id": "test/{}.json"},
    "aime24": {"id": "{}", "problem": "2+{}?", "solution": "so \\boxed{{042}}", "answer": "042",
               "url": "-", "year": "2024"},
    "aime25": {"id": "{}", "problem": "3+{}?", "answer": "70", "year": "2025"},
    "amc23": {"id": "{}", "question": "4+{}?", "answer": "27.0", "url": "-"},
    "minerva": {"question": "5+{}?", "answer": "1.6"},
    "olympiad": {"id": "{}", "question": "6+{}?", "solution": ["so 2"], "final_answer": ["2"],
                 "answer_type": "Numerical", "subfield": "Algebra"},
    "gsm8k": {"question": "7+{}?", "answer": "it is <<7+1=8>>8\n#### 8"},
}  # fmt: skip
ANSWERS = {"math500": "9", "aime24": "042", "aime25": "70", "amc23": "27.0", "minerva": "1.6",
           "olympiad": "2", "gsm8k": "8"}  # fmt: skip


def filled(value, number):
    return value.format(number) if isinstance(value, str) else value


@pytest.fixture
def config(tmp_path):
    """A configuration that has each benchmark in a file of two rows."""
    overrides = [f"evaluation.benchmarks=[{', '.join(ROWS)}]", f"run.output_root={tmp_path}"]
    for name, row in ROWS.items():
        file = tmp_path / f"{name}.jsonl"
        rows = [{key: filled(value, n) for key, value in row.items()} for n in (1, 2)]
        file.write_text("".join(json.dumps(one) + "\n" for one in rows))
        overrides.append(f"evaluation.benchmark_files.{name}={file}")
    return load_config(["config/baseline_config.yaml"], overrides)


def test_every_benchmark_is_known_and_has_a_prompt():
    assert set(BENCHMARKS) == set(ROWS)
    for benchmark in BENCHMARKS.values():
        assert load_prompt(benchmark.prompt).form == "boxed"


def test_each_published_shape_is_read(config, caplog):
    loaded = load_benchmarks(config)
    assert {name: [p.answer for p in found.test] for name, found in loaded.items()} == {
        name: [answer, answer] for name, answer in ANSWERS.items()
    }
    assert "aime24: 2 problems, and the published set has 30" in caplog.text
    assert provenance(loaded)["splits"]["aime24"]["n"] == 2


def test_a_tenth_of_a_marked_file_is_the_marked_rows(tmp_path):
    file = tmp_path / "math.jsonl"
    rows = [{"problem": f"{n}?", "answer": "1", "in_math500": n == 3} for n in range(9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["evaluation.benchmarks=[math500]", f"evaluation.benchmark_files.math500={file}"]
    loaded = load_benchmarks(load_config([], settings))
    assert [problem.problem for problem in loaded["math500"].test] == ["3?"]


def test_all_that_cannot_be_read_is_told_in_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data.sources._load", refuse)
    settings = [
        "evaluation.benchmarks=[aime24, amc23]",
        f"evaluation.benchmark_files.amc23={tmp_path / 'absent.jsonl'}",
    ]
    config = load_config([], settings)
    with pytest.raises(ConfigError) as caught:
        load_benchmarks(config)
    message = str(caught.value)
    assert "benchmark aime24: hub:HuggingFaceH4/aime_2024::train cannot be read" in message
    assert "no network" in message
    assert "--set evaluation.benchmark_files.aime24=FILE" in message
    assert "benchmark amc23" in message
    assert "absent.jsonl" in message
    assert [line.partition(":")[0] for line in missing_files(config)] == [
        "evaluation.benchmark_files.amc23"
    ]


def refuse(place, split):
    from utils.data.json_lines import DataError

    raise DataError(place) from OSError("no network")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("evaluation.benchmarks=[aime26]", "evaluation.benchmarks"),
        ("evaluation.benchmarks=[gsm8k, gsm8k]", "gsm8k twice"),
        ("evaluation.benchmark_settings.gsm8k.temprature=1", "temprature"),
    ],
)
def test_wrong_settings_are_refused(override, says):
    with pytest.raises(ConfigError, match=says):
        load_config([], [override])


def test_no_benchmark_asked_for_is_told():
    with pytest.raises(ConfigError, match="none is asked for"):
        load_benchmarks(load_config([], []))


def test_settings_replace_a_benchmarks_own(config):
    assert asdict(config.evaluation.benchmark("gsm8k"))["samples"] == 1
    changed = load_config(
        [],
        [
            "evaluation.benchmark_settings.aime24={samples: 4, temperature: 1.0}",
            "evaluation.benchmark_prompt=rl_zero",
            "evaluation.benchmark_settings.amc23.prompt=question_only",
        ],
    ).evaluation
    aime = changed.benchmark("aime24")
    assert (aime.samples, aime.temperature, aime.top_p, aime.prompt) == (4, 1.0, 0.95, "rl_zero")
    assert changed.benchmark("amc23").prompt == "question_only"


def test_completions_are_as_long_as_the_context_allows(config):
    assert benchmark_sampling(config, "gsm8k").max_completion_tokens == 1024
    assert benchmark_sampling(config, "aime24").max_completion_tokens == 1536  # of 2,048
    assert any("aime24: 30 problems x 32" in line for line in describe_benchmarks(config))


def test_tasks_have_names_and_files_of_their_own(config):
    run = Run("benchmarks/m", with_values(config, {"model.path": "assets/tiny_base"}))
    tasks = {task.name: task for task in benchmark_tasks(run, load_benchmarks(config))}
    assert tasks["aime24"].samples == 32
    assert tasks["aime24"].completions_file == run.folder / "completions-aime24.jsonl"
    assert tasks["gsm8k"].yardstick() != tasks["minerva"].yardstick()


def test_a_chat_model_is_asked_in_turns(config, tmp_path):
    folder = write_family("qwen2", tmp_path / "chat")
    run = Run("benchmarks/m", with_values(config, {"model.path": str(folder)}))
    for task in benchmark_tasks(run, load_benchmarks(config)):
        assert "<|im_start|>user" in task.prompt.text


def completion(problem, sample, correct):
    return {
        "unique_id": problem, "sample": sample, "problem": problem, "reference": "1",
        "outcome": "correct" if correct else "wrong_answer", "answer": "1" if correct else "2",
        "found": correct, "fault": None, "reason": "", "tokens": 5, "truncated": False,
        "level": None, "type": "x", "completion": "",
    }  # fmt: skip


def write_benchmarks(folder, model, right):
    """Write one benchmark of three problems with two completions each."""
    rows = [completion(f"p{n}", s, n * 2 + s < right) for n in range(3) for s in range(2)]
    figures = summarise(rows, split="aime24", checkpoint="").figures()
    more = {
        "sampling": {"temperature": 0.6, "top_p": 0.95, "max_completion_tokens": 1536, "seed": 1},
        "test_set": {"n": 3, "sha256": "a"}, "prompt_sha256": "b",
        "prompt": "boxed", "published": 30,
    }  # fmt: skip
    folder.mkdir(parents=True)
    outcome = {"checkpoint": model, "benchmarks": {"aime24": figures | more}}
    (folder / "outcome.json").write_text(json.dumps(outcome))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "completions-aime24.jsonl").write_text(text)
    return json.loads(json.dumps(outcome))


def test_avg_and_pass_at_k_are_over_problems(tmp_path):
    outcome = write_benchmarks(tmp_path / "benchmarks" / "m", "base", right=3)
    (row,) = rows_of(outcome["benchmarks"])
    cells = dict(zip(COLUMNS, row, strict=True))
    assert cells["n"] == "3 of 30"
    assert cells["k"] == "2"
    assert cells["avg@k %"].startswith("50.0 [")  # problems with 2, 1 and 0 of 2 right
    assert cells["pass@k %"].startswith("66.7 [")
    assert cells["sampling"] == "T 0.6, top-p 0.95, 1,536 tokens"


def test_models_stand_together_base_first_and_stages_by_name(tmp_path):
    checkpoint = "/r/run/step3_GRPO/checkpoints/step_000060"
    write_benchmarks(tmp_path / "benchmarks" / "a_checkpoint", checkpoint, right=4)
    write_benchmarks(tmp_path / "benchmarks" / "z_base", "assets/tiny_base", right=1)
    write_benchmarks(tmp_path / "benchmarks" / "z_base.previous-1", "assets/tiny_base", right=2)
    assert list(read_benchmarks(tmp_path)) == ["z_base", "a_checkpoint"]
    outcomes = {
        "step0_baseline": {"stage": "step0_baseline", "checkpoint": "assets/tiny_base"},
        "step3_GRPO": {"stage": "step3_GRPO", "checkpoint": checkpoint},
    }
    found = build_benchmarks(tmp_path, outcomes)
    assert [row[:2] for row in table(found)] == [
        ("model", "benchmark"), ("step0_baseline", "aime24"), ("step3_GRPO", "aime24"),
    ]  # fmt: skip
    text = "\n".join(show_benchmarks(found))
    assert "Other yardsticks" in text
    assert show_benchmarks({}) == []


def test_two_models_are_compared_on_a_benchmark(tmp_path):
    write_benchmarks(tmp_path / "benchmarks" / "m", "base", right=3)
    scored = read_scored(tmp_path / "benchmarks" / "m" / "completions-aime24.jsonl")
    assert scored.means() == {"p0": 1.0, "p1": 0.5, "p2": 0.0}


def test_other_benchmarks_start_over_and_steps_do_not_care(config, tmp_path):
    changed = load_config(["config/baseline_config.yaml"], [f"run.output_root={tmp_path}"])
    for stage, same in (("step0_baseline", True), ("benchmarks/m", False)):
        run, other = Run(stage, config, resume=True), Run(stage, changed, resume=True)
        run.folder.mkdir(parents=True)
        run._record_config()
        assert other._same_settings(run.folder / "config.yaml") is same
