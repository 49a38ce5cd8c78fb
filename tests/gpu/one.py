"""Run one check and write what it found: `python -m tests.gpu.one NAME DEVICE FILE`."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.gpu.checks import CHECKS, Skipped


def main(name: str, device: str, file: Path) -> None:
    """Write `{held, figure}` or `{skipped}` as JSON."""
    check = next(check for check in CHECKS if check.name == name)
    try:
        module = importlib.import_module(f"tests.gpu.{check.module}")
        found = asdict(getattr(module, check.function)(device))
    except Skipped as reason:
        found = {"skipped": str(reason)}
    except ModuleNotFoundError as error:
        found = {"skipped": f"needs the package {error.name}"}
    file.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
