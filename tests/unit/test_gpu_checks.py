"""The GPU's acceptance checks, as far as a machine without one can tell that they would run."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from src.run.files import write_json_atomic, write_jsonl_atomic
from tests.gpu import stage_checks
from tests.gpu.__main__ import run_within
from tests.gpu.torch_checks import missing_for_kernels

ROOT = Path(__file__).resolve().parents[2]
STAGE_CHECKS = ("step2_tiny", "step3_tiny", "adapters", "asleep", "fsdp2_one_process")
ON_A_CPU = {
    "train.adapter=qlora": "train.adapter=lora",
    "grpo.adapter=qlora": "grpo.adapter=lora",
    "engine.sleep=on": "engine.sleep=auto",
}
# What a bare machine with torch and transformers has not.
ABSENT = ("pydantic", "vllm", "trl", "peft", "bitsandbytes", "wandb", "optuna", "datasets")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def as_if_it_ran(command: list[str]) -> None:
    """Leave the files that a stage would have left."""
    given = dict(item.split("=", 1) for item in command if "=" in item)  # the last one counts
    stage = next(Path(part).parent.name for part in command if part.endswith(".py"))
    folder = Path(given["run.output_root"]) / given["run.name"] / stage
    folder.mkdir(parents=True, exist_ok=True)
    parts = dict.fromkeys(("generate", "train", "sync", "step"), 1.0)
    row = {
        **{"train/loss": 1.0, "grpo/importance_ratio": 1.0, "grpo/logprob_gap": 0.0},
        **{f"system/{part}_s": seconds for part, seconds in parts.items()},
        "system/memory_gib": 1.0,
    }
    write_jsonl_atomic(folder / "metrics.jsonl", [row])
    checkpoint = {"architectures": ["Qwen2ForCausalLM"]}
    write_json_atomic(folder / "config.json", checkpoint)
    outcome = {"accuracy": 0.0, "n": 100, "checkpoint": str(folder)}
    write_json_atomic(folder / "outcome.json", outcome)


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    """What the checks would run, with the CPU in the GPU's place."""
    found: list[list[str]] = []

    def record(command: list[str]) -> str:
        found.append(command)
        as_if_it_ran(command)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda _: None)
        patch.setattr(stage_checks, "run", record)
        for name in STAGE_CHECKS:
            getattr(stage_checks, name)("cpu")
    return found


def test_stages_take_the_commands_of_their_checks(commands: list[list[str]]):
    assert len(commands) == 9

    def plan(command: list[str]) -> subprocess.CompletedProcess[str]:
        script = next(place for place, part in enumerate(command) if part.endswith(".py"))
        # A CPU has neither 4 bits nor engines that sleep, and says so.
        return run_python(*(ON_A_CPU.get(part, part) for part in command[script:]), "--dry-run")

    with ThreadPoolExecutor(2) as pool:
        for command, done in zip(commands, pool.map(plan, commands), strict=True):
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "module", ["tests.gpu.torch_checks", "tests.benchmarks.gpu_sft", "tests.gpu.__main__"]
)
def test_checks_of_torch_alone_need_nothing_else(module: str):
    code = f"""
import builtins, sys
real = builtins.__import__
def absent(name, globals=None, locals=None, fromlist=(), level=0):
    asks = (globals or {{}}).get("__name__", "").split(".")[0]
    if name.split(".")[0] in {ABSENT} and asks in ("src", "tests", "utils"):
        raise ModuleNotFoundError(name)
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = absent
import {module} as module
from src.training import attention, batching, losses, optimization, throughput
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_check_that_is_cut_off_says_how_far_it_came_and_leaves_nothing_running(tmp_path: Path):
    left = tmp_path / "left"
    code = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(4); open({str(left)!r}, 'w')"])
print("half way", flush=True)
time.sleep(60)
"""
    said = run_within([sys.executable, "-c", code], 2)
    assert said == "half way\n\nno answer within 2 s"
    time.sleep(3)
    assert not left.exists()


def test_the_client_of_an_engine_takes_hold_of_no_gpu():
    """Importing bitsandbytes initialises CUDA, and peft imports it."""
    code = """
import sys
import src.eval_worker, src.training_worker, src.training.policy, src.stages.scoring
held = {"bitsandbytes", "peft", "vllm", "trl"} & set(sys.modules)
assert not held, held
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None if name == "gcc" else f"/bin/{name}")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(ROOT)})
    assert missing_for_kernels() == [f"{ROOT}/Python.h (apt install python3-dev)"]
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert missing_for_kernels()[0] == "a C compiler (apt install gcc)"
