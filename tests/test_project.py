"""What a project brings to check itself, run as its owner would."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import PROJECT, ROOT, environment


def make(project: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["make", *targets], cwd=project, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_its_own_tests_pass(installed_project: Path) -> None:
    done = make(installed_project, "test")
    assert re.search(r"^=+ \d+ passed in ", done.stdout, re.MULTILINE), done.stdout


def test_its_own_lint_passes(installed_project: Path) -> None:
    assert "Success: no issues found" in make(installed_project, "lint").stdout


@pytest.mark.parametrize("level", ["template", "project"])
def test_help_lists_every_target(level: str, default_project: Path) -> None:
    folder = ROOT if level == "template" else default_project
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (folder / "Makefile").read_text(), re.MULTILINE)
    shown = re.findall(r"^  make ([a-z-]+) +\S", make(folder, "help").stdout, re.MULTILINE)
    assert sorted(shown) == sorted(phony.split())


@pytest.mark.parametrize("folder", [ROOT, ROOT / PROJECT], ids=["template", "project"])
def test_the_locks_hold_every_dependency_with_hashes_and_no_address(folder: Path) -> None:
    pyproject = tomllib.loads((folder / "pyproject.toml").read_text())
    named = {"requirements.txt": pyproject["project"]["dependencies"]}
    named["requirements-dev.txt"] = named["requirements.txt"] + pyproject["dependency-groups"]["dev"]
    for file, dependencies in named.items():
        text = (folder / file).read_text()
        pins = re.findall(r"^([a-z0-9_.-]+)==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
        wanted = {re.split(r"[^a-zA-Z0-9_.-]", dependency)[0].lower() for dependency in dependencies}
        assert wanted <= set(pins)
        assert "://" not in text
        for exact in (each for each in dependencies if "==" in each):
            assert f"{exact} \\" in text


def test_an_old_python_is_refused_in_one_line(default_project: Path, tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "test", f"PYTHON={old}"], cwd=default_project, env=environment(), capture_output=True, text=True
    )
    assert done.stderr.splitlines()[0] == ("This needs Python 3.11 or newer. Name one: make test PYTHON=python3.14")
    assert not (default_project / ".venv").exists()
