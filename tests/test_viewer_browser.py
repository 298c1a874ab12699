"""The viewer's pages in a real Chromium: what a person sees, does and reads."""

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import screenshots

pytestmark = pytest.mark.browser

THEMES = ("light", "dark")
CONTRAST = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const wrong = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility({ opacityProperty: true }) || element.closest(".hidden, .skip")) continue;
    const style = getComputedStyle(element);
    const colour = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(colour), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) wrong.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return wrong;
}
"""


def cannot(reason: str) -> None:
    """Skip with the reason; fail where nobody would read it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        cannot("playwright is not installed")
    if screenshots.chromium() is None:
        cannot("there is no Chromium here; CHROMIUM can name one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=screenshots.chromium(), args=screenshots.CHROMIUM_ARGUMENTS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def filled(default_project: Path) -> Iterator[str]:
    """The address of a viewer with a minute of traffic in it. Tests only look."""
    with screenshots.viewer(default_project) as address:
        screenshots.fill(address)
        yield address


@pytest.fixture
def empty(default_project: Path) -> Iterator[str]:
    with screenshots.viewer(default_project) as address:
        yield address


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test when it writes an error, or loads anything from elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith("http://127.0.0.1:") else said.append(one.url))
    page.set_default_timeout(10_000)
    yield page
    context.close()
    assert said == []


def traces(address: str) -> list[dict[str, Any]]:
    return list(json.load(urllib.request.urlopen(f"{address}/api/traces?limit=1000", timeout=30)))


def paths(address: str) -> dict[str, str]:
    kept = traces(address)
    home = next(trace for trace in kept if trace.get("route") == "/api/activities/home")
    failed = next(trace for trace in kept if trace["error"])
    return {
        "query": "/",
        "traces": "/traces",
        "trace": f"/traces/{home['trace_id']}",
        "failed": f"/traces/{failed['trace_id']}",
        "logs": "/logs",
    }


def shown(page: Any, name: str) -> None:
    """Wait until the details are those of the span of this name."""
    page.locator("#span h2", has_text=re.compile(f"^{re.escape(name)}$")).wait_for()


def test_the_start_page_shows_at_once_which_route_is_slow(page: Any, filled: str) -> None:
    page.goto(filled)
    assert page.locator("h1").inner_text() == "Which routes are slow?"
    assert page.locator(".results tbody tr").first.inner_text().startswith("/api/examples/slow")
    cells = page.locator("svg.heatmap rect[data-at]").evaluate_all(
        "cells => cells.map(cell => Number(cell.dataset.at.split(',')[2]))"
    )
    assert sum(cells) == len(traces(filled))
    assert page.locator("svg.lines polyline").count() >= 4


def test_an_empty_viewer_comes_alive_with_the_first_trace(page: Any, empty: str) -> None:
    page.goto(empty)
    assert "Waiting for the first trace" in page.locator("main").inner_text()
    screenshots.fill(empty, requests=20, seconds=2)
    page.locator(".results tbody tr").first.wait_for()
    page.goto(f"{empty}/traces")
    rows = page.locator(".traces tbody tr")
    assert rows.count() == 20
    began = time.monotonic()
    screenshots.fill(empty, requests=1, seconds=0.1, seed=2)
    rows.nth(20).wait_for()
    assert time.monotonic() - began < 5


def test_live_can_be_stopped(page: Any, empty: str) -> None:
    screenshots.fill(empty, requests=2, seconds=1)
    page.goto(f"{empty}/traces")
    page.get_by_role("button", name="Live").click()
    screenshots.fill(empty, requests=2, seconds=1, seed=2)
    page.wait_for_timeout(3500)
    assert page.locator(".traces tbody tr").count() == 2


def test_traces_are_filtered_by_the_form(page: Any, filled: str) -> None:
    page.goto(f"{filled}/traces")
    page.get_by_label("Status").select_option("error")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**status=error**")
    assert set(page.locator(".traces .status").all_inner_texts()) == {"500"}
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Text").fill("FREE")
    page.get_by_label("Text").press("Enter")
    page.wait_for_url("**text=FREE**")
    page.get_by_label("At least").fill("100")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**min_duration=100**")
    assert set(page.locator(".traces .what a").all_inner_texts()) == {"GET /api/examples/slow"}


def test_a_waterfall_is_walked_by_keyboard_and_by_mouse(page: Any, filled: str) -> None:
    page.goto(filled + paths(filled)["trace"])
    rows = page.locator(".row")
    assert [name.strip() for name in rows.locator(".name").all_inner_texts()] == [
        "GET /api/activities/home",
        "find-activities",
        "GET",
        "GET /api/profiles",
        "find-profiles",
    ]
    lefts = [row.bounding_box()["x"] for row in rows.locator("rect.span").all()]
    assert lefts == sorted(lefts)
    assert page.locator("rect.critical").count() > 3
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    shown(page, "find-activities")
    assert "app.plan" in page.locator("#span").inner_text()
    rows.nth(3).click()
    shown(page, "GET /api/profiles")
    assert "span=" in page.url
    shared = page.url
    page.goto("about:blank")
    page.goto(shared)
    assert page.locator("#span h2").inner_text() == "GET /api/profiles"


