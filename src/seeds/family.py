"""Runs that differ in their seed alone: where they are, how each is started, one after another.

The seed changes what training draws: sampling, order, initialisation, the search. The problems stay
those of the run that the family is named after (`data.seed`), so that all seeds are scored on the
same ones.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.config.loading import ConfigError
from src.config.schema import Config
from src.run.directory import BEST, GRPO_STAGE, SEARCH_STAGE, pipeline_folder
from src.run.file_list import OUTCOME
from src.run.stopping import run_command

LOGGER = logging.getLogger(__name__)
OPTION = "--seeds"
_SFT = "step2_sft"
# Stage, the earlier one that it builds on, and the file by which that is known to be there.
_BUILDS_ON = ((_SFT, SEARCH_STAGE, BEST), (GRPO_STAGE, _SFT, OUTCOME))


@dataclass(frozen=True, slots=True)
class Family:
    """One configuration with several seeds.

    Args:
        config: of the run without `--seeds`.
        rehearsal: the runs are rehearsals of it.
    """

    config: Config
    seeds: tuple[int, ...]
    rehearsal: bool = False

    @property
    def base(self) -> Path:
        """Folder of the run that has the configuration's own seed."""
        return self._named(self.config.run.name)

    @property
    def folder(self) -> Path:
        """Folder of what is said of all seeds together."""
        return self._named(f"{self.config.run.name}-seeds")

    def member(self, seed: int) -> Path:
        """Folder of one seed's run."""
        return self._named(self._name(seed))

    def members(self) -> dict[int, Path]:
        """Return seed -> folder."""
        return {seed: self.member(seed) for seed in self.seeds}

    def settings(self, seed: int, earlier: str | None) -> list[str]:
        """Return the `--set` options that make a run one of the family.

        Args:
            earlier: run whose steps stand in for those that the seeds do not have.
        """
        data_seed = self.config.data.seed
        values = {
            "run.seed": str(seed),
            "run.name": self._name(seed),
            "data.seed": str(self.config.run.seed if data_seed is None else data_seed),
        }
        values |= {"run.earlier": earlier} if earlier else {}
        return [part for path, value in values.items() for part in ("--set", f"{path}={value}")]

    def earlier_run(self, stages: Sequence[str], init: str) -> str | None:
        """Return the run whose steps stand in for earlier ones that no seed has; None for none.

        A stage alone builds on its own seed's earlier stages where all seeds have them. Else all
        build on the base run's, and what differs between them is this stage's doing alone.

        Args:
            stages: that will run.
            init: what GRPO starts from (`grpo.init`).

        Raises:
            ConfigError: when some seeds have an earlier stage and others do not.
        """
        for stage, needed, file in _BUILDS_ON:
            asked = stage in stages and needed not in stages
            if not asked or (stage == GRPO_STAGE and init == "base"):
                continue
            have = [s for s, folder in self.members().items() if (folder / needed / file).is_file()]
            if have and len(have) < len(self.seeds):
                raise ConfigError(self._uneven(stage, needed, have))
            if not have and (self.base / needed / file).is_file():
                LOGGER.info(
                    "%s: no seed has %s of its own, so all build on that of %s: what differs "
                    "between them is %s alone", stage, needed, self.base, stage,
                )  # fmt: skip
                return self.base.name
        return None

    def _uneven(self, stage: str, needed: str, have: Sequence[int]) -> str:
        others = [seed for seed in self.seeds if seed not in have]
        return (
            f"{OPTION}: {needed} is finished for {_listed(have)} and not for {_listed(others)}, so "
            f"{stage} would start from different things; run {needed} for all of them first, with "
            f"the same {OPTION}"
        )

    def _name(self, seed: int) -> str:
        return f"{self.config.run.name}-seed{seed}"

    def _named(self, name: str) -> Path:
        suffix = "-rehearsal" if self.rehearsal else ""
        return pipeline_folder(self.config).with_name(name + suffix)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `1,2,3`, for argparse.

    >>> parse_seeds("1,2,3")
    (1, 2, 3)
    """
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: whole numbers, such as 1,2,3") from None
    if len(seeds) < 2 or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise argparse.ArgumentTypeError(
            f"{text!r}: two different seeds or more, from 0 on, such as 1,2,3; one seed is "
            "--set run.seed=1"
        )
    return seeds


def without_seeds(arguments: Sequence[str]) -> list[str]:
    """Return a command line without its `--seeds`.

    >>> without_seeds(["--resume", "--seeds", "1,2", "--seeds=3,4"])
    ['--resume']
    """
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument != OPTION and not argument.startswith(f"{OPTION}="):
            kept.append(argument)
        skip = argument == OPTION
    return kept


def run_seeds(family: Family, command: Sequence[str], earlier: str | None) -> int:
    """Run a command once a seed; return 0, or the exit code of the first that fails."""
    for number, seed in enumerate(family.seeds, 1):
        LOGGER.info(
            "seed %d, %d of %d, in %s", seed, number, len(family.seeds), family.member(seed)
        )
        if code := run_command([*command, *family.settings(seed, earlier)]):
            LOGGER.error(
                "seed %d ended with exit code %d; mend it, and the same command with --resume "
                "goes on there", seed, code,
            )  # fmt: skip
            return code
    return 0


def _listed(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
