"""Which columns of a data set hold the problem, its worked solution and its answer.

What the known sets look like is data (`CANDIDATES`, `SHAPES`, `FLAGS`), taken from their cards on
the hub; docs/data.md lists them. A path with dots leads into nested columns and lists:
`reward_model.ground_truth`, `generations.1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from utils.data.answers import answer_text
from utils.data.json_lines import DataError
from utils.data.worked_texts import split_worked, without_instructions, without_marks

Row = dict[str, Any]
Role = Literal["problem", "solution", "answer"]
ROLES: tuple[Role, ...] = ("problem", "solution", "answer")

CANDIDATES: dict[Role, tuple[str, ...]] = {
    "problem": ("problem", "question", "prompt", "input", "query"),
    "solution": ("solution", "generated_solution", "output", "response", "r1_solution_1"),
    "answer": (
        *("answer", "final_answer", "ground_truth", "expected_answer"),
        "reward_model.ground_truth",
    ),
}
CHATS = ("conversations", "messages")
"""Read for problem and solution where no column of its own holds one."""
SPEAKERS = {"problem": ("user", "human"), "solution": ("assistant", "gpt")}
FLAGS = {
    "generations": ("correctness_math_verify", "correctness_llama"),
    "conversations": ("correct",),
}
"""Columns that say of completions which are right; one that is not is no solution."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The path of the column that holds each role; None where none does."""

    problem: str | None = None
    solution: str | None = None
    answer: str | None = None


SHAPES: tuple[tuple[frozenset[str], Columns], ...] = (
    (  # open-r1/OpenR1-Math-220k
        frozenset(("problem", "solution", "answer", "generations", "correctness_math_verify")),
        Columns("problem", "generations", "answer"),
    ),
    (  # open-r1/OpenThoughts-114k-math
        frozenset(("problem", "solution", "conversations", "correct")),
        Columns("problem", "conversations", "solution"),
    ),
    (  # open-thoughts/OpenThoughts-114k, configuration `metadata`
        frozenset(("problem", "deepseek_solution", "ground_truth_solution")),
        Columns("problem", "deepseek_solution", "ground_truth_solution"),
    ),
)
"""Sets that hold two kinds of solution, and which is read: what a verified model wrote."""


@dataclass(frozen=True, slots=True)
class RowTexts:
    """The texts of a row; "" for a solution or an answer that it does not state."""

    problem: str
    solution: str
    answer: str


def recognise(rows: Sequence[Row], named: Columns, file: str, setting: str) -> Columns:
    """Return the columns that a data set's first rows show, or that were named by hand.

    Args:
        setting: configuration key that names columns, for the messages.

    Raises:
        DataError: when a named column is not there, when two could hold one role and differ, or
            when none holds the problem, or neither solution nor answer; with the columns seen.
    """
    seen = dict.fromkeys(key for row in rows for key in row)
    hint = f"the columns are {', '.join(map(repr, seen)) or 'none'}; name one in {setting}."
    by_hand = {path for role in ROLES if (path := getattr(named, role))}
    shape = next((columns for needs, columns in SHAPES if needs <= seen.keys()), Columns())
    found: dict[str, str | None] = {}
    for role in ROLES:
        path = getattr(named, role)
        if path and not any(_stated(value_at(row, path)) for row in rows):
            raise DataError(f"{file}: {setting}.{role}: no row has {path!r}; {hint}{role}")
        open_to = [name for name in _present(rows, CANDIDATES[role]) if name not in by_hand]
        found[role] = path or getattr(shape, role) or _only(rows, role, open_to, file, hint)
    if not named.solution and _only_answers(rows, found["solution"], found["answer"]):
        found["solution"] = None
    if not found["problem"]:
        raise DataError(f"{file}: no column is known to hold the problem; {hint}problem")
    if not (found["solution"] or found["answer"]):
        raise DataError(f"{file}: no column is known to hold answers or solutions; {hint}answer")
    return Columns(**found)


def read_texts(row: Row, columns: Columns, where: str) -> RowTexts:
    """Return the texts of one row.

    Raises:
        DataError: for a problem that is no text, and for a value that cannot be read.
    """
    problem = read_text(row, "problem", columns.problem or "problem", where)
    path = columns.solution
    solution = read_text(row, "solution", path, where) if path and _there(row, path) else ""
    stated = _answer(row, columns.answer, where)
    # A column of solutions that is read for the answer, or the only one there is, has it in a box.
    boxed = not columns.solution or (columns.answer or "").lower() not in CANDIDATES["answer"]
    if worked := split_worked(stated, boxed=boxed):
        own = solution if columns.solution else worked.solution
        return RowTexts(problem, own, worked.answer)
    if worked := split_worked(solution, boxed=False):
        return RowTexts(problem, worked.solution, stated or worked.answer)
    return RowTexts(problem, solution, stated)


