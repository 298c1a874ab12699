"""The bench works, and its report says what its figures say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import ModuleType

import pytest
from conftest import ROOT, environment

BENCH = ROOT / "bench"


@pytest.fixture(scope="module")
def main() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_main", BENCH / "__main__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_report_is_generated_from_the_figures(main: ModuleType) -> None:
    figures = json.loads((BENCH / "figures.json").read_text("utf-8"))
    assert figures.keys() == main.PARTS.keys()
    assert main.report(figures) == (BENCH / "RESULTS.md").read_text("utf-8")
    page = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    for table in figures["scaling"]["tables"]:
        assert main.markdown(table).partition("\n\n")[2] in page


def test_tables_in_pages_match_the_figures(main: ModuleType) -> None:
    page = "Before.\n\n| a | b |\n| --- | ---: |\n| one | 1 |\n| two | 2 |\n\nAfter.\n\n| c |\n| --- |\n| 3 |\n"
    renewed = main.renew(page, [{"title": "A", "columns": ["a", "b"], "rows": [["one", "5"]], "note": "A note."}])
    assert renewed == "Before.\n\n| a | b |\n| --- | ---: |\n| one | 5 |\n\nAfter.\n\n| c |\n| --- |\n| 3 |\n"


@pytest.mark.parametrize("part", ["cost", "delivery", "viewer", "scaling"])
def test_a_quick_run_of_a_part_measures_and_writes_nothing(part: str) -> None:
    before = (BENCH / "figures.json").read_bytes()
    command = [sys.executable, str(BENCH), "--quick", part]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| ---" in done.stdout
    assert (BENCH / "figures.json").read_bytes() == before


def test_browser_rows_are_skipped_with_a_reason_without_a_browser() -> None:
    command = [sys.executable, str(BENCH), "--quick", "viewer"]
    without = environment(PATH="", CHROMIUM="")
    done = subprocess.run(command, env=without, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "it needs Playwright and Chromium" in done.stderr
    assert "usable" not in done.stdout
    assert "first page" in done.stdout


def test_an_unknown_part_is_named() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "costs"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown part: costs. There are cost, delivery, viewer, scaling." in done.stderr
