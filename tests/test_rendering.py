"""Rendering: every choice gives a valid project, and rendering again loses nothing of the owner's."""

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, ROOT

CHOICES = ("python_version", "honeycomb_region", "local_viewer", "example", "deployment")
PROMPTS = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
PROMPTS_ALONE = list(zip(*(PROMPTS[name] for name in CHOICES[:2]), strict=True))
MAX_LINES = 2200

Command = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., Path]


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def text_files(folder: Path) -> dict[str, str]:
    return {name: data.decode() for name, data in files(folder).items() if b"\0" not in data}


@pytest.fixture(
    scope="module",
    params=[  # what can meet in one file meets here; Python's version and the region stand alone
        (*PROMPTS_ALONE[number % 2], *answers)
        for number, answers in enumerate(itertools.product(*(PROMPTS[name] for name in CHOICES[2:])))
    ],
    ids=lambda answers: "-".join(answers).replace(" ", "_"),
)
def choices(request: pytest.FixtureRequest) -> dict[str, str]:
    return dict(zip(CHOICES, request.param, strict=True))


@pytest.fixture(scope="module")
def project(choices: dict[str, str], render_into: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_into(tmp_path_factory.mktemp("every choice"), **choices)


def test_every_file_is_rendered_and_valid(project: Path, invalid_files: Callable[[Path], list[str]]) -> None:
    left = [
        name
        for name, text in text_files(project).items()
        if re.search(r"cookiecutter|\{% *(raw|endraw)|^\s*#%", text, re.MULTILINE)
    ]
    assert left == []
    assert invalid_files(project) == []


def test_choices_reach_the_files_that_use_them(project: Path, choices: dict[str, str]) -> None:
    pyproject = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    endpoint = {"US": "https://api.honeycomb.io", "EU": "https://api.eu1.honeycomb.io"}[choices["honeycomb_region"]]
    assert pyproject["tool"]["traced-flask"]["honeycomb-api-endpoint"] == endpoint
    services = yaml.safe_load((project / "compose.yaml").read_text("utf-8"))["services"]
    assert ("image: jaegertracing" in (project / "compose.yaml").read_text()) is (choices["local_viewer"] == "jaeger")
    assert ("otlp-viewer" in pyproject["dependency-groups"]["dev"]) is (choices["local_viewer"] == "otlp-viewer")
    assert (project / "deploy").exists() is (choices["deployment"] == "Kubernetes too")
    assert (project / "example").exists() is ("profiles" in services) is (choices["example"] == "activities")
    assert (project / "backend" / "hello.py").exists() is (choices["example"] == "none")


def test_a_project_without_the_example_does_not_mention_it(project: Path, choices: dict[str, str]) -> None:
    mention = re.compile(r"profiles|activities|example\.|/examples|PROFILES|# example", re.IGNORECASE)
    allowed = re.compile(r"\.env\.example|[\w.*]*\.example[\w.]*\b|app\.example\.com")
    found = [
        name
        for name, text in text_files(project).items()
        if not name.startswith(("requirements", "deploy/")) and mention.search(allowed.sub("", text))
    ]
    assert (found == []) is (choices["example"] == "none"), found


def test_every_file_is_valid_before_rendering(template: Path, invalid_files: Callable[[Path], list[str]]) -> None:
    assert invalid_files(template) == []


def test_file_names_are_valid_on_every_file_system(template: Path) -> None:
    paths = [path.relative_to(template) for path in template.rglob("*")]
    names = [part for path in paths for part in path.parts if part != PROJECT]
    assert [name for name in names if re.search(r'[<>:"/\\|?*{}\x00-\x1f]|[. ]$', name)] == []
    assert len({str(path).casefold() for path in paths}) == len(paths)
    assert [path for path in paths if len(str(path)) > 150] == []


def test_the_default_project_is_small(default_project: Path) -> None:
    texts = text_files(default_project)
    lines = sum(text.count("\n") for name, text in texts.items() if not name.startswith("requirements"))
    assert lines <= MAX_LINES
    assert texts["backend/telemetry.py"].count("\n") <= 60
    assert texts["README.md"].count("\n") <= 120


def test_rendering_twice_gives_the_same_bytes(default_project: Path, render: Render) -> None:
    again = files(render())
    assert again == files(default_project)
    here = [path.encode() for path in (str(ROOT), str(Path.home())) if len(path) > 5]
    assert [name for name, data in again.items() if any(path in data for path in here)] == []


@pytest.fixture
def command_line(template: Path, config_file: str, tmp_path: Path) -> Command:
    """Run cookiecutter as a person does, but with nothing on PATH and no network."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def no_network(*_): raise OSError('the template must not need a network')\n"
        "socket.getaddrinfo = socket.socket.connect = no_network\n"
    )
    environment = {
        "PATH": "",
        "PWD": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tmp_path),
        "PYTHONUTF8": "1",
        "SYSTEMROOT": os.environ.get("SYSTEMROOT", ""),
    }

    def command_line(
        *arguments: str, typed: str = "", config: str = config_file, source: Path = template, **env: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cookiecutter", "--config-file", config, str(source), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={**environment, **env}, input=typed, capture_output=True, encoding="utf-8"
        )

    return command_line


def test_the_command_line_needs_no_other_program_and_no_network(
    command_line: Command, default_project: Path, tmp_path: Path
) -> None:
    done = command_line("--no-input", "--output-dir", "a folder", PORT="5000")
    assert (done.returncode, done.stderr) == (0, "")
    commands = done.stdout.strip().splitlines()
    assert commands[:2] == [f"cd 'a folder{os.sep}cruddur'", "make run"]
    assert commands[2].startswith("curl http://127.0.0.1:5000/api/activities/home")
    assert files(tmp_path / "a folder" / "cruddur") == files(default_project)


def test_typed_text_is_stored_unchanged(command_line: Command, tmp_path: Path) -> None:
    description = """"q" 'q' \\n \\ [bold] $(touch pwned) <&> {x} \U0001f680"""
    done = command_line(typed=f"My app\n\n{description}\nAda\n\n2\n2\n2\n2\n2\n")
    assert (done.returncode, done.stderr) == (0, "")
    project = tomllib.loads((tmp_path / "my-app" / "pyproject.toml").read_text("utf-8"))["project"]
    assert (project["description"], project["authors"]) == (description, [{"name": "Ada"}])


@pytest.mark.parametrize("stdout", ["a closed pipe", "/dev/full", "ascii"])
def test_a_last_message_that_cannot_be_printed_leaves_the_project(
    template: Path, config_file: str, default_project: Path, tmp_path: Path, stdout: str
) -> None:
    command = [sys.executable, "-m", "cookiecutter", "--config-file", config_file, "--no-input"]
    folder = tmp_path / "проекты"
    command += ["--output-dir", str(folder), str(template)]
    environment = {**os.environ, "PWD": str(tmp_path), "PYTHONUTF8": "0"}
    if stdout == "ascii":
        done = subprocess.run(command, env={**environment, "PYTHONIOENCODING": "ascii"}, capture_output=True)
        assert done.returncode == 0, done.stderr
    elif stdout == "/dev/full":
        if not os.path.exists(stdout):
            pytest.skip("this system has no /dev/full")
        with open(stdout, "w") as full:
            subprocess.run(command, env=environment, stdout=full, stderr=subprocess.DEVNULL)
    else:
        reading, writing = os.pipe()
        os.close(reading)
        subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.DEVNULL)
        os.close(writing)
    assert files(folder / "cruddur") == files(default_project)


# Rendering again


def test_rendering_over_a_project_keeps_the_owners_files(command_line: Command, tmp_path: Path) -> None:
    assert command_line("--no-input").returncode == 0
    project = tmp_path / "cruddur"
    own = [".github/workflows/own.yml", "bin/own", "example/own.py", "deploy/own.yaml", "viewer/own.html", ".env"]
    own += [".pytest_cache/own", "backend/__pycache__/own.pyc", "tests/test_own.py"]
    for name in own:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("own\n")
    again = ("--no-input", "--overwrite-if-exists", "--skip-if-file-exists", "local_viewer=jaeger", "example=none")
    edited = [name for name in files(project) if b"\0" not in files(project)[name] and name not in own]
    for name in edited:
        with (project / name).open("a") as file:
            file.write("# edited\n")
    before = files(project)
    assert command_line(*again).returncode == 0
    after = files(project)
    assert {name: after.get(name) for name in before} == before
    assert set(after) - set(before) == {"backend/hello.py", "tests/test_hello.py"}


def test_rendering_over_a_project_removes_files_of_other_answers(command_line: Command, tmp_path: Path) -> None:
    assert command_line("--no-input").returncode == 0
    (tmp_path / "cruddur" / "example" / "own.py").write_text("own\n")
    assert command_line("--no-input", "--overwrite-if-exists", "example=none").returncode == 0
    assert list(files(tmp_path / "cruddur" / "example")) == ["own.py"]


def replay(tmp_path: Path, change: Callable[[dict[str, str]], None]) -> str:
    """Change the replay file of the last rendering, and name it."""
    (path,) = Path(json.loads((tmp_path / "config.json").read_text())["replay_dir"]).glob("*.json")
    context = json.loads(path.read_text("utf-8"))
    change(context["cookiecutter"])
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(context))
    return str(edited)


@pytest.fixture
def own_config(tmp_path: Path) -> str:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"cookiecutters_dir": str(tmp_path / "c"), "replay_dir": str(tmp_path / "replay")}))
    return str(config)


def test_a_replay_file_gives_the_same_project_and_follows_edits(
    command_line: Command, own_config: str, tmp_path: Path
) -> None:
    assert command_line("--no-input", config=own_config).returncode == 0
    assert command_line("--replay", "--output-dir", "again", config=own_config).returncode == 0
    assert files(tmp_path / "again" / "cruddur") == files(tmp_path / "cruddur")

    def edit(answers: dict[str, str]) -> None:
        answers.update(description="edited", honeycomb_region="EU")
        for name in [name for name in answers if name.startswith("_") and name != "__folder"]:
            del answers[name]  # a file with the answers alone

    edited = replay(tmp_path, edit)
    done = command_line("--replay-file", edited, "--output-dir", "edited", config=own_config)
    assert (done.returncode, done.stderr) == (0, "")
    pyproject = tomllib.loads((tmp_path / "edited" / "cruddur" / "pyproject.toml").read_text("utf-8"))
    assert pyproject["project"]["description"] == "edited"
    assert pyproject["tool"]["traced-flask"]["honeycomb-api-endpoint"] == "https://api.eu1.honeycomb.io"


@pytest.mark.parametrize(
    ("name", "answer", "why"),
    [
        ("python_version", "3.12", "is not one of: 3.14, 3.13"),
        ("local_viewer", "Jaeger", "is not one of: otlp-viewer, jaeger"),
        ("deployment", "", "is not one of"),
        ("project", "../elsewhere", "cannot contain '.'"),
        ("description", 42, "is not text"),
    ],
)
def test_a_replay_file_with_an_invalid_answer_is_rejected_by_name(
    command_line: Command, own_config: str, tmp_path: Path, name: str, answer: object, why: str
) -> None:
    assert command_line("--no-input", config=own_config).returncode == 0

    def edit(answers: dict[str, object]) -> None:
        answers[name] = answer

    done = command_line("--replay-file", replay(tmp_path, edit), "--output-dir", "new", config=own_config)  # type: ignore[arg-type]
    assert done.returncode == 1
    assert f"  {name} " in done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path / "new") == {}
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("folder", [None, "another"])
def test_a_replay_file_without_the_right_folder_gets_advice(
    command_line: Command, own_config: str, tmp_path: Path, folder: str | None
) -> None:
    assert command_line("--no-input", config=own_config).returncode == 0

    def edit(answers: dict[str, str]) -> None:
        del answers["__folder"]
        if folder:
            answers["__folder"] = folder

    done = command_line("--replay-file", replay(tmp_path, edit), "--output-dir", "new", config=own_config)
    assert done.returncode == 1
    assert 'In a replay file: "__folder": "cruddur"' in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path / "new") == {}


@pytest.mark.parametrize("escaped", [r"\ud83d\ude80", r"\ud800"])
def test_lone_surrogates_in_a_configuration_are_rejected(command_line: Command, tmp_path: Path, escaped: str) -> None:
    config = tmp_path / "config.yaml"
    folders = f"cookiecutters_dir: {tmp_path}\nreplay_dir: {tmp_path}\n"
    config.write_text(f'{folders}default_context:\n  description: "rocket {escaped}"\n')
    done = command_line("--no-input", config=str(config))
    assert done.returncode == 1
    assert "description" in done.stderr
    assert "U+D8" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cruddur").exists()


def test_a_zipped_template_gives_executable_scripts(
    template: Path, command_line: Command, default_project: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "template.zip", "w") as archive:
        archive.mkdir("template")
        for path in template.rglob("*"):
            archive.write(path, Path("template") / path.relative_to(template))
    done = command_line("--no-input", source=tmp_path / "template.zip")
    assert done.returncode == 0, done.stderr
    for path in (default_project / "bin").iterdir():
        assert os.access(tmp_path / "cruddur" / "bin" / path.name, os.X_OK) is os.access(path, os.X_OK)


def test_every_prompt_has_a_sentence() -> None:
    sentences = PROMPTS["__prompts__"]
    asked = [name for name in PROMPTS if not name.startswith("_")]
    assert asked == ["project_name", "project", "description", "author", "service_name", *CHOICES]
    assert list(sentences) == asked
    for name in CHOICES:
        assert list(sentences[name]) == ["__prompt__", *PROMPTS[name]]
        assert sentences[name]["__prompt__"].endswith("?")


def test_removing_the_example_equals_a_project_without_it(render_into: Render, tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("the Makefile needs make")
    project, without = render_into(tmp_path / "with"), render_into(tmp_path / "without", example="none")
    done = subprocess.run(["make", "remove-example"], cwd=project, check=True, capture_output=True, text=True)
    readme = (project / "README.md").read_text("utf-8").splitlines()
    left_to_edit = [int(line.partition(":")[0]) for line in done.stdout.splitlines() if line[0].isdigit()]
    rest = [line for number, line in enumerate(readme, 1) if number not in left_to_edit]
    assert not re.search("activities|profiles|remove-example", "".join(rest))
    assert '\nFIRST_PAGE = "/"\n' in (project / "bin" / "run").read_text("utf-8")  # /api/health is not traced
    left, wanted = ({**files(each)} for each in (project, without))
    differ = {name for name in {*left, *wanted} if left.get(name) != wanted.get(name)}
    assert differ - {"README.md", "bin/run", "bin/traffic"} == {
        "backend/app.py",
        "backend/hello.py",
        "tests/test_hello.py",
    }
    changed = {*wanted["backend/app.py"].splitlines()} ^ {*left["backend/app.py"].splitlines()}
    assert changed == {b'    "backend.hello:blueprint",'}
