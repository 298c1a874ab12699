"""A project that was made with an older template takes this one with cruft, and its owner's edits survive.

The older templates come from the history of this repository, which a shallow clone or an archive does not have.
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

import pytest
from conftest import PROJECT, ROOT, environment

CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
VERSIONS = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", CHANGELOG, re.MULTILINE)  # the newest first
OURS = '\n\n@blueprint.get("/ours")\ndef ours() -> list[Activity]:\n    return []\n'
OUR_TEST = """
def test_ours(client, spans):
    assert client.get("/api/activities/ours").json == []
    assert spans.named("GET /api/activities/ours")
"""


def git(*arguments: str, cwd: Path = ROOT, check: bool = True) -> bytes:
    """What git prints, whatever its user has configured and whoever owns the folder."""
    settings = ["-c", "safe.directory=*", "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    env = environment(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull)
    return subprocess.run(["git", *settings, *arguments], cwd=cwd, env=env, check=check, capture_output=True).stdout


def commit_of(version: str) -> str:
    """The commit of a release, by its line at the end of the change log; empty in a clone without it."""
    commit = re.search(rf"^\[{re.escape(version)}\]: commit ([0-9a-f]{{40}})$", CHANGELOG, re.MULTILINE)
    assert commit, f"CHANGELOG.md does not name the commit of {version}"
    return git("rev-parse", "--verify", "--quiet", f"{commit[1]}^{{commit}}", check=False).decode().strip()


def copy_into(repository: Path, template: Path) -> None:
    """Make the repository's files those of the template."""
    for each in repository.iterdir():
        if each.name != ".git":
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    shutil.copytree(template, repository, dirs_exist_ok=True)


def commit_all(repository: Path, message: str) -> None:
    git("add", "--all", cwd=repository)
    git("commit", "--quiet", f"--message={message}", cwd=repository)


class Owner:
    """Has made a project with an older template, keeps it in git, and uses cruft as a person does."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        self.template = template
        self.project = folder / "mine"
        self.env = environment(HOME=str(folder), GIT_CONFIG_GLOBAL=str(folder / ".gitconfig"))
        (folder / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")

    def cruft(self, *arguments: str, cwd: Path | None = None) -> str:
        command = [str(Path(sys.executable).with_name("cruft")), *arguments]
        cwd = cwd or self.project
        done = subprocess.run(command, cwd=cwd, env={**self.env, "PWD": str(cwd)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def create(self, **answers: str) -> None:
        given = json.dumps({"project": "mine", **answers})
        command = ["create", str(self.template), "--no-input", "--checkout", "older", "--extra-context", given]
        self.cruft(*command, cwd=self.folder)
        git("init", "--quiet", cwd=self.project)
        commit_all(self.project, "A new project")

    def conflicts(self) -> list[str]:
        """The files that have conflicts."""
        rejected = [path.relative_to(self.project).as_posix() for path in self.project.rglob("*.rej")]
        return git("diff", "--name-only", "--diff-filter=U", cwd=self.project).decode().split() + rejected


@pytest.fixture
def older_template(template: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A repository with two tags: `older`, the template of a version, and `newer`, the one of now."""

    def older_template(version: str) -> Path:
        if not (commit := commit_of(version)):
            pytest.skip(f"this clone does not reach back to {version}: git fetch --unshallow")
        repository = tmp_path / "a template"
        parts = ("cookiecutter.json", "hooks", "{{cookiecutter.*")  # the folder's name differs from release to release
        with tarfile.open(fileobj=io.BytesIO(git("archive", commit, *parts))) as packed:
            packed.extractall(repository, filter="data")
        git("init", "--quiet", str(repository))
        commit_all(repository, "older")
        git("tag", "older", cwd=repository)
        copy_into(repository, template)
        commit_all(repository, "newer")
        git("tag", "newer", cwd=repository)
        return repository

    return older_template


def files(project: Path) -> dict[str, bytes]:
    """Every file but git's and cruft's."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file() and not {".git", ".cruft.json", "__pycache__"} & {*path.relative_to(project).parts}
    }


def test_the_changelog_starts_with_the_version_of_the_template() -> None:
    assert VERSIONS[0] == tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_an_update_from_a_release_keeps_its_owners_edits(
    version: str, older_template: Callable[[str], Path], render: Callable[..., Path], tmp_path: Path
) -> None:
    owner = Owner(tmp_path, older_template(version))
    owner.create()
    with (owner.project / "backend" / "activities.py").open("a") as file:
        file.write(OURS)
    (owner.project / "tests" / "test_ours.py").write_text(OUR_TEST)
    (owner.project / "notes").mkdir()
    (owner.project / "notes" / "mine.md").write_text("Ask Ada.\n")
    (owner.project / ".env").write_text("HONEYCOMB_API_KEY=\n")  # git ignores it, so it is no obstacle
    commit_all(owner.project, "Ours")

    renamed = json.dumps({"local_viewer": "otlp-viewer"})  # it was "built-in"; docs/how-to/update-a-project.md
    owner.cruft("update", "--skip-apply-ask", "--variables-to-update", renamed)

    assert owner.conflicts() == []
    expected = render(project="mine")
    with (expected / "example" / "activities.py").open("a") as file:
        file.write(OURS)
    (expected / "tests" / "test_ours.py").write_text(OUR_TEST)
    (expected / "notes").mkdir()
    (expected / "notes" / "mine.md").write_text("Ask Ada.\n")
    (expected / ".env").write_text("HONEYCOMB_API_KEY=\n")
    assert files(owner.project) == files(expected)
    assert "up to date" in owner.cruft("check")
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_ours.py"]
    done = subprocess.run(tests, cwd=owner.project, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_line_changed_on_both_sides_is_a_conflict(
    template: Path, older_template: Callable[[str], Path], render: Callable[..., Path], tmp_path: Path
) -> None:
    repository = older_template(VERSIONS[1])
    copy_into(repository, template)
    makefile = repository / PROJECT / "Makefile"
    assert "## Run the tests" in makefile.read_text()
    makefile.write_text(makefile.read_text().replace("## Run the tests", "## Run every test"))
    (repository / PROJECT / "new.txt").write_text("new\n")
    commit_all(repository, "newest")

    owner = Owner(tmp_path, repository)
    git("tag", "--force", "older", "newer", cwd=repository)
    owner.create()
    mine = (owner.project / "Makefile").read_text().replace("## Run the tests", "## Run our tests")
    (owner.project / "Makefile").write_text(mine)
    commit_all(owner.project, "Ours")

    printed = owner.cruft("update", "--skip-apply-ask", "--checkout", "HEAD")
    assert "make run" not in printed  # the next steps in a folder that is gone by now
    assert owner.conflicts() == ["Makefile"]
    both = (owner.project / "Makefile").read_text()
    assert "## Run our tests" in both
    assert "## Run every test" in both
    assert (owner.project / "new.txt").read_text() == "new\n"


def test_an_update_refuses_uncommitted_changes(older_template: Callable[[str], Path], tmp_path: Path) -> None:
    owner = Owner(tmp_path, older_template(VERSIONS[1]))
    owner.create()
    (owner.project / "Makefile").write_text("mine\n")
    before = files(owner.project)
    with pytest.raises(AssertionError, match="unclean git project"):
        owner.cruft("update", "--skip-apply-ask")
    assert files(owner.project) == before
