"""What README and the other documents name exists."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "step*/*.md", "utils/*/*.md", "docs/*.md")
    for path in ROOT.glob(pattern)
)
ROOTS = "src|utils|tests|config|prompts|assets|requirements|docs|step|\\.ci"
# `src/run/files.py`, `config/recipes/`; neither patterns (`step*`, `<run>`) nor words with a slash.
PATH = re.compile(rf"(?:(?<=[`\s(])|^)((?:{ROOTS})[\w.]*(?:/[\w.]+)*/?)(?=[`\s):,;.]|$)")
LINK = re.compile(r"\]\(([^)#\s]+)\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_named_in_a_document_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = {name for name in PATH.findall(text) if "/" in name}
    missing = [name for name in sorted(named) if not (ROOT / name.rstrip(".")).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_in_a_document_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link]
    missing = [link for link in links if not ((ROOT / document).parent / link).exists()]
    assert missing == []
