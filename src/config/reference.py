"""Write docs/configuration.md from the schema: each setting's values, default and docstring.

python -m src.config.reference
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from src.config.loading import ROOT
from src.config.schema import Config

PAGE = ROOT / "docs" / "configuration.md"
_HEAD = """\
# Configuration: every setting

Written by `python -m src.config.reference` from the docstrings of `src/config/`; edit those.

A setting is given in a file (`--config FILE`, any number of them) or on the command line
(`--set train.learning_rate=1e-5`). Later wins: the defaults below, the recipe of GRPO
(`config/recipes/`, chosen by `grpo.recipe`, which sets the fields that it names), what a file
`extends`, the `--config` files in their order, `--set`. Unknown settings are refused, with the
nearest name. Every stage takes the same schema and reads the sections it needs; `--dry-run -v`
prints the resolved values. Files: `config/*.yaml` (full scale), `config/tiny/`, `config/smollm2/`,
`config/hardware/`.

Values are YAML 1.2: `2e-5` is a number, `no` is a text, `null` is no value. A name that ends in
`_every` counts optimizer steps, `_s` seconds, `_gib` GiB, `_tokens` tokens, `_rows` problems or
rows; a `_share` or `_fraction` lies between 0 and 1.
"""
_SIGNS = ((Gt, "gt", ">"), (Ge, "ge", ">="), (Lt, "lt", "<"), (Le, "le", "<="))
_PLAIN = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}


def reference() -> str:
    """Return the page."""
    parts = [_HEAD]
    for name, field in Config.model_fields.items():
        parts.append(f"## {name}\n\n{_sentence(field)}\n")
        parts.append(_table(field.annotation, f"{name}."))
        for owner, model in _row_models(field.annotation):
            parts.append(f"Settings of a {model.__name__} (`{name}.{owner}`):\n")
            parts.append(_table(model, ""))
    return "\n".join(parts).rstrip("\n") + "\n"


def _table(model: Any, prefix: str) -> str:
    lines = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for path, field in settings_of(model, prefix):
        cells = (f"`{path}`", values_of(field), _default(field), _sentence(field))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def settings_of(model: Any, prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the settings of a section by dotted path, those of a section in it after itself."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        yield prefix + name, field
        if _is_section(inner):
            yield from settings_of(inner, f"{prefix}{name}.")


def _row_models(model: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the settings that are lists or tables of sections, and what sections those are."""
    for name, field in model.model_fields.items():
        for part in _parts(field.annotation):
            if _is_section(part) and part is not field.annotation:
                yield name, part


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        if isinstance(part, type) or get_origin(part) is not None:
            yield from _parts(part)


def values_of(field: FieldInfo) -> str:
    """Say in words which values a setting takes."""
    if _is_section(field.annotation):
        return "section, its settings follow"
    return _in_words(field.annotation, field.metadata)


def _in_words(kind: Any, bounds: list[Any]) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _in_words(inner[0], list(kind.__metadata__))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(
            "`null`" if part is types.NoneType else _in_words(part, bounds) for part in inner
        )
    if origin is list:
        return f"list of {_in_words(inner[0], [])}"
    if origin is dict:
        return f"table of {_in_words(inner[1], [])}"
    if _is_section(kind):
        return kind.__name__
    return " ".join([_PLAIN[kind], " and ".join(_bounds(bounds))]).rstrip()


def _bounds(metadata: list[Any]) -> Iterator[str]:
    """Yield `> 0` and the like from what pydantic keeps of a field's bounds."""
    flat = [part for item in metadata for part in getattr(item, "metadata", [item])]
    for item in flat:
        for kind, name, sign in _SIGNS:
            if isinstance(item, kind):
                yield f"{sign} {getattr(item, name):g}"


def _default(field: FieldInfo) -> str:
    if _is_section(field.annotation):
        return ""
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(value, default=lambda section: section.model_dump())}`"


def _sentence(field: FieldInfo) -> str:
    return re.sub(r"\bNone\b", "`null`", " ".join((field.description or "").split()))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
