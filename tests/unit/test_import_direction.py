"""The tree's structure: who may import whom, and how long files and functions may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = sorted(path.name for path in ROOT.glob("step[0-9]*") if path.is_dir())
PACKAGES = ("src", "utils")
# Each of these libraries has one module in src that knows it.
SINGLE_OWNER = ("vllm", "trl", "optuna", "wandb")
NOT_IN_CONFIG = ("torch", "transformers", "vllm", "trl")
# The parts of src from the bottom up. What stands in one line is on one level: it imports what
# stands above it in this table, and its own files, but not its neighbours.
LEVELS = (
    ("config", "output"),
    ("data",),
    ("run",),
    ("engine", "training"),
    ("training_worker", "evaluation"),
    ("eval_worker", "rewards", "objective"),
    ("benchmarks", "seeds"),
    ("stages",),
    ("sft", "pipeline"),
    ("search", "grpo"),
    ("report",),
    ("viewing",),
)
SFT_ONLY = {"sft", "search"}  # which GRPO knows by their files alone
UTILS_DOOR = ("dataset_loader", "drgrpo_grader", "grade")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60
MAX_MODULES = 12
NOT_SCANNED = {"tests", "results", "build", "wandb"}


@cache
def project_files() -> tuple[Path, ...]:
    """Every Python file of the project but the tests, relative to the root."""
    files = list(ROOT.glob("*.py"))
    for folder in ROOT.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in NOT_SCANNED:
            files += folder.rglob("*.py")
    return tuple(sorted(file.relative_to(ROOT) for file in files))


@cache
def syntax_tree(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), filename=str(file))


@cache
def imports(file: Path) -> frozenset[str]:
    """Dotted names of all that a file imports, wherever in the file; `from a import b` is `a.b`."""
    names: set[str] = set()
    for node in ast.walk(syntax_tree(file)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute_module(file, node)
            names.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in {"import_module", "__import__"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                names.add(first.value)
    return frozenset(names)


def absolute_module(file: Path, node: ast.ImportFrom) -> str:
    """Resolve the dots of a relative import against the file's folder."""
    if not node.level:
        return node.module or ""
    package = file.parent.parts[: len(file.parent.parts) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def called_name(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def top_level(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def files_under(*folders: str) -> list[Path]:
    return [file for file in project_files() if file.parts[0] in folders]


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(syntax_tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_dependencies_point_from_stages_to_src_to_utils():
    scripts = {Path(file.name).stem for file in files_under(*STAGES)}
    forbidden = {
        "utils": {"src", "run_pipeline", "tests", "assets", *STAGES, *scripts},
        "src": {"run_pipeline", "tests", "assets", *STAGES, *scripts},
    }
    wrong = [
        f"{file} imports {name}"
        for folder, names in forbidden.items()
        for file in files_under(folder)
        for name in sorted(top_level(file) & names)
    ]
    assert wrong == []


def part_of_file(file: Path) -> str:
    """The part of src that a file belongs to: `src/run/files.py` -> `run`."""
    return file.parts[1].removesuffix(".py")


def part_of(name: str) -> str:
    """The part of src that a dotted name belongs to: `src.run.files.read_json` -> `run`."""
    return name.split(".")[1]


def test_packages_of_src_import_lower_ones_alone():
    level = {part: number for number, parts in enumerate(LEVELS) for part in parts}
    wrong = [
        f"{file} imports {name}"
        for file in files_under("src")
        for name in sorted(imports(file))
        if name.startswith("src.")
        and part_of(name) != (own := part_of_file(file))
        and (level[part_of(name)] >= level[own] or (own == "grpo" and part_of(name) in SFT_ONLY))
    ]
    assert wrong == []


def test_every_module_of_src_has_a_place():
    known = {part for parts in LEVELS for part in parts} | {"__init__"}
    found = {part_of_file(file) for file in files_under("src")}
    assert found == known


def test_packages_of_utils_do_not_import_what_stands_at_the_door():
    wrong = [
        f"{file} imports {name}"
        for file in files_under("utils")
        if len(file.parts) > 2
        for name in sorted(imports(file))
        if name.startswith("utils.") and name.split(".")[1] in UTILS_DOOR
    ]
    assert wrong == []


def test_modules_import_one_another_in_no_circle():
    waits_for = {file: {found for name in imports(file) if (found := module_file(name))} - {file}
                 for file in files_under(*PACKAGES)}  # fmt: skip
    list(TopologicalSorter(waits_for).static_order())  # raises CycleError, naming the circle


def test_packages_are_small_and_say_what_they_are():
    for folder in sorted({file.parent for file in files_under("src") if len(file.parts) > 2}):
        modules = [file for file in files_under("src") if file.parent == folder]
        assert len(modules) - 1 <= MAX_MODULES, folder
        assert folder / "__init__.py" in modules, folder
    for file in files_under(*PACKAGES):
        if file.name == "__init__.py":
            docstring, *more = syntax_tree(file).body
            # The first one that any script imports refuses a Python that lacks the project.
            assert not more or file == Path("src/__init__.py"), file
            assert isinstance(docstring, ast.Expr), file
            assert "Read first: `" in ast.unparse(docstring) or file.parent == Path("utils"), file


def test_stages_never_import_one_another():
    scripts = {file.stem: file for file in files_under(*STAGES)}
    wrong = [
        f"{file} imports {name}"
        for file in files_under(*STAGES)
        for name in sorted(top_level(file) & {*STAGES, *scripts, "run_pipeline"})
    ]
    assert wrong == []


def test_utils_knows_neither_torch_nor_the_config():
    wrong = [
        f"{file} imports {name}"
        for file in files_under("utils")
        for name in sorted(imports(file))
        if name.split(".")[0] == "torch" or name.startswith("src.config")
    ]
    assert wrong == []


@pytest.mark.parametrize("library", SINGLE_OWNER)
def test_library_has_one_importing_module_in_src(library: str):
    owners = [str(file) for file in project_files() if library in top_level(file)]
    print(f"{library}: {', '.join(owners) or 'nobody'}")
    assert [owner for owner in owners if not owner.startswith("src/")] == []
    expected = 1 if files_under("src") else 0
    assert len(owners) == expected, f"{library} is imported by {owners or 'no module'}"


def test_config_modules_load_no_model_library():
    wrong = [
        f"{file} imports {name}"
        for file in files_under("src")
        if part_of_file(file) == "config"
        for name in sorted(top_level(file) & set(NOT_IN_CONFIG))
    ]
    assert wrong == []


def test_config_modules_reach_no_model_library_through_other_modules():
    """What a config module imports at its top must answer at once as well."""
    waiting = [file for file in files_under("src") if part_of_file(file) == "config"]
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        heavy = top_level_imports(file) & set(NOT_IN_CONFIG)
        assert not heavy, f"{file}, which a config module loads, imports {sorted(heavy)}"
        waiting += [found for name in imports_at_top(file) if (found := module_file(name))]


def imports_at_top(file: Path) -> set[str]:
    """Dotted names imported when the file is loaded, not inside a function or for types only."""
    names: set[str] = set()
    for node in syntax_tree(file).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute_module(file, node)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def top_level_imports(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_at_top(file)}


def module_file(name: str) -> Path | None:
    """The project's file behind a dotted name, whose last part may be a name in that module."""
    parts = name.split(".")
    for length in (len(parts), len(parts) - 1):
        file = Path(*parts[:length]).with_suffix(".py") if length else Path()
        if parts[0] in PACKAGES and (ROOT / file).is_file():
            return file
    return None


def test_files_are_short():
    lengths = {
        str(file): len((ROOT / file).read_text(encoding="utf-8").splitlines())
        for file in files_under(*PACKAGES)
    }
    assert {file: lines for file, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions_are_short():
    long = [
        f"{file}:{function.lineno} {function.name}: {lines} lines"
        for file in project_files()
        for function in functions(file)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []
