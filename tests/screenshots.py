"""Take the pictures in docs/images from a project that runs: `make demo`, then `.venv/bin/python tests/screenshots.py`.

It sends traffic to the backend first. PORT, VIEWER_PORT and PROJECT name other ports and another folder than demo/.
Needs Playwright and Chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
BACKEND = f"http://127.0.0.1:{os.environ.get('PORT') or 4567}"
VIEWER = f"http://127.0.0.1:{os.environ.get('VIEWER_PORT') or 4318}"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
HOME = "/api/activities/home"


def chromium() -> str | None:
    """The path of the system's Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def trace_of(path: str) -> str:
    """The id of the trace of a new request to the backend, once its spans are in the viewer."""
    try:
        with urllib.request.urlopen(BACKEND + path, timeout=10) as response:
            header = response.headers["traceresponse"]
    except urllib.error.HTTPError as error:
        header = error.headers["traceresponse"]
    trace_id = str(header).split("-")[1]
    for _ in range(100):
        if any(each["trace_id"] == trace_id and each["complete"] for each in get(f"{VIEWER}/api/traces")):
            break
        time.sleep(0.1)
    return trace_id


def span_of(trace_id: str, name: str) -> str:
    spans = get(f"{VIEWER}/api/traces/{trace_id}")["spans"]
    return next(str(span["trace.span_id"]) for span in spans if span["name"] == name)


def draw_box(page: Any) -> None:
    """Drag a box around the slow requests: the upper third of the heatmap."""
    heatmap = page.locator("svg.heatmap").first
    heatmap.scroll_into_view_if_needed()
    around = heatmap.bounding_box()
    height = float(heatmap.get_attribute("data-height"))
    page.mouse.move(around["x"] + 2, around["y"] + 2)
    page.mouse.down()
    page.mouse.move(around["x"] + around["width"] - 2, around["y"] + height * 0.45, steps=5)
    page.mouse.up()
    page.locator("#comparison").wait_for()


def main() -> int:
    project = Path(os.environ.get("PROJECT") or ROOT / "demo")
    subprocess.run([sys.executable, project / "bin/traffic", "--seconds", "20", "--url", BACKEND], check=True)
    home = trace_of(HOME)
    trace_of("/api/examples/failing")
    time.sleep(2)
    pictures = {
        "trace": (f"/traces/{home}?span={span_of(home, 'home-activities-mock-data')}", 1200, 620),
        "logs": ("/logs", 1200, 420),
        "query": ("/query", 1200, 900),
        "box": ("/query", 1200, 900),
        "overview": ("/", 1200, 760),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for name, (path, width, height) in pictures.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(VIEWER + path)
            page.wait_for_timeout(500)
            if name == "box":
                draw_box(page)
            if name in ("query", "box"):
                page.locator(".chart").first.evaluate("chart => chart.scrollIntoView()")
            page.screenshot(path=str(IMAGES / f"{name}.png"))
            page.close()
        browser.close()
    for old in IMAGES.glob("*.png"):
        if old.stem not in pictures:
            old.unlink()
    print(f"Wrote {len(pictures)} pictures to {IMAGES.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
