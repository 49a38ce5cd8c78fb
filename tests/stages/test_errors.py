"""Bad input: one clear paragraph, exit code 2, no traceback, nothing written or overwritten."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.conftest import ROOT, TINY_BASE, run_script

STEPS = {
    "step0_baseline": ("step0_baseLineModelEval.py", "baseline_config.yaml"),
    "step1_sft_hyper": ("step1_sft_hyper.py", "sft_hyper_config.yaml"),
    "step2_sft": ("step2_sft.py", "sft_config.yaml"),
    "step3_GRPO": ("train_trl.py", "grpo_config.yaml"),
}


def run_step(stage, *arguments, profile="config/tiny"):
    """Run a step from its own folder, as its README says."""
    script, config = STEPS[stage]
    return run_script(script, "--config", f"{profile}/{config}", *arguments, cwd=ROOT / stage)


@pytest.fixture
def broken_model(tmp_path):
    shutil.copytree(TINY_BASE, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return tmp_path / "broken"


def rows_file(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("stage", STEPS)
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("train.micro_batchsize=4", "did you mean 'train.micro_batch_size'"),
        ("train.learning_rate=fast", "'fast'"),
        ("devices.train=cuda:7", "is not there"),
        ("devices.train=gpu", "is not a device"),
    ],
)
def test_configuration_errors(stage, setting, says, tmp_path):
    done = run_step(stage, "--set", setting, "--set", f"run.output_root={tmp_path}")
    assert_refused(done, says, tmp_path)


def test_data_prompt_and_model_errors(tmp_path, broken_model):
    good = [{"problem": f"{i}?", "solution": rf"\boxed{{{i}}}"} for i in range(200)]
    train = rows_file(tmp_path / "train.jsonl", good)
    test = rows_file(tmp_path / "test.jsonl", [{**row, "problem": "t" + row["problem"]}
                                               for row in good])  # fmt: skip
    bad = rows_file(tmp_path / "bad.jsonl", [*good[:4], {"solution": "x"}])
    empty = rows_file(tmp_path / "empty.jsonl", [])
    no_slot = tmp_path / "no_slot.prompt"
    no_slot.write_text("Solve it: <think>")
    files = ["data.source=files", "data.validation_rows=10", "train.validation_rows=10",
             "search.validation_rows=10", "grpo.validation_rows=10"]  # fmt: skip
    cases = [
        (["data.source=files"], "data.train_file"),
        ([*files, "data.train_file=absent.jsonl", f"data.test_file={test}"], "no such data file"),
        ([*files, f"data.train_file={bad}", f"data.test_file={test}"], "bad.jsonl:5"),
        ([*files, f"data.train_file={empty}", f"data.test_file={test}"], "empty.jsonl: no rows"),
        ([f"data.prompt={no_slot}"], "{question}"),
        (["data.prompt=prompts/absent.prompt"], "no such file"),
        ([f"model.path={tmp_path}/absent"], "no such folder"),
        ([f"model.path={broken_model}"], "damaged or cut short"),
    ]
    results = tmp_path / "results"
    assert train.is_file()

    def tried(settings):
        arguments = [part for value in settings for part in ("--set", value)]
        return run_step("step0_baseline", *arguments, "--set", f"run.output_root={results}")

    with ThreadPoolExecutor(2) as pool:
        for done, (_, says) in zip(pool.map(tried, [c[0] for c in cases]), cases, strict=True):
            assert_refused(done, says, results)


def test_grpo_needs_step_2(tmp_path):
    done = run_step("step3_GRPO", "--set", f"run.output_root={tmp_path}")
    assert_refused(done, "step 2 has not finished", tmp_path)


@pytest.mark.parametrize("stage", STEPS)
@pytest.mark.parametrize("profile", ["config", "config/tiny", "config/smollm2", "config/cs336"])
def test_dry_run_prints_the_plan(stage, profile, tmp_path):
    done = run_step(stage, "--dry-run", "--set", f"run.output_root={tmp_path}", profile=profile)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plan of ")
    assert f"plan of {stage}" in done.stdout
    assert "GiB" in done.stdout
    assert not list(tmp_path.iterdir())


def test_dry_run_prints_all_settings_where_asked(tmp_path):
    place = ("--set", f"run.output_root={tmp_path}")
    done = run_step("step2_sft", "--dry-run", "-v", *place)
    settings, _, _ = done.stdout.partition("plan of ")
    assert yaml.safe_load(settings)["run"]["output_root"] == str(tmp_path)


def test_a_python_without_the_project_is_told_what_to_enter():
    command = [sys.executable, "-E", "-S", "run_pipeline.py", "--profile", "tiny", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "source .venv/bin/activate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", STEPS)
def test_help_and_config_errors_answer_at_once(stage):
    """Less than a second of CPU: neither torch nor vLLM is imported."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run_step(stage, "--help").returncode == 0
    assert run_step(stage, "--dry-run", "--set", "train.steps=1").returncode == 2
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 2.0


def assert_refused(done, says, folder):
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists() or not any(folder.iterdir())
