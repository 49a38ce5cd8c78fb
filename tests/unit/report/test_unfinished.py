"""A report while the run goes on: what has finished, and how far the rest is."""

from __future__ import annotations

import json

import pytest

from src.report.report import write_report
from src.report.unfinished import unfinished_stages
from src.run.files import claim_folder
from tests.unit.viewing.test_two_runs import write_stage


def page_data(folder):
    page = (folder / "report.html").read_text()
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_a_stage_that_runs_is_shown_as_such(tmp_path):
    run = tmp_path / "run"
    write_stage(run, "step2_sft", 20)
    write_stage(run, "step3_GRPO", 40, finished=False)
    metrics = run / "step3_GRPO" / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write('{"step": 4, "grpo/reward": NaN}\n{"step": 5, "grpo/rew')  # being written
    with claim_folder(run / "step3_GRPO"):
        assert write_report(run) == run / "report.json"
    data = page_data(run)
    (item,) = data["unfinished"]
    assert item["stage"] == "step3_GRPO"
    assert item["said"].startswith("running, step 4 of 60, validation 50.0 % at step 3, last fig")
    assert [stage["stage"] for stage in data["stages"]] == ["step2_sft"]
    assert "GRPO accuracy" in {chart["title"] for chart in data["curves"]}
    assert unfinished_stages(run, ["step3_GRPO"])[0]["said"].startswith("not running")


def test_a_run_whose_first_stage_is_not_done_has_a_page_alone(tmp_path):
    run = tmp_path / "run"
    write_stage(run, "step0_baseline", 20, finished=False)
    append = run / "step0_baseline" / "completions.jsonl.partial"
    append.write_text('{"evaluation": {}}\n{"a": 1}\n{"a": 2}\n')
    assert write_report(run) == run / "report.html"
    data = page_data(run)
    assert data["stages"] == []
    assert "2 completions in completions" in data["unfinished"][0]["said"]


def test_trials_so_far_are_drawn(tmp_path):
    run = tmp_path / "run"
    write_stage(run, "step1_sft_hyper", 20, finished=False)
    (run / "step1_sft_hyper" / "config.yaml").write_text(
        "run: {profile: tiny}\nsearch: {trials: 8}\n"
    )
    trial = run / "step1_sft_hyper" / "trials" / "trial_000"
    trial.mkdir(parents=True)
    (trial / "metrics.jsonl").write_text('{"step": 64, "trial": 0, "trial/value": 0.25}\n')
    write_report(run)
    data = page_data(run)
    assert "1 of 8 trials begun" in data["unfinished"][0]["said"]
    assert data["curves"][0]["series"][0]["points"] == [[0, 0.25]]


def test_an_empty_folder_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="holds no finished stage"):
        write_report(tmp_path)
