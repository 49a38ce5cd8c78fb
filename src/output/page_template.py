"""A page as one HTML file that needs no network: a template, the shared style and script, data."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

_SHARED = Path(__file__).parent


def fill(template: Path, title: str, data: dict[str, Any]) -> str:
    """Return the whole page.

    Args:
        template: with @@STYLE@@ and @@SCRIPT@@ for what pages share, @@TITLE@@ and @@DATA@@.
        data: what its script reads.
    """
    # No tag or comment of a text's own: `</script>` ends the element, `<!--<script>` hides its end.
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    page = template.read_text(encoding="utf-8")
    for mark, part in (("@@STYLE@@", shared_style()), ("@@SCRIPT@@", _shared("shared.js"))):
        page = page.replace(mark, part, 1)
    # The title first: a text may hold the other's mark.
    before, after = page.replace("@@TITLE@@", html.escape(title), 1).rsplit("@@DATA@@", 1)
    return f"{before}{embedded}{after}"


def shared_style() -> str:
    """Return the style of every page, by day, by night and on paper."""
    return _shared("shared.css")


def _shared(name: str) -> str:
    return (_SHARED / name).read_text(encoding="utf-8").strip()
