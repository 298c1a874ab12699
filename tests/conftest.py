"""Fixtures for the template's tests: a clean copy, and functions that render it."""

import ast
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cookiecutter.main import cookiecutter

# Where tests run in the background, interrupts are ignored, and the programs that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "{{cookiecutter.__folder}}"
LEFTOVERS = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis", ".venv", ".env")


def environment(**more: str) -> dict[str, str]:
    """Return this machine's environment without settings for telemetry and ports."""
    ours = ["OTEL_", "HONEYCOMB_", "VIEWER_", "PROFILES_", "FLASK_", "MAKE", "MFLAGS"]
    ours += ["SAMPLE_RATE", "TRUST_TRACEPARENT", "CORS_ORIGINS", "WEB_CONCURRENCY", "INSTALLED_IN"]
    others = {name: value for name, value in os.environ.items() if not name.startswith(tuple(ours)) and name != "PORT"}
    return {**others, **more}


def make(project: Path, *arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run make in a project. A failure shows its output."""
    done = subprocess.run(["make", *arguments], cwd=project, env=environment(**env), capture_output=True, text=True)
    if check and done.returncode:
        pytest.fail(
            f"make {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done


def free_ports(count: int) -> list[int]:
    """Ports that nothing uses, all different, below those that the system gives to programs that ask for any port."""
    found = []
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the template without generated files, in a path with spaces."""
    copy = tmp_path_factory.mktemp("a template")
    shutil.copy(ROOT / "cookiecutter.json", copy)
    for folder in ("hooks", PROJECT):
        shutil.copytree(ROOT / folder, copy / folder, ignore=LEFTOVERS)
    return copy


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Keep cookiecutter out of the user's home folder."""
    home = tmp_path_factory.mktemp("home")
    config = home / "config.yaml"
    config.write_text(json.dumps({"cookiecutters_dir": str(home), "replay_dir": str(home)}))
    return str(config)


@pytest.fixture(scope="session")
def render_into(template: Path, config_file: str) -> Callable[..., Path]:
    """Render with these answers, and defaults for the others."""

    def render_into(folder: Path, **prompts: str) -> Path:
        return Path(
            cookiecutter(
                str(template),
                no_input=True,
                extra_context=prompts,
                output_dir=str(folder),
                config_file=config_file,
            )
        )

    return render_into


@pytest.fixture
def render(render_into: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Render into a path with spaces for this test only."""
    return lambda **prompts: render_into(tmp_path / "new projects", **prompts)


@pytest.fixture(scope="session")
def default_project(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all defaults. Tests do not change it."""
    return render_into(tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="session")
def installed_project(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runnable project. Tests that change it restore it."""
    project = render_into(tmp_path_factory.mktemp("an installed project"))
    # With the uv that is installed beside this Python. Other tests install with pip.
    make(project, "install", PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return project


@pytest.fixture(scope="session")
def invalid_files() -> Callable[[Path], list[str]]:
    """Return the files in a folder that are invalid in their language."""
    return lambda folder: [
        f"{path.relative_to(folder)}: {wrong}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (wrong := _what_is_wrong(path))
    ]


def _what_is_wrong(path: Path) -> str:
    data = path.read_bytes()
    if b"\0" in data:  # a picture
        return ""
    try:
        text = data.decode()
        if "\r" in text:
            return "line ends other than LF"
        if text and not text.endswith("\n"):
            return "no line end at the end"
        _parse(path, text)
    except (ValueError, SyntaxError, yaml.YAMLError, subprocess.CalledProcessError) as error:
        return str(error)
    return ""


def _parse(path: Path, text: str) -> None:
    shebang = text.partition("\n")[0] if text.startswith("#!") else ""
    if path.suffix == ".py" or "python" in shebang:
        ast.parse(text)
    elif path.suffix == ".sh" or shebang.endswith("sh"):
        subprocess.run(["bash", "-n", path], check=True)
    elif path.suffix == ".toml":
        tomllib.loads(text)
    elif path.suffix == ".json":
        json.loads(text)
    elif path.suffix in (".yaml", ".yml"):
        list(yaml.compose_all(text, yaml.SafeLoader))
    elif path.name == "Makefile":
        subprocess.run(["make", "-n", "help"], cwd=path.parent, check=True, capture_output=True)
    elif path.name == "Procfile":
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        if bad := [line for line in lines if not re.match(r"[\w-]+: \S", line)]:
            raise ValueError(f"not 'name: command': {bad}")
