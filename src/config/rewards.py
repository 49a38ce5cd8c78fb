"""What `grpo.rewards` may name: the project's own rewards, and functions in files of the user's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pydantic import ConfigDict, Field, model_validator

from src.config.training import Section


@dataclass(frozen=True, slots=True)
class RewardFile:
    """A function in a Python file: `path/to/file.py:name`."""

    key: str
    """As the configuration has it."""

    @property
    def path(self) -> str:
        """Return the file's path as it was written."""
        return self.key.rpartition(":")[0]

    @property
    def name(self) -> str:
        """Return the function's name, under which its curve is logged."""
        return self.key.rpartition(":")[2]

    @property
    def well_formed(self) -> bool:
        """Tell whether the key has the form of a file and a function in it."""
        return self.path.endswith(".py") and self.name.isidentifier()


class RewardWeights(Section):
    """Weights of the project's own rewards; further keys are `path/to/file.py:name`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    accuracy: float = 1.0
    """The r1_zero grader's verdict, 1 or 0."""
    format: float = 0.0
    """1 for a well-formed completion; with weight 0 it is logged alone."""
    overlong: float = 0.0
    """Soft overlong penalty (DAPO, arXiv:2503.14476, eq. 13): 0 falling to -1 at the limit."""
    brevity: float = 0.0
    """Minus the completion's share of the token limit."""

    @property
    def files(self) -> list[RewardFile]:
        """Return the functions of the user's."""
        return [RewardFile(key) for key in self.__pydantic_extra__]

    def weights(self) -> dict[str, float]:
        """Return name -> weight, in the order in which rewards are computed."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        named = zip(self.files, self.__pydantic_extra__.values(), strict=True)
        return own | {file.name: weight for file, weight in named}

    @model_validator(mode="after")
    def _has_names_of_its_own(self) -> RewardWeights:
        own = ", ".join(type(self).model_fields)
        for file in self.files:
            if not file.well_formed:
                raise ValueError(
                    f"unknown reward '{file.key}'; use {own}, or path/to/file.py:name for a "
                    "function of yours"
                )
        counts = Counter([*type(self).model_fields, *(file.name for file in self.files)])
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(
                f"two rewards are named '{twice[0]}', by which both would be logged; rename the "
                "function"
            )
        return self
