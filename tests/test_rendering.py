"""What the template renders: whole, valid, and the same wherever and however it is rendered."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from conftest import PROJECT, ROOT

CHOICES = list(product(("3.14", "3.13"), ("US", "EU"), ("built-in", "jaeger")))
THE_NEXT_COMMANDS = "make run\ncurl http://127.0.0.1:4567/api/activities/home\n"


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, with what makes a file executable."""
    return {
        f"{path.relative_to(folder).as_posix()} {path.stat().st_mode:o}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def left_unrendered(project: Path) -> list[str]:
    """The lines that Jinja should have taken away."""
    return [
        f"{path.relative_to(project)}: {line!r}"
        for path in sorted(project.rglob("*"))
        if path.is_file()
        for line in path.read_bytes().splitlines()
        if re.search(rb"cookiecutter\.|\{\{ *cookiecutter|^\s*#%", line)
    ]


@pytest.fixture(scope="module", params=CHOICES, ids="-".join)
def choices(request: pytest.FixtureRequest) -> dict[str, str]:
    return dict(zip(("python_version", "honeycomb_region", "local_viewer"), request.param, strict=True))


@pytest.fixture(scope="module")
def project(
    choices: dict[str, str],
    render_into: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    return render_into(tmp_path_factory.mktemp("every choice"), **choices)


def test_nothing_is_left_unrendered(project: Path) -> None:
    assert left_unrendered(project) == []


def test_every_file_is_valid_after_rendering(project: Path, invalid_files: Callable[[Path], list[str]]) -> None:
    assert invalid_files(project) == []


def test_choices_arrive_where_they_are_read(project: Path, choices: dict[str, str]) -> None:
    telemetry = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["telemetry"]
    assert telemetry["service-name"] == "backend-flask"
    assert telemetry["honeycomb-api-endpoint"] == {
        "US": "https://api.honeycomb.io",
        "EU": "https://api.eu1.honeycomb.io",
    }.get(choices["honeycomb_region"])


def test_the_viewer_is_there_only_when_chosen(project: Path, choices: dict[str, str]) -> None:
    built_in = choices["local_viewer"] == "built-in"
    assert (project / "viewer").exists() is built_in
    assert (project / "tests" / "test_viewer.py").exists() is built_in
    assert ("viewer:" in (project / "Procfile").read_text()) is built_in


def test_every_file_is_valid_before_rendering(template: Path, invalid_files: Callable[[Path], list[str]]) -> None:
    assert invalid_files(template) == []


def test_python_files_hold_no_placeholders(template: Path) -> None:
    holders = [
        str(path.relative_to(template))
        for path in (template / PROJECT).rglob("*.py")
        if re.search(r"\{\{ *cookiecutter|^\s*#%", path.read_text(), re.MULTILINE)
    ]
    assert holders == []


def test_names_suit_every_file_system(template: Path) -> None:
    paths = [path.relative_to(template) for path in template.rglob("*")]
    names = [part for path in paths for part in path.parts if part != PROJECT]
    assert [name for name in names if re.search(r'[<>:"/\\|?*{}\x00-\x1f]|[. ]$', name)] == []
    devices = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
    assert [name for name in names if devices.fullmatch(name)] == []
    assert len({str(path).casefold() for path in paths}) == len(paths)
    assert [path for path in paths if len(str(path)) > 150] == []


def test_rendering_twice_gives_the_same_bytes(default_project: Path, render: Callable[..., Path]) -> None:
    again = render()
    assert files(again) == files(default_project)
    here = (str(again.parent), str(ROOT), str(Path.home()))
    assert [
        name for name, data in files(again).items() if any(len(path) > 5 and path.encode() in data for path in here)
    ] == []


@pytest.fixture
def command_line(template: Path, config_file: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run cookiecutter as a person does, but with nothing on PATH and no network to connect to."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def no_network(*_): raise OSError('the template must not need a network')\n"
        "socket.getaddrinfo = socket.socket.connect = no_network\n"
    )
    cookiecutter = [sys.executable, "-m", "cookiecutter"]
    environment = {
        "PATH": "",
        "PWD": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tmp_path),
        "PYTHONUTF8": "1",
        "SYSTEMROOT": os.environ.get("SYSTEMROOT", ""),
    }

    def command_line(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*cookiecutter, "--config-file", config_file, str(template), *arguments],
            cwd=tmp_path,
            env=environment,
            input=typed,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )

    return command_line


def test_the_command_line_needs_no_other_program_and_no_network(
    command_line: Callable[..., subprocess.CompletedProcess[str]],
    default_project: Path,
    tmp_path: Path,
) -> None:
    done = command_line("--no-input", "--output-dir", "a folder")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"\ncd 'a folder{os.sep}cruddur'\n{THE_NEXT_COMMANDS}"
    assert files(tmp_path / "a folder" / "cruddur") == files(default_project)


def test_what_is_typed_arrives_as_it_is(
    command_line: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    description = """{{ 7*7 }} {{ }} {% {# #% "q" 'q' \\n [bold] $(touch pwned) \U0001f680"""
    done = command_line(typed=f"My {{{{ app }}}}\n\n{description}\n#% if x\n\n2\n2\n2\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"\ncd my-app\n{THE_NEXT_COMMANDS}")
    project = tomllib.loads((tmp_path / "my-app" / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["description"] == description
    assert project["authors"] == [{"name": "#% if x"}]
    assert not (tmp_path / "my-app" / "viewer").exists()


def test_a_replay_gives_the_same_project(
    command_line: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert not command_line("--no-input", "description={{ 7*7 }} {% \\").returncode
    assert not command_line("--replay", "--output-dir", "again").returncode
    assert files(tmp_path / "again" / "cruddur") == files(tmp_path / "cruddur")


def test_a_refused_prompt_is_explained_and_leaves_nothing(
    command_line: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = command_line("--no-input", "project=../a/b", "service_name=viewer")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[0] == "Nothing was made, because:"
    assert "project '../a/b' has a / in it" in done.stderr
    assert "service_name 'viewer' is the name of another service" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "a").exists()


def test_there_are_eight_prompts_with_a_human_sentence_each() -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    sentences = prompts["__prompts__"]
    asked = [name for name in prompts if not name.startswith("_")]
    assert asked == [
        *("project_name", "project", "description", "author", "service_name"),
        *("python_version", "honeycomb_region", "local_viewer"),
    ]
    assert list(sentences) == asked
    for name in asked:
        if isinstance(prompts[name], list):
            assert list(sentences[name]) == ["__prompt__", *prompts[name]]
            assert sentences[name]["__prompt__"].endswith("?")
        else:
            assert "?" in sentences[name]
