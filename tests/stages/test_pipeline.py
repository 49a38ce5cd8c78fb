"""All four stages through the real vLLM, TRL, Optuna and W&B (offline), once, much reduced."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from src.report.report import write_report
from src.report.verification import verify_benchmarks
from src.run.files import read_jsonl
from tests.conftest import TINY_BASE, run_script

pytestmark = pytest.mark.engine
STAGES = ("step0_baseline", "step1_sft_hyper", "step2_sft", "step3_GRPO")


def test_the_report_has_its_schema(pipeline_run):
    report = json.loads((pipeline_run.folder / "report.json").read_text())
    assert report["profile"] == "tiny"
    assert report["test_set"]["n"] == 48
    assert [entry["stage"] for entry in report["stages"]] == list(STAGES)
    for entry in report["stages"]:
        if entry["stage"] == "step1_sft_hyper":
            assert entry["trials"] == 4
            assert {"pruned", "best", "difference", "busy", "wall_s"} <= set(entry)
            assert "accuracy" not in entry
            continue
        outcomes = entry["outcomes"]
        assert set(outcomes) == {"correct", "wrong_answer", "format_failure", "unscorable"}
        assert sum(outcomes.values()) == entry["n"] == 48
        assert entry["accuracy"] == outcomes["correct"] / 48
        low, high = entry["accuracy_ci95"]
        assert low <= entry["accuracy"] <= high
    assert (pipeline_run.folder / "report.md").is_file()
    assert (pipeline_run.folder / "report.png").stat().st_size > 10_000


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_explains_itself(pipeline_run, stage):
    folder = pipeline_run.folder / stage
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"commit", "dirty", "packages", "hardware", "seed", "command"} <= set(manifest)
    assert (folder / "config.yaml").is_file()
    assert (folder / "run.log").stat().st_size > 0
    assert list(folder.glob("wandb/offline-run-*")), "W&B kept no offline run"


def test_completions_are_all_written_and_add_up(pipeline_run):
    for stage in ("step0_baseline", "step2_sft", "step3_GRPO"):
        lines = (pipeline_run.folder / stage / "completions.jsonl").read_text().split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
        assert len({row["unique_id"] for row in rows}) == 48
        correct = sum(row["outcome"] == "correct" for row in rows)
        assert correct == pipeline_run.outcome(stage)["outcomes"]["correct"]


def test_step_0_asks_in_other_ways_too(pipeline_run):
    """The tiny base writes boxed solutions, so the bare question shows what the tags hide."""
    outcome = pipeline_run.outcome("step0_baseline")
    variants = outcome["variants"]
    assert variants.keys() == {"question_only", "qwen_boxed", "few_shot"}
    assert variants["question_only"]["prompt_sha256"] != outcome["prompt_sha256"]
    for name, figures in variants.items():
        file = pipeline_run.folder / "step0_baseline" / f"completions-{name}.jsonl"
        rows = read_jsonl(file)
        assert len(rows) == figures["n"] == 48
        assert {row["form"] for row in rows} == {"tags" if name == "few_shot" else "boxed"}
        assert figures["outcomes"]["correct"] <= sum(row["found"] for row in rows)
    assert "few_shot" in (pipeline_run.folder / "report.md").read_text()


def test_a_model_is_evaluated_compared_and_graded_again(pipeline_run, tmp_path):
    """`--compare` of a checkpoint evaluates it first, to the figures that step 2 reported."""
    script = "step0_baseline/evaluate_model.py"
    step2, step3 = (pipeline_run.outcome(stage) for stage in ("step2_sft", "step3_GRPO"))
    config = pipeline_run.folder / "step0_baseline" / "config.yaml"
    settings = ["--config", config, "--set", f"run.output_root={tmp_path}"]
    settings += ["--set", "evaluation.prompts=[]", "--set", "evaluation.greedy=true"]
    done = run_script(
        script, "--compare", step2["checkpoint"], pipeline_run.folder / "step3_GRPO", *settings
    )
    assert done.returncode == 0, done.stderr
    evaluated = json.loads(next(tmp_path.rglob("evaluations/*/outcome.json")).read_text())
    assert evaluated["outcomes"] == step2["outcomes"]
    assert evaluated["variants"]["greedy"]["sampling"]["temperature"] == 0
    found = json.loads(next(tmp_path.rglob("comparisons/*.json")).read_text())
    correct = [outcome["outcomes"]["correct"] for outcome in (step2, step3)]
    assert found["won"] - found["lost"] == correct[1] - correct[0]
    completions = pipeline_run.folder / "step3_GRPO" / "completions.jsonl"
    done = run_script(script, "--regrade", completions)
    assert done.returncode == 0, done.stderr
    assert "0 completions are graded otherwise" in done.stdout


def test_a_model_is_run_on_a_benchmark_of_ones_own_file(tmp_path):
    """Two problems in GSM8K's published shape, two completions each; verified like a stage."""
    file = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"What is {n}+1?", "answer": f"so\n#### {n + 1}"} for n in (1, 2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run_script(
        "step0_baseline/evaluate_model.py", TINY_BASE, "--benchmarks", "gsm8k",
        *("--config", "config/tiny/baseline_config.yaml"),
        *("--set", f"run.output_root={tmp_path}", "--set", "wandb.mode=disabled"),
        *("--set", f"evaluation.benchmark_files.gsm8k={file}"),
        *("--set", "evaluation.benchmark_settings.gsm8k={samples: 2, temperature: 1.0}"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 of 1319" in done.stdout
    (outcome,) = tmp_path.rglob("benchmarks/*/outcome.json")
    found = json.loads(outcome.read_text())["benchmarks"]["gsm8k"]
    assert (found["n"], found["samples_per_problem"], found["prompt"]) == (2, 2, "boxed")
    assert found["sampling"]["max_completion_tokens"] == 384  # three quarters of the context
    rows = read_jsonl(outcome.with_name("completions-gsm8k.jsonl"))
    assert [row["reference"] for row in rows] == ["2", "2", "3", "3"]
    assert list(verify_benchmarks(outcome.parent, json.loads(outcome.read_text()))) == []


def test_search_prunes_and_hands_its_best_to_sft(pipeline_run):
    outcome = pipeline_run.outcome("step1_sft_hyper")
    folder = pipeline_run.folder / "step1_sft_hyper"
    assert {"best.yaml", "trials.csv", "rescored.csv", "study.png", "study.journal"} <= {
        file.name for file in folder.iterdir()
    }
    assert not list(folder.glob("trials/*/*step_*"))
    rows = pipeline_run.metrics("step1_sft_hyper")
    assert {row["trial"] for row in rows} == {0, 1, 2, 3}
    assert {row["step"] for row in rows if "trial/value" in row} <= {64, 128}
    assert {row["step"] % 16 for row in rows if "train/loss" in row} == {0}
    config = (pipeline_run.folder / "step2_sft" / "config.yaml").read_text()
    assert f"batch_size: {outcome['best']['params']['train.batch_size']}" in config


def test_search_scores_its_best_trials_again_on_all_of_validation(pipeline_run):
    outcome = pipeline_run.outcome("step1_sft_hyper")
    assert {entry["n"] for entry in outcome["rescored"]} == {32}
    accuracies = [entry["accuracy"] for entry in outcome["rescored"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert outcome["best"]["number"] == outcome["rescored"][0]["number"]
    for entry in outcome["rescored"]:
        low, high = entry["accuracy_ci95"]
        assert low <= entry["accuracy"] <= high
        assert entry["nll"] > 0
    assert all(0 < share <= 1 for share in outcome["busy"].values())


def test_sft_changed_every_matrix_and_verified_every_swap(pipeline_run):
    outcome = pipeline_run.outcome("step2_sft")
    base, tuned = (
        load_file(TINY_BASE / "model.safetensors"),
        load_file(f"{outcome['checkpoint']}/model.safetensors"),
    )
    assert base.keys() == tuned.keys()
    for name in base:
        if base[name].ndim == 2:
            assert not base[name].equal(tuned[name]), name
    gaps = [row["validation/probe_gap"] for row in pipeline_run.metrics("step2_sft")
            if "validation/probe_gap" in row]  # fmt: skip
    assert gaps
    assert max(gaps) < 0.05


def test_grpo_logs_true_truncation_and_agreeing_engines(pipeline_run):
    rows = [row for row in pipeline_run.metrics("step3_GRPO") if "grpo/reward" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["grpo/importance_ratio"] == pytest.approx(1.0, abs=0.05)
        assert row["grpo/logprob_gap"] < 0.02
    lines = (pipeline_run.folder / "step3_GRPO" / "groups.jsonl").read_text().split("\n")[:-1]
    groups = [json.loads(line) for line in lines]
    assert len(groups) == 3 * 4
    for step in (1, 2, 3):
        group = [row for row in groups if row["step"] == step]
        assert len({row["prompt"] for row in group}) == 1
        assert abs(sum(row["advantage"] for row in group)) < 1e-3
    # Nearly every completion ends at </answer>, far below the token limit, so none was cut.
    ended = sum(row["completion"].rstrip().endswith("</answer>") for row in groups) / len(groups)
    assert rows[0]["grpo/truncated_rate"] <= 1 - ended + 0.5


def test_a_finished_pipeline_is_not_run_again(pipeline_run):
    before = (pipeline_run.folder / "step2_sft" / "outcome.json").stat().st_mtime_ns
    done = run_script(*pipeline_run.command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(f"{stage}: already finished" in done.stderr for stage in STAGES)
    assert (pipeline_run.folder / "step2_sft" / "outcome.json").stat().st_mtime_ns == before


def test_a_question_is_put_to_the_trained_model(pipeline_run, tmp_path, capsys):
    from src.viewing import ask

    question = ["Compute $12+30-5$.", "--answer", "37", "--samples", "2"]
    assert ask.stage_with_model(pipeline_run.folder) == pipeline_run.folder / "step3_GRPO"
    assert ask.main([str(pipeline_run.folder), *question]) == 0
    said = capsys.readouterr()
    assert said.out.count("--> ") == 2
    assert said.err.startswith("step3_GRPO of ")
    assert ask.main([str(pipeline_run.folder / "step1_sft_hyper"), *question]) == 2
    assert ask.main([str(tmp_path), *question]) == 2
    assert "make quickstart" in capsys.readouterr().err


def test_grpo_resumes_where_it_was(pipeline_run, tmp_path):
    """Take the outcome away and ask for more steps: training goes on from the last checkpoint."""
    root = tmp_path / "copy"
    shutil.copytree(pipeline_run.folder, root / "small", ignore=shutil.ignore_patterns("wandb"))
    stage = root / "small" / "step3_GRPO"
    (stage / "outcome.json").unlink()
    config = (stage / "config.yaml").read_text()
    config = config.replace(str(pipeline_run.folder.parent), str(root)).replace(
        "\n  steps: 3", "\n  steps: 4"
    )
    (stage / "config.yaml").write_text(config)
    done = run_script_launcher(stage / "config.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (stage / "metrics.jsonl").read_text().split("\n")[:-1]
    steps = [row["step"] for row in map(json.loads, lines) if "grpo/reward" in row]
    assert steps == [1, 2, 3, 4]
    wandb_id = (stage / "wandb-small-step3_GRPO.id").read_text()
    assert list(stage.glob(f"wandb/offline-run-*-{wandb_id}")), "not the same W&B run"


def run_script_launcher(config):
    return run_script("-c", (
        "import subprocess, sys; sys.exit(subprocess.run(["
        f"'step3_GRPO/launch_trl.sh', '1', '--config', '{config}', '--resume']).returncode)"
    ))  # fmt: skip


def test_the_final_checkpoint_loads_plainly(pipeline_run):
    folder = pipeline_run.outcome("step3_GRPO")["checkpoint"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1_000_000


def test_stages_on_different_yardsticks_are_not_put_in_one_table(pipeline_run, tmp_path):
    root = tmp_path / "mixed"
    shutil.copytree(pipeline_run.folder, root, ignore=shutil.ignore_patterns("wandb"))
    file = root / "step2_sft" / "outcome.json"
    outcome = json.loads(file.read_text())
    outcome["sampling"]["temperature"] = 0.0
    file.write_text(json.dumps(outcome))
    with pytest.raises(ValueError, match="sampling"):
        write_report(root)
