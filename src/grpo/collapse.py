"""Signs that reinforcement learning has gone wrong, read from the curves it logs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from src.config.grpo import CollapseConfig

# Steps whose mean length and median gradient norm later ones are measured by.
_FIRST_STEPS = 5


class CollapseWatch:
    """Tell when the same sign of collapse has shown in `patience` steps in a row."""

    def __init__(self, config: CollapseConfig) -> None:
        self._config = config
        self._lengths: list[float] = []
        self._norms: list[float] = []
        self._in_a_row: dict[str, int] = {}

    def see(self, metrics: Mapping[str, float]) -> str | None:
        """Take a step's metrics; return what has collapsed, in words, or None."""
        signs = self._signs(
            metrics["grpo/completion_tokens"], metrics["grpo/entropy"], metrics["train/grad_norm"]
        )
        self._in_a_row = {sign: self._in_a_row.get(sign, 0) + 1 for sign in signs}
        return next(
            (
                f"{words}, {self._config.patience} steps in a row"
                for sign, words in signs.items()
                if self._in_a_row[sign] >= self._config.patience
            ),
            None,
        )

    def _signs(self, length: float, entropy: float, norm: float) -> dict[str, str]:
        """Return sign -> what is seen; the first steps are the yardstick and show none."""
        config, signs = self._config, {}
        # Of a step in float16 that overflowed there is no norm.
        known = [norm] if math.isfinite(norm) else []
        if len(self._lengths) < _FIRST_STEPS:
            self._lengths.append(length)
            self._norms += known
            return {}
        usual_length = statistics.fmean(self._lengths)
        usual_norm = statistics.median(self._norms or [norm])
        if length < config.length_share * usual_length:
            signs["length"] = f"completions shrank to {length:.0f} tokens from {usual_length:.0f}"
        if entropy < config.entropy_nats:
            signs["entropy"] = f"token entropy fell to {entropy:.5f} nats"
        if not known:
            signs["norm"] = f"the gradient norm is {norm}"
        elif norm > config.grad_norm_factor * usual_norm:
            signs["norm"] = f"the gradient norm rose to {norm:.3g} from {usual_norm:.3g}"
        else:
            self._norms += known
        return signs
