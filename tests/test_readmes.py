"""The README files: short enough, and each of their commands, run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import LEFTOVERS, ROOT
from containers import engine  # noqa: F401
from reader import DOCKER, KEY, Reader, blocks, commands
from test_tutorial import account  # noqa: F401

ELSEWHERE = {  # commands that other tests run
    "make demo": "test_demo.py",
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "make docs": "test_docs.py",
}
ANSWERS = [
    {},
    {"example": "none", "description": 'A "shop" | $(here)', "deployment": "Kubernetes too", "honeycomb_region": "EU"},
]


def follow(reader: Reader, readme: Path) -> None:
    try:
        for block in blocks(readme):
            typed = commands(block.text) if block.language == "sh" else []
            reader.do(
                block._replace(language="sh", text="".join(f"{each}\n" for each in typed if each not in ELSEWHERE))
            )
    finally:
        reader.close()


def test_the_readmes_are_short(default_project: Path) -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 110
    assert len((default_project / "README.md").read_text("utf-8").splitlines()) <= 120


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_command_of_the_template_works_in_a_clone(name: str, config_file: str, tmp_path: Path) -> None:
    clone = tmp_path / "a clone" / "template"
    skip = lambda path, names: {*LEFTOVERS(path, names), "demo", ".git", ".lock", "site"}  # noqa: E731
    shutil.copytree(ROOT, clone, ignore=skip)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    reader = Reader(clone, COOKIECUTTER_CONFIG=config_file)
    reader.front.run(f"PATH='{tmp_path}/venv/bin:'$PATH")
    follow(reader, ROOT / name)


@pytest.mark.parametrize("docker", [False, pytest.param(True, marks=pytest.mark.docker)], ids=["alone", "in Docker"])
@pytest.mark.parametrize("answers", ANSWERS, ids=["default", "no example"])
def test_every_command_of_a_project_works(
    render: Callable[..., Path],
    account: object,  # noqa: F811
    answers: dict[str, str],
    docker: bool,
    request: pytest.FixtureRequest,
) -> None:
    if docker:
        request.getfixturevalue("engine")
    project = render(**answers)
    reader = Reader(project, docker=docker, HONEYCOMB_API_ENDPOINT=getattr(account, "url", ""))
    follow(reader, project / "README.md")
    typed = [each for block in blocks(project / "README.md") if block.language == "sh" for each in commands(block.text)]
    assert docker or reader.skipped == [each for each in typed if DOCKER.search(each)]
    assert KEY not in "".join(terminal.output for terminal in reader.terminals)
    assert not re.search(r"cookiecutter|\{\{|#%", (project / "README.md").read_text("utf-8"))
