"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Collection[str] = ()
) -> str:
    """Write a table; the first column is text, the others are numbers and so aligned right.

    Args:
        texts: names of further columns that are text.

    >>> print(markdown_table(("stage", "n", "file"), [("SFT", "1,000", "a.md")], texts=["file"]))
    | stage | n | file |
    | --- | ---: | --- |
    | SFT | 1,000 | a.md |
    """
    rule = ["---", *("---" if name in texts else "---:" for name in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
