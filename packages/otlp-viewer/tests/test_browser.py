"""The pages in a real Chromium: what a person sees, does and reads, from a question to the span that answers it."""

import itertools
import json
import os
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import traffic
from browser import ARGUMENTS, chromium, page
from browser import path as chromium_path
from running import free_port, get, missing, viewer

__all__ = ["chromium", "page"]  # fixtures
pytestmark = pytest.mark.browser
THEMES = ("light", "dark")
AXE = next(
    filter(
        Path.is_file,
        (Path(folder) / "axe-core" / "axe.min.js" for folder in os.environ.get("NODE_PATH", "node_modules").split(":")),
    ),
    None,
)


@pytest.fixture(scope="module")
def filled() -> Iterator[str]:
    """The address of a viewer with two minutes of traffic in it. Tests only look."""
    with viewer(free_port()) as address:
        traffic.fill(address)
        yield address


@pytest.fixture(scope="module")
def unusual(filled: str) -> dict[str, str]:
    """The ids of one trace of each unusual kind."""
    return traffic.odd(filled)


@pytest.fixture
def empty() -> Iterator[str]:
    with viewer(free_port()) as address:
        yield address


def traces(address: str) -> list[dict[str, Any]]:
    return list(get(address, "/api/traces?limit=1000"))


def trace_of(address: str, name: str, error: bool = False) -> str:
    return next(str(one["trace_id"]) for one in traces(address) if one["name"] == name and one["error"] == error)


def paths(address: str) -> dict[str, str]:
    heatmap = json.dumps({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]})
    return {
        "overview": "/",
        "traces": "/traces",
        "trace": f"/traces/{trace_of(address, 'POST /checkout')}",
        "failed": f"/traces/{trace_of(address, 'POST /checkout', True)}",
        "found": f"/traces/{trace_of(address, 'POST /checkout', True)}?search=CardDeclined",
        "logs": "/logs",
        "query": "/query",
        "box": f"/query?query={heatmap}&box=0,9999999999,250,99999,duration_ms",
        "clear": "/clear",
    }


def details(page: Any, name: str) -> None:
    """Wait until the details are those of the span of this name."""
    page.locator("#span h2", has_text=re.compile(f"^{re.escape(name)}$")).wait_for()


def has_count(rows: Any, number: int) -> None:
    """Wait until there are so many rows."""
    from playwright.sync_api import expect

    expect(rows).to_have_count(number)


def at_a_span(page: Any) -> None:
    page.wait_for_url(re.compile(r"/traces/[0-9a-f]{32}"))
    page.locator("#tree .row.chosen").wait_for()
    assert page.locator("#span h2").inner_text()


# From a result to a span


def questions(filled: str) -> list[str]:
    text = urllib.request.urlopen(f"{filled}/query", timeout=30).read().decode()
    return re.findall(r'<a href="(/query\?[^"]+)"', text.split('class="questions"')[1].split("</nav>")[0])


@pytest.mark.parametrize("number", range(5))
def test_each_preset_question_leads_to_a_span_in_two_clicks_and_back(page: Any, filled: str, number: int) -> None:
    link = questions(filled)[number].replace("&amp;", "&").replace("&#34;", '"')
    page.goto(filled + link)
    result = page.url
    page.locator(".results tbody tr").first.locator(".cover").click()
    if "/traces/" not in page.url:
        page.locator(".traces tbody tr").first.click()
    at_a_span(page)
    shared = page.url
    while page.url != result:
        page.go_back()
    assert page.locator(".results tbody tr").count() > 0
    page.goto("about:blank")
    page.goto(shared)
    at_a_span(page)


def test_a_cell_of_the_heatmap_opens_its_slowest_span(page: Any, filled: str) -> None:
    page.goto(f"{filled}/query")
    column, row, _ = json.loads(page.locator("svg.heatmap").get_attribute("data-cells"))[-1]
    move_to_cell(page, column, row)
    assert re.search(r"\d span", page.locator(".reading").first.inner_text())
    page.mouse.down()
    page.mouse.up()
    at_a_span(page)
    assert "span=" in page.url


def move_to_cell(page: Any, column: int, row: int) -> None:
    heatmap = page.locator("svg.heatmap")
    heatmap.scroll_into_view_if_needed()
    around = heatmap.bounding_box()
    width, columns = (float(heatmap.get_attribute(f"data-{name}")) for name in ("width", "columns"))
    rows, height = (float(heatmap.get_attribute(f"data-{name}")) for name in ("rows", "height"))
    assert width >= columns
    place = next(
        x + column - first
        for _, first, length, x in json.loads(heatmap.get_attribute("data-periods"))
        if first <= column < first + length
    )
    page.mouse.move(
        around["x"] + (place + 0.5) / width * around["width"], around["y"] + (rows - row - 0.5) / rows * height
    )


def draw_box(page: Any, left: float, top: float, right: float, bottom: float) -> None:
    """Drag a box over the heatmap, from and to shares of its width and its height."""
    heatmap = page.locator("svg.heatmap")
    heatmap.scroll_into_view_if_needed()
    around = heatmap.bounding_box()
    height = float(heatmap.get_attribute("data-height"))
    page.mouse.move(around["x"] + left * around["width"], around["y"] + top * height + 1)
    page.mouse.down()
    page.mouse.move(around["x"] + right * around["width"], around["y"] + bottom * height, steps=5)
    page.mouse.up()


