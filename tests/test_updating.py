"""A project that is made with an older template takes a newer one, and its owner's edits stay.

What people have is a release, so that is what an update starts from: the files as they were, from the history of this
repository (a copy of them here would be 170 kB more with every release). A shallow clone or an archive does not have
them, and the test of that says so and is skipped. What is tried everywhere is an update from a version that is made
older here. It has what two releases may happen not to have: a file that came, one that went, and a change just where
the owner of a project has made one.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT, ROOT, environment

MADE_OLDER = "made older"
ANSWERS = {
    "project_name": """It's "mine" \\o/ {{ 7*7 }}""",
    "project": "mine",
    "description": "{% raw %} $(touch pwned) #% if",
    "honeycomb_region": "EU",
}
OUR_TEST = """
def test_ours(client, spans):
    assert client.get("/api/activities/ours").json == []
    assert spans.named("GET /api/activities/ours")
"""
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
VERSIONS = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", CHANGELOG, re.MULTILINE)  # the newest first


def git(*arguments: str, cwd: Path = ROOT, check: bool = True) -> bytes:
    """What git answers, whatever its user has configured and whoever owns the folder."""
    settings = ["-c", "safe.directory=*", "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    env = environment(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull)
    return subprocess.run(["git", *settings, *arguments], cwd=cwd, env=env, check=check, capture_output=True).stdout


def released(version: str) -> str:
    """The commit of a release, by its tag or by its link in the change log; none in a clone without its history."""
    top = git("rev-parse", "--show-toplevel", check=False).decode().strip()
    if not top or Path(top) != ROOT:
        return ""
    names = [f"v{version}", *re.findall(rf"^\[{re.escape(version)}\]: \S+/([0-9a-f]{{40}})$", CHANGELOG, re.MULTILINE)]
    answers = [git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False) for name in names]
    commits = {answer.decode().strip() for answer in answers if answer}
    assert len(commits) <= 1, f"the tag and the change log do not agree on {version}"
    assert commits or not git("tag", "--list", "v*"), f"there are tags of releases, but not of {version}"
    return next(iter(commits), "")


def make_older(template: Path) -> None:
    """Undo in a copy of the template what could have been done since."""
    project = template / PROJECT
    (project / "Procfile").unlink()
    (project / "backend" / "former.py").write_text('"""What is no longer needed."""\n')
    with (project / "gunicorn.conf.py").open("a") as file:
        file.write("\n# Formerly.\n")
    (project / ".gitpod.yml").write_text("tasks: []\n")
    makefile = (project / "Makefile").read_text("utf-8")
    assert "## Run the tests" in makefile
    (project / "Makefile").write_text(makefile.replace("## Run the tests", "## Run some tests"), "utf-8")


def edit(project: Path) -> None:
    """What an owner does: a route with its test, a paragraph, another port, and one way less to open it."""
    with (project / "backend" / "activities.py").open("a") as file:
        file.write('\n\n@blueprint.get("/ours")\ndef ours() -> list[Activity]:\n    return []\n')
    (project / "tests" / "test_ours.py").write_text(OUR_TEST)
    readme = (project / "README.md").read_text("utf-8")
    (project / "README.md").write_text(readme.replace("\n\n", "\n\nAsk Ada.\n\n", 1), "utf-8")
    makefile = (project / "Makefile").read_text("utf-8")
    (project / "Makefile").write_text(makefile.replace("PORT ?= 4567", "PORT ?= 5000"), "utf-8")
    (project / ".gitpod.yml").unlink()


def files(project: Path) -> dict[str, tuple[bytes, bool]]:
    """Every file, and whether it can be run; not git's, and not cruft's note."""
    return {
        path.relative_to(project).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in sorted(project.rglob("*"))
        if path.is_file() and not {".git", ".cruft.json", "__pycache__"} & {*path.relative_to(project).parts}
    }


class Owner:
    """Has made a project with the older template, keeps it in git, and uses cruft as a person does."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        self.template = template
        self.project = folder / "mine"
        self.env = environment(HOME=str(folder), GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull)

    def cruft(self, *arguments: str, cwd: Path | None = None, exit: int = 0) -> str:
        command = [str(Path(sys.executable).with_name("cruft")), *arguments]
        cwd = cwd or self.project
        env = {**self.env, "PWD": str(cwd)}
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
        assert done.returncode == exit, done.stdout + done.stderr
        return done.stdout + done.stderr

    def create(self, **answers: str) -> None:
        given = json.dumps({**ANSWERS, **answers})
        self.cruft(
            "create", str(self.template), "--no-input", "--checkout", "older", "--extra-context", given, cwd=self.folder
        )
        git("init", "--quiet", cwd=self.project)
        self.commit()

    def commit(self) -> None:
        git("add", "--all", cwd=self.project)
        git("commit", "--quiet", "--message=As it is", cwd=self.project)

    def update(self, exit: int = 0) -> str:
        return self.cruft("update", "--skip-apply-ask", exit=exit)

    def conflicts(self) -> list[str]:
        """The files that git has a conflict in."""
        return git("diff", "--name-only", "--diff-filter=U", cwd=self.project).decode().split()


@pytest.fixture(scope="module")
def templates(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A repository with two tags: `older`, which is the given version, and `newer`, which is the present one."""

    def templates(older: str) -> Path:
        repository = tmp_path_factory.mktemp("templates") / "a template"
        if older == MADE_OLDER:
            shutil.copytree(template, repository)
            make_older(repository)
        else:
            commit = released(older)
            if not commit:
                pytest.skip(f"this clone does not reach back to {older}: git fetch --unshallow --tags")
            archive = git("archive", commit, "cookiecutter.json", "hooks", PROJECT)
            with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
                packed.extractall(repository, filter="data")
        git("init", "--quiet", str(repository))
        for tag in ("older", "newer"):
            git("add", "--all", cwd=repository)
            git("commit", "--quiet", f"--message={tag}", cwd=repository)
            git("tag", tag, cwd=repository)
            if tag == "older":
                for each in repository.iterdir():
                    if each.name != ".git":
                        shutil.rmtree(each) if each.is_dir() else each.unlink()
                shutil.copytree(template, repository, dirs_exist_ok=True)
        return repository

    return templates


