"""The overlays of `config/hardware/`: which GPUs each is for, and which one suits a machine.

No GPU is asked in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from src.config.loading import ConfigError

AUTO = "auto"
# A card may report a little less than the memory it is sold with.
_NEARLY = 0.97


@dataclass(frozen=True, slots=True)
class Hardware:
    """One overlay.

    Args:
        gpus: it needs; more may be there.
        card_gb: memory of each, in GB of 2^30 bytes.
        strategy: of step 3 over the GPUs.
    """

    name: str
    gpus: int
    card_gb: int
    strategy: str = "ddp"

    @property
    def file(self) -> str:
        """The overlay, relative to the repository root."""
        return f"config/hardware/{self.name}.yaml"


HARDWARE = (
    Hardware("80gb", 1, 80),
    Hardware("40gb", 1, 40),
    Hardware("2x24gb", 2, 24, "fsdp2"),
    Hardware("24gb", 1, 24),
)
"""What suits a machine is the first that its GPUs are enough for."""


def choose_hardware(asked: str, cards_gb: Sequence[float]) -> tuple[Hardware, str]:
    """Return an overlay and why it was chosen, in words.

    Args:
        asked: its name, or `auto`.
        cards_gb: memory of each GPU; of several the smallest counts.

    Raises:
        ConfigError: where `auto` finds nothing that suits.
    """
    if asked != AUTO:
        return next(item for item in HARDWARE if item.name == asked), "as asked for"
    if not cards_gb:
        raise ConfigError(
            "--hardware auto: no GPU is visible, or no nvidia-smi to ask how large it is; without "
            "one run the CPU profile: run_pipeline.py --profile tiny"
        )
    listed = " and ".join(f"{size:.1f}" for size in cards_gb)
    found = f"{len(cards_gb)} GPU{'s' if len(cards_gb) > 1 else ''} of {listed} GB"
    smallest = min(cards_gb)
    if smallest < max(cards_gb) * _NEARLY:
        found += ", of which the smallest counts"
    for item in HARDWARE:
        if len(cards_gb) >= item.gpus and smallest >= item.card_gb * _NEARLY:
            return item, f"found {found}"
    raise ConfigError(
        f"--hardware auto: found {found}, and the smallest overlay is made for 24 GB; look what "
        "--hardware 24gb --dry-run says of it, use CUDA_VISIBLE_DEVICES to leave a small GPU out, "
        "--hardware none for none, or run --profile tiny"
    )