def test_a_box_shows_its_differences_and_each_bar_links_to_traces(page: Any, filled: str) -> None:
    page.goto(f"{filled}/query")
    draw_box(page, 0.01, 0.0, 0.99, 0.4)
    page.wait_for_url("**box=**")
    comparison = page.locator("#comparison")
    assert "http.route" in comparison.inner_text()
    assert page.locator("svg.heatmap rect.box").is_visible()
    comparison.locator("tr a.cover").first.click()
    page.wait_for_url("**/traces?**")
    assert "duration_ms from" in page.locator(".chips").inner_text()
    page.locator(".traces tbody tr").first.click()
    at_a_span(page)


def test_a_point_of_a_line_links_to_its_traces(page: Any, filled: str) -> None:
    page.goto(f"{filled}/query")
    chart = page.locator("svg.lines").first
    chart.scroll_into_view_if_needed()
    chart.hover(position={"x": 60, "y": 40})
    assert re.search(r"\d+ ms|\d+ s", chart.locator("xpath=../../p").inner_text())
    chart.click(position={"x": 60, "y": 40})
    page.wait_for_url("**/traces?**start=**")
    page.locator(".traces tbody tr").first.click()
    at_a_span(page)


def test_the_heatmap_works_by_keyboard(page: Any, filled: str) -> None:
    page.goto(f"{filled}/query")
    page.locator("svg.heatmap").focus()
    page.keyboard.press("ArrowRight")
    assert re.search(r"\d span", page.locator(".reading").first.inner_text())
    page.keyboard.press("Escape")
    assert "Drag a box" in page.locator(".reading").first.inner_text()
    page.keyboard.press("ArrowRight")
    for _ in range(40):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_url("**box=**")
    page.goto(f"{filled}/query")
    page.locator("svg.heatmap").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    at_a_span(page)


def test_the_builder_runs_a_query_and_the_url_contains_it(page: Any, filled: str) -> None:
    page.goto(f"{filled}/query")
    page.get_by_label("Calculation").last.select_option("COUNT_DISTINCT")
    page.get_by_label("of the field").last.fill("trace.trace_id")
    page.locator("input[name=by]").first.fill("service.name")
    page.get_by_role("button", name="Run query").click()
    page.wait_for_url("**/query?query=**")
    assert "COUNT_DISTINCT(trace.trace_id)" in page.locator(".results thead").inner_text()
    before = page.url
    page.get_by_role("button", name="Run query").click()
    page.wait_for_load_state()
    assert page.url == before
    page.get_by_role("link", name="service.name").click()
    page.wait_for_url("**orders**")
    names = page.locator(".results .cover").all_inner_texts()
    assert names == sorted(names)
    page.locator(".results").get_by_role("link", name="service.name").click()
    page.wait_for_url("**descending**")
    assert page.locator(".results .cover").all_inner_texts() == names[::-1]
    page.locator("input[name=by]").first.fill("no.such.field")
    page.keyboard.press("Enter")
    page.wait_for_url("**no.such.field**")
    assert "no.such.field" in page.get_by_role("alert").inner_text()


def test_a_cell_of_the_logs_heatmap_links_to_its_logs(page: Any, filled: str) -> None:
    asking = json.dumps({"calculations": [{"op": "HEATMAP", "column": "severity_number"}]})
    page.goto(f"{filled}/query?" + urllib.parse.urlencode({"query": asking, "signal": "logs"}))
    column, row, count = json.loads(page.locator("svg.heatmap").get_attribute("data-cells"))[-1]
    move_to_cell(page, column, row)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/logs?**")
    assert page.locator(".log").count() == count


def test_the_builder_is_filled_from_the_list_and_from_span_fields(page: Any, filled: str) -> None:
    page.goto(f"{filled}/traces?service=payments")
    page.get_by_role("link", name="Open in the query builder").click()
    page.wait_for_url("**/query?**")
    assert page.locator("input[name=where]").first.input_value() == "service.name"
    assert page.locator(".results tbody tr").count() >= 2
    page.goto(filled + paths(filled)["trace"])
    page.locator("#span .fields > div", has_text="app.plan").hover()
    page.get_by_role("link", name="by app.plan").click()
    page.wait_for_url("**/query?**")
    assert page.locator("input[name=by]").first.input_value() == "app.plan"
    page.locator(".results tbody tr .cover").first.click()
    page.locator(".traces tbody tr").first.click()
    at_a_span(page)


# Lists


def test_the_first_page_links_to_services_their_errors_and_slowest_traces(page: Any, filled: str) -> None:
    page.goto(filled)
    page.get_by_role("link", name="payments", exact=True).click()
    page.wait_for_url("**service=payments**")
    page.go_back()
    page.locator("section", has=page.get_by_role("heading", name="Errors")).locator("tbody tr").first.click()
    at_a_span(page)
    page.go_back()
    page.locator("section", has=page.get_by_role("heading", name="Slowest")).locator("tbody tr").first.click()
    at_a_span(page)


