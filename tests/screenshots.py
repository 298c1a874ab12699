"""Takes the pictures that the docs show, of pages as they are; needs playwright and Chromium.

python tests/screenshots.py viewer      docs/images/viewer-*.png: a viewer, filled with traces that are made up
python tests/screenshots.py tutorial    docs/images/tutorial-*.png: a project that runs, used as the tutorial does
python tests/screenshots.py             both
"""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """The path of the system's Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def viewer(project: Path, **settings: str) -> Iterator[str]:
    """Start the viewer of a project; its address. It prints to nowhere."""
    port = free_port()
    environment = {**os.environ, "VIEWER_PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1", **settings}
    process = subprocess.Popen(
        [sys.executable, "-m", "viewer"], cwd=project, env=environment, stdout=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def send(address: str, signal: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(
        f"{address}/v1/{signal}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=30).close()


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    return [{"key": name, "value": {kinds[type(value)]: value}} for name, value in values.items()]


def exported(spans: list[dict[str, Any]]) -> dict[str, Any]:
    """Spans, each with its `service`, as an OTLP request."""
    services: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        services.setdefault(span.pop("service"), []).append(span)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": attributes({"service.name": name, "service.version": "0.1.0"})},
                "scopeSpans": [{"scope": {"name": name}, "spans": members}],
            }
            for name, members in services.items()
        ]
    }


def request(chance: random.Random, at: float, path: str) -> list[dict[str, Any]]:
    """The spans of one request to the backend that began `at` (seconds since 1970)."""
    trace_id = f"{chance.getrandbits(128):032x}"
    spans: list[dict[str, Any]] = []

    def span(service: str, name: str, begin: float, took: float, parent: str = "", **fields: Any) -> str:
        span_id = f"{chance.getrandbits(64) | 1:016x}"
        made = {
            "service": service,
            "traceId": trace_id,
            "spanId": span_id,
            "name": name,
            "startTimeUnixNano": str(int((at + begin / 1000) * 1e9)),
            "endTimeUnixNano": str(int((at + (begin + took) / 1000) * 1e9)),
            "kind": fields.pop("kind", 1),
            **fields,
        }
        spans.append(made | ({"parentSpanId": parent} if parent else {}))
        return span_id

    slow = path == "/api/examples/slow"
    failing = path == "/api/examples/failing"
    took = chance.lognormvariate(5.9, 0.35) if slow else chance.lognormvariate(1.9, 0.35)
    plan = "free" if slow else chance.choice(["free", "team", "enterprise"])
    server = attributes(
        {
            "app.plan": plan,
            "http.request.method": "GET",
            "http.route": path,
            "http.response.status_code": 500 if failing else 200,
            "user_agent.original": "python-requests/2.34",
        }
    )
    error: dict[str, Any] = {"status": {"code": 2}} if failing else {}
    root = span("backend-flask", f"GET {path}", 0, took, kind=2, attributes=server, **error)
    if failing:
        raised = {
            "name": "exception",
            "timeUnixNano": str(int(at * 1e9)),
            "attributes": attributes(
                {
                    "exception.type": "ZeroDivisionError",
                    "exception.message": "division by zero",
                    "exception.stacktrace": 'Traceback (most recent call last):\n  File "backend/examples.py"\n',
                }
            ),
        }
        span("backend-flask", "divide-by-likes", took * 0.2, took * 0.5, root, events=[raised], **error)
        return spans
    found = attributes({"app.plan": plan, "app.result_length": chance.randrange(1, 9)})
    work = span("backend-flask", "find-activities", took * 0.05, took * 0.88, root, attributes=found)
    if slow:
        for number in range(4):
            span("backend-flask", "read-page", took * (0.08 + number * 0.2), took * 0.19, work)
        return spans
    url = attributes({"url.full": "http://127.0.0.1:4568/api/profiles", "http.request.method": "GET"})
    call = span("backend-flask", "GET", took * 0.2, took * 0.6, work, kind=3, attributes=url)
    there = attributes({"http.route": "/api/profiles", "http.response.status_code": 200})
    other = span("profiles", "GET /api/profiles", took * 0.35, took * 0.35, call, kind=2, attributes=there)
    span("profiles", "find-profiles", took * 0.45, took * 0.15, other)
    return spans


def fill(address: str, requests: int = 240, seconds: float = 60, seed: int = 1) -> None:
    """Send what a minute of traffic leaves: quick routes, a slow one, a failing one, and a log of each failure."""
    chance = random.Random(seed)
    end = time.time() - 0.5
    spans, logs = [], []
    for number in range(requests):
        path = chance.choices(
            ["/api/activities/home", "/api/activities/@<handle>", "/api/examples/slow", "/api/examples/failing"],
            [10, 5, 2, 1],
        )[0]
        made = request(chance, end - seconds + seconds * number / requests, path)
        spans += made
        if path.endswith("failing"):
            logs.append(
                {
                    "timeUnixNano": made[0]["endTimeUnixNano"],
                    "severityNumber": 17,
                    "severityText": "ERROR",
                    "body": {"stringValue": "Unhandled exception"},
                    "traceId": made[0]["traceId"],
                    "spanId": made[0]["spanId"],
                }
            )
        elif number % 9 == 0:
            logs.append(
                {
                    "timeUnixNano": made[1]["endTimeUnixNano"],
                    "severityNumber": 9,
                    "severityText": "INFO",
                    "body": {"stringValue": "Found activities for a feed"},
                    "traceId": made[1]["traceId"],
                    "spanId": made[1]["spanId"],
                }
            )
    send(address, "traces", exported(spans))
    resource = {"attributes": attributes({"service.name": "backend-flask"})}
    send(address, "logs", {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": logs}]}]})


def take(browser: Any, address: str, folder: Path) -> list[Path]:
    """Write the pictures into `folder`, small enough for a repository."""
    folder.mkdir(parents=True, exist_ok=True)
    traces = json.load(urllib.request.urlopen(f"{address}/api/traces?limit=500", timeout=30))
    home = next(trace for trace in traces if trace.get("route") == "/api/activities/home")
    failed = next(trace for trace in traces if trace["error"])
    shots = [
        ("query", "/", "light", 1200, 760),
        ("query-dark", "/", "dark", 1200, 760),
        ("query-narrow", "/", "light", 380, 760),
        ("traces", "/traces", "light", 1200, 560),
        ("trace", f"/traces/{home['trace_id']}", "light", 1200, 560),
        ("error-dark", f"/traces/{failed['trace_id']}", "dark", 1200, 620),
        ("logs", "/logs", "light", 1200, 480),
    ]
    written = []
    for name, path, theme, width, height in shots:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
        page.goto(address + path)
        written.append(folder / f"viewer-{name}.png")
        page.screenshot(path=str(written[-1]))
        page.close()
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(address)
    draw_box(page, 0.02, 0.0, 0.98, 0.3)
    page.wait_for_url("**box=**")
    page.locator("#comparison").wait_for()
    page.locator(".chart").first.evaluate("chart => chart.scrollIntoView()")
    written.append(folder / "viewer-box.png")
    page.screenshot(path=str(written[-1]))
    page.close()
    return written


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


def share_above(page: Any, value: float) -> float:
    """How much of the heatmap's height is above a value."""
    edges = json.loads(page.locator("svg.heatmap").get_attribute("data-edges"))
    return float(sum(edge >= value for edge in edges[:-1]) / (len(edges) - 1))


