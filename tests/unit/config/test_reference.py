"""docs/configuration.md is what the schema says, and the schema says what each setting means."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from src.config.reference import PAGE, reference, settings_of, values_of
from src.config.schema import Config
from src.config.training import Positive, Section, Share


class Bounds(Section):
    share: Share = 0.5
    rows: Positive | None = None
    every: Annotated[int, Field(ge=2)] = 2
    gap: float | Literal["auto"] = Field(default="auto")
    sizes: list[Positive] = []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("share", "number >= 0 and <= 1"),
        ("rows", "integer > 0 or `null`"),
        ("every", "integer >= 2"),
        ("gap", "number or `auto`"),
        ("sizes", "list of integer > 0"),
    ],
)
def test_values_are_said_in_words(name, words):
    assert values_of(Bounds.model_fields[name]) == words


def test_the_committed_page_is_what_the_schema_says():
    said = "run python -m src.config.reference and commit docs/configuration.md"
    assert PAGE.read_text(encoding="utf-8") == reference(), said


def test_every_setting_says_what_it_means():
    fields = dict(settings_of(Config, ""))
    assert len(fields) > 130
    assert [path for path, field in fields.items() if len(field.description or "") < 8] == []
