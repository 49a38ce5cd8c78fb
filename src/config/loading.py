"""Read, merge and check configuration.

Later wins: defaults < the recipe of GRPO < `extends` < `--config` files < `--set`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from src.config.grpo import GrpoConfig
from src.config.schema import Config

ROOT = Path(__file__).resolve().parents[2]


class ConfigError(ValueError):
    """The configuration, a file it names or a device it asks for is wrong; the user can mend it."""


class _Yaml12Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core scalars: `2e-5` is a number and `no` is a string."""


_Yaml12Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
):
    _Yaml12Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


def load_config(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Merge the files in order and the `a.b=c` overrides, and check the result.

    Raises:
        ConfigError: naming every problem found, each with a suggestion.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged = _merge(merged, _read_with_bases(resolve_path(file)))
    for override in overrides:
        merged = _merge(merged, _parse_override(override))
    return build_config(_merge(_read_recipe(merged), merged))


def build_config(values: dict[str, Any]) -> Config:
    """Check a nested dictionary against the schema."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [_explain(item) for item in error.errors()]
        raise ConfigError("\n".join(["the configuration is not valid:", *problems])) from None


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """Return the configuration with dotted paths replaced, checked again."""
    merged = config.model_dump(mode="json")
    for path, value in values.items():
        merged = _merge(merged, _nest(setting_keys(path), value))
    return build_config(merged)


def resolve_path(path: str | Path) -> Path:
    """Resolve a path from the repository root, wherever the script was started."""
    path = Path(path).expanduser()
    if path.is_absolute():
        return path
    if not (ROOT / path).exists() and path.exists():
        return path.resolve()
    return ROOT / path


def dump_yaml(config: Config) -> str:
    """Write the resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def nested_yaml(values: dict[str, Any]) -> str:
    """Write dotted paths as a YAML overlay."""
    merged: dict[str, Any] = {}
    for path, value in values.items():
        merged = _merge(merged, _nest(setting_keys(path), value))
    return yaml.safe_dump(merged, sort_keys=False)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one YAML 1.2 mapping."""
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration file; check --config")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text ({error}); save it as UTF-8") from None
    values = _parse_yaml(text, str(file))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected a mapping of sections, got {type(values).__name__}")
    return values


def _parse_yaml(text: str, source: str) -> Any:
    """Parse plain values; tags that would build Python objects are refused."""
    try:
        return yaml.load(text, Loader=_Yaml12Loader)  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}; mend it") from None


def _read_with_bases(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if file in seen:
        raise ConfigError(f"{file}: extends itself through {' -> '.join(map(str, seen))}")
    values = read_yaml(file)
    bases = values.pop("extends", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = _merge(merged, _read_with_bases((file.parent / base).resolve(), (*seen, file)))
    return _merge(merged, values)


def _read_recipe(values: dict[str, Any]) -> dict[str, Any]:
    """Return the overlay of the recipe that is asked for; the configuration's own numbers win."""
    grpo = values.get("grpo")
    name = grpo.get("recipe") if isinstance(grpo, dict) else None
    file = ROOT / "config" / "recipes" / f"{name or GrpoConfig().recipe}.yaml"
    return read_yaml(file) if file.is_file() else {}  # an unknown name is refused by the schema


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        # A search space names paths of its own, so a later one replaces an earlier one whole.
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "space":
            value = _merge(merged[key], value)
        merged[key] = value
    return merged


def _parse_override(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {text}: expected section.key=value")
    return _nest(setting_keys(path.strip()), _parse_yaml(value, f"--set {text}"))


def setting_keys(path: str) -> list[str]:
    """Part a setting's path; its last key may be a function in a file, whose dots part nothing.

    >>> setting_keys("grpo.rewards.mine.py:brief"), setting_keys("run.seed")
    (['grpo', 'rewards', 'mine.py:brief'], ['run', 'seed'])
    """
    return path.split(".", 2 if ".py:" in path else -1)


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


_RENAMED = {"train.bf16_autocast": "train.compute_dtype: bfloat16 for true, float32 for false"}


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        if path in _RENAMED:
            return f"{path}: is now {_RENAMED[path]}"
        close = difflib.get_close_matches(path, list(_known_paths(Config)), n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"{path}: unknown key{hint}"
    message = error["msg"].removeprefix("Value error, ")
    shown = f", got {error['input']!r}" if path else ""
    return f"{path + ': ' if path else ''}{message}{shown}"


def _known_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _known_paths(field.annotation, f"{prefix}{name}.")
