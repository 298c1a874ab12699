"""Run the benchmarks against baselines in the same run. Write bench/RESULTS.md and the tables of docs/scaling.md.

    python bench                  every part
    python bench cost viewer      these parts
    python bench --quick cost     the smallest counts, to see that it works; writes nothing
    python bench --report         write RESULTS.md again from figures.json

Each part is a module with `measure(quick)`, which returns tables: {"title", "columns", "rows", "note"}.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
FIGURES, RESULTS = BENCH / "figures.json", BENCH / "RESULTS.md"
SCALING = BENCH.parent / "docs" / "scaling.md"
PARTS = {
    "cost": "What tracing costs",
    "delivery": "What arrives",
    "viewer": "otlp-viewer",
    "scaling": "Past one machine",
}
PACKAGES = ("opentelemetry-sdk", "opentelemetry-instrumentation-flask", "flask", "gunicorn", "duckdb")

Table = dict[str, Any]


def circumstances() -> str:
    """Return the date, machine and versions of a measurement."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, {versions}; load before: {os.getloadavg()[0]:.1f}"
    )


def markdown(table: Table) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    head = [str(each) for each in table["columns"]]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([str(cell) for cell in row] for row in table["rows"])]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"### {table['title']}\n\n{text}\n" + (f"\n{table['note']}\n" if table.get("note") else "")


def report(figures: dict[str, Any]) -> str:
    """Return RESULTS.md, generated only from the figures."""
    parts = ["# Results\n\nWritten by `make bench`; docs/costs.md explains the figures.\n"]
    for name, title in PARTS.items():
        if name in figures:
            parts.append(f"## {title}\n\n{figures[name]['on']}\n")
            parts += map(markdown, figures[name]["tables"])
    return "\n".join(parts)


def renew(page: str, tables: list[Table]) -> str:
    """Return the page with its tables replaced by those with the same columns."""
    for table in tables:
        lines = markdown(table | {"note": ""}).partition("\n\n")[2]
        head = re.escape(lines.partition("\n")[0])
        page = re.sub(rf"^{head}\n(\|.*\n)+", lines.replace("\\", r"\\"), page, flags=re.M)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="the smallest counts; writes nothing")
    parser.add_argument("--report", action="store_true", help="write RESULTS.md from figures.json")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - PARTS.keys()):
        parser.error(f"unknown part: {', '.join(unknown)}. There are {', '.join(PARTS)}.")
    sys.path.insert(0, str(BENCH))
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    for name in [] if arguments.report else arguments.parts or PARTS:
        print(f"Measuring: {name}", file=sys.stderr, flush=True)
        on = circumstances()
        tables = importlib.import_module(name).measure(arguments.quick)
        print("\n".join(map(markdown, tables)), flush=True)
        figures[name] = {"on": on, "tables": tables}
        if not arguments.quick:
            FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not arguments.quick:
        RESULTS.write_text(report(figures), encoding="utf-8")
        page = SCALING.read_text(encoding="utf-8")
        SCALING.write_text(renew(page, figures["scaling"]["tables"]), encoding="utf-8")


if __name__ == "__main__":
    main()
