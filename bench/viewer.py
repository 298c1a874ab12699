"""otlp-viewer's speed and memory: ingestion, queries, pages; compared with another viewer if its binary is given.

OTEL_DESKTOP_VIEWER=<path of otel-desktop-viewer> measures that one with the same requests, in turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import psutil
from common import Table, progress, spread, table
from spans import BATCH, PER_TRACE, SERVICES, exports, span_id, trace_id
from viewers import OtlpViewer, Viewer, viewers

CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LARGE: Final = 3  # the seed of the large trace
PATIENCE: Final = 60.0  # seconds

Cells = dict[str, dict[str, str]]
"""By row, then by viewer."""


def beside(title: str, cells: Cells, note: str) -> Table:
    """A table with a column for each viewer."""
    names = [each.name for each in viewers()]
    rows = [[row, *(found.get(name, "not measured") for name in names)] for row, found in cells.items()]
    return table(title, ["", *names], rows, note)


# Ingestion.


def take_in(
    viewer: Viewer, process: psutil.Process, bodies: Sequence[bytes], kept: int, connections: int
) -> tuple[float, float, float]:
    """Send the bodies, and wait until `kept` spans can be asked for.

    Returns seconds, CPU seconds, and the milliseconds of the median request.
    """
    used, started = process.cpu_times(), time.perf_counter()
    times = viewer.send(bodies, connections)
    while viewer.kept() < kept:
        if time.perf_counter() - started > PATIENCE:
            raise RuntimeError(f"{viewer.name} has {viewer.kept()} of {kept} spans")
        time.sleep(0.1)
    wall, now = time.perf_counter() - started, process.cpu_times()
    return wall, now.user + now.system - used.user - used.system, statistics.median(times)


def taking_in(count: int, turns: int) -> Table:
    """Each viewer with one and with four connections, in turns, in a process of its own for each."""
    bodies, more = exports(count, 1), exports(count, 2)
    size = sum(map(len, bodies)) / count
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    memory: dict[str, list[list[float]]] = {}
    for turn in range(turns):
        for kind in viewers():
            for connections in (1, 4) if turn % 2 == 0 else (4, 1):
                progress(f"Taking in, turn {turn + 1} of {turns}: {kind.name}, connections: {connections}")
                viewer = kind()
                with viewer.running() as process:
                    took = take_in(viewer, process, bodies, count, connections)
                    found.setdefault((kind.name, connections), []).append(took)
                    if connections == 1:
                        sizes = [process.memory_info().rss / 1e6]
                        take_in(viewer, process, more, 2 * count, 1)
                        memory.setdefault(kind.name, []).append([*sizes, process.memory_info().rss / 1e6])
    cells: Cells = {}
    for name in (kind.name for kind in viewers()):
        for connections, said in ((1, "one connection"), (4, "four connections")):
            seconds, cpu, request = zip(*found[name, connections], strict=True)
            for row, values, form in (
                ("spans a second until kept", [count / each for each in seconds], "{:,.0f}"),
                ("CPU for 100,000 spans, s", [each * 100_000 / count for each in cpu], "{:.1f}"),
                (f"time of a request of {BATCH}, ms", request, "{:.1f}"),
            ):
                cells.setdefault(f"{row}, {said}", {})[name] = spread(values, form)
        for times, megabytes in zip((1, 2), zip(*memory[name], strict=True), strict=True):
            cells.setdefault(f"memory with {times * count:,} spans, MB", {})[name] = spread(megabytes, "{:.0f}")
    return beside(
        f"Taking in {count:,} spans of {size:.0f} bytes, in {len(bodies)} requests",
        cells,
        "Median and quartiles of turns, each in a new process. Until kept: until the viewer's own count has them all."
        " Memory is the resident set.",
    )


# Queries.


def questions() -> list[Any]:
    """Return twenty kinds of queries."""
    duration = {"column": "duration_ms"}
    calculated = (
        [{"op": "COUNT"}],
        [{"op": "HEATMAP", **duration}],
        [{"op": "P50", **duration}, {"op": "P99", **duration}],
        [{"op": "COUNT_DISTINCT", "column": "app.user"}, {"op": "AVG", "column": "app.result_length"}],
    )
    breakdowns: tuple[list[str], ...] = ([], ["http.route"], ["http.route", "http.response.status_code"], ["app.user"])
    made: list[Any] = [{"calculations": each, "breakdowns": by} for each in calculated for by in breakdowns]
    for filters in (
        [{"column": "trace.parent_id", "op": "does-not-exist"}],
        [{"column": "http.response.status_code", "op": ">=", "value": 500}],
        [{"column": "app.user", "op": "in", "value": [f"user-{n}" for n in range(100)]}],
        [{"column": "name", "op": "contains", "value": "book"}, {"column": "app.plan", "op": "=", "value": "free"}],
    ):
        made.append({"calculations": calculated[1] + calculated[0], "breakdowns": ["http.route"], "filters": filters})
    return [one | {"time_range": 3600} for one in made]


def timed(act: Callable[..., object], *arguments: object, rounds: int) -> list[float]:
    """Return the milliseconds of each call."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        act(*arguments)
        found.append((time.perf_counter() - started) * 1000)
    return found


def median_and_p95(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.median(values):.1f} ({statistics.quantiles(values, n=20, method='inclusive')[-1]:.1f})"


