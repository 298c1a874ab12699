"""What bench/ measures and writes: that it works, and that its results are those of the figures that are kept."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, environment

BENCH = ROOT / "bench"
MEASURED = {"date", "cores", "memory_gb", "kernel", "processor", "load_before", "versions"}
VERSIONS = {"python", "opentelemetry-sdk", "opentelemetry-instrumentation-flask", "flask", "gunicorn", "requests"}


def bench(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *map(str, arguments)]
    return subprocess.run(command, env=environment(**env), capture_output=True, text=True)


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    """bench/__main__.py as a module; what it does to the search for modules lasts as long as these tests."""
    loader = SourceFileLoader("bench_main", str(BENCH / "__main__.py"))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
        loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def kept(program: ModuleType) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = program.kept(BENCH / "figures")
    return found


def needs_wrk() -> None:
    if shutil.which("wrk") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("wrk is missing")
        pytest.skip("wrk is missing")


def contents(folder: Path) -> dict[str, str]:
    files = [folder / "RESULTS.md", *sorted((folder / "plots").glob("*"))]
    return {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in files}


def test_every_part_was_measured_and_says_when_on_what_and_with_which_versions(
    program: ModuleType, kept: dict[str, dict[str, Any]]
) -> None:
    assert list(kept) == list(program.PARTS)
    for name, figures in kept.items():
        measured = figures["measured"]
        assert measured.keys() >= MEASURED, name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", measured["date"])
        assert measured["versions"].keys() >= VERSIONS | ({"docker"} if name in program.WITH_DOCKER else set()), name
        assert len(figures) > 1, name


def test_the_results_are_what_the_kept_figures_give_and_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(BENCH / "figures", tmp_path / "figures")
    done = bench("--report", "--into", tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == contents(BENCH)


def test_the_results_show_every_plot_and_no_other() -> None:
    shown = set(re.findall(r"\]\((plots/[^)]+)\)", (BENCH / "RESULTS.md").read_text(encoding="utf-8")))
    assert shown == contents(BENCH).keys() - {"RESULTS.md"}


def test_the_documentation_has_the_same_headlines() -> None:
    (in_short,) = re.findall(r"^\| In short.*?\n\n", (BENCH / "RESULTS.md").read_text(encoding="utf-8"), re.M | re.S)
    page = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
    assert page.partition("`make bench` -->\n")[2].partition("<!-- /headlines -->")[0] == in_short[:-1]


def test_every_cost_above_the_plain_way_s_says_what_it_buys(
    program: ModuleType, kept: dict[str, dict[str, Any]]
) -> None:
    found = program.part("cost").rows(kept["cost"])
    assert len(found) > 30
    assert [row.key for row in found if row.verdict == "worse" and not row.buys] == []


def test_the_same_spans_arrive_for_the_same_requests(kept: dict[str, dict[str, Any]]) -> None:
    for key in ("trivial", "home", "20ms", "log"):
        by_variant = kept["cost"]["in_process"][key]
        assert by_variant["ours"]["spans"] == by_variant["plain"]["spans"] > 0, key


def test_the_cost_can_be_measured_here_and_kept_figures_stay_as_they_are(tmp_path: Path) -> None:
    needs_wrk()
    before = {file: file.read_bytes() for file in BENCH.rglob("*") if file.is_file() and "__pycache__" not in str(file)}
    done = bench("--quick", "--into", tmp_path, "cost")
    assert done.returncode == 0, done.stderr
    after = {file: file.read_bytes() for file in BENCH.rglob("*") if file.is_file() and "__pycache__" not in str(file)}
    assert after == before
    figures = json.loads((tmp_path / "figures" / "cost.json").read_text(encoding="utf-8"))
    home = figures["in_process"]["home"]
    assert home["ours"]["spans"] == home["plain"]["spans"] == 3
    assert home["ours, off"]["spans"] == home["untraced"]["spans"] == 0
    assert all(value > 0 for by_variant in figures["in_process"]["home"].values() for value in by_variant["cpu"])
    assert not any(
        errors for by_name in figures["served"].values() for each in by_name.values() for errors in each["errors"]
    )
    written = contents(tmp_path)
    assert "## Cost" in written["RESULTS.md"]
    assert {name for name in written if name.endswith(".svg")} == set(
        re.findall(r"\]\((plots/[^)]+)\)", written["RESULTS.md"])
    )


def test_without_wrk_it_says_at_once_how_to_get_it(tmp_path: Path) -> None:
    done = bench("--quick", "--into", tmp_path / "results", "cost", "viewer", PATH=str(tmp_path))
    assert done.returncode != 0
    assert "apt-get install wrk" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_part_that_fails_is_named_and_leaves_the_others_figures(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(quick: bool) -> dict[str, Any]:
        raise RuntimeError("no receiver")

    def works(quick: bool) -> dict[str, Any]:
        return {"answer": 42.0000001}

    parts = {name: ModuleType(name) for name in ("soak", "viewer")}
    for module, measure in zip(parts.values(), (fails, works), strict=True):
        vars(module).update(measure=measure, report=lambda figures, plots: f"## It is {figures['answer']}")
    monkeypatch.setattr(program, "part", parts.__getitem__)
    monkeypatch.setattr(sys, "argv", ["bench", "--into", str(tmp_path), *parts])
    with pytest.raises(SystemExit, match="soak"):
        program.main()
    assert "no receiver" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "figures").iterdir()] == ["viewer.json"]
    assert "## It is 42.0\n" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.parametrize(
    ("values", "more_is_better", "verdict"),
    [
        ([104, 104, 104], False, "within 5 %"),
        ([94, 93, 94, 94, 300], False, "better"),
        ([106, 106, 107, 106, 50], False, "worse"),
        ([106, 106, 107, 106, 50], True, "better"),
        ([110, 120, 110, 90, 80], False, "unclear"),
        ([110, 90, 120], True, "unclear"),
        ([94, 94, 94], True, "worse"),
        ([96, 96, 96], True, "within 5 %"),
    ],
)
def test_a_ratio_is_that_of_most_rounds(
    program: ModuleType, values: list[float], more_is_better: bool, verdict: str
) -> None:
    assert importlib.import_module("report").Ratio.of(values, [100] * len(values)).verdict(more_is_better) == verdict
