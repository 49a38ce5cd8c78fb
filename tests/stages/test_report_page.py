"""The report's page in a real headless browser: it opens, filters and shows no error."""

from __future__ import annotations

import json
import shutil

import pytest
from playwright.sync_api import sync_playwright

from src.report.page import render_page
from src.report.report import read_outcomes
from src.run.terminal import percent

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


# Each would set `window.ran`, or break the page, if any part of it were taken for markup.
HOSTILE = (
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    "<!--<script>window.ran = 1",
    '<img src=x onerror="window.ran = 1">',
    '"><svg onload="window.ran = 1">',
    "' onmouseover='window.ran = 1' x='",
    "</pre></details></textarea></style><iframe srcdoc='<script>parent.ran = 1</script>'>",
    "[a](javascript:window.ran=1) @@DATA@@ @@TITLE@@ ${window.ran = 1} {{window.ran = 1}}",
    "=HYPERLINK(1)\u2028\u2029\u0000\u202e\x1b]0;title\x07",
)


@pytest.fixture
def opened():
    """Open a page file in the browser; what the console says fails the test."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
        page = context.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda asked: said.append(asked.url))

        def goto(file):
            page.goto(file.as_uri())
            return page

        yield goto
        # The page's own file is all that is ever asked for.
        assert [line for line in said if not line.endswith("/report.html")] == []
        browser.close()


@pytest.fixture
def page(pipeline_run, opened):
    """The page of a finished run."""
    return opened(pipeline_run.folder / "report.html")


def test_texts_of_problems_and_completions_run_nothing(pipeline_run, opened, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(pipeline_run.folder, folder, ignore=shutil.ignore_patterns("wandb", "trl"))
    for file in folder.glob("*/completions*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
        for number, row in enumerate(rows):
            text = HOSTILE[number % len(HOSTILE)]
            row |= dict.fromkeys(("problem", "completion", "reference", "answer", "reason"), text)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page_file = folder / "report.html"
    outcomes = read_outcomes(folder)
    report = json.loads((folder / "report.json").read_text())
    page_file.write_text(render_page(report, outcomes, folder, HOSTILE[0]))
    page = opened(page_file)
    problems = page.locator("#problems details")
    assert problems.count() >= len(HOSTILE)
    for number in range(len(HOSTILE)):
        problems.nth(number).locator("summary").click()
        problems.nth(number).hover()
    assert HOSTILE[0] in page.locator("#problems").inner_text()
    assert page.locator("#gain").inner_text() == HOSTILE[0]
    for text in HOSTILE:
        page.fill("#text", text)
    assert page.evaluate("window.ran") is None
    assert page.locator("iframe, #problems img, #problems svg, #problems a").count() == 0
    assert page.title().endswith(folder.name)


def test_the_table_states_what_the_stages_found(page, pipeline_run):
    rows = page.locator("#results tbody tr")
    assert rows.count() == 3
    for row, stage in enumerate(("step0_baseline", "step2_sft", "step3_GRPO")):
        outcome = json.loads((pipeline_run.folder / stage / "outcome.json").read_text())
        cells = rows.nth(row).locator("td").all_inner_texts()
        assert cells[:2] == [stage.replace("_", " "), "48"]
        assert cells[2].startswith(f"{percent(outcome['accuracy'])} [")
    assert page.locator("#variants tbody tr").count() == 3
    assert page.locator("#curves figure").count() >= 6
    assert page.locator("#breakdown figure").count() == 3
    assert "points of the gain are format" in page.locator("#gain").inner_text()


def test_page_and_markdown_round_alike(page):
    shares = [count / n for n in (16, 48, 200, 256, 1000, 2000) for count in range(n + 1)]
    written = page.evaluate("shares => shares.map(percent)", shares)
    assert written == [percent(share) for share in shares]


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
