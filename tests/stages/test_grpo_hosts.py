"""GRPO on two hosts, made as network namespaces: what one process does, also after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.run.files import read_jsonl
from tests.conftest import ROOT

STEPS, SAVED, KILLED_AFTER = 6, 2, 3
HOSTS = {"grpo-a": "10.77.41.1", "grpo-b": "10.77.41.2"}
SETTINGS = {
    "grpo.init": "base",
    "grpo.recipe": "grpo",
    "grpo.steps": STEPS,
    "grpo.warmup_steps": 0,
    "grpo.prompts_per_step": 4,
    "grpo.micro_batch_size": 8,
    "grpo.evaluate_every": STEPS,
    "grpo.validation_rows": 16,
    "grpo.save_every": SAVED,
    "data.train_rows": 64,
    "data.validation_rows": 16,
    "data.test_rows": 16,
    # In bfloat16 a last bit can change a sampled token, and all that follows.
    "engine.dtype": "float32",
    "train.compute_dtype": "float32",
}


def command(output: Path, *options: str) -> list[str]:
    settings = {**SETTINGS, "run.output_root": output, "run.name": "hosts"}
    return [
        str(ROOT / "step3_GRPO" / "launch_trl.sh"), "1", *options,
        "--config", "config/tiny/grpo_config.yaml",
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    ]  # fmt: skip


def figures(output: Path) -> dict[int, dict]:
    file = output / "hosts" / "step3_GRPO" / "metrics.jsonl"
    if not file.exists():
        return {}
    rows = read_jsonl(file)
    return {row["step"]: row for row in rows if "train/loss" in row}


def ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def hosts() -> Iterator[None]:
    """Two network namespaces joined by a cable."""
    if os.geteuid() or not shutil.which("ip") or not ip("netns", "add", "grpo-a"):
        pytest.skip("network namespaces need root and iproute2")
    try:
        ip("netns", "add", "grpo-b")
        ip("link", "add", "grpo-va", "type", "veth", "peer", "name", "grpo-vb")
        for name, address in HOSTS.items():
            cable = name.replace("-", "-v")
            inside = ("netns", "exec", name, "ip")
            assert ip("link", "set", cable, "netns", name)
            assert ip(*inside, "addr", "add", f"{address}/24", "dev", cable)
            assert ip(*inside, "link", "set", "lo", "up")
            assert ip(*inside, "link", "set", cable, "up")
        yield
    finally:
        for name in HOSTS:
            ip("netns", "del", name)


def on_both_hosts(output: Path, *more: str) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [
                "ip", "netns", "exec", name, "env", "OMP_NUM_THREADS=1",
                *command(output, "--nodes", "2", "--node-rank", str(rank),
                         "--main", f"{HOSTS['grpo-a']}:29541", *more),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, name in enumerate(HOSTS)
    ]  # fmt: skip


def processes_of(host: str) -> list[str]:
    done = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.usefixtures("hosts")
def test_two_hosts_one_killed_and_resumed_train_as_one_process_does(tmp_path):
    first, second = on_both_hosts(tmp_path / "two")
    deadline = time.monotonic() + 240
    while KILLED_AFTER not in figures(tmp_path / "two"):
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()[0][-3000:]
        time.sleep(0.2)
    subprocess.run(["kill", "-9", *processes_of("grpo-b")], check=False)
    said, _ = first.communicate(timeout=60)
    second.communicate(timeout=60)
    assert first.returncode != 0
    assert "--resume" in said.splitlines()[-1]
    assert not processes_of("grpo-a")

    resumed = on_both_hosts(tmp_path / "two", "--resume")
    for process in resumed:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said[-3000:]

    alone = subprocess.run(
        command(tmp_path / "one"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr[-3000:]
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert sorted(one) == sorted(two) == list(range(1, STEPS + 1))
    for step in one:
        assert two[step]["grpo/reward"] == pytest.approx(one[step]["grpo/reward"])
        assert two[step]["grpo/completion_tokens"] == one[step]["grpo/completion_tokens"]
        # On-policy the loss itself is zero but for rounding; its gradient is what moves weights.
        for name in ("train/grad_norm", "grpo/entropy"):
            assert two[step][name] == pytest.approx(one[step][name], rel=1e-4)
        assert two[step]["train/loss"] == pytest.approx(one[step]["train/loss"], abs=1e-6)
