"""One line a step of GRPO: whole for the log, the figures that matter most for the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from src.output.lines import brief, duration

_WHOLE = (
    "step {step}/{last}: reward {reward:.3f}, accuracy {accuracy:.3f}, format {format_rate:.3f}, "
    "dull groups {zero_variance_rate:.2f}, {completion_tokens:.0f} tokens "
    "(cut {truncated_rate:.2f}), entropy {entropy:.3f}, ratio {importance_ratio:.4f}, "
    "{generated_tokens_per_s:.0f} tokens/s, {step_s:.1f} s ({split})"
)
_BRIEF = (
    "step {step}/{last}: reward {reward:.3f}",
    *("accuracy {accuracy:.3f}", "format {format_rate:.3f}", "{left} left"),
    *("{completion_tokens:.0f} tokens", "{step_s:.1f} s", "dull groups {zero_variance_rate:.2f}"),
    *("entropy {entropy:.3f}", "ratio {importance_ratio:.4f}"),
)
"""The most important first: a narrow terminal shows fewer."""


class StepLines:
    """Words the lines of the steps after the `first`, and how long the others will take."""

    def __init__(self, first: int) -> None:
        self._first, self._began = first, time.monotonic()

    def line(
        self, step: int, last: int, metrics: Mapping[str, float], parts: Sequence[str]
    ) -> tuple[str, dict[str, Any]]:
        """Return the whole line and the `extra` that holds its brief form.

        Args:
            metrics: the step's, named as they are logged.
            parts: of the step, with their seconds.
        """
        each = (time.monotonic() - self._began) / max(step - self._first, 1)
        sections = ("grpo/", "system/")
        shown = [name for name in metrics if name.startswith(sections)]
        values: dict[str, Any] = {name.split("/", 1)[1]: metrics[name] for name in shown}
        values |= {
            "step": step,
            "last": last,
            "left": duration((last - step) * each),
            "split": ", ".join(f"{part} {metrics[f'system/{part}_s']:.1f}" for part in parts),
        }
        return _WHOLE.format(**values), brief(*(part.format(**values) for part in _BRIEF))
