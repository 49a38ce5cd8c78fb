"""Checks that need two GPUs: NCCL, a server's weight transfer, trainer and worker at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from src.run.files import read_json, read_jsonl
from tests.gpu.checks import Found, Skipped
from tests.gpu.engine_checks import TINY_BASE, precision
from tests.gpu.stage_checks import (
    ROOT,
    SMALL_GRPO,
    SMALL_SFT,
    STEP2,
    _grpo_found,
    outcome_of,
    rows_of,
    run,
    settings,
)

STEP0 = ("step0_baseline/step0_baseLineModelEval.py", "--config")
STEP0 += ("config/tiny/baseline_config.yaml",)
OUTCOME = "outcome.json"
LAUNCH = ("step3_GRPO/launch_trl.sh",)
TINY_GRPO = ("--config", "config/tiny/grpo_config.yaml")
SERVER_START_S = 150
VLLM = str(Path(sys.executable).with_name("vllm"))


def on_gpus(folder: str) -> list[str]:
    """Return the settings of the full profile's devices, and where results go."""
    return settings(
        [
            *("devices.train=cuda:0", "devices.eval=auto", "wandb.mode=disabled"),
            *(f"run.output_root={folder}", "run.name=check"),
            *precision("cuda:0"),
        ]
    )


def quick_start(device: str) -> Found:
    """The README's commands, with both GPUs visible: steps 2 and 3 of the tiny profile."""
    with TemporaryDirectory() as folder:
        run([sys.executable, *STEP2, *on_gpus(folder), *settings(SMALL_SFT)])
        more = [*on_gpus(folder), *settings(SMALL_GRPO), "--set", "grpo.init=sft"]
        run([*LAUNCH, "1", *TINY_GRPO, *more])
        return _grpo_found(folder)


def split(device: str) -> Found:
    """GRPO with its engine on the second GPU, in step and one step off."""
    said, held = [], True
    for ahead in (False, True):
        with TemporaryDirectory() as folder:
            apart = ("grpo.mode=split", f"grpo.one_step_off={str(ahead).lower()}")
            more = [*on_gpus(folder), *settings([*SMALL_GRPO, *apart])]
            run([*LAUNCH, "1", *TINY_GRPO, *more])
            found = _grpo_found(folder)
        held = held and found.held
        said.append(f"{'one step off' if ahead else 'in step'}: {found.figure}")
    return Found(held, "; ".join(said))


def ddp(device: str) -> Found:
    """GRPO as two replicas over NCCL."""
    with TemporaryDirectory() as folder:
        run([*LAUNCH, "2", *TINY_GRPO, *on_gpus(folder), *settings(SMALL_GRPO)])
        return _grpo_found(folder)


def fsdp2(device: str) -> Found:
    """GRPO in two shards over NCCL; vLLM loads what it saved."""
    with TemporaryDirectory() as folder:
        strategy = ["--strategy", "fsdp2"]
        run([*LAUNCH, "2", *strategy, *TINY_GRPO, *on_gpus(folder), *settings(SMALL_GRPO)])
        found = _grpo_found(folder)
        checkpoint = outcome_of(folder, "step3_GRPO")["checkpoint"]
        evaluate = ["step0_baseline/evaluate_model.py", checkpoint]
        evaluate += ["--config", "config/tiny/baseline_config.yaml", "--set", "data.test_rows=50"]
        run([sys.executable, *evaluate, *on_gpus(folder)])
        return found


def server(device: str) -> Found:
    """Weights reach `vllm serve` on the second GPU over NCCL, and its rollouts agree."""
    from src.run.network import free_port

    port = free_port()
    command = [
        *(VLLM, "serve", str(TINY_BASE), "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", "512", "--gpu-memory-utilization", "0.5"),
        *(
            "--logprobs-mode",
            "processed_logprobs",
            "--weight-transfer-config",
            '{"backend":"nccl"}',
        ),
    ]
    variables = {"CUDA_VISIBLE_DEVICES": "1", "VLLM_SERVER_DEV_MODE": "1"}
    with TemporaryDirectory() as folder, (Path(folder) / "server.log").open("w") as log:
        serving = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **variables}
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", serving)
            mode = ["grpo.mode=server", f"grpo.server_url=http://127.0.0.1:{port}"]
            more = [*on_gpus(folder), *settings(SMALL_GRPO), *settings(mode)]
            run([*LAUNCH, "1", *TINY_GRPO, *more])
            return _grpo_found(folder)
        finally:
            serving.terminate()
            serving.wait(timeout=30)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    started = time.monotonic()
    while time.monotonic() - started < SERVER_START_S:
        if process.poll() is not None:
            raise Skipped(f"vllm serve ended with exit code {process.returncode}")
        try:
            urllib.request.urlopen(address, timeout=2)  # noqa: S310
            return
        except OSError:
            time.sleep(1)
    raise RuntimeError(f"no answer from {address} within {SERVER_START_S} s")


def two_engines(device: str) -> Found:
    """Step 0 on both GPUs and on one: the share of completions that are the same, and the time."""
    found = {}
    with TemporaryDirectory() as folder:
        for devices in ("[cuda:0, cuda:1]", "cuda:0"):
            name = f"on-{devices.count('cuda')}"
            more = [f"devices.eval={devices}", f"run.name={name}", "data.test_rows=1000"]
            run([sys.executable, *STEP0, *on_gpus(folder), *settings(more)])
            stage = Path(folder) / name / "step0_baseline"
            found[devices] = read_jsonl(stage / "completions.jsonl"), read_json(stage / OUTCOME)
    (both, shared), (one, alone) = found.values()
    same = sum(a["completion"] == b["completion"] for a, b in zip(both, one, strict=True))
    spent = [outcome["seconds"]["generate"] for outcome in (shared, alone)]
    # Kernels may round otherwise at another batch size, and a few samples then differ.
    return Found(
        same > 0.9 * len(one),
        f"{same} of {len(one)} completions as one engine's; {spent[0]:.1f} s for {spent[1]:.1f}",
    )


def both_busy(device: str) -> Found:
    """Step 2 trains on one GPU while the worker evaluates on the other."""
    from src.report.counts import busy_seconds

    with TemporaryDirectory() as folder:
        longer = ["data.train_rows=1024", "train.evaluate_every=8", "train.patience=20"]
        run([sys.executable, *STEP2, *on_gpus(folder), *settings([*SMALL_SFT, *longer])])
        rows = rows_of(folder, "step2_sft")
    trainer, engine, wall = busy_seconds(rows)
    return Found(
        engine / wall > 0.2 and trainer / wall > 0.5,
        f"{wall:.0f} s from the first step on: trainer busy {trainer / wall:.0%}, engine "
        f"{engine / wall:.0%}",
    )
