"""The process that runs reward functions of the user's: loads their files, calls, checks values.

Whatever goes wrong in here travels to the trainer as words. Nothing in here loads torch.
"""

from __future__ import annotations

import importlib.util
import math
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from src.evaluation.worker_process import Mailbox
from src.rewards.batch import RewardBatch
from src.run.stopping import end_with_parent

# Characters of an exception's text, or of a value, that are told.
_LONGEST_TOLD = 200


@dataclass(frozen=True, slots=True)
class RewardCall:
    """A call of one function, by its place among those the process was started with."""

    function: int
    batch: RewardBatch


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there are no values, as the predicate of a sentence about the function."""

    told: str
    place: int | None = None
    """Row that is to blame, where that is known."""
    trace: str = ""
    whole: bool = False
    """No row is to blame."""


def serve(functions: Sequence[tuple[Path, str]], mailbox: Mailbox) -> None:
    """Load the functions, say so, and answer calls until the trainer is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    loaded: list[Callable[..., Any]] = []
    fault = None
    for file, name in functions:
        found = load_function(file, name)
        if isinstance(found, Fault):
            fault = found
            break
        loaded.append(found)
    mailbox.send(fault)
    while True:
        try:
            call = mailbox.take()
        except EOFError:
            return
        mailbox.send(called(loaded[call.function], call.batch, functions[call.function][0]))


def load_function(file: Path, name: str) -> Callable[..., Any] | Fault:
    """Run a file, whose folder it may import from, and return its function."""
    sys.path.insert(0, str(file.parent))  # noqa: TID251 - as `python file.py` does
    try:
        function = getattr(_module(file), name)
    except Exception as error:  # noqa: BLE001 - the process's boundary: failures become answers
        said, trace = _told(error, file), traceback.format_exc()
        return Fault(f"cannot be loaded: {said}", trace=trace, whole=True)
    if not callable(function):
        return Fault(f"is a {type(function).__name__}, expected a function", whole=True)
    return function


def called(function: Callable[..., Any], batch: RewardBatch, file: Path) -> list[float] | Fault:
    """Call a function and return its values as floats."""
    try:
        returned = function(*batch.arguments())
    except Exception as error:  # noqa: BLE001 - the process's boundary: failures become answers
        return Fault(f"failed: {_told(error, file)}", trace=traceback.format_exc())
    return checked_values(returned, batch)


def checked_values(returned: Any, batch: RewardBatch) -> list[float] | Fault:
    """Return what a function returned as floats, or why it cannot be."""
    values = returned.tolist() if hasattr(returned, "tolist") else returned
    if not isinstance(values, list | tuple):
        expected = f"expected a list of {len(batch)} numbers"
        return Fault(f"returned {_shown(returned)}, {expected}", whole=True)
    if len(values) != len(batch):
        return Fault(
            f"returned {len(values)} values for {len(batch)} completions, expected one for each",
            whole=True,
        )
    for place, value in enumerate(values):
        if not isinstance(value, Real):
            return Fault(f"returned {_shown(value)}, expected a number,", place)
        if not math.isfinite(value):
            return Fault(f"returned {float(value)}, expected a finite number,", place)
    return [float(value) for value in values]


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses and pickle look there
    spec.loader.exec_module(module)
    return module


def _told(error: Exception, file: Path) -> str:
    """Say an exception in one line, with the line of the user's file it came through."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(file)
    ]
    where = f" (line {lines[-1]})" if lines else ""
    text = " ".join(str(error).split())[:_LONGEST_TOLD]
    return f"{type(error).__name__}{f': {text}' if text else ''}{where}"


def _shown(value: Any) -> str:
    return f"{repr(value)[:_LONGEST_TOLD]} ({type(value).__name__})"
