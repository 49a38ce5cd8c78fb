"""What the evaluation engine of SFT takes of a GPU that it shares with the trainer.

The two take turns, so either the engine has its share all the time, or it sleeps while the trainer
trains: then the fuller one of the two counts.
"""

from __future__ import annotations

import math

from src.config.schema import Config
from src.run.devices import is_cpu
from src.run.processes import launched_strategy, process_count, takes_turns
from src.stages.cards import (
    MARGIN,
    card_memory_gib,
    engine_fraction,
    engine_need,
    kept_asleep_gib,
)
from src.stages.memory import training_between_steps_gib, training_memory_gib


def evaluation_sleeps(config: Config) -> bool:
    """Tell whether this run's evaluation engine sleeps while the trainer on its GPU trains."""
    if not _shares_gpu(config):
        return False
    if config.engine.sleep != "auto":
        return config.engine.sleep == "on"
    card = card_memory_gib(config)
    return card is not None and _sleeps(config, card, process_count(), launched_strategy())


def beside_training(config: Config, card_gib: float, processes: int, strategy: str) -> str:
    """Say whether SFT fits on a card, with the evaluation engine where that shares it."""
    trainer = sum(training_memory_gib(config, processes, strategy).values())
    if not _shares_gpu(config):
        return "fits" if trainer <= card_gib else "does not fit"
    share = _share_gib(config, card_gib)
    if _sleeps(config, card_gib, processes, strategy):
        if not _fits_in_turn(config, card_gib, processes, strategy):
            return "does not fit"
        freed = share - engine_need(config, 1).workspace
        return (
            f"fits, with {share:.1f} GiB for the evaluation engine, which sleeps while the trainer "
            f"trains and so frees {freed:.1f}"
        )
    if trainer + share <= card_gib:
        return f"fits, with {share:.1f} GiB for the evaluation engine"
    fraction = shared_fraction(config, card_gib, trainer)
    if fraction is None:
        return "does not fit"
    return f"fits with --set engine.memory_fraction={fraction:g}"


def shared_fraction(config: Config, card_gib: float, trainer_gib: float) -> float | None:
    """Return the `engine.memory_fraction` whose half fits beside SFT; None where nothing does."""
    share = engine_fraction(card_gib, trainer_gib, engine_need(config, 1))
    return None if share is None else math.floor(200 * share) / 100


def _shares_gpu(config: Config) -> bool:
    return takes_turns(config) and not is_cpu(config.devices.train)


def _share_gib(config: Config, card_gib: float) -> float:
    return config.engine.memory_fraction / 2 * card_gib


def _sleeps(config: Config, card_gib: float, processes: int, strategy: str) -> bool:
    """Tell whether the engine sleeps: by the setting, or where nothing else fits."""
    if config.engine.sleep != "auto":
        return config.engine.sleep == "on"
    trainer = sum(training_memory_gib(config, processes, strategy).values())
    beside = trainer + _share_gib(config, card_gib) <= card_gib
    return not beside and _fits_in_turn(config, card_gib, processes, strategy)


def _fits_in_turn(config: Config, card_gib: float, processes: int, strategy: str) -> bool:
    training = sum(training_memory_gib(config, processes, strategy).values())
    training += kept_asleep_gib(config)
    scoring = training_between_steps_gib(config, processes, strategy)
    scoring += _share_gib(config, card_gib)
    enough = _share_gib(config, card_gib) >= engine_need(config, 1).least
    return enough and max(training, scoring) <= card_gib * (1 - MARGIN)