def test_twenty_traces_fit_on_a_laptop_screen_and_whole_rows_are_clickable(page: Any, filled: str) -> None:
    page.goto(f"{filled}/traces")
    rows = page.locator(".traces tbody tr")
    assert rows.nth(19).bounding_box()["y"] + rows.nth(19).bounding_box()["height"] <= 800
    around = rows.nth(3).bounding_box()
    page.mouse.click(around["x"] + around["width"] - 20, around["y"] + around["height"] / 2)
    at_a_span(page)


def test_traces_are_sorted_by_their_headings_and_filtered_by_the_form(page: Any, filled: str) -> None:
    page.goto(f"{filled}/traces")
    page.get_by_role("link", name="Duration").click()
    page.wait_for_url("**sort=duration**")
    durations = {one["trace_id"]: one["duration_ms"] for one in traces(filled)}
    ids = [
        link.split("/")[-1] for link in page.locator(".traces .cover").evaluate_all("all => all.map(a => a.pathname)")
    ]
    assert [durations[one] for one in ids] == sorted((durations[one] for one in ids), reverse=True)
    page.get_by_role("link", name="Status").click()
    page.wait_for_url("**sort=status**")
    statuses = page.locator(".traces .status").all_inner_texts()
    assert next(text for text in statuses if text) == "502"
    assert statuses.index("502") < statuses.index("201") < statuses.index("200")
    page.get_by_label("Status").select_option("error")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**status=error**")
    assert page.locator(".traces tbody tr:not(.failed)").count() == 0
    page.get_by_role("link", name="Clear filters").click()
    page.get_by_label("Service").focus()
    page.locator("#services option[value=payments]").wait_for(state="attached")
    page.get_by_label("Route").focus()
    page.locator("#routes option[value='/search']").wait_for(state="attached")
    page.get_by_label("At least").fill("1,500 ms")
    page.get_by_label("At least").press("Enter")
    page.wait_for_url("**min_duration=1**")
    assert page.get_by_label("At least").input_value() == "1,500 ms"


def test_a_trace_is_found_by_its_id_from_every_page(page: Any, filled: str) -> None:
    trace_id = trace_of(filled, "GET /search")
    for path in ("/", "/logs", "/query"):
        page.goto(filled + path)
        page.get_by_label("Trace ID").fill(trace_id)
        page.get_by_label("Trace ID").press("Enter")
        page.wait_for_url(f"**/traces/{trace_id}")


def test_logs_open_and_their_heatmap_narrows_them(page: Any, filled: str) -> None:
    page.goto(f"{filled}/logs")
    page.locator(".log summary", has_text="Card was declined").first.click()
    assert "payments.CardDeclined" in page.locator(".log details[open]").inner_text()
    names = json.loads(page.locator("svg.heatmap").get_attribute("data-names"))
    cells = json.loads(page.locator("svg.heatmap").get_attribute("data-cells"))
    column, row, count = next(cell for cell in cells if names[cell[1]] == "ERROR")
    move_to_cell(page, column, row)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**severity=17**")
    assert page.locator(".log").count() == count
    page.locator(".log summary").first.click()
    page.get_by_role("link", name="Open trace").click()
    at_a_span(page)


# A trace


def test_a_waterfall_works_with_keyboard_and_mouse(page: Any, filled: str) -> None:
    page.goto(filled + paths(filled)["trace"])
    rows = page.locator("#tree .row")
    count = rows.count()
    assert page.locator("#tree").get_attribute("role") == "tree"
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    details(page, "POST")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    has_count(rows, 1)
    assert "closed=" in page.url
    page.reload()
    has_count(rows, 1)
    page.keyboard.press("x")
    has_count(rows, count)
    rows.nth(2).click()
    details(page, "POST /v1/orders")
    page.evaluate("window.still = true")
    page.locator("#span .mono a").click()
    details(page, "POST")
    assert page.evaluate("window.still")
    rows.nth(2).click()
    details(page, "POST /v1/orders")
    assert "span=" in page.url
    page.keyboard.press("z")
    assert "zoom=" in page.url
    assert page.get_by_role("button", name="Reset zoom").is_visible()
    page.keyboard.press("0")
    assert "zoom=" not in page.url
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


def test_a_service_is_collapsed_by_its_name_in_the_legend(page: Any, filled: str) -> None:
    page.goto(filled + paths(filled)["trace"])
    rows = page.locator("#tree .row")
    before = rows.count()
    page.locator(".legend button", has_text="accounts").click()
    has_count(rows, before - 1)
    page.locator(".legend button", has_text="accounts").click()
    has_count(rows, before)


def test_ten_thousand_spans_can_all_be_reached(page: Any, filled: str, unusual: dict[str, str]) -> None:
    page.goto(f"{filled}/traces/{unusual['large']}")
    assert page.locator("#tree .row").count() < 100
    page.locator("#tree").focus()
    page.keyboard.press("End")
    page.locator("#row-9999").wait_for()
    number, of = (page.locator("#row-9999").get_attribute(f"aria-{name}") for name in ("posinset", "setsize"))
    assert number == of != "1"
    page.locator("#row-9999").click()
    details(page, "count item")
    box = page.locator("#row-9999 .bar-span").bounding_box()
    assert box["width"] >= 1
    page.keyboard.press("Home")
    seen = []
    for _ in range(4):
        page.keyboard.press("e")
        seen.append(int(page.locator("#tree .row.chosen.cursor").get_attribute("data-row")))
    assert len(set(seen)) == 4
    assert max(seen) > 9000


