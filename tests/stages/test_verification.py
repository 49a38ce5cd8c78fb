"""A finished run is derived again from its completions; each planted error is found."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from src.config.loading import load_config
from src.data.problems import load_problems
from src.data.prompts import load_prompt
from src.report.verification import verify_run
from src.run.files import read_jsonl
from src.sft.rows import training_rows
from tests.conftest import run_script
from utils.data.hashing import file_sha256


@pytest.fixture
def run(pipeline_run, tmp_path):
    """A copy of a finished run to plant errors in."""
    folder = tmp_path / pipeline_run.folder.name
    shutil.copytree(pipeline_run.folder, folder, ignore=shutil.ignore_patterns("wandb", "trl"))
    return folder


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_an_untouched_run_holds(pipeline_run, run):
    assert verify_run(run) == []
    done = run_script("run_pipeline.py", "--verify", pipeline_run.folder)
    assert done.returncode == 0, done.stderr
    assert "all holds" in done.stderr
    manifest = json.loads((run / "step2_sft" / "manifest.json").read_text())
    assert manifest["data"]["splits"]["test"]["n"] == 48
    assert manifest["ended"] >= manifest["started"]
    listed = json.loads((run / "step2_sft" / "files.json").read_text())["files"]
    assert {"config.yaml", "completions.jsonl", "metrics.jsonl", "summary.json"} <= listed.keys()
    assert manifest["model"]["sha256"]
    # What made it lies in the checkpoint too, and its child names it.
    checkpoint = json.loads((run / "step2_sft" / "outcome.json").read_text())["checkpoint"]
    assert (run.parent / checkpoint / "manifest.json").is_file()
    child = json.loads((run / "step3_GRPO" / "manifest.json").read_text())
    assert child["model"]["made_by"]["stage"] == "step2_sft"


def test_a_report_figure_edited_by_hand_is_found(run):
    edit(run / "report.json", lambda report: report["stages"][2].update(accuracy=0.9))
    assert any("report.json: stages[2]: accuracy: 0.9 is stated" in e for e in verify_run(run))
    done = run_script("run_pipeline.py", "--verify", run)
    assert done.returncode == 1
    assert "1 mismatches" in done.stderr


def test_an_edited_table_is_found(run):
    file = run / "report.md"
    file.write_text(file.read_text().replace("| 48 |", "| 49 |", 1))
    assert verify_run(run) == ["report.md: not what the completions give"]


def test_an_edited_grade_is_found(run):
    file = run / "step3_GRPO" / "completions.jsonl"
    rows = read_jsonl(file)
    wrong = next(row for row in rows if row["outcome"] != "correct")
    wrong["outcome"] = "correct"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = "\n".join(verify_run(run))
    assert f"{wrong['unique_id']} is recorded as correct" in found
    assert "step3_GRPO: completions.jsonl: changed since the run ended" in found


def test_a_completion_file_cut_short_is_found(run):
    file = run / "step0_baseline" / "completions.jsonl"
    file.write_text(file.read_text().rsplit("\n", 6)[0] + "\n")
    found = "\n".join(verify_run(run))
    assert "step0_baseline: completions.jsonl: not the 48 problems" in found
    file.write_text(file.read_text()[:-20])
    assert any("not valid JSON" in line or "Expecting" in line or "Unterminated" in line
               for line in verify_run(run))  # fmt: skip


def test_a_test_problem_planted_in_the_sft_file_is_found(run, tmp_path):
    """A run that trained on a file of its own; afterwards a test problem stands in that file."""
    rows = tmp_path / "rows.jsonl"
    clean = {"problem": "How much is 2 and 2?", "solution": "$\\boxed{4}$"}
    rows.write_text(json.dumps(clean) + "\n")
    stage = run / "step2_sft"
    config = yaml.safe_load((stage / "config.yaml").read_text())
    config["sft"]["files"] = [{"file": str(rows)}]
    (stage / "config.yaml").write_text(yaml.safe_dump(config))
    loaded = load_config([stage / "config.yaml"])
    problems, prompt = load_problems(loaded), load_prompt(loaded.data.prompt)
    edit(
        stage / "manifest.json",
        lambda manifest: manifest.update(
            data=training_rows(loaded, problems, prompt).provenance(problems)
        ),
    )
    before = verify_run(run)
    assert not any("data" in line for line in before)
    planted = {"problem": problems.test[0].problem, "solution": problems.test[0].solution}
    rows.write_text("\n".join(map(json.dumps, [clean, planted])))
    found = "\n".join(set(verify_run(run)) - set(before))
    assert "data: sft_files_duplicates: contained is missing" in found
    assert f"{rows}: rows: 1 is stated, 2 derived" in found
    # It was not trained on either: the loader leaves it out and says so in the manifest.
    taught = training_rows(loaded, problems, prompt)
    assert [row.id for row in taught.rows] == ["rows.jsonl:1"]
    assert taught.repeats["contained"]["examples"][0]["row"] == "rows.jsonl:2"


def test_data_that_is_no_longer_what_the_stage_split_is_found(run):
    def reseed(manifest):
        manifest["data"]["splits"]["train"]["sha256"] = "0" * 64

    edit(run / "step2_sft" / "manifest.json", reseed)
    assert any("data: splits: train: sha256: 0000" in line for line in verify_run(run))


def test_mixed_yardsticks_are_found(run):
    edit(run / "step2_sft" / "outcome.json", lambda o: o["sampling"].update(temperature=0.0))
    assert any("cannot stand in one table" in line for line in verify_run(run))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("manifest.json", lambda m: m.pop("seed"), "seed is not recorded"),
        ("manifest.json", lambda m: m.update(commit=None), "commit is not recorded"),
        ("outcome.json", lambda o: o["sampling"].pop("seed"), "the sampling seed is not recorded"),
        ("outcome.json", lambda o: o["sampling"].update(seed=3), "is not the manifest's 17"),
    ],
)
def test_what_is_not_recorded_is_found(run, file, change, said):
    edit(run / "step3_GRPO" / file, change)
    assert any(said in line for line in verify_run(run))


def rehashed(checkpoint):
    """Change a checkpoint and its own record of the hash."""
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    sha256 = file_sha256(checkpoint / "model.safetensors")
    edit(
        checkpoint / "checkpoint.json", lambda c: c["sha256"].update({"model.safetensors": sha256})
    )


def newest(run, stage):
    return max((run / stage / "checkpoints").glob("step_*"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda r: rehashed(newest(r, "step3_GRPO")), "model.safetensors: changed since"),
        (lambda r: shutil.rmtree(newest(r, "step3_GRPO")), "model.safetensors: missing after"),
        (lambda r: (newest(r, "step2_sft") / "checkpoint.json").unlink(), "checkpoint.json: missi"),
        (lambda r: (r / "step2_sft" / "manifest.json").write_text("{}"), "seed is not recorded"),
        (lambda r: (r / "step0_baseline" / "outcome.json").write_text("[1]"), "expected a JSON"),
        (lambda r: (r / "step2_sft" / "outcome.json").unlink(), "outcome.json: missing"),
        (lambda r: (r / "step1_sft_hyper" / "files.json").write_text("[]"), "expected a JSON"),
        (lambda r: (r / "step3_GRPO" / "groups.jsonl").write_text(""), "groups.jsonl: changed"),
        (lambda r: (r / "step0_baseline" / "summary.json").write_text("{}"), "summary.json: chang"),
        (lambda r: (r / "report.md").unlink(), "report.md is missing"),
        (lambda r: (r / "report.html").write_text("<p>"), "report.html: changed"),
        (lambda r: (r / "report.json").write_text("3"), "expected a JSON object"),
    ],
)
def test_damage_of_any_kind_is_a_line(run, damage, said):
    damage(run)
    assert any(said in line for line in verify_run(run))


def test_a_folder_without_a_run_is_refused(tmp_path):
    done = run_script("run_pipeline.py", "--verify", tmp_path)
    assert done.returncode == 2
    assert "holds no finished stage" in done.stderr