def test_the_change_log_begins_with_the_version_that_this_is() -> None:
    assert VERSIONS[0] == tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


@pytest.mark.parametrize(("older", "local_viewer"), [(VERSIONS[1], "built-in"), (MADE_OLDER, "jaeger")])
def test_after_an_update_the_edits_and_the_changes_are_there(
    older: str, local_viewer: str, templates: Callable[[str], Path], render: Callable[..., Path], tmp_path: Path
) -> None:
    owner = Owner(tmp_path, templates(older))
    owner.create(local_viewer=local_viewer)
    before = files(owner.project)
    edit(owner.project)
    owner.commit()

    said = owner.update()
    assert "conflict" not in said.lower()
    expected = render(**ANSWERS, local_viewer=local_viewer)
    assert before != files(expected)
    edit(expected)
    assert files(owner.project) == files(expected)
    note = json.loads((owner.project / ".cruft.json").read_text("utf-8"))
    assert note["commit"] == git("rev-parse", "newer", cwd=owner.template).decode().strip()
    assert {name: note["context"]["cookiecutter"][name] for name in ANSWERS} == ANSWERS
    assert "up to date" in owner.cruft("check")
    assert not (tmp_path / "pwned").exists()

    # What `make test` does, with the tests that have to do with the edits.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "tests/test_activities.py",
        "tests/test_ours.py",
    ]
    done = subprocess.run(command, cwd=owner.project, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_where_both_changed_a_line_both_are_shown_and_the_rest_is_updated(
    templates: Callable[[str], Path], render: Callable[..., Path], tmp_path: Path
) -> None:
    owner = Owner(tmp_path, templates(MADE_OLDER))
    owner.create()
    makefile = owner.project / "Makefile"
    ours = makefile.read_text("utf-8").replace("## Run some tests", "## Run our tests")
    makefile.write_text(ours, "utf-8")
    owner.commit()

    assert "make run" not in owner.update()  # what to do next in a new project, in folders that are gone by now
    assert owner.conflicts() == ["Makefile"]
    newest = files(render(**ANSWERS))
    shown = makefile.read_text("utf-8")
    sides = re.fullmatch(r"(.*)<{7} [^\n]*\n(.*)={7}\n(.*)>{7} [^\n]*\n(.*)", shown, re.DOTALL)
    assert sides
    assert sides[1] + sides[2] + sides[4] == ours
    assert sides[1] + sides[3] + sides[4] == newest["Makefile"][0].decode()
    assert {**files(owner.project), "Makefile": None} == {**newest, "Makefile": None}


def test_an_update_does_not_begin_over_what_is_not_committed(templates: Callable[[str], Path], tmp_path: Path) -> None:
    owner = Owner(tmp_path, templates(MADE_OLDER))
    owner.create()
    (owner.project / ".env").write_text("HONEYCOMB_API_KEY=\n")  # which git does not see, and which is no obstacle
    edit(owner.project)
    before = files(owner.project)
    assert "unclean git project" in owner.update(exit=1)
    assert files(owner.project) == before
    owner.commit()
    owner.update()
    assert (owner.project / ".env").read_text() == "HONEYCOMB_API_KEY=\n"


def test_a_replay_file_gives_the_same_project(template: Path, config_file: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = json.loads(Path(config_file).read_text())
    kept = Path(settings["replay_dir"]) / f"{template.name}.json"
    command = [sys.executable, "-m", "cookiecutter", "--config-file", config_file, str(template), "--output-dir"]
    answers = [f"{name}={value}" for name, value in ANSWERS.items()]
    subprocess.run([*command, tmp_path / "first", "--no-input", *answers], check=True, capture_output=True)
    replay = shutil.copy(kept, tmp_path / "answers.json")
    subprocess.run([*command, tmp_path / "again", "--replay-file", replay], check=True, capture_output=True)
    assert files(tmp_path / "again" / "mine") == files(tmp_path / "first" / "mine") != {}