def test_collapsed_rows_and_zoom_are_part_of_the_url(page: Any, filled: str, unusual: dict[str, str]) -> None:
    page.goto(f"{filled}/traces/{unusual['large']}")
    page.get_by_role("button", name="Collapse all").click()
    height = page.locator("#tree .sheet").bounding_box()["height"]
    map_ = page.locator("#map").bounding_box()
    page.mouse.move(map_["x"] + 200, map_["y"] + 10)
    page.mouse.down()
    page.mouse.move(map_["x"] + 300, map_["y"] + 10)
    page.mouse.up()
    page.wait_for_function("location.search.includes('zoom=') && location.search.includes('closed=')")
    scale = page.locator("#scale").text_content()
    other = page.context.new_page()
    other.goto(page.url)
    other.locator("#tree .row").first.wait_for()
    assert other.locator("#tree .sheet").bounding_box()["height"] == height
    assert other.locator("#scale").text_content() == scale != ""


def test_search_finds_attributes_with_next_and_previous(page: Any, filled: str, unusual: dict[str, str]) -> None:
    page.goto(f"{filled}/traces/{unusual['large']}")
    page.keyboard.press("/")
    page.keyboard.type("978-007")
    page.locator("#hits", has_text=re.compile(r"[1-9]\d* matches")).wait_for()
    page.keyboard.press("Enter")
    page.keyboard.press("n")
    assert page.locator("#hits").inner_text().startswith("2 of")
    page.keyboard.press("N")
    assert page.locator("#hits").inner_text().startswith("1 of")
    assert page.locator("#tree .row.cursor.hit").count() == 1
    assert "search=978-007" in page.url
    page.locator("#span mark", has_text="978-007").first.wait_for()
    page.locator("#search").fill("")
    page.locator("#span mark").wait_for(state="detached")


def test_search_marks_matching_logs_and_steps_between_spans(page: Any, filled: str) -> None:
    page.goto(filled + paths(filled)["failed"])
    marked, number = page.locator("#logs .log.hit"), page.locator("#hits")
    search = page.locator("#search")
    search.fill("carddeclined")
    has_count(marked, 1)
    page.locator("#hits", has_text=re.compile(r"\d matches|1 match")).wait_for()
    spans = page.locator("#tree .row.hit").count()
    assert number.inner_text() == f"{spans} match{'' if spans == 1 else 'es'}"
    for step in range(spans + 1):
        search.press("Enter")
        assert number.inner_text() == f"{step % spans + 1} of {spans}"
        assert page.locator("#tree .row.cursor.hit").count() == 1
        search.focus()
    page.get_by_role("button", name="1 log", exact=True).click()
    assert marked.locator("summary").evaluate("(one) => one === document.activeElement")
    search.fill("Traceback (most recent")
    has_count(marked, 1)
    marked.locator("summary").click()
    assert marked.locator(".inside mark").first.inner_text() == "Traceback (most recent"
    search.fill("no such text")
    has_count(marked, 0)
    assert not page.locator("#log-hit").is_visible()
    page.locator("#hits", has_text="0 matches").wait_for()


def test_a_click_fetches_only_the_span_and_the_last_click_wins(page: Any, filled: str, unusual: dict[str, str]) -> None:
    page.goto(f"{filled}/traces/{unusual['large']}")
    page.get_by_role("button", name="Live").click()
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    last_row = 15
    page.evaluate(f"() => {{ for (let n = 1; n <= {last_row}; n++) document.getElementById(`row-${{n}}`).click(); }}")
    has_count(page.locator(f"#row-{last_row}.chosen"), 1)
    details(page, "count item")
    page.wait_for_load_state("networkidle")
    copied = page.locator("#span .copy").first.get_attribute("data-copy")
    assert page.url.endswith(f"span={copied}")
    assert [url for url in asked if "/spans/" not in url and "/static/" not in url] == []
    asked.clear()
    page.locator("#tree .row").nth(2).click()
    page.locator("#tree .row").nth(3).click()
    page.locator("#tree .row").nth(2).click()
    page.wait_for_load_state("networkidle")
    assert len([url for url in asked if "/spans/" in url]) <= 2


def test_a_hovered_or_focused_span_is_prefetched(page: Any, filled: str, unusual: dict[str, str]) -> None:
    page.goto(f"{filled}/traces/{unusual['large']}")
    with page.expect_response("**/spans/*"):
        page.locator("#row-3").hover()
    with page.expect_response("**/spans/*"):
        page.locator("#tree").focus()
        page.keyboard.press("ArrowDown")
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.keyboard.press("Enter")
    has_count(page.locator("#row-1.chosen"), 1)
    first = page.evaluate("location.search")
    page.locator("#row-3").click()
    page.wait_for_function("(before) => location.search !== before", arg=first)
    copied = page.locator("#span .copy").first.get_attribute("data-copy")
    assert page.url.endswith(f"span={copied}")
    assert [url for url in asked if "/spans/" in url] == []