def read_text(row: Row, role: Role, path: str, where: str) -> str:
    """Return a problem or solution: a text, a turn of a chat, or one of several completions.

    Raises:
        DataError: when there is no text, or a blank one.
    """
    value = value_at(row, path)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = _turn(value, role)
    if role == "solution" and value is not None:
        value = _right_one(row, path, value)
        if value is None:
            return ""
    if not isinstance(value, str) or not value.strip():
        found = "blank" if isinstance(value, str) else type(value).__name__
        if value is None and path.partition(".")[0] not in row:
            found = f"missing; there are {', '.join(map(repr, row)) or 'none'}"
        raise DataError(
            f"{where}: key '{path}' must be a text, got {found}; each row needs a problem, and a "
            "solution or an answer"
        )
    if value.startswith(("[{", "['", '["')) and value.rstrip().endswith(("}]", "']", '"]')):
        raise DataError(
            f"{where}: key '{path}' is a list written as a text ({value[:40]!r}), which a table of "
            "separated values cannot hold; write the rows as JSON lines or Parquet"
        )
    return without_instructions(value) if role == "problem" else without_marks(value)


def value_at(row: Any, path: str) -> Any:
    """Return what a dotted path leads to; None where it leads nowhere.

    >>> value_at({"a": {"b": [1, 2]}}, "a.b.1"), value_at({"c.d": 3}, "c.d")
    (2, 3)
    """
    if isinstance(row, dict) and path in row:
        return row[path]
    head, _, rest = path.partition(".")
    if isinstance(row, list):
        inner = row[int(head)] if head.isdecimal() and int(head) < len(row) else None
    else:
        inner = row.get(head) if isinstance(row, dict) else None
    return value_at(inner, rest) if rest else inner


def _stated(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def _there(row: Row, path: str) -> bool:
    value = value_at(row, path)
    return value is not None and value == value


def _present(rows: Sequence[Row], candidates: Sequence[str]) -> list[str]:
    """Return the columns there are of the candidates, in their order, upper case or lower."""
    spelt = {key.casefold(): key for row in rows for key in row if isinstance(key, str)}
    paths = [
        ".".join([spelt.get(head, head), *rest])
        for head, *rest in (path.split(".") for path in candidates)
    ]
    return [path for path in paths if any(_stated(value_at(row, path)) for row in rows)]


def _only(
    rows: Sequence[Row], role: Role, paths: Sequence[str], file: str, hint: str
) -> str | None:
    """Return the first of the columns for a role; refuse when another says something else."""
    if not paths:
        return next(iter(_present(rows, CHATS)), None) if role in SPEAKERS else None
    first = paths[0]
    for number, row in enumerate(rows, 1):
        for other in paths[1:]:
            if _stated(value_at(row, first)) and _stated(value_at(row, other)):
                texts = [_comparable(row, role, path) for path in (first, other)]
                if texts[0] != texts[1]:
                    raise DataError(
                        f"{file}: {first!r} and {other!r} could both be the {role}, and they "
                        f"differ (row {number}: {texts[0][:40]!r} and {texts[1][:40]!r}); "
                        f"{hint}{role}"
                    )
    return first


def _comparable(row: Row, role: Role, path: str) -> str:
    """Return what a row would say if the column held the role."""
    try:
        if role == "answer":
            return read_texts(row | {"problem": "-"}, Columns("problem", None, path), "").answer
        return " ".join(read_text(row, role, path, "").split())
    except DataError:
        return repr(value_at(row, path))


def _only_answers(rows: Sequence[Row], solution: str | None, answer: str | None) -> bool:
    """Tell whether what looks like solutions only repeats the answers (DAPO-Math-17k-Processed)."""
    if not solution or not answer:
        return False
    pairs = [(value_at(row, solution), value_at(row, answer)) for row in rows]
    both = [(str(a).strip(), str(b).strip()) for a, b in pairs if _stated(a) and _stated(b)]
    return bool(both) and all(a == b for a, b in both)


def _turn(chat: Sequence[Row], role: Role) -> str | None:
    """Return what the user asked last, or the assistant's last reply."""
    said = [
        turn.get("content", turn.get("value"))
        for turn in chat
        if turn.get("role", turn.get("from")) in SPEAKERS.get(role, ())
    ]
    return said[-1] if said else None


def _right_one(row: Row, path: str, value: Any) -> Any:
    """Choose the first completion that is flagged right; None for none, the first without flags."""
    flags = [row[name] for name in FLAGS.get(path, ()) if _stated(row.get(name))]
    if not isinstance(value, list):
        return None if any(flag is False for flag in flags) else value
    if not flags:
        return value[0] if value else None
    right = [any(marks) for marks in zip(*flags, strict=False)]
    return next((text for text, is_right in zip(value, right, strict=False) if is_right), None)


def _answer(row: Row, path: str | None, where: str) -> str:
    """Return a stated answer as text; a list of one is that one."""
    value = value_at(row, path) if path else None
    if isinstance(value, list) and len(value) < 2:
        value = value[0] if value else None
    try:
        return answer_text(value)
    except TypeError as error:
        raise DataError(f"{where}: key '{path}' {error}") from None
