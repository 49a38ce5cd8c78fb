"""Files with reward functions of the user's: what can be said of one without running it."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.config.loading import resolve_path
from src.config.rewards import RewardFile
from src.config.schema import Config
from utils.data.hashing import file_sha256


def reward_problems(config: Config) -> Iterator[str]:
    """Say which of `grpo.rewards` cannot be there: no file, no Python, no such function."""
    for reward in config.grpo.rewards.files:
        if trouble := _trouble(reward, resolve_path(reward.path)):
            yield f"grpo.rewards.{reward.key}: {trouble}"


def reward_identities(config: Config) -> dict[str, dict[str, Any]]:
    """Return name -> file and SHA-256 of each function of the user's, for the manifest."""
    return {
        reward.name: {"file": reward.path, "sha256": file_sha256(resolve_path(reward.path))}
        for reward in config.grpo.rewards.files
    }


def _trouble(reward: RewardFile, file: Path) -> str | None:
    if not file.is_file():
        return f"there is no file {file}; give a path from the repository's root, or a whole one"
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        return f"not valid Python: {error}; mend it"
    names = set(_top_names(tree))
    if reward.name in names:
        return None
    close = difflib.get_close_matches(reward.name, names, n=1)
    known = ", ".join(sorted(name for name in names if not name.startswith("_")))
    hint = f"did you mean '{close[0]}'?" if close else f"it has {known or 'no name at all'}"
    return f"no function '{reward.name}' in {file}; {hint}"


def _top_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names a module gives at its top: functions, classes, assignments, imports."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        else:
            yield from (
                name.id
                for name in ast.walk(node)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            )
