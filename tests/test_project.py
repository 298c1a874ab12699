"""A rendered project: its own tests and checks pass, quickly, and its Makefile copes with where it runs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pexpect
import pytest
from conftest import environment, make

MODULES = {  # the names under which the direct dependencies are imported
    "opentelemetry-api": "opentelemetry.trace",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry-instrumentation-flask": "opentelemetry.instrumentation.flask",
    "opentelemetry-instrumentation-requests": "opentelemetry.instrumentation.requests",
    "opentelemetry-sdk": "opentelemetry.sdk",
}

Render = Callable[..., Path]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the Makefile needs make")


@pytest.fixture(scope="module")
def check(installed_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Run targets of a project's Makefile, with the packages of `installed_project`."""
    cache = tmp_path_factory.mktemp("mypy")
    venv = f"BIN={installed_project}/.venv/bin".replace(" ", r"\ ")

    def check(project: Path, *targets: str) -> None:
        for name in targets:
            make(project, name, venv, "INSTALLED=", MYPY_CACHE_DIR=str(cache))

    return check


def test_its_own_tests_pass_and_take_less_than_ten_seconds_of_cpu(installed_project: Path) -> None:
    before = os.times().children_user
    assert re.search(r"\d+ passed", make(installed_project, "test").stdout)
    assert os.times().children_user - before < 10


def test_its_own_lint_passes(installed_project: Path, check: Callable[..., None]) -> None:
    check(installed_project, "lint")


@pytest.mark.parametrize("answers", [{"example": "none"}, {"local_viewer": "jaeger"}])
def test_other_answers_pass_their_own_tests_and_lint(
    render: Render, check: Callable[..., None], answers: dict[str, str]
) -> None:
    check(render(**answers), "test", "lint")


def test_format_changes_what_lint_complains_about(render: Render, check: Callable[..., None]) -> None:
    project = render()
    (project / "backend" / "mine.py").write_text("import sys\nimport os\nHERE = {  'folder':os.getcwd() }\n")
    check(project, "format", "lint")
    assert (project / "backend" / "mine.py").read_text() == 'import os\n\nHERE = {"folder": os.getcwd()}\n'


def test_a_project_whose_example_was_removed_passes_its_tests_and_lint(
    render: Render, check: Callable[..., None]
) -> None:
    check(render(), "remove-example", "test", "lint")


def test_removing_the_example_from_the_code_takes_one_folder_and_one_line(
    render: Render, check: Callable[..., None]
) -> None:
    project = render()
    shutil.rmtree(project / "example")
    app = (project / "backend" / "app.py").read_text("utf-8").splitlines(keepends=True)
    (line,) = (line for line in app if "example" in line and "blueprint" in line)
    app.remove(line)
    (project / "backend" / "app.py").write_text("".join(app), "utf-8")
    check(project, "test")


