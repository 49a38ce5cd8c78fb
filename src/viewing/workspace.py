"""A saved W&B workspace with the panels that matter, for those who send their runs to W&B.

python -m src.viewing.workspace --entity NAME [--project math-grpo] [--save]

Without --save it lists the panels and sends nothing. With it, and a key, the workspace is saved
as a view of its own in the project.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from src.output.lines import log_to_terminal

LOGGER = logging.getLogger(__name__)
NAME = "What matters"
_SCORED = (("validation/format_rate",), ("validation/accuracy_anywhere",))
_FITTED = (
    ("validation/accuracy", "train_subset/accuracy"),
    *_SCORED,
    *(("validation/nll",), ("validation/entropy",), ("validation/probe_gap",)),
)
_TRAIN = (("train/loss",), ("train/grad_norm",), ("train/learning_rate",), ("train/padding_rate",))
_GRPO = (
    *(("grpo/accuracy",), ("grpo/reward",), ("grpo/format_rate",), ("grpo/completion_tokens",)),
    *(("grpo/truncated_rate",), ("grpo/entropy",), ("grpo/zero_variance_rate",)),
    *(("grpo/drawn_groups",), ("grpo/importance_ratio",), ("grpo/clip_rate",), ("grpo/kl",)),
)
_SPEED = (("system/mfu",), ("system/memory_gib",))
_STEP = ("system/generate_s", "system/grade_s", "system/train_s", "system/sync_s")
Panels = tuple[tuple[str, ...], ...]
SECTIONS: dict[str, dict[str, Panels]] = {
    "math-grpo": {
        "validation": (("validation/accuracy",), *_SCORED),
        "grpo": _GRPO,
        "system": (_STEP, *_SPEED),
    },
    "math-sft": {
        "validation": _FITTED,
        "train": _TRAIN,
        "system": (("system/target_tokens_per_s",), *_SPEED),
    },
    "math-sft-optuna-asha": {
        "search": (("trial/value",),),
        "validation": (("validation/accuracy",), *_SCORED, ("validation/nll",)),
        "train": _TRAIN,
    },
}
"""Project -> section -> the metrics of each of its panels."""
# The axis of a stage's runs; trials are compared by examples.
_AXIS = {"math-sft-optuna-asha": "examples"}


def build_workspace(entity: str, project: str) -> Any:
    """Return the workspace of a project; nothing is asked of W&B."""
    # Imported here: W&B's client takes seconds.
    import wandb_workspaces.reports.v2 as reports  # noqa: PLC0415
    import wandb_workspaces.workspaces as workspaces  # noqa: PLC0415

    axis = _AXIS.get(project, "step")
    sections = [
        workspaces.Section(
            name=name,
            panels=[reports.LinePlot(title=lines[0], x=axis, y=list(lines)) for lines in panels],
            is_open=True,
        )
        for name, panels in SECTIONS[project].items()
    ]
    return workspaces.Workspace(entity=entity, project=project, name=NAME, sections=sections)


def main(arguments: list[str] | None = None) -> int:
    """List the panels; save the workspace where that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entity", required=True, help="W&B user or team")
    parser.add_argument("--project", choices=SECTIONS, default="math-grpo")
    parser.add_argument("--save", action="store_true", help="save it on W&B; needs a key")
    given = parser.parse_args(arguments)
    log_to_terminal()
    workspace = build_workspace(given.entity, given.project)
    for name, panels in SECTIONS[given.project].items():
        LOGGER.info("%s: %s", name, ", ".join(" and ".join(lines) for lines in panels))
    if given.save:
        workspace.save_as_new_view()
        LOGGER.info("saved: %s", workspace.url)
    else:
        LOGGER.info("nothing was sent; --save saves it in %s/%s", given.entity, given.project)
    return 0


if __name__ == "__main__":
    sys.exit(main())
