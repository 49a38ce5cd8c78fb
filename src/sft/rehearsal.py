"""Give a rehearsal as many training examples as its schedule counts on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from src.config.loading import with_values
from src.config.schema import Config
from src.data.chat import stage_prompt
from src.data.problems import load_problems
from src.data.row_counts import sft_rows
from src.sft.examples import BuiltExamples, build_examples
from src.sft.rows import SftRow, rows_from_problems
from src.training.policy import load_tokenizer, resolve_model

# Problems looked at for each that is wanted.
_LOOKED_AT = 3


def with_spare_rows(config: Config) -> Config:
    """Add training problems in place of those that the tiny model's context leaves out.

    The real model's context holds nearly all of them, and the schedule follows from their number.

    Raises:
        DataError: when the data cannot be loaded.
    """
    wanted = sft_rows(config)
    problems = load_problems(with_values(config, {"data.train_rows": _LOOKED_AT * wanted}))
    if config.sft.files or config.sft.source != "solutions":
        return config
    tokenizer = load_tokenizer(resolve_model(config.model.path), config)
    rows = rows_from_problems(problems.train, stage_prompt(config, tokenizer))
    built = build_examples(rows, tokenizer, config.train.max_tokens, config.sft.keep)
    needed = max(wanted, rows_needed(rows, built, wanted))
    spare = {"data.train_rows": needed, "run.rehearsal.spare_rows": needed - wanted}
    return with_values(config, spare)


def rows_needed(rows: Sequence[SftRow], built: BuiltExamples, examples: int) -> int:
    """Return how many of the first rows give a number of examples; all where they are too few.

    Args:
        built: what the rows gave.
    """
    left_out = {name for names in built.left_out.values() for name in names}
    usable = accumulate(row.id not in left_out for row in rows)
    return next((place for place, count in enumerate(usable, 1) if count == examples), len(rows))