def imported(project: Path) -> set[str]:
    """The modules that the project's own code imports, without its tests."""
    names = set()
    for folder in ("backend", "example"):
        for path in (project / folder).rglob("*.py"):
            if path.name.startswith("test_"):
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_direct_dependency_is_imported(installed_project: Path) -> None:
    """By the project, or by traced-flask where it builds on the stock part."""
    pyproject = tomllib.loads((installed_project / "pyproject.toml").read_text("utf-8"))
    names = [re.split(r"[=; ]", each)[0] for each in pyproject["project"]["dependencies"]]
    program = (
        "import sys, backend.app, gunicorn; app = backend.app.create_app(); app.test_client().get('/api/health');"
        "print(*sys.modules)"
    )
    python = installed_project / ".venv" / "bin" / "python"
    env = environment(OTEL_TRACES_EXPORTER="none", OTEL_LOGS_EXPORTER="none")
    done = subprocess.run([python, "-c", program], cwd=installed_project, env=env, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert [name for name in names if MODULES.get(name, name.replace("-", "_")) not in loaded] == []
    code = imported(installed_project)
    for name in ("requests", "opentelemetry.instrumentation.requests", "opentelemetry.exporter.otlp.proto.http"):
        assert any(module.startswith(name) for module in code), name


def test_only_two_files_import_the_sdk(default_project: Path) -> None:
    users = [
        path.relative_to(default_project).as_posix()
        for folder in ("backend", "example")
        for path in (default_project / folder).rglob("*.py")
        if "opentelemetry.sdk" in path.read_text("utf-8")
    ]
    assert sorted(users) == ["backend/telemetry.py", "example/profiles/app.py"]


def test_the_second_service_imports_nothing_from_the_backend(default_project: Path) -> None:
    texts = [path.read_text("utf-8") for path in (default_project / "example" / "profiles").glob("*.py")]
    assert len(texts) == 3
    assert not any(re.search(r"^(from|import) backend", text, re.MULTILINE) for text in texts)


# The Makefile


def fast(project: Path) -> Path:
    """Leave pytest alone to be installed: what is tried is how, not what."""
    locked = (project / "requirements-dev.txt").read_text("utf-8")
    blocks = re.findall(
        r"^(?:pytest|iniconfig|packaging|pluggy|pygments)==.*?(?=^\S)", locked, re.MULTILINE | re.DOTALL
    )
    (project / "requirements-dev.txt").write_text("".join(blocks), "utf-8")
    shutil.rmtree(project / "example")
    (project / "conftest.py").unlink()
    (project / "tests" / "test_app.py").write_text("def test_it():\n    pass\n")
    return project


def without_uv(tmp_path: Path) -> str:
    """A PATH with what a Makefile needs, and no uv."""
    folder = tmp_path / "programs"
    folder.mkdir(parents=True)
    for name in ("sh", "make", "sed", "expand", "rm", "env", "find", "git", "echo", "python3", "sleep"):
        if program := shutil.which(name):
            (folder / name).symlink_to(program)
    (folder / "python3").unlink()
    (folder / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python3").chmod(0o755)
    return str(folder)


def test_it_installs_and_tests_with_pip_despite_shell_settings(render: Render, tmp_path: Path) -> None:
    project = fast(render())
    python = {"PIP_USER": "1", "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/nowhere"}
    others = {"MAKEFLAGS": "-j4 --no-print-directory", "VIRTUAL_ENV": "/nowhere", "CONDA_PREFIX": "/nowhere"}
    env: dict[str, Any] = {**python, **others, "PATH": without_uv(tmp_path)}
    assert "1 passed" in make(project, "test", **env).stdout


@pytest.fixture
def with_uv() -> str:
    """A PATH with uv."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("uv is not installed beside the Python that runs the tests")
    return f"{uv.parent}:{os.environ['PATH']}"


def test_it_installs_with_uv_if_available(render: Render, with_uv: str) -> None:
    project = fast(render())
    assert "1 passed" in make(project, "test", PATH=with_uv).stdout
    assert not list((project / ".venv").rglob("site-packages/pip"))


def test_it_reinstalls_only_after_a_move_a_new_python_or_a_new_lock(
    render: Render, with_uv: str, tmp_path: Path
) -> None:
    project = fast(render())

    def test() -> str:
        done = make(project, "test", PATH=with_uv).stdout
        assert "1 passed" in done
        return done

    test()
    moved = tmp_path / 'it\'s a "quote", $HOME, a`b and проект' / "project"
    moved.parent.mkdir()
    project = project.rename(moved)
    assert "Installing" in test()
    locked = project / "requirements-dev.txt"
    locked.touch()
    assert "Installing" not in test()
    locked.write_text(locked.read_text("utf-8") + "# changed\n", "utf-8")
    assert "Installing" in test()
    for python in (project / ".venv" / "bin").glob("python*"):
        python.unlink()
        python.symlink_to("/nowhere/python")
    assert "Installing" in test()


def test_two_makes_at_once_install_once(render: Render, with_uv: str) -> None:
    project = fast(render())
    with ThreadPoolExecutor() as pool:
        done = [each.stdout for each in pool.map(lambda _: make(project, "install", PATH=with_uv), range(2))]
    assert sum("Installing" in each for each in done) == 1


def test_a_failed_install_prints_the_reason_last(render: Render, tmp_path: Path) -> None:
    project = fast(render())
    (project / "requirements-dev.txt").write_text("nothing-like-this==1 --hash=sha256:" + "0" * 64 + "\n")
    done = make(project, "test", check=False, PATH=without_uv(tmp_path), PIP_NO_INDEX="1", PIP_RETRIES="0")
    assert done.returncode == 2
    assert "nothing-like-this" in done.stderr
    assert "Nothing was installed. The reason is above." in done.stderr
    assert not (project / ".venv").exists()


def test_ctrl_c_during_install_prints_no_traceback_and_the_next_make_installs(
    render: Render, with_uv: str, tmp_path: Path
) -> None:
    project = fast(render())
    command = ["install", f"PYTHON={sys.executable}"]
    make_it = pexpect.spawn("make", command, cwd=str(project), env=environment(PATH=without_uv(tmp_path)), timeout=60)
    make_it.expect(r"\.\.")
    make_it.sendintr()
    make_it.expect(pexpect.EOF)
    assert b"Traceback" not in make_it.before
    make_it.close()
    assert "1 passed" in make(project, "test", PATH=with_uv).stdout


def test_an_old_python_is_named(render: Render, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make(fast(render()), "test", f"PYTHON={old}", check=False)
    assert "This needs Python 3.11 or newer." in done.stderr


@pytest.mark.parametrize("name", ["up", "down", "shell", "prod-up"])
def test_missing_or_stopped_docker_is_reported_in_one_sentence(
    default_project: Path, tmp_path: Path, name: str
) -> None:
    environments = [{"PATH": without_uv(tmp_path)}]
    if shutil.which("docker"):
        environments.append({"DOCKER_HOST": "tcp://127.0.0.1:9"})
    for env in environments:
        done = make(default_project, name, check=False, **env)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
        sentence = "This needs Docker with Compose, installed and running: https://docs.docker.com/get-docker/"
        assert lines[-1] == sentence
        assert done.stdout == ""
        assert len(lines) < 4


def test_help_lists_every_target(default_project: Path) -> None:
    listed = re.findall(r"make (\S+)  +\S", make(default_project, "help").stdout)
    makefile = (default_project / "Makefile").read_text("utf-8")
    phony = re.findall(r"^\.PHONY: ([^.].*)", makefile, re.MULTILINE)
    assert sorted(listed) == sorted(" ".join(phony).split())
    assert len(listed) < 24
