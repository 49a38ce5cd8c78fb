"""The report's page in a real headless browser: it opens, filters and shows no error."""

from __future__ import annotations

import json
import shutil

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def page(pipeline_run):
    """The page of a finished run, with all that the console said."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
        opened = context.new_page()
        said = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.goto((pipeline_run.folder / "report.html").as_uri())
        yield opened
        assert said == []
        browser.close()


def test_the_table_states_what_the_stages_found(page, pipeline_run):
    rows = page.locator("#results tbody tr")
    assert rows.count() == 3
    for row, stage in enumerate(("step0_baseline", "step2_sft", "step3_GRPO")):
        outcome = json.loads((pipeline_run.folder / stage / "outcome.json").read_text())
        cells = rows.nth(row).locator("td").all_inner_texts()
        assert cells[:2] == [stage.replace("_", " "), "48"]
        assert cells[2].startswith(f"{100 * outcome['accuracy']:.1f} [")
    assert page.locator("#variants tbody tr").count() == 3
    assert page.locator("#curves figure").count() >= 6
    assert page.locator("#breakdown figure").count() == 3
    assert "points of the gain are format" in page.locator("#gain").inner_text()


def test_completions_can_be_filtered_and_read(page, pipeline_run):
    lines = (pipeline_run.folder / "step2_sft" / "completions.jsonl").read_text().split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    assert page.locator("#problems details").count() == 48
    page.select_option("#stage", "step2_sft")
    page.select_option("#outcome", "format_failure")
    wanted = [row for row in rows if row["outcome"] == "format_failure"]
    assert page.locator("#problems details").count() == len(wanted) > 0
    assert page.locator("#count").inner_text() == f"{len(wanted)} of 48 problems"
    page.fill("#text", wanted[0]["problem"])
    first = page.locator("#problems details").first
    first.locator("summary").click()
    assert wanted[0]["problem"] in first.inner_text()
    assert wanted[0]["completion"].split()[0] in first.inner_text()
    assert first.locator(".answers > div").count() == 3


@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk_by_day_and_night(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    # Wide tables scroll within themselves; the page does not scroll sideways.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")


def test_it_prints_whole_and_dark_on_white(page):
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 between its margins
    for table in ("results", "variants", "faults"):
        wanted, given = page.evaluate(
            "name => { const box = document.getElementById(name);"
            " return [box.scrollWidth, box.clientWidth]; }",
            table,
        )
        assert wanted <= given, table
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 30, 35)"
    assert not page.locator(".controls").is_visible()