def answers(viewer: Viewer, large: int, rounds: int) -> dict[str, str]:
    """Measure the viewer's response times, by row."""
    found: dict[str, list[float]] = {}
    if isinstance(viewer, OtlpViewer):
        box = f"{time.time() - 600:.0f},{time.time():.0f},60,1000000,duration_ms"
        query = urllib.parse.quote(json.dumps({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]}))
        found["a query, of twenty kinds"] = [
            each for one in questions() for each in timed(viewer.ask, "/api/query", one, rounds=rounds // 2)
        ]
        for row, path in (
            ("query page", f"/query?query={query}"),
            ("query page with the comparison of a box", f"/query?query={query}&box={box}"),
            (f"first page, {len(viewer.ask('/')) / 1000:.0f} KB", "/"),
        ):
            found[row] = timed(viewer.ask, path, rounds=rounds)
    found["traces of a service"] = timed(viewer.traces_of, SERVICES[0], rounds=rounds)
    found[f"trace of {PER_TRACE} spans, API"] = timed(viewer.trace, trace_id(1, 7).hex(), rounds=rounds)
    found[f"trace of {large:,} spans, API"] = timed(viewer.trace, trace_id(LARGE, 0).hex(), rounds=rounds)
    return {row: median_and_p95(values) for row, values in found.items()}


# In a browser.


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The machine's Chromium, driven by Playwright; None where one is missing, which is printed."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        progress("What a person waits for in a browser is left out: it needs Playwright and Chromium (CHROMIUM=<path>)")
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


UNTIL_USABLE = """async () => {
  const there = async (selector) => {
    while (!document.querySelector(selector)) await new Promise(requestAnimationFrame);
  };
  await there("%s");
  { %s }
  await there("%s");
  return performance.now();
}"""
UNTIL_DETAILS = """(text) => {
  window.shown = new Promise((resolve) => {
    const panel = document.getElementById("span");
    let pressed;
    addEventListener("pointerdown", () => { pressed = performance.now(); }, { capture: true, once: true });
    new MutationObserver((_, observer) => {
      if (!panel.textContent.includes(text)) return;
      observer.disconnect();
      requestAnimationFrame(() => resolve(performance.now() - pressed));
    }).observe(panel, { childList: true, subtree: true });
  });
}"""


@contextlib.contextmanager
def new_page(browser: Any) -> Iterator[Any]:
    """A page of a laptop's size, with nothing cached."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


def usable(browser: Any, url: str, drawn: str, act: str, acted: str) -> float:
    """Milliseconds from the start of the navigation until `drawn` is there, and `acted` after `act`."""
    with new_page(browser) as page:
        page.goto(url, wait_until="commit")
        return float(page.evaluate(UNTIL_USABLE % (drawn, act, acted)))


def details(browser: Any, url: str, rows: int, rest: float = 0) -> list[float]:
    """Milliseconds from the press of the mouse on a row until the frame with its details, for the first rows.

    Before it is pressed, the mouse rests on the row for so many milliseconds.
    """
    found = []
    with new_page(browser) as page:
        page.goto(url)
        for row in range(1, rows + 1):
            page.evaluate(UNTIL_DETAILS, span_id(LARGE, row).hex())
            page.hover(f"#row-{row} .name")
            page.wait_for_timeout(rest + row * 7 % 17)  # at any moment of a frame, as a person presses
            page.mouse.down()
            page.mouse.up()
            found.append(float(page.evaluate("shown")))
    return found


def in_browser(browser: Any, viewer: Viewer, large: int, rounds: int) -> dict[str, str]:
    """Measure what a user waits for, by row."""
    trace = f"{viewer.pages}/traces/{trace_id(LARGE, 0).hex()}"
    last = viewer.last.format(number=large - 1, id=span_id(LARGE, large - 1).hex())
    pages = {f"trace of {large:,} spans, usable": (trace, viewer.drawn, viewer.to_the_end, last)}
    found = {}
    if isinstance(viewer, OtlpViewer):
        live, drawn = "document.getElementById('live').click()", "body:has(#live:not([hidden])) .traces tbody tr"
        pages["first page, usable"] = (viewer.pages, drawn, live, "#live[aria-pressed=false]")
        found["click on a row, until its details show"] = median_and_p95(details(browser, trace, rounds))
        found["the same, where the mouse rested first"] = median_and_p95(details(browser, trace, rounds, 100))
    for row, page in pages.items():
        times, until = [usable(browser, *page)], time.monotonic() + PATIENCE
        while len(times) < rounds // 2 and time.monotonic() < until:
            times.append(usable(browser, *page))
        found[row] = median_and_p95(times)
    return found


def measure(quick: bool) -> list[Table]:
    """Return the tables of this part."""
    count, large, turns, rounds = (10_000, 1_000, 1, 2) if quick else (100_000, 10_000, 7, 20)
    tables = [taking_in(count, turns)]
    answered: Cells = {}
    drawn: Cells = {}
    bodies = exports(count, 1) + exports(large, LARGE, large)
    with chromium() as browser:
        for kind in viewers():
            progress(f"Answers: {kind.name}")
            viewer = kind()
            with viewer.running() as process:
                take_in(viewer, process, bodies, count + large, 1)
                for row, cell in answers(viewer, large, rounds).items():
                    answered.setdefault(row, {})[kind.name] = cell
                for row, cell in in_browser(browser, viewer, large, rounds).items() if browser else ():
                    drawn.setdefault(row, {})[kind.name] = cell
        version = browser.version if browser else ""
    tables.append(beside(f"Answers with {count + large:,} spans, ms", answered, "Median, and the 95th percentile."))
    if drawn:
        tables.append(
            beside(
                f"In Chromium {version.partition('.')[0]}, with {count + large:,} spans, ms",
                drawn,
                "Median, and the 95th percentile. Usable: from the start of the navigation, nothing cached, until the"
                " content is there and has answered a key or a click: the first page a click on Live, a trace a"
                " jump to its last span. Before the second kind of click, the mouse rests on the row for 100 ms.",
            )
        )
    return tables