def test_clock_skew_and_work_that_outlasts_its_parent_are_marked(
    page: Any, filled: str, unusual: dict[str, str]
) -> None:
    page.goto(f"{filled}/traces/{unusual['skewed']}")
    assert "The clock of catalog is 2 min 0 s behind." in page.locator("main").inner_text()
    page.get_by_role("link", name="Show times as sent").click()
    assert "Spans are shown at the times of their own clocks." in page.locator("main").inner_text()
    page.goto(f"{filled}/traces/{unusual['detached']}")
    assert re.search(r"10\.0 ms\s+root, 3\.04 s in total", page.locator(".facts").inner_text())
    assert "outlasts its parent" in page.locator("#tree").inner_text()


def test_an_error_shows_its_exception_its_event_and_its_log(page: Any, filled: str) -> None:
    page.goto(filled + paths(filled)["failed"])
    for _ in range(6):
        page.keyboard.press("e")
    page.locator("#tree .row", has_text="charge card").click()
    details(page, "charge card")
    panel = page.locator("#span").inner_text()
    assert "payments.CardDeclined" in panel
    assert "retry" in panel
    assert page.locator("#tree .bar-event").count() >= 2
    assert "1 log" in page.locator("#tree").inner_text()


# Quietly live


def test_an_empty_page_updates_with_the_first_trace(empty: str, page: Any) -> None:
    page.goto(empty)
    assert "Waiting for the first trace" in page.locator("main").inner_text()
    traffic.fill(empty, requests=20, seconds=2)
    page.locator(".services-list tbody tr").first.wait_for()
    page.goto(f"{empty}/traces")
    before = page.locator(".traces tbody tr").count()
    traffic.fill(empty, requests=1, seconds=0.1, seed=2)
    page.locator(".traces tbody tr").nth(before).wait_for()
    page.get_by_role("button", name="Live").click()
    traffic.fill(empty, requests=2, seconds=1, seed=3)
    now = page.locator(".traces tbody tr").count()
    page.wait_for_timeout(3500)
    assert page.locator(".traces tbody tr").count() == now


def test_live_updates_wait_behind_a_button_while_the_user_reads(empty: str, page: Any) -> None:
    traffic.fill(empty, requests=60, seconds=20)
    page.goto(f"{empty}/traces")
    page.mouse.wheel(0, 400)
    page.wait_for_timeout(2500)
    first = page.locator(".traces .cover").first.get_attribute("href")
    traffic.fill(empty, requests=3, seconds=1, seed=2)
    page.locator("#news").wait_for()
    assert page.locator(".traces .cover").first.get_attribute("href") == first
    page.locator("#news").click()
    assert page.locator(".traces .cover").first.get_attribute("href") != first


def test_a_trace_page_adds_spans_that_arrive_later(empty: str, page: Any) -> None:
    shop = traffic.Shop(traffic.Sender(7), 7)
    root = shop.sender.span("gateway", "GET /later", time.time() - 1, 0.5)
    shop.sender.send(empty)
    page.goto(f"{empty}/traces/{root.get_span_context().trace_id:032x}")
    assert page.locator("#tree .row").count() == 1
    sent = shop.sender.span("email", "send mail", time.time() - 0.4, 0.1, root, error="no such address")
    shop.sender.log("email", time.time(), "ERROR", "Bounced", sent)
    shop.sender.send(empty)
    page.locator("#tree .row", has_text="send mail").wait_for()
    page.locator("#below", has_text="Bounced").wait_for()
    assert "1 error" in page.locator(".facts").inner_text()
    page.get_by_role("button", name="Next error").click()
    details(page, "send mail")
    shop.sender.log("email", time.time(), "INFO", "Given up", sent)
    shop.sender.send(empty)
    page.locator("#tree .row", has_text="2 logs").wait_for()


@contextmanager
def quiet_page(chromium: Any, **options: Any) -> Iterator[Any]:
    """A page that may write errors to its console, as a browser does for each failed request."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
    try:
        page = context.new_page()
        page.set_default_timeout(15_000)
        yield page
    finally:
        context.close()


def send_spans(address: str, spans: list[dict[str, Any]]) -> None:
    """Send spans of one trace as OTLP JSON."""
    common = {"traceId": "ab" * 16, "kind": 2}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [common | span for span in spans]}]}]}
    request = urllib.request.Request(f"{address}/v1/traces", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=30).close()


def family(names: list[str], now: int, first: int = 2, later_by: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Children of the span 1, one nanosecond apart."""
    return [
        {
            "spanId": f"{first + number:016x}",
            "parentSpanId": f"{1:016x}",
            "name": name,
            "startTimeUnixNano": now + later_by + number,
            "endTimeUnixNano": now + later_by + number + 10**6,
            **more,
        }
        for number, name in enumerate(names)
    ]


def root(now: int, **more: Any) -> dict[str, Any]:
    return {
        "spanId": f"{1:016x}",
        "name": "the root",
        "startTimeUnixNano": now,
        "endTimeUnixNano": now + 10**9,
        **more,
    }


TRACE = f"/traces/{'ab' * 16}"


