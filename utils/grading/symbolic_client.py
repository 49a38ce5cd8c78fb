"""Ask a symbolic child process whether two expressions are equal, within a deadline.

A child is started lazily and killed when it overruns. Safe from any thread (one lock) and after a
fork (the forked process makes its own child and leaves its parent's alone). It is started by
`subprocess` with a command of its own, so the caller's `__main__` is never imported again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple, cast

from utils.grading.tally import TALLY

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
MAX_CHARACTERS = 200
# The LaTeX parser takes seconds for a long product of functions.
MAX_FUNCTIONS = 8
_REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
# env(1) sets what differs from our own environment: one thread, and no GPU to see.
_COMMAND = (
    "/usr/bin/env",
    "CUDA_VISIBLE_DEVICES=",
    "OMP_NUM_THREADS=1",
    "OPENBLAS_NUM_THREADS=1",
    "MKL_NUM_THREADS=1",
    sys.executable,
    "-m",
    "utils.grading.symbolic_child",
)

_LONG_EXPONENT = re.compile(r"\^\s*[{(]*\s*[+-]?\d{5,}")
_NUMERIC_TOWER = re.compile(r"\^\s*(?:\{[^{}A-Za-z]*\^|[\d.]+\s*\^|\([^()A-Za-z]*\^)")
_TOWER = re.compile(r"\^\s*\{[^{}]*\^\s*\{[^{}]*\^")
_LARGE_FACTORIAL = re.compile(
    r"\d{3,}\s*!|[!)}\]]\s*!|\\Gamma|\\binom(?!(?:\{[a-z+-]{0,3}\d{0,2}[a-z+-]{0,3}\}){2})"
)
_SIGN_RUN = re.compile(r"(?:[-+]\s*){3}|\|\s*\|\s*\|")
# Evaluating these may take any time; they are left to a patient comparison.
_CALCULUS = re.compile(r"\\(?:i*int|oint|sum|prod|lim|frac\s*\{\s*d\s*\})")
_FUNCTION = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp)")
_STRUCTURE = re.compile(r"[,;:&=<>≤≥≠∈≈∪⦃⦄¤%…]|\\begin|\\text|\\cross|(?<!\\sqrt)\[")
# What the LaTeX grammar would read differently: digits apart, `x2`, a stray degree sign; or leave
# out: a prime, dots, the index of what is no letter (`101_2`) or of a function, its power of 0, and
# transposition.
_MISREAD = re.compile(
    r"(?<![_\d^])\d+\s+[\d.]|(?<![_^\dA-Za-z])(?<!\\frac )\d+\{\s*\d"
    r"|(?:^|[^\\A-Za-z])[A-Za-z]{1,3}\d|(?:^|[^\d})\s])\s*°|°\s*\d"
    r"|'|\\[lcdv]?dots|(?:^|[^A-Za-z\s])\s*_|\^\s*\{?\s*T(?![A-Za-z])"
    r"|\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|ln|exp)\s*(?:_|\^\s*\{?\s*0)"
)
_FOREIGN = re.compile(r"[^\x20-\x7eπ∞°]|[\"`#@~?$]|\.(?!\d)")
# Sums with ∞, a literal division by zero, 0^0, the factorial of a decimal: nothing to compare.
# The degree sign after a bracket would be dropped, and so would be its meaning in a function.
_ANGLE_IN_BRACKETS = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc).*[)}]\s*°")
_UNDEFINED = re.compile(
    r"∞\s*[-+*/^]|[*/]\s*∞|\^\s*\{\s*-\s*∞|\\frac[^∞]*∞"
    r"|/\s*0(?![\d.])|\\frac\s*\{[^{}]*\}\s*\{\s*0\s*\}|(?<![\d.])0\s*\^|\.\d+\s*!"
)
_REFUSED = (
    _LONG_EXPONENT, _NUMERIC_TOWER, _TOWER, _LARGE_FACTORIAL, _SIGN_RUN, _STRUCTURE, _MISREAD,
    _FOREIGN, _UNDEFINED, _ANGLE_IN_BRACKETS,
)  # fmt: skip
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*°")
# Plain text: `sqrt(x+1)`, and `1/2 sin(2x)`, which the grammar would take for 1/(2 sin(2x)).
_ROOT_IN_BRACKETS = re.compile(r"\\sqrt\s*\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)")
_PLAIN_FRACTION = re.compile(r"(?<![\w.})!^\]/])(\d+)\s*/\s*(\d+)(?![\w.^!/]|\s*[/^!])")
_BARE_NUMERATOR = re.compile(r"\\frac\s*([\dA-Zπa-z])")
_BARE_DENOMINATOR = re.compile(r"(\\frac\s*\{[^{}]*\})\s*([\dA-Zπa-z])")

# The grammar takes capitals for small letters, and I for the imaginary unit.
_CAPITAL = re.compile(
    r"\\overrightarrow\s*\{[A-Z]+\}|\\[a-z]+|(?P<letter>[A-Z]|\\[A-Z][a-z]*)(?:\s*_\s*(?:\{(?P<index>[^{}]*)\}|(?P<digit>\w)))?"
    r"|_\s*(?:\{(?P<lower>[^{}]*[A-Z][^{}]*)\}|(?P<last>[A-Z]))"
)


class Unscorable(Exception):  # noqa: N818 - an outcome of grading, not a programming error
    """No verdict: the symbolic comparison overran its deadline or its process died."""


class _Child(NamedTuple):
    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    replies: IO[bytes]


class SymbolicClient:
    """Hold the child process and serialise the calls to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._buffer = b""

    def equal(
        self, answer: str, reference: str, deadline_s: float, *, patient: bool = False
    ) -> tuple[bool, float]:
        """Compare two normalised expressions; return the verdict and the seconds it took.

        Raises Unscorable when the child overruns `deadline_s`, crashes or cannot start. Waiting for
        another thread's call or for the child to start does not count against the deadline.
        """
        request = {
            "answer": _to_latex(answer),
            "reference": _to_latex(reference),
            "deadline_s": deadline_s,
            "patient": patient,
        }
        TALLY.add("symbolic_calls")
        with self._lock:
            child = self._started_child()
            started = time.monotonic()
            try:
                self._write(child, request)
                reply = self._read(child, started + deadline_s)
            except BaseException:
                # Also on KeyboardInterrupt: a late reply must never answer the next question.
                TALLY.add("kills")
                self._kill()
                raise
            seconds = time.monotonic() - started
        if "equal" not in reply:
            raise Unscorable(f"symbolic comparison failed: {reply.get('error')}")
        return bool(reply["equal"]), seconds

    @property
    def has_child(self) -> bool:
        """Tell whether the child has been started."""
        return self._child is not None

    def close(self) -> None:
        """Kill the child, if there is one."""
        with self._lock:
            self._kill()

    def forget_after_fork(self) -> None:
        """Drop the handle on the parent's child without touching that process."""
        self._lock = threading.Lock()
        child, self._child, self._buffer = self._child, None, b""
        if child is not None:
            # Our copies of the pipe ends would keep the parent's child alive after the parent.
            child.requests.close()
            child.replies.close()
            child.process.returncode = 0

    def _started_child(self) -> _Child:
        """Return the child, first starting it and waiting until it has imported math-verify."""
        if self._child is not None and self._child.process.poll() is None:
            return self._child
        self._kill()
        process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=_REPOSITORY_ROOT,
            start_new_session=True,
        )
        pipes = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        self._child = child = _Child(process, *pipes)
        try:
            self._read(child, time.monotonic() + START_TIMEOUT_S)
        except BaseException:
            self._kill()
            logger.error(
                "symbolic grader did not start: `%s` in %s should print"
                ' {"ready": true}; run it by hand to see why it does not',
                " ".join(_COMMAND),
                _REPOSITORY_ROOT,
            )
            raise
        return child

    def _write(self, child: _Child, request: dict) -> None:
        """Send one request; it is far smaller than a pipe's buffer, so this cannot block."""
        try:
            child.requests.write(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise Unscorable("symbolic child is gone") from error

    def _read(self, child: _Child, deadline: float) -> dict:
        """Read one reply before `deadline` (a time.monotonic() value)."""
        fd = child.replies.fileno()
        poller = select.poll()
        poller.register(fd, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._buffer:
            left_ms = (deadline - time.monotonic()) * 1000
            if left_ms <= 0 or not poller.poll(left_ms):
                TALLY.add("timeouts")
                raise Unscorable("symbolic comparison overran its deadline")
            chunk = os.read(fd, 65_536)
            if not chunk:
                raise Unscorable("symbolic child died")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError as error:
            raise Unscorable("symbolic child sent a broken reply") from error

    def _kill(self) -> None:
        """Kill the child with SIGKILL, reap it and close its pipes."""
        child, self._child, self._buffer = self._child, None, b""
        if child is None:
            return
        child.process.kill()
        child.process.wait()
        child.requests.close()
        child.replies.close()


def is_safe(text: str, *, patient: bool = False) -> bool:
    """Refuse what the symbolic parser would misread, or what would take for ever to evaluate.

    >>> is_safe("2^{n+1}"), is_safe("9^{9^9}"), is_safe("1 2")
    (True, False, False)
    """
    if len(text) > MAX_CHARACTERS or any(pattern.search(text) for pattern in _REFUSED):
        return False
    if text.count("|") % 2:
        return False
    return patient or not (_CALCULUS.search(text) or len(_FUNCTION.findall(text)) > MAX_FUNCTIONS)


def _to_latex(text: str) -> str:
    """Write a normalised expression as LaTeX; degrees, kept in trigonometry alone, as radians."""
    while (bare := _ROOT_IN_BRACKETS.sub(r"\\sqrt{\1}", text)) != text:
        text = bare
    text = _PLAIN_FRACTION.sub(r"\\frac{\1}{\2}", _DEGREES.sub(r"\\frac{\1\\pi}{180}", text))
    text = _BARE_DENOMINATOR.sub(r"\1{\2}", _BARE_NUMERATOR.sub(r"\\frac{\1}", text))
    text = _CAPITAL.sub(_in_small_letters, text)
    for character, command in (("π", r"\pi "), ("∞", r"\infty "), ("*", r"\cdot "), ("°", "")):
        text = text.replace(character, command)
    return text


def _in_small_letters(match: re.Match[str]) -> str:
    """Give a capital, or an index with one, a name of small letters that nobody writes."""
    index = match["index"] or match["digit"] or match["lower"] or match["last"] or ""
    if not match["letter"] and not index:
        return match[0]
    index = re.sub("[A-Z]", lambda capital: f"zz{capital[0].lower()}", index)
    if not match["letter"]:
        return f"_{{{index}}}"
    return f" w_{{zz{match['letter'].strip(chr(92)).lower()}zz{index}}} "
