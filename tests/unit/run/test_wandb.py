"""W&B offline and out of reach: nothing is lost, nothing stops."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

SCRIPT = """
import sys
from pathlib import Path
from src.config.loading import with_values
from src.config.schema import Config
from src.run.metrics import open_metric_log
from src.run.directory import Run
from src.run import wandb_sink

config = with_values(Config(), {
    "run.output_root": sys.argv[1], "wandb.mode": sys.argv[2], "wandb.checkpoints": True,
})
wandb_sink._REACHED_WITHIN_S = 5
run = Run("step2_sft", config)
run.folder.mkdir(parents=True)
model = Path(sys.argv[1]) / "model"
model.mkdir()
(model / "config.json").write_text("{}")
with open_metric_log(run) as metrics:
    metrics.log({"train/loss": 2.0, "system/memory_gib": 1.0}, step=3)
    metrics.samples([{"problem": "1+1?", "completion": "2"}], step=3)
    metrics.checkpoint(model)
    metrics.summarise(**{"test/accuracy": 0.5})
if config.wandb.mode == "offline":
    Run("evaluations/a_model", config).folder.mkdir(parents=True)
    with open_metric_log(Run("evaluations/a_model", config), name="evaluations/a_model-test"):
        pass
    (run.pipeline_folder / "report.html").write_text("<p>5</p>")
    report = {"stages": [{"stage": "step2_sft", "accuracy": 0.5}]}
    wandb_sink.log_report(config, run.pipeline_folder, report)
print("ended")
"""


def run(folder, mode, **environment):
    settings = [f"{name}={value}" for name, value in environment.items()]
    command = ["env", *settings, sys.executable, "-c", SCRIPT, str(folder), mode]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_all_is_kept_offline(tmp_path):
    done = run(tmp_path, "offline")
    assert "ended" in done.stdout, done.stderr
    assert list(tmp_path.glob("full/step2_sft/wandb/offline-run-*/*.wandb"))
    assert list(tmp_path.glob("full/wandb/offline-run-*/*.wandb"))
    assert list(tmp_path.glob("full/evaluations/a_model/wandb/offline-run-*/*.wandb"))
    assert (tmp_path / "full/step2_sft/metrics.jsonl").read_text().count("train/loss") == 1


def test_a_server_out_of_reach_stops_nothing(tmp_path):
    """Nothing listens on port 9; the run goes on offline and says so."""
    address = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    done = run(tmp_path, "online", **address)
    assert "ended" in done.stdout, done.stderr
    assert "going on offline" in done.stderr
    assert list(tmp_path.glob("full/step2_sft/wandb/offline-run-*/*.wandb"))