def test_an_open_trace_says_that_it_is_gone_and_stops_asking(chromium: Any, empty: str) -> None:
    hour_ago = time.time_ns() - 3600 * 10**9
    send_spans(empty, [root(hour_ago), *family(["one", "two"], hour_ago)])
    with quiet_page(chromium) as page:
        page.goto(empty + TRACE)
        urllib.request.urlopen(urllib.request.Request(f"{empty}/clear", b"", method="POST"), timeout=30).close()
        page.get_by_text("This trace is no longer in memory.").wait_for()
        assert "0 spans" in page.locator("#memory").inner_text()
        assert not page.locator("#live").is_visible()
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        page.wait_for_timeout(4500)
        assert asked == []
        page.locator("#tree .row", has_text="two").click()
        page.locator("#span", has_text="This span is no longer in memory.").wait_for()
        assert page.locator("#span h2").count() == 0
        assert page.url.endswith(f"span={3:016x}")


def test_an_open_trace_shows_that_the_viewer_is_down(chromium: Any) -> None:
    now, port = time.time_ns(), free_port()
    with quiet_page(chromium) as page:
        with viewer(port) as address:
            send_spans(address, [root(now), *family(["one"], now)])
            page.goto(address + TRACE)
            page.locator("#tree .row", has_text="one").wait_for()
        page.locator("#live.lost").wait_for()
        page.locator("#tree .row", has_text="one").click()
        page.locator("#span", has_text="The details of this span could not be loaded.").wait_for()
        assert "the root" not in page.locator("#span").inner_text()
        with viewer(port) as address:
            send_spans(address, [root(now), *family(["one"], now)])
            page.locator("#live:not(.lost)").wait_for()
            page.locator("#tree .row", has_text="one").click()
            details(page, "one")


def test_details_that_could_not_be_loaded_come_with_the_next_look(chromium: Any, empty: str) -> None:
    now = time.time_ns()
    send_spans(empty, [root(now), *family(["one"], now)])
    with quiet_page(chromium) as page:
        page.route("**/spans/*", lambda route: route.abort())
        page.goto(empty + TRACE)
        page.get_by_role("button", name="Live").click()
        page.locator("#tree .row", has_text="one").click()
        page.locator("#span", has_text="The details of this span could not be loaded.").wait_for()
        page.get_by_role("button", name="Live").click()
        details(page, "one")


def test_the_details_and_links_of_an_old_trace_stay_current(empty: str, page: Any) -> None:
    shop = traffic.Shop(traffic.Sender(9), 9)
    top = shop.sender.span("gateway", "GET /old", time.time() - 3600, 0.5)
    below = shop.sender.span("gateway", "work", time.time() - 3599.9, 0.1, top)
    shop.sender.log("gateway", time.time() - 3599.8, "INFO", "First line", below)
    shop.sender.send(empty)
    page.goto(f"{empty}/traces/{top.get_span_context().trace_id:032x}")
    page.locator("#tree .row", has_text="work").click()
    details(page, "work")
    page.locator("#tree .row", has_text="GET /old").click()
    details(page, "GET /old")
    page.locator("#logs summary", has_text="First line").click()
    shop.sender.log("gateway", time.time() - 3599.7, "INFO", "Second line", below)
    shop.sender.span("email", "mail later", time.time(), 0.1, None, links=[top])
    shop.sender.send(empty)
    page.locator("#span", has_text="mail later").wait_for()
    page.locator("#below", has_text="Second line").wait_for()
    page.locator("#below", has_text="Linked from").wait_for()
    assert page.locator("#logs details[open]", has_text="First line").count() == 1
    page.locator("#tree .row", has_text="work").click()
    details(page, "work")
    assert "Second line" in page.locator("#span").inner_text()
    page.locator("#span summary", has_text="First line").click()
    shop.sender.log("gateway", time.time() - 3599.6, "INFO", "Third line", below)
    shop.sender.send(empty)
    page.locator("#span", has_text="Third line").wait_for()
    assert page.locator("#span details[open]", has_text="First line").count() == 1


def test_a_part_with_selected_text_changes_after_the_selection_ends(empty: str, page: Any) -> None:
    shop = traffic.Shop(traffic.Sender(9), 9)
    top = shop.sender.span("gateway", "GET /old", time.time() - 3600, 0.5)
    shop.sender.send(empty)
    page.goto(f"{empty}/traces/{top.get_span_context().trace_id:032x}")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#span h2'))")
    shop.sender.log("gateway", time.time() - 3599.6, "INFO", "A line", top)
    shop.sender.send(empty)
    page.locator("#below", has_text="A line").wait_for()
    assert "A line" not in page.locator("#span").inner_text()
    assert page.evaluate("getSelection().toString()") == "GET /old"
    page.evaluate("getSelection().removeAllRanges()")
    page.locator("#span", has_text="A line").wait_for()


def test_a_live_trace_keeps_its_top_row_when_earlier_spans_arrive(empty: str, page: Any) -> None:
    now = time.time_ns()
    send_spans(empty, [root(now), *family([f"late {number}" for number in range(100)], now, later_by=10**8)])
    page.goto(empty + TRACE)
    page.locator("#tree").evaluate("(list) => { list.scrollTop = 1000; }")
    row = page.locator("#tree .name", has_text=re.compile("^late 45$"))
    before = row.bounding_box()["y"]
    send_spans(empty, family([f"early {number}" for number in range(30)], now, first=1000, later_by=10**7))
    page.locator(".facts", has_text="131").wait_for()
    assert page.locator("#tree").evaluate("(list) => list.scrollTop") == 1000 + 30 * 24
    assert row.bounding_box()["y"] == before