def test_an_error_shows_its_exception_and_its_log(page: Any, filled: str) -> None:
    page.goto(filled + paths(filled)["failed"])
    assert "Unhandled exception" in page.locator("#span").inner_text()
    page.get_by_text("divide-by-likes").click()
    shown(page, "divide-by-likes")
    assert "ZeroDivisionError" in page.locator("#span .exception").inner_text()
    page.goto(f"{filled}/logs?severity=17")
    page.get_by_role("link", name="trace", exact=True).first.click()
    assert page.locator("h1").inner_text() == "GET /api/examples/failing"


def test_a_box_on_the_heatmap_shows_what_sets_it_apart(page: Any, filled: str) -> None:
    page.goto(filled)
    screenshots.draw_box(page, 0.01, 0.0, 0.99, 0.35)
    page.wait_for_url("**box=**")
    comparison = page.locator("#comparison")
    assert "http.route" in comparison.inner_text()
    first = comparison.locator("table").first.locator("tr").first.inner_text()
    assert re.search(r"/api/examples/slow\s+100 %\s+0 %", first)
    assert page.locator("svg.heatmap rect.box").is_visible()
    comparison.get_by_role("link", name="/api/examples/slow", exact=True).first.click()
    page.wait_for_url(re.compile("http.route.*slow"))
    assert page.locator(".results tbody tr").count() == 1


def test_a_cell_of_the_heatmap_opens_its_trace(page: Any, filled: str) -> None:
    page.goto(filled)
    cell = page.locator("svg.heatmap rect[data-at]").last.bounding_box()
    page.mouse.move(cell["x"] + cell["width"] / 2, cell["y"] + cell["height"] / 2)
    assert "1 span" in page.locator(".reading").inner_text()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/traces/**")
    assert page.locator(".row").count() > 1


def test_the_heatmap_works_by_keyboard(page: Any, filled: str) -> None:
    page.goto(filled)
    page.locator("svg.heatmap").focus()
    page.keyboard.press("ArrowRight")
    reading = page.locator(".reading").inner_text()
    assert re.search(r"\d span", reading)
    page.keyboard.press("Escape")
    assert "Drag a box" in page.locator(".reading").inner_text()
    page.keyboard.press("ArrowRight")
    for _ in range(40):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_url("**box=**")
    page.goto(filled)
    page.locator("svg.heatmap").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**/traces/**")


def test_the_builder_asks_and_the_address_keeps_the_query(page: Any, filled: str) -> None:
    page.goto(filled)
    page.get_by_label("Calculation").last.select_option("COUNT_DISTINCT")
    page.get_by_label("of the field").last.fill("trace.trace_id")
    page.locator("input[name=by]").first.fill("service.name")
    page.get_by_role("button", name="Run query").click()
    page.wait_for_url("**/query?query=**")
    assert "COUNT_DISTINCT(trace.trace_id)" in page.locator(".results thead").inner_text()
    assert page.locator(".results tbody tr").first.inner_text().startswith("backend-flask")
    page.locator("input[name=by]").first.fill("no.such.field")
    page.keyboard.press("Enter")
    page.wait_for_url("**no.such.field**")
    assert "no.such.field" in page.get_by_role("alert").inner_text()
    assert page.locator("datalist#columns option[value='http.route']").count() == 1


def test_every_control_can_be_reached_and_seen_by_keyboard(page: Any, filled: str) -> None:
    for path in paths(filled).values():
        page.goto(filled + path)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        unseen = page.evaluate(
            """() => [...document.querySelectorAll("main a, main button, main input, main select, .heatmap")]
                .filter((one) => one.checkVisibility()).slice(0, 60).filter((one) => {
                  one.focus({focusVisible: true});
                  const style = getComputedStyle(one);
                  return document.activeElement !== one || ["none", "0px"].includes(style.outlineStyle);
                }).map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert unseen == [], path
        named = page.evaluate(
            """() => [...document.querySelectorAll("input:not([type=hidden]), select, button")].filter((one) =>
                !one.labels?.length && !one.ariaLabel && !one.innerText.trim()
            ).map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert named == [], path


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_the_contrast_that_wcag_aa_asks_for(page: Any, filled: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    box = json.dumps({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]})
    for path in (*paths(filled).values(), f"/query?query={box}&box=0,9999999999,50,9999,duration_ms"):
        page.goto(filled + path)
        assert page.evaluate(CONTRAST) == [], path
    grounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", grounds))) < 200) == (theme == "dark")


@pytest.mark.parametrize("width", [380, 768])
def test_no_page_is_wider_than_a_narrow_screen(page: Any, filled: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    for path in paths(filled).values():
        page.goto(filled + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.goto(filled + paths(filled)["trace"])
    page.locator(".row").nth(1).click()
    shown(page, "find-activities")


def test_pages_work_without_their_script(browser: Any, filled: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(filled)
    page.get_by_role("button", name="Run query").click()
    assert page.locator(".results tbody tr").count() == 4
    page.goto(filled + paths(filled)["trace"])
    page.locator(".row").nth(1).click()
    assert page.locator("#span h2").inner_text() == "find-activities"
    context.close()


def test_the_pictures_for_the_docs_are_small(browser: Any, filled: str, tmp_path: Path) -> None:
    pictures = screenshots.take(browser, filled, tmp_path)
    assert len(pictures) == 8
    for picture in pictures:
        assert 5_000 < picture.stat().st_size < 200_000, picture.name
