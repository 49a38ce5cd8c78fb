"""Step 0: score the base model zero-shot, before any training.

    cd step0_baseline && python step0_baseLineModelEval.py
    python step0_baseline/step0_baseLineModelEval.py --config config/tiny/baseline_config.yaml

Writes to results/<run>/step0_baseline/: completions.jsonl (every completion with its grade),
summary.json (outcomes, format-failure analysis, accuracy by level and type), outcome.json, run.log.
"""

from __future__ import annotations

from src.config.schema import Config
from src.run.directory import Run
from src.stages.start import run_stage

DEFAULT_CONFIG = "config/baseline_config.yaml"


def main(config: Config, run: Run) -> None:
    """Evaluate the base model on the test problems."""
    from src.stages.scoring import run_evaluation

    run_evaluation(config, run)


if __name__ == "__main__":
    run_stage(
        "step0_baseline",
        main,
        default_config=DEFAULT_CONFIG,
        description=__doc__ or "",
    )
