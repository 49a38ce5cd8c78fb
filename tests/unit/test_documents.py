"""What README and the other documents name exists, and their figures agree with one another."""

from __future__ import annotations

import re

import pytest
import yaml

from src.config.reference import settings_of
from src.config.schema import Config
from tests.conftest import ROOT
from utils.stats.statistics import wilson_interval

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "step*/*.md", "utils/*/*.md", "docs/*.md")
    for path in ROOT.glob(pattern)
)
ROOTS = "src|utils|tests|config|prompts|assets|requirements|docs|notebooks|step|\\.ci"
# `src/run/files.py`, `config/recipes/`; neither patterns (`step*`, `<run>`) nor words with a slash.
PATH = re.compile(rf"(?:(?<=[`\s(])|^)((?:{ROOTS})[\w.]*(?:/[\w.]+)*/?)(?=[`\s):,;.#]|$)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SECTIONS = "|".join(Config.model_fields)
# `grpo.kl_beta`, `train.adapter=lora`, `devices.train: cpu:0-3`; no file's name (`grpo.py`).
SETTING = re.compile(
    rf"(?:--set '?|`)((?:{SECTIONS})\.(?!py\b|yaml\b|jsonl\b|log\b)[a-z]\w*(?:\.\w+)*)"
)
SETTINGS = {path for path, _ in settings_of(Config, "")}
INTERVAL = re.compile(r"\| ([\d,]+) \| ([\d.]+) (?:% )?\[([\d.]+), ([\d.]+)\]")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_named_in_a_document_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = {name for name in PATH.findall(text) if "/" in name}
    missing = [name for name in sorted(named) if not (ROOT / name.rstrip(".")).exists()]
    assert missing == []


def _anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_in_a_document_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in LINK.findall(text):
        place, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / document).parent / place if place else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_settings_named_in_a_document_exist(document):
    named = set(SETTING.findall((ROOT / document).read_text(encoding="utf-8")))
    assert named - SETTINGS == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_make_targets_named_in_a_document_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = re.findall(r"`make ([a-z0-9-]+)", text) + re.findall(r"^make ([a-z0-9-]+)", text, re.M)
    assert set(named) <= targets


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_readmes_results_stand_in_the_page_of_results():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Results")[2]
    text = text.partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) >= 4
    assert [row for row in rows if row not in page] == []
    figures = re.findall(r"[+-]?\d+\.\d+(?=[ ,\]%])", text)
    assert [figure for figure in figures if figure not in page] == []


@pytest.mark.parametrize("document", ["README.md", "docs/results.md"])
def test_recorded_intervals_are_wilsons(document):
    found = INTERVAL.findall((ROOT / document).read_text(encoding="utf-8"))
    assert len(found) >= 3
    for n, rate, low, high in found:
        count = int(n.replace(",", ""))
        right = round(float(rate) / 100 * count)
        bounds = [f"{100 * bound:.1f}" for bound in wilson_interval(right, count)]
        assert bounds == [low, high], (n, rate)


def test_the_citation_names_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in project
    assert citation["license"] == "MIT"
    assert citation["title"].startswith(re.search(r'^name = "(.*)"', project, re.M)[1])


def test_the_changelog_is_newest_first():
    days = re.findall(r"^## (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert len(days) >= 4
    assert days == sorted(set(days), reverse=True)
