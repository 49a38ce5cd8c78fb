"""Two made-up runs side by side: what differs, problem by problem, and what cannot be compared."""

from __future__ import annotations

import json

import pytest
import yaml

from src.config.loading import ConfigError
from src.run.files import append_jsonl
from src.viewing.two_runs import compare_runs, flat
from src.viewing.two_runs_view import show_comparison, write_page
from tests.unit.report.test_report import N, completions, scored

SAMPLING = scored("", 0)["sampling"]


def write_stage(run, stage, correct, finished=True, seed=17, **changes):
    folder = run / stage
    folder.mkdir(parents=True)
    settings = {"run": {"name": run.name, "seed": seed, "profile": "tiny"}, "grpo": {"steps": 60}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    append_jsonl(folder / "metrics.jsonl", [{"step": 3, "validation/accuracy": correct / N}])
    if finished:
        (folder / "outcome.json").write_text(json.dumps(scored(stage, correct, **changes)))
        append_jsonl(folder / "completions.jsonl", completions(correct))


@pytest.fixture
def runs(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    write_stage(one, "step2_sft", 20)
    write_stage(other, "step2_sft", 40, seed=18)
    write_stage(other, "step3_GRPO", 40, finished=False)
    return one, other


def test_runs_are_compared_problem_by_problem(runs, capsys):
    found = compare_runs(*runs)
    assert found["names"] == ["one", "other"]
    (stage,) = found["stages"]
    assert stage["accuracy"]["said"].startswith("+25.0 points [")
    assert stage["accuracy"]["said"].endswith("20 won, 0 lost")
    assert found["settings"] == [{"name": "run.seed", "values": [17, 18], "stages": ["step2_sft"]}]
    assert found["alone"] == ["step3_GRPO is in other alone"]
    curve = next(c for c in found["curves"] if c["title"] == "SFT accuracy: validation/accuracy")
    assert [line["name"] for line in curve["series"]] == ["one", "other"]
    assert curve["series"][1]["points"] == [(3, 0.5)]
    show_comparison(found)
    said = capsys.readouterr().out
    assert "run.seed" in said
    assert "+25.0 [+" in said
    assert "< 0.001" in said
    page = write_page(found, *runs).read_text()
    assert "@@" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_what_was_measured_otherwise_is_named_not_compared(runs):
    one, _ = runs
    changed = one.with_name("changed")
    write_stage(changed, "step2_sft", 40, sampling=SAMPLING | {"temperature": 0.0, "seed": 18})
    (stage,) = compare_runs(one, changed)["stages"]
    assert stage["accuracy"] is None
    assert stage["said"] == "not compared: temperature 1.0 and 0.0"


def test_other_seeds_of_sampling_are_compared(runs):
    one, _ = runs
    other = one.with_name("seed")
    write_stage(other, "step2_sft", 40, sampling=SAMPLING | {"seed": 18})
    assert compare_runs(one, other)["stages"][0]["accuracy"]["won"] == 20


def test_no_run_and_the_same_run_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="no pipeline run"):
        compare_runs(runs[0], tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="are one run"):
        compare_runs(runs[0], runs[0])


def test_settings_that_one_run_alone_has_are_named_apart(runs):
    one, other = runs
    file = other / "step2_sft" / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"new": {"thing": 1}}))
    found = compare_runs(one, other)
    assert [item["name"] for item in found["settings"]] == ["run.seed"]
    (line,) = found["unknown"]
    assert line.startswith("settings of other alone")
    assert line.endswith(": new.thing")


def test_settings_have_dotted_names():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