def test_search_finds_text_whose_length_depends_on_its_case(empty: str, page: Any) -> None:
    now = time.time_ns()
    texts = [{"key": "app.city", "value": {"stringValue": "İİİİ İstanbul (a+b"}}]
    send_spans(empty, [root(now), *family(["İİİİ bul", "other"], now, attributes=texts)])
    page.goto(empty + TRACE)
    page.locator("#tree .row", has_text="other").click()
    details(page, "other")
    for text, found in (("BUL", "bul"), ("(A+", "(a+"), ("İs", "İs")):
        page.locator("#search").fill(text)
        page.locator("#span mark", has_text=re.compile(f"^{re.escape(found)}$")).first.wait_for()
        page.locator("#hits", has_text="match").wait_for()
    page.locator("#tree .row", has_text="bul").first.click()
    details(page, "İİİİ bul")


def test_copying_works_without_a_secure_context_and_says_when_it_fails(chromium: Any, empty: str) -> None:
    now = time.time_ns()
    send_spans(empty, [root(now)])
    rules = ["--host-resolver-rules=MAP viewer 127.0.0.1"]
    browser = chromium.browser_type.launch(executable_path=chromium_path(), args=ARGUMENTS + rules)
    try:
        with quiet_page(browser) as page:
            page.goto(empty.replace("127.0.0.1", "viewer") + TRACE)
            assert page.evaluate("navigator.clipboard === undefined")
            page.get_by_role("button", name="Copy trace ID").click()
            page.locator(".facts .copy", has_text="Copied").wait_for()
            page.locator("#search").focus()
            page.keyboard.press("Control+V")
            assert page.locator("#search").input_value() == "ab" * 16
            page.locator("#search").fill("")
            page.locator("#tree").focus()
            page.keyboard.press("y")
            assert page.get_by_text("Span ID copied").bounding_box()["width"] > 50
            page.locator("#search").focus()
            page.keyboard.press("Control+V")
            assert page.locator("#search").input_value() == f"{1:016x}"
            page.evaluate("document.execCommand = () => false")
            page.get_by_role("button", name="Copy ID").click()
            page.locator("#span .copy", has_text="Copy failed").wait_for()
    finally:
        browser.close()


def test_the_json_of_a_large_span_is_copied_whole(empty: str, page: Any) -> None:
    large = [{"key": f"app.text.{number}", "value": {"stringValue": "x" * 30_000}} for number in range(8)]
    send_spans(empty, [root(time.time_ns(), attributes=large)])
    page.goto(empty + TRACE)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as JSON").click()
    page.locator("#span .copy", has_text="Copied").wait_for()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert json.dumps(copied).count("x" * 30_000) == 8


def test_search_says_that_only_the_newest_logs_are_listed(empty: str, page: Any) -> None:
    shop = traffic.Shop(traffic.Sender(9), 9)
    top = shop.sender.span("gateway", "GET /", time.time() - 5, 0.5)
    for number in range(120):
        shop.sender.log("gateway", time.time() - 5 + number / 1000, "INFO", f"line {number} of many", top)
    shop.sender.send(empty)
    page.goto(f"{empty}/traces/{top.get_span_context().trace_id:032x}")
    page.locator("#search").fill("line 7 of")
    page.locator("#log-hit", has_text="0 of the newest 100 logs").wait_for()
    page.locator("#search").fill("line 117 of")
    page.locator("#log-hit", has_text="1 of the newest 100 logs").wait_for()
    page.locator("#search").fill("")
    page.locator("#log-hit").wait_for(state="hidden")


def test_a_search_includes_spans_and_logs_that_arrive_later(empty: str, page: Any) -> None:
    shop = traffic.Shop(traffic.Sender(8), 8)
    root = shop.sender.span("gateway", "GET /later", time.time() - 1, 0.5)
    shop.sender.send(empty)
    page.goto(f"{empty}/traces/{root.get_span_context().trace_id:032x}?search=mail")
    page.locator("#hits", has_text="0 matches").wait_for()
    sent = shop.sender.span("email", "send mail", time.time() - 0.4, 0.1, root)
    shop.sender.log("email", time.time(), "ERROR", "No such mailbox", sent)
    shop.sender.send(empty)
    has_count(page.locator("#tree .row.hit", has_text="send mail"), 1)
    has_count(page.locator("#logs .log.hit"), 1)
    page.locator("#hits", has_text="1 match").wait_for()
    page.keyboard.press("n")
    details(page, "send mail")


def test_a_trace_is_incomplete_until_its_root_arrives(empty: str, page: Any) -> None:
    now = time.time_ns()
    ids = {"traceId": "ab" * 16, "kind": 2, "startTimeUnixNano": now, "endTimeUnixNano": now + 10**6}
    child = ids | {"spanId": "02" * 8, "parentSpanId": "01" * 8, "name": "the child"}
    for span in (child, ids | {"spanId": "01" * 8, "name": "the root"}):
        body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
        request = urllib.request.Request(f"{empty}/v1/traces", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request, timeout=30).close()
        if span is child:
            page.goto(f"{empty}/traces/{'ab' * 16}")
            assert "Incomplete" in page.locator("main").inner_text()
    page.locator("h1", has_text="the root").wait_for()
    assert "Incomplete" not in page.locator("main").inner_text()