def shoot(browser: Any, url: str, path: Path, width: int, height: int) -> Path:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(url)
    page.screenshot(path=str(path))
    page.close()
    return path


def take_for_tutorial(browser: Any, address: str, folder: Path) -> list[Path]:
    """The pictures of a project that has had traffic, with a trace of every kind in its viewer."""
    traces = json.load(urllib.request.urlopen(f"{address}/api/traces?limit=1000", timeout=30))
    home = next(trace for trace in traces if trace.get("route") == "/api/activities/home")
    slow = max((one for one in traces if one.get("route") == "/api/examples/slow"), key=lambda one: one["duration_ms"])
    spans = {
        trace["trace_id"]: json.load(urllib.request.urlopen(f"{address}/api/traces/{trace['trace_id']}", timeout=30))
        for trace in (home, slow)
    }

    def of_span(trace: dict[str, Any], name: str) -> str:
        (span,) = [each for each in spans[trace["trace_id"]]["spans"] if each["name"] == name]
        return f"{address}/traces/{trace['trace_id']}?span={span['trace.span_id']}"

    picture = "tutorial-{}.png".format
    written = [
        shoot(browser, f"{address}/logs?severity=17", folder / picture("logs"), 1000, 300),
        shoot(browser, of_span(home, "home-activities-mock-data"), folder / picture("trace"), 1200, 560),
        shoot(browser, of_span(slow, "read-every-row"), folder / picture("slow"), 1200, 410),
        shoot(browser, address, folder / picture("heatmap"), 1200, 984),
    ]
    page = browser.new_page(viewport={"width": 1200, "height": 628})
    page.goto(address)
    draw_box(page, 0.0, 0.0, 1.0, share_above(page, 180))
    page.wait_for_url("**box=**")
    page.locator("#comparison").wait_for()
    page.locator(".chart").first.evaluate("chart => chart.scrollIntoView()")
    written.append(folder / picture("box"))
    page.screenshot(path=str(written[-1]))
    page.close()
    return written


