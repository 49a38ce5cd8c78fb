"""What a configuration promises and never does, from the arithmetic of its schedule alone.

Nothing in here is an error: such a run works, and spends its hours without what a setting is for.
Each warning names the setting and a value that works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from src.config.schema import Config
from src.data.row_counts import sft_rows, train_rows
from src.run.directory import GRPO_STAGE, SEARCH_STAGE


def broken_promises(stage: str, config: Config) -> list[str]:
    """Return what never happens in a stage although its configuration asks for it."""
    checks: dict[str, Callable[[Config], Iterator[str]]] = {
        SEARCH_STAGE: _search,
        "step2_sft": _fine_tuning,
        GRPO_STAGE: _grpo,
    }
    return list(checks[stage](config)) if stage in checks else []


def _fine_tuning(config: Config) -> Iterator[str]:
    train, rows = config.train, sft_rows(config)
    steps, scored = train.steps(rows), train.checkpoint_steps(rows)
    rehearsal = config.run.rehearsal
    patience = rehearsal.patience if rehearsal else train.patience
    if steps == 1:
        yield (
            f"train.batch_size: {train.batch_size} takes {rows} examples x {train.epochs} epochs "
            "in one step, so one checkpoint is scored and none chosen; use at most "
            f"{max(1, rows * train.epochs // 2)}"
        )
    elif len(scored) == 1:
        yield (
            f"train.evaluate_every: {train.evaluate_every} of {steps} steps: only the last "
            f"checkpoint is scored, so none is chosen and no curve drawn; use {_tenth(steps)}, or "
            "leave it out"
        )
    # The first score is always the best so far, and to stop at the last one saves nothing.
    elif patience > len(scored) - 2:
        yield _patience(patience, steps, len(scored))
    if steps > 1 and round(train.warmup_share * steps) >= steps:
        yield (
            f"train.warmup_share: {train.warmup_share:g} is all of the run, whose learning rate "
            "never falls; use 0.05"
        )


def _patience(patience: int, steps: int, scores: int) -> str:
    works = [f"train.patience: {scores - 2}"] if scores > 2 else []
    if every := (steps - 1) // (patience + 1):
        works.append(f"train.evaluate_every: {every}")
    return (
        f"train.patience: {patience} can never end training early, as {scores} checkpoints are "
        f"scored; use {' or '.join(works) or 'a smaller train.batch_size'}"
    )


def _search(config: Config) -> Iterator[str]:
    search, factor = config.search, config.search.reduction_factor
    able = search.pruning_rungs()
    needed = 2 * factor ** max(0, len(able) - 1)
    if search.trials == 1:
        yield f"search.trials: 1 trial has none to be compared with; use at least {needed}"
        return
    if not able:
        yield (
            f"search.rung_examples: {search.rung_examples}: no trial is ever pruned, as after the "
            f"last rung nothing is left to save; use {[search.examples // factor, search.examples]}"
        )
    for rung in search.rung_examples[:-1]:
        if rung not in able:
            yield (
                f"search.rung_examples: nothing can be pruned at {rung}: successive halving "
                f"compares trials at {search.rung_examples[0]} times powers of "
                f"search.reduction_factor = {factor}; use {_halving_rungs(config)}"
            )
    if lonely := [rung for place, rung in enumerate(able) if search.trials < 2 * factor**place]:
        yield (
            f"search.trials: of {search.trials} trials about one reaches {lonely[0]} examples, as "
            f"each rung keeps one in {factor}, so nothing is compared from there on; use at least "
            f"{needed}, or fewer search.rung_examples"
        )
    if len(search.enqueue) == search.trials:
        yield (
            f"search.enqueue: its {len(search.enqueue)} points are all trials, so nothing of "
            f"search.space is tried; use search.trials: {2 * search.trials}"
        )
    elif search.startup_trials >= search.trials:
        yield (
            f"search.startup_trials: {search.startup_trials} of {search.trials} trials are drawn "
            "at random before TPE proposes any, so it never does; use at most "
            f"{search.trials // 2}"
        )


def _halving_rungs(config: Config) -> list[int]:
    search = config.search
    rungs = [search.rung_examples[0]]
    while rungs[-1] * search.reduction_factor <= search.examples:
        rungs.append(rungs[-1] * search.reduction_factor)
    return [*rungs[:-1], search.examples] if len(rungs) > 1 else [*rungs, search.examples]


def _grpo(config: Config) -> Iterator[str]:
    grpo, rows = config.grpo, train_rows(config)
    for name, does in (("evaluate_every", "is scored"), ("save_every", "can be resumed")):
        value = getattr(grpo, name)
        if value > grpo.steps:
            yield (
                f"grpo.{name}: {value} is beyond grpo.steps = {grpo.steps}: no checkpoint {does} "
                f"on the way; use {_multiple(_tenth(grpo.steps), grpo.steps_per_batch)}"
            )
    if grpo.warmup_steps >= grpo.steps:
        yield (
            f"grpo.warmup_steps: {grpo.warmup_steps} of grpo.steps = {grpo.steps}: the learning "
            f"rate never reaches grpo.learning_rate; use {grpo.steps // 10}"
        )
    drawn = math.ceil(grpo.prompts_per_step * grpo.draw_limit) if grpo.dynamic_sampling else 0
    if grpo.dynamic_sampling and drawn <= grpo.prompts_per_step:
        yield (
            f"grpo.draw_limit: {grpo.draw_limit:g} leaves no group to draw in place of a dull one, "
            "so dynamic sampling does nothing; use 3"
        )
    if grpo.recipe in ("gspo", "cispo") and grpo.steps_per_batch == 1:
        yield (
            f"grpo.updates_per_batch: with 1 the ratio of probabilities that {grpo.recipe} cuts is "
            "always 1; use 4, with grpo.save_every and grpo.evaluate_every multiples of it"
        )
    needed = max(grpo.prompts_per_step, drawn)
    if rows < needed:
        yield (
            f"grpo.prompts_per_step: a batch may draw {needed} groups from {rows} problems, so it "
            f"meets some twice; use at most {max(1, rows * grpo.prompts_per_step // needed)}"
        )


def _tenth(steps: int) -> int:
    return max(1, steps // 10)


def _multiple(steps: int, of: int) -> int:
    return max(of, steps // of * of)
