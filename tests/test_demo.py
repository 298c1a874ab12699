"""`make demo` on a clean checkout."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
import requests
from conftest import LEFTOVERS, ROOT, environment, free_ports
from processes import Running, alive, family
from receiver import eventually


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as someone has just cloned it, in a path with blanks."""
    folder = tmp_path_factory.mktemp("a checkout") / "template"
    shutil.copytree(ROOT, folder, ignore=lambda path, names: {*LEFTOVERS(path, names), "demo", ".git", ".lock"})
    return folder


def ports() -> dict[str, str]:
    return dict(zip(("PORT", "PROFILES_PORT", "VIEWER_PORT"), map(str, free_ports(3)), strict=True))


def demo(checkout: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A `make demo` that is expected to give up."""
    return subprocess.run(
        ["make", "demo", *(f"{name}={value}" for name, value in env.items() if name != "PATH")],
        cwd=checkout,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_port_in_use_is_reported_in_one_line_before_anything_is_created(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = demo(checkout, **{**ports(), "VIEWER_PORT": port})
    assert done.returncode != 0
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    command = f"make demo VIEWER_PORT={int(port) % 60000 + 1000}"
    assert lines == [
        f"Port {port} cannot be used: Address already in use.",
        f"Another project may be running. Stop it, or use another port: {command}",
    ]
    assert not (checkout / ".venv").exists()
    assert not (checkout / "demo").exists()


def test_an_invalid_port_is_reported_in_one_line(checkout: Path) -> None:
    done = demo(checkout, PORT="http")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert lines == ["PORT is 'http', not a port from 1 to 65535. For example: make demo PORT=4567"]


def test_an_old_python_is_reported_in_one_line_before_anything_is_created(checkout: Path) -> None:
    as_if_old = (
        "import sys, runpy; sys.version_info = (3, 9, 1); sys.version = '3.9.1 (old)'; runpy.run_path('demo.py', "
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{as_if_old} run_name='__main__')"], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "This needs Python 3.11 or newer, not 3.9.1. Specify one: make demo PYTHON=python3.14\n"
    assert not (checkout / ".venv").exists()


def test_a_missing_network_is_reported_in_one_line_and_nothing_is_installed(checkout: Path) -> None:
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_NO_CACHE_DIR": "1"}
    nowhere["PIP_RETRIES"] = "1"
    without = {name: "" for name in os.environ if name.startswith("PIP_")}
    done = subprocess.run(
        ["make", "demo"],
        cwd=checkout,
        env=environment(**{**without, **nowhere, **ports()}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert lines == ["The package index cannot be reached: check the network. Nothing was installed."]
    assert not (checkout / ".venv").exists()


def test_a_clean_checkout_shows_the_first_trace_and_ctrl_c_ends_everything(checkout: Path, tmp_path: Path) -> None:
    at = ports()
    program = Running(["make", "demo", *(f"{name}={port}" for name, port in at.items())], checkout, tmp_path / "output")
    try:
        assert eventually(lambda: "Press Ctrl-C" in program.output() or program.process.poll() is not None, 300)
        output = program.output()
        steps = [
            "Installing cookiecutter into .venv",
            "Rendering the project into demo/",
            "Installing the packages of requirements-dev.txt",
            "Starting backend, profiles and viewer",
            "The first trace, of GET /api/activities/home:",
            "GET /api/activities/home  200  backend-flask",
            "└─ home-activities-mock-data",
            "GET /api/profiles/<handles>  200  profiles",
            f"http://127.0.0.1:{at['VIEWER_PORT']}/traces/",
            f"curl http://127.0.0.1:{at['PORT']}/api/activities/home",
            f"http://127.0.0.1:{at['VIEWER_PORT']}/\n",
            "New traces appear below.",
        ]
        places = [output.find(step) for step in steps]
        assert -1 not in places, output
        assert places == sorted(places), output
        assert output.count("└─ home-activities-mock-data") == 1

        response = requests.get(f"http://127.0.0.1:{at['PORT']}/api/activities/home", timeout=10)
        trace_id = response.headers["traceresponse"].split("-")[1]
        assert eventually(lambda: f"/traces/{trace_id}" in program.output())

        traces = requests.get(f"http://127.0.0.1:{at['VIEWER_PORT']}/api/traces", timeout=10).json()
        (mine,) = [trace for trace in traces if trace["trace_id"] == trace_id]
        assert mine["span_count"] >= 5

        traffic = ["make", "-C", "demo", "traffic", f"PORT={at['PORT']}"]
        done = subprocess.run(traffic, cwd=checkout, env=environment(), capture_output=True, text=True, timeout=60)
        assert "/api/activities/home" in done.stdout
        assert "Installing" not in done.stdout

        everything = family(program.process.pid)
        assert len(everything) > 6
        program.interrupt(wait=30)
        assert eventually(lambda: not alive(everything), 5)
        assert "Traceback" not in program.output()
    finally:
        program.kill()


def test_a_second_demo_renders_a_changed_template_but_never_overwrites_edits(checkout: Path, tmp_path: Path) -> None:
    readme = checkout / "demo" / "README.md"

    def second_demo(name: str) -> str:
        with (checkout / "{{cookiecutter.__folder}}" / "README.md").open("a") as of_template:
            of_template.write(f"\n{name}.\n")
        program = Running(["make", "demo", *(f"{n}={p}" for n, p in ports().items())], checkout, tmp_path / name)
        try:
            assert eventually(lambda: "Press Ctrl-C" in program.output(), 60), program.output()
            os.killpg(program.process.pid, signal.SIGTERM)
            program.process.wait(10)
        finally:
            program.kill()
        return program.output()

    (checkout / "demo" / ".env").write_text("# mine\n")
    output = second_demo("first")
    assert "the template has changed" in output
    assert "Installing" not in output
    assert readme.read_text().endswith("\nfirst.\n")

    (checkout / "demo" / "notes.txt").write_text("mine\n")
    output = second_demo("second")
    assert "You have changed demo/ (notes.txt), so it is not rendered again. To get a new one, move it away." in output
    (checkout / "demo" / "notes.txt").unlink()

    readme.write_text("mine\n")
    done = subprocess.run([sys.executable, "demo.py", "--render"], cwd=checkout, capture_output=True, text=True)
    assert "You have changed demo/ (README.md), so it is not" in done.stdout
    assert readme.read_text() == "mine\n"
    assert (checkout / "demo" / ".env").read_text() == "# mine\n"


def test_a_demo_of_an_older_release_is_not_changed(checkout: Path) -> None:
    shutil.rmtree(checkout / "demo", ignore_errors=True)
    (checkout / "demo").mkdir()
    (checkout / "demo" / ".template").write_text("5f" * 32)
    (checkout / "demo" / "app.py").write_text("mine\n")
    done = subprocess.run([sys.executable, "demo.py", "--render"], cwd=checkout, capture_output=True, text=True)
    assert "You have changed demo/ (app.py)" in done.stdout
    assert (checkout / "demo" / "app.py").read_text() == "mine\n"


def test_an_invalid_answer_to_make_new_is_explained_without_a_traceback(checkout: Path) -> None:
    command = [sys.executable, "demo.py", "--new", "--no-input", "project_name=Con"]
    done = subprocess.run(command, cwd=checkout, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if not line.startswith(("Installing", "."))] == []
    assert done.stderr.splitlines()[-2:] == [
        "Nothing was written, because:",
        "  project 'con' is the name of a device on Windows. For example: my-app",
    ]
    assert not (checkout.parent / "con").exists()


def test_make_new_repeats_invalid_questions_and_keeps_valid_answers(checkout: Path, tmp_path: Path) -> None:
    asking = pexpect.spawn(
        sys.executable, ["demo.py", "--new"], cwd=str(checkout), env=environment(HOME=str(tmp_path)), timeout=60
    )
    answers = ["Asked Twice", "", "", "", "profiles", "", "", "", "2", "", *[""] * 4, "shop", *[""] * 5]
    for response in answers:
        asking.expect(r"\)?: ")
        asking.sendline(response)
    asking.expect(pexpect.EOF)
    asking.close()
    project = checkout.parent / "asked-twice"
    assert asking.exitstatus == 0
    pyproject = (project / "pyproject.toml").read_text()
    assert 'service-name = "shop"' in pyproject
    assert not (project / "example").exists(), "the other answers stay"
    shutil.rmtree(project)