def take_after_mending(browser: Any, address: str, folder: Path) -> list[Path]:
    """The heatmap of traffic before and after the slow route has become quicker."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(address)
    path = folder / "tutorial-after.png"
    page.locator(".chart").first.screenshot(path=str(path))
    page.close()
    return [path]


@contextlib.contextmanager
def service(project: Path, app: str, port: int, **settings: str) -> Iterator[None]:
    """Run one of a project's services in development."""
    command = [sys.executable, "-m", "flask", "--app", app, "run", "--debug", "--no-reload", f"--port={port}"]
    env = {**os.environ, **settings}
    process = subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{app} does not answer")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(10)


def of_the_viewer(browser: Any) -> list[Path]:
    with viewer(ROOT / "{{cookiecutter.project}}") as address:
        fill(address)
        return take(browser, address, IMAGES)


def do_what_is_said_on(page: str, project: Path) -> None:
    """Edit a project as a page of the tutorial says."""
    from test_tutorial import EDIT, blocks, edit

    for block in blocks(ROOT / "docs" / "tutorial" / page):
        if EDIT.fullmatch(block.mark):
            edit(project, block)


def of_the_tutorial(browser: Any) -> list[Path]:
    from cookiecutter.main import cookiecutter  # type: ignore[import-untyped]

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        project = Path(cookiecutter(str(ROOT), no_input=True, output_dir=folder))
        address = stack.enter_context(viewer(project))
        ports = [free_port(), free_port()]
        stack.enter_context(service(project, "profiles.app", ports[1], VIEWER_ENDPOINT=address))
        settings = {"VIEWER_ENDPOINT": address, "PROFILES_URL": f"http://127.0.0.1:{ports[1]}"}
        traffic = [sys.executable, "bin/traffic", "--seconds", "15", "--url", f"http://127.0.0.1:{ports[0]}"]

        with service(project, "backend.app", ports[0], **settings):
            subprocess.run(traffic, cwd=project, check=True)
        written = take_for_tutorial(browser, address, IMAGES)
        do_what_is_said_on("08-find-what-is-slow.md", project)
        with service(project, "backend.app", ports[0], **settings):
            subprocess.run(traffic, cwd=project, check=True)
        return written + take_after_mending(browser, address, IMAGES)


def main() -> None:
    from playwright.sync_api import sync_playwright

    wanted = {"viewer": of_the_viewer, "tutorial": of_the_tutorial}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
        for name in sys.argv[1:] or wanted:
            for path in wanted[name](browser):
                print(path.relative_to(ROOT), path.stat().st_size)
        browser.close()


if __name__ == "__main__":
    main()
