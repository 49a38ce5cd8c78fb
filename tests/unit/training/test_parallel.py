"""One process, two replicas and two shards take the same steps."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(count, kind, folder):
    folder.mkdir()
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count),
            "--master_addr", "127.0.0.1", "--master_port", str(free_port()),
            "-m", "tests.unit.training.parallel_training", kind, folder,
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "seen.json").read_text())


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_two_processes_give_the_losses_and_weights_of_one(tmp_path, kind):
    alone = run_processes(1, "replicated", tmp_path / "one")
    together = run_processes(2, kind, tmp_path / "two")
    assert together["held"] == {"replicated": "Parameter", "sharded": "DTensor"}[kind]
    assert len(alone["losses"]) == 3
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    ours, theirs = (
        load_file(tmp_path / name / "step_000003" / "model.safetensors") for name in ("one", "two")
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert (ours[name].float() - theirs[name].float()).abs().max() < 1e-2, name
    # Sharding renames the class of the model, which must not reach its files.
    final = tmp_path / "two" / "step_000003"
    assert json.loads((final / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    loaded = AutoModelForCausalLM.from_pretrained(final)
    assert type(loaded).__name__ == "Qwen2ForCausalLM"
