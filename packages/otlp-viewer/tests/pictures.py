"""Takes pictures of every page, to be looked at: light and dark, wide and narrow. Needs Playwright and Chromium.

python pictures.py FOLDER [NAME...]
"""

import json
import sys
from pathlib import Path
from typing import Any

import browser
import traffic
from running import free_port, get, viewer

THEMES = ("light", "dark")
WIDTHS = (1280, 380)


def pages(address: str) -> dict[str, str]:
    """Fill the viewer at the address; its pages by name."""
    traffic.fill(address)
    odd = traffic.odd(address)
    found = get(address, "/api/traces?limit=1000")
    checkout = [one for one in found if one["name"] == "POST /checkout"]
    query = json.dumps({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]})
    return {
        "overview": "/",
        "traces": "/traces",
        "trace": f"/traces/{next(one['trace_id'] for one in checkout if not one['error'])}",
        "error": f"/traces/{next(one['trace_id'] for one in checkout if one['error'])}",
        "large": f"/traces/{odd['large']}",
        "skewed": f"/traces/{odd['skewed']}",
        "detached": f"/traces/{odd['detached']}",
        "lost": f"/traces/{odd['lost']}",
        "logs": "/logs",
        "query": "/query",
        "box": f"/query?query={query}&box=0,9999999999,250,99999,duration_ms#comparison",
        "groups": f"/query?query={json.dumps({'breakdowns': ['service.name', 'name']})}",
        "nothing": "/traces?text=nowhere",
        "missing": f"/traces/{'0' * 32}",
        "clear": "/clear",
    }


def take(page: Any, url: str, path: Path, whole: bool = False) -> Path:
    page.goto(url)
    page.wait_for_timeout(300)
    page.screenshot(path=str(path), full_page=whole)
    return path


def main() -> None:
    from playwright.sync_api import sync_playwright

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with viewer(free_port()) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser.path(), args=browser.ARGUMENTS)
        for name, path in pages(address).items():
            if sys.argv[2:] and name not in sys.argv[2:]:
                continue
            for theme in THEMES:
                for width in WIDTHS:
                    page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
                    print(take(page, address + path, folder / f"{name}-{theme}-{width}.png"))
                    page.close()
        chromium.close()


if __name__ == "__main__":
    main()