def test_clearing_asks_for_confirmation_once(empty: str, page: Any) -> None:
    traffic.fill(empty, requests=3, seconds=1)
    page.goto(empty)
    page.get_by_role("link", name="Clear").click()
    page.get_by_role("button", name="Clear").click()
    assert "Waiting for the first trace" in page.locator("main").inner_text()


# For everyone


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(page: Any, filled: str, unusual: dict[str, str], theme: str) -> None:
    if AXE is None:
        missing("axe-core is not there; NODE_PATH names the node_modules that has it")
    page.emulate_media(color_scheme=theme)
    wrong: dict[str, list[Any]] = {}
    for name, path in (*paths(filled).items(), ("large", f"/traces/{unusual['large']}")):
        page.goto(filled + path)
        page.evaluate(AXE.read_text("utf-8"))
        found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        if found:
            wrong[name] = [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
    assert wrong == {}


@pytest.mark.parametrize("width", [380, 768])
def test_no_page_is_wider_than_a_narrow_screen_and_no_labels_touch(page: Any, filled: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    for path in paths(filled).values():
        page.goto(filled + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        for row, table in page.locator(".traces thead tr").evaluate_all(
            "all => all.map((one) => [one, one.closest('table')].map((each) => each.getBoundingClientRect().width))"
        ):
            assert row == 0 or table - row < 4, path
        labels = page.evaluate(
            """() => [...document.querySelectorAll('.plot > svg:nth-child(2)')].map((svg) =>
                [...svg.querySelectorAll('text[data-time]')].map((text) => text.getBoundingClientRect())
                .filter((box) => box.width).map((box) => [box.left, box.right]))"""
        )
        for chart in labels:
            for before, after in itertools.pairwise(sorted(chart)):
                assert before[1] <= after[0], path


@pytest.mark.parametrize("width", [1280, 768])
def test_names_are_not_cut_on_the_first_page(page: Any, filled: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(filled)
    page.locator(".traces .ago:not(:empty)").first.wait_for(state="attached")
    cells = page.locator(".brief td, .traces td").evaluate_all(
        """(all) => all.map((one) => {
            const name = one.querySelector(".cover"), end = one.getBoundingClientRect().right;
            return [one.innerText, name ? name.getBoundingClientRect().right - end : one.scrollWidth - one.clientWidth];
        })"""
    )
    assert len(cells) >= 100
    assert [cell for cell in cells if cell[1] > 0] == []


def test_values_of_a_span_break_only_where_the_line_is_full(page: Any, filled: str, unusual: dict[str, str]) -> None:
    page.goto(f"{filled}/traces/{unusual['large']}")
    page.locator("#span .fields dd").first.wait_for()
    at, value = "2026-11-29T15:35:12.964016+00:00", page.locator("#span .fields dd").first
    value.evaluate("(one, text) => { one.firstChild.data = text; }", at)
    one_line = page.locator("#span .fields dd", has_text=at).bounding_box()["height"]
    value.evaluate("(one) => { one.firstChild.data = 'x'; }")
    assert one_line == value.bounding_box()["height"]
    narrow = "all => all.filter((one) => one.getClientRects().length && one.scrollWidth > one.clientWidth).length"
    assert page.locator("#span .fields dd").evaluate_all(narrow) == 0


def test_the_expanded_legend_shows_more_lines_with_links_to_traces(page: Any, filled: str) -> None:
    page.goto(f"{filled}/query?" + urllib.parse.urlencode({"query": json.dumps({"breakdowns": ["service.name"]})}))
    extra = page.locator(".line.extra").first
    assert not extra.is_visible()
    page.locator(".more-lines summary").click()
    assert page.locator(".line.extra").first.evaluate("(one) => getComputedStyle(one).display") == "inline"
    chart = page.locator("svg.lines")
    chart.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/traces\\?.*also="))
    assert page.locator(".traces tbody tr").count() >= 1


def test_every_control_can_be_reached_and_seen_by_keyboard(page: Any, filled: str) -> None:
    for path in paths(filled).values():
        page.goto(filled + path)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        unseen = page.evaluate(
            """() => [...document.querySelectorAll(
                "main a:not(.cover), main button:enabled, main input, main select, .heatmap")]
                .filter((one) => one.checkVisibility() && !one.closest("details:not([open])")).slice(0, 60)
                .filter((one) => {
                  one.focus({focusVisible: true});
                  const style = getComputedStyle(one);
                  return document.activeElement !== one || ["none", "0px"].includes(style.outlineStyle);
                }).map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert unseen == [], path


def test_pages_can_be_read_without_javascript(chromium: Any, filled: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{filled}/query")
    page.get_by_role("button", name="Run query").click()
    assert page.locator(".results tbody tr").count() > 3
    page.goto(filled + paths(filled)["trace"])
    page.locator("#rows .row").nth(2).click()
    assert page.locator("#span h2").inner_text() == "POST /v1/orders"
    context.close()


def test_a_printed_trace_has_its_rows(page: Any, filled: str) -> None:
    page.goto(filled + paths(filled)["trace"])
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("aside").evaluate("(one) => getComputedStyle(one).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#rows .row").first.is_visible()
    assert not page.locator("#tree").is_visible()
