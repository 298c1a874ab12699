"""Measures, part by part, and writes what it found to RESULTS.md and plots/.

    python bench                  every part, each figure beside a baseline in the same run; about an hour
    python bench cost soak        these parts; cost.profile is one piece of a part, with --into
    python bench --report         write RESULTS.md again, of the figures that are kept; measures nothing
    python bench --quick cost     the smallest counts, to see whether it works; the figures say nothing

Figures are kept in figures/<part>.json, with when and on what they were measured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.machinery import SourceFileLoader
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH))
sys.dont_write_bytecode = True
COSTS = BENCH.parent / "docs" / "costs.md"  # has the headlines too

PARTS = ("cost", "delivery", "soak", "first_trace", "images", "viewer")
WITH_DOCKER = ("delivery", "first_trace", "images")
PACKAGES = ("opentelemetry-sdk", "opentelemetry-instrumentation-flask", "flask", "gunicorn", "requests")


def part(name: str) -> ModuleType:
    if name != "viewer":
        return importlib.import_module(name)
    # A module of another name, as the project has a package that is called viewer.
    loader = SourceFileLoader("bench_viewer", str(BENCH / "viewer.py"))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    loader.exec_module(module)
    return module


def processor() -> str:
    """The model of the CPU, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def about_now(name: str) -> dict[str, Any]:
    """When, on what and with which versions a part is measured."""
    versions = {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
    if name in WITH_DOCKER:
        command = ["docker", "version", "--format", "{{.Server.Version}}"]
        asked = subprocess.run(command, capture_output=True, text=True)
        versions["docker"] = asked.stdout.strip() or "none"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "load_before": round(os.getloadavg()[0], 2),  # what else ran there, as the mean of a minute
        "versions": versions,
    }


def kept(figures: Path) -> dict[str, dict[str, Any]]:
    """What was measured, by part, in the order of the parts."""
    files = {name: figures / f"{name}.json" for name in PARTS}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def write_report(folder: Path) -> None:
    """RESULTS.md and plots/ in `folder`, of the figures there and of nothing else."""
    found = kept(folder / "figures")
    if not found:
        sys.exit(f"There are no figures in {folder / 'figures'}")
    plots = folder / "plots"
    sections: list[str] = []
    headlines: list[Sequence[str]] = []
    for name, figures in found.items():
        module = part(name)
        sections.append(module.report(figures, plots).strip() + "\n\n" + measured_when(figures["measured"]))
        headlines += getattr(module, "headline", lambda _: [])(figures)
    report = importlib.import_module("report")
    in_short = report.table(["In short", "Beside the plain way", ""], headlines, left=3) if headlines else ""
    text = "\n".join(
        [
            "# Results",
            "",
            "What this template costs and what it survives, beside the same application untraced, traced the plain way",
            "(the dozen lines of OpenTelemetry's and Honeycomb's getting-started pages, everything at its default) and",
            "with zero code (`opentelemetry-instrument`). Every ratio is to a baseline that was measured in the same",
            f"run, in turns. A difference of up to {report.percent(report.MARGIN)} says nothing.",
            "",
            "`make bench` measures all of it again on your machine, which takes about an hour, and writes this page",
            "and the figures behind it, which are in `bench/figures/`; `make bench ONLY=cost` does so for one part. It",
            "needs Linux, `wrk` and, for some of it, Docker.",
            "",
            *machines({name: figures["measured"] for name, figures in found.items()}),
            "",
            in_short,
            "\n\n".join(sections),
        ]
    )
    text = re.sub(r"\n{3,}", "\n\n", text.rstrip() + "\n")
    (folder / "RESULTS.md").write_text(text, encoding="utf-8")
    if folder == BENCH:
        page = COSTS.read_text(encoding="utf-8")
        before, begins, rest = page.partition("<!-- headlines: written by `make bench` -->\n")
        _, ends, after = rest.partition("<!-- /headlines -->")
        COSTS.write_text(before + begins + in_short + ends + after, encoding="utf-8")


def machine(measured: dict[str, Any]) -> str:
    return (
        f"{measured['cores']} cores of {measured['processor']}, {measured['memory_gb']} GB, {measured['kernel']};"
        f" {in_words(measured['versions'])}"
    )


def in_words(versions: dict[str, str]) -> str:
    return ", ".join(f"{name.replace('python', 'Python')} {number}" for name, number in versions.items())


def machines(measured: dict[str, dict[str, Any]]) -> list[str]:
    """On what the parts were measured, each machine once."""
    by_machine: dict[str, list[str]] = {}
    for name, about in measured.items():
        without_docker = {key: value for key, value in about["versions"].items() if key != "docker"}
        by_machine.setdefault(machine({**about, "versions": without_docker}), []).append(name)
    if len(by_machine) == 1:
        dates = sorted(about["date"] for about in measured.values())
        return [f"Measured from {dates[0]} to {dates[-1]}: {next(iter(by_machine))}."]
    return [f"- {', '.join(names)}: {what}." for what, names in by_machine.items()]


def measured_when(measured: dict[str, Any]) -> str:
    docker = f", Docker {measured['versions']['docker']}" if "docker" in measured["versions"] else ""
    return f"*Measured {measured['date']}{docker}; load of the machine before it began: {measured['load_before']}.*\n"


def measure(name: str, quick: bool, folder: Path, pieces: Sequence[str]) -> None:
    module = part(name)
    measured = about_now(name)
    figures = module.measure(quick, pieces) if pieces else module.measure(quick)
    file = folder / "figures" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"measured": measured, **rounded(figures)}, indent=1)
    # Lists of numbers in one line.
    text = re.sub(r"\[[-+.\de,\s]*\]", lambda found: " ".join(found[0].split()), text)
    file.write_text(text + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """With no more digits than say anything."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or what is running would be left behind
    parser = argparse.ArgumentParser("python bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them without any")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--quick", action="store_true", help="never over the kept figures")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="instead of bench/")
    arguments = parser.parse_args()
    asked: dict[str, list[str]] = {}
    for each in arguments.parts or PARTS:
        name, _, piece = each.partition(".")
        if name not in PARTS:
            parser.error(f"there is no part {name}; there are {', '.join(PARTS)}")
        asked.setdefault(name, []).extend([piece] if piece else [])
    if any(asked.values()) and not arguments.into:
        parser.error("a piece of a part needs --into: its figures are no whole")
    folder = arguments.into or (Path(tempfile.mkdtemp(prefix="bench-quick-")) if arguments.quick else BENCH)
    failed = []
    if not arguments.report:
        for name in asked:
            getattr(part(name), "check", lambda: None)()  # what is missing is said before anything is measured
        for name, pieces in asked.items():
            print(f"== {name}", file=sys.stderr, flush=True)
            try:
                measure(name, arguments.quick, folder, pieces)
                write_report(folder)
            except Exception:
                traceback.print_exc()
                failed.append(name)
    else:
        write_report(folder)
    print(folder / "RESULTS.md")
    if failed:
        sys.exit(f"Not measured, for the reason above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
