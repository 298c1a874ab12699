"""The project as a person runs it while developing: `make run`, over real HTTP."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest
import requests
from conftest import environment, free_ports
from processes import alive, family
from receiver import eventually, receiving

MARKED = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
ODD = """it's a "folder", $HOME `date` 100%"""
PORTS = ("PORT", "PROFILES_PORT", "VIEWER_PORT")
RUN = ["make", "run", "INSTALLED_IN=.venv"]


def end_with_the_tests() -> None:
    """Have the kernel end a program, with SIGTERM, when the tests are killed. Linux alone has this."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Running:
    """A program whose output is a file, and the processes that it started."""

    def __init__(self, command: list[str], folder: Path, log: Path, **env: str) -> None:
        self.log = log
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.backend, self.profiles, self.viewer = (f"http://127.0.0.1:{port}" for port in self.ports.values())
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**{name: str(port) for name, port in self.ports.items()}, **env),
            stdin=subprocess.DEVNULL,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_the_tests,
        )
        self.family = {self.process.pid}

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str) -> None:
        assert eventually(lambda: text in self.output() or self.process.poll() is not None, 60)
        assert text in self.output()
        self.family = family(self.process.pid)

    def has_ended(self) -> bool:
        """Whether every process ends and every port is free again, within seconds."""
        return bool(eventually(lambda: not alive(self.family) and not any(map(is_open, self.ports.values())), 20))

    def trace(self, answer: requests.Response, spans: int) -> dict[str, Any]:
        """The trace of an answer, once the viewer has so many of its spans."""
        url = f"{self.viewer}/api/traces/{answer.headers['traceresponse'].split('-')[1]}"

        def find() -> dict[str, Any] | None:
            found = requests.get(url, timeout=5).json()
            return found if found.get("span_count", 0) >= spans else None

        found = eventually(find)
        assert found, self.output()
        return dict(found)


@contextmanager
def running(command: list[str], folder: Path, log: Path, **env: str) -> Iterator[Running]:
    program = Running(command, folder, log, **env)
    try:
        yield program
    finally:
        for pid in alive(program.family | family(program.process.pid)):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        program.process.wait()


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def folder(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a folder with a difficult name, with the packages that are installed here."""
    project = render_into(tmp_path_factory.mktemp("run") / ODD)
    venv.create(project / ".venv", symlinks=True)
    (packages,) = project.glob(".venv/lib/python3*/site-packages")
    (packages / "shared.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    (packages / "watchdog.py").write_text("raise ImportError  # the project does not install it: Flask would use it\n")
    return project


@pytest.fixture(scope="module")
def project(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("log") / "output"
    with (
        receiving() as honeycomb,
        running(RUN, folder, log, HONEYCOMB_API_ENDPOINT=honeycomb.url, PYTHONSAFEPATH="1") as project,
    ):
        project.honeycomb = honeycomb  # type: ignore[attr-defined]
        project.wait_for("Ready: ")
        yield project


@pytest.fixture
def toy(folder: Path, tmp_path: Path) -> Path:
    """A project whose Procfile a test writes."""
    shutil.copytree(folder / "bin", tmp_path / "bin")
    for name in ("Makefile", ".venv"):
        (tmp_path / name).symlink_to(folder / name)
    return tmp_path


def test_the_output_is_short_and_ends_with_the_addresses(project: Running) -> None:
    lines = project.output().partition("Ready: ")[0].splitlines()
    assert len(lines) < 15, lines
    ready = project.output().partition("Ready: ")[2].splitlines()[0]
    assert f"backend {project.backend}/api/activities/home, " in ready
    assert f"profiles {project.profiles}, viewer {project.viewer}. Press Ctrl-C to stop." in ready
    assert "development server" not in project.output()


def test_the_first_request_gives_a_trace_across_two_services(project: Running) -> None:
    trace = project.trace(requests.get(f"{project.backend}/api/activities/home", timeout=10), 5)
    assert trace["services"] == ["backend-flask", "profiles"]
    assert eventually(lambda: trace["trace_id"] in project.output())


def test_adding_and_removing_a_key_takes_effect_at_run_time(project: Running, folder: Path) -> None:
    def key(verb: str) -> None:
        command = [sys.executable, "bin/honeycomb", "key", verb]
        subprocess.run(command, cwd=folder, env=environment(), input=MARKED, text=True, check=True, timeout=30)

    honeycomb = project.honeycomb  # type: ignore[attr-defined]
    url = f"{project.backend}/api/activities/home"
    project.trace(requests.get(url, timeout=10), 5)
    assert honeycomb.requests == []
    try:
        key("set")
        trace_id = requests.get(url, timeout=10).headers["traceresponse"].split("-")[1]
        assert eventually(lambda: len(honeycomb.traces().get(trace_id, [])) == 5, 30), project.output()
        assert {headers.get("x-honeycomb-team") for _, headers, _ in honeycomb.requests} == {MARKED}
    finally:
        key("unset")
    answer = requests.get(url, timeout=10)
    project.trace(answer, 5)
    assert answer.headers["traceresponse"].split("-")[1] not in honeycomb.traces()
    assert MARKED not in project.output()


def test_traffic_prints_a_summary_of_responses(project: Running, folder: Path) -> None:
    command = [".venv/bin/python", "bin/traffic", "--seconds", "4"]
    (folder / ".env").write_text(f"PORT={project.ports['PORT']}\n")
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)
    (folder / ".env").unlink()
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("/api/")]
    assert {row[0]: row[1] for row in rows}["/api/activities/home"] == "200", done.stderr
    assert {row[1] for row in rows} <= {"200", "404", "500"}
    assert len(rows) >= 4
    lines = [line.split("| ")[-1] for line in project.output().splitlines() if "HTTP/1.1" in line]
    assert any('" 404 ' in line for line in lines), "errors are printed"
    assert not [line for line in lines if '" 200 ' in line]


def test_traffic_goes_to_the_routes_that_a_project_has(project: Running, render: Callable[..., Path]) -> None:
    own = render()
    subprocess.run(["make", "remove-example"], cwd=own, check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "bin/traffic", "--seconds", "1", "--url", project.backend]

    def traffic() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=own, env=environment(), capture_output=True, text=True, timeout=60)

    assert traffic().stderr == "backend/app.py has no routes yet. Add a blueprint first.\n"
    app = own / "backend" / "app.py"
    app.write_text(
        app.read_text().replace("    return app\n", "    app.add_url_rule('/mine', 'mine', str)\n    return app\n")
    )
    assert [line.split()[0] for line in traffic().stdout.splitlines() if line.startswith("/mine")] == ["/mine"]


def test_the_queries_use_columns_that_spans_have(project: Running, folder: Path) -> None:
    project.trace(requests.get(f"{project.backend}/api/activities/home", timeout=10), 5)
    columns = requests.get(f"{project.viewer}/api/columns", timeout=10).text
    for each in json.loads((folder / "queries.json").read_text()):
        query = each["query"]
        terms = [*query.get("calculations", []), *query.get("filters", [])]
        for column in [*query.get("breakdowns", []), *(term["column"] for term in terms if "column" in term)]:
            assert f'"{column}"' in columns, each["name"]


def test_traffic_without_a_backend_says_what_to_do(folder: Path) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "bin/traffic"]  # PORT is of this shell, BACKEND_URL of the container
    elsewhere = environment(BACKEND_URL=f"http://localhost:{port}")
    done = subprocess.run(command, cwd=folder, env=elsewhere, capture_output=True, text=True)
    assert done.stderr.startswith(f"No response at http://localhost:{port}. ")
    done = subprocess.run(command, cwd=folder, env={**elsewhere, "PORT": str(port)}, capture_output=True, text=True)
    assert f"127.0.0.1:{port}. Start the backend (make run) or set its port: make traffic PORT=" in done.stderr


def test_an_edit_takes_effect_without_a_restart(project: Running, folder: Path) -> None:
    file = folder / "example" / "activities.py"
    before = file.read_text()

    def feed() -> str:
        try:
            return requests.get(f"{project.backend}/api/activities/home", timeout=10).text
        except requests.RequestException:  # while the server is replaced
            return ""

    try:
        file.write_text(before.replace("prune juice", "raktajino"))
        assert eventually(lambda: "raktajino" in feed(), 30)
    finally:
        file.write_text(before)
    assert eventually(lambda: "prune juice" in feed(), 30)


def test_sigterm_ends_everything(project: Running) -> None:
    assert len(project.family) > 6
    before = len(project.output())
    project.process.send_signal(signal.SIGTERM)
    assert project.has_ended()
    assert "Traceback" not in project.output()[before:]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("ended", ["SIGTERM", "SIGKILL", "SIGHUP", "SIGINT"])
def test_everything_stops_even_if_make_is_killed(toy: Path, tmp_path: Path, ended: str, early: bool) -> None:
    (toy / "Procfile").write_text(
        "one: echo up; sleep 600\n"
        "two: sleep 1; exec python -c 'import http.server as h, sys; h.test(port=int(sys.argv[2]))' --port ${PORT:-1}\n"
    )
    with running(RUN, toy, tmp_path / "log") as program:
        program.wait_for("one      | up" if early else "Ready: two")
        sign = signal.Signals[ended]
        if ended in ("SIGHUP", "SIGINT"):  # from the terminal, to all in its foreground
            os.killpg(program.process.pid, sign)
        else:
            program.process.send_signal(sign)
        assert program.has_ended()
        ours = [line for line in program.output().splitlines() if not line.startswith("two ")]
        assert not [line for line in ours if "Traceback" in line]


def test_closing_the_terminal_ends_everything(folder: Path) -> None:
    ports = dict(zip(PORTS, free_ports(3), strict=True))
    env = environment(**{name: str(port) for name, port in ports.items()})
    terminal = pexpect.spawn(RUN[0], RUN[1:], cwd=str(folder), env=env, timeout=60)
    terminal.expect("Ready: ")
    started = family(terminal.pid or 0)
    with suppress(pexpect.ExceptionPexpect):  # which does not wait long enough
        terminal.close(force=False)
    try:
        assert eventually(lambda: not alive(started) and not any(map(is_open, ports.values())), 20)
    finally:
        for pid in alive(started):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_closing_the_output_stops_everything(folder: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", f"{shlex.join(RUN)} | head -1; echo head has ended >&2"]
    with running(command, folder, tmp_path / "log") as program:
        program.wait_for("head has ended")
        assert program.has_ended()


def test_a_service_that_exits_or_ignores_sigterm_is_stopped(toy: Path, tmp_path: Path) -> None:
    (toy / "bin" / "run").write_text(
        (toy / "bin" / "run").read_text().replace("STOP_TIMEOUT = 8 ", "STOP_TIMEOUT = 1 ")
    )
    (toy / "Procfile").write_text('one: trap "" TERM; echo up; sleep 600\ntwo: sleep 1; exit 7\n')
    with running(RUN, toy, tmp_path / "log") as program:
        program.wait_for("two exited with status 7. Stopping all services.")
        assert program.has_ended()
        assert program.process.wait(20) != 0


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_dotenv_that_cannot_be_read_is_one_sentence(toy: Path, tmp_path: Path, encoding: str) -> None:
    (toy / "Procfile").write_text("one: echo started\n")
    (toy / ".env").write_bytes("NAME=Zoë\n".encode(encoding))
    with running(RUN, toy, tmp_path / "log") as program:
        assert program.process.wait(30) != 0
    first, *others = program.output().splitlines()
    assert first == ".env cannot be read: it is not UTF-8 text. Save it as UTF-8 in your editor."
    assert all(each.startswith("make: ") for each in others)


def test_a_named_pipe_as_dotenv_is_read_once(toy: Path, tmp_path: Path) -> None:
    (toy / "Procfile").write_text("one: echo got $NAME, $FLASK_SKIP_DOTENV; sleep 600\n")
    os.mkfifo(toy / ".env")
    writer = threading.Thread(target=(toy / ".env").write_text, args=["NAME=Zoë\n"])
    writer.start()
    with running(RUN, toy, tmp_path / "log") as program:
        program.wait_for("got Zoë, 1")
    writer.join(10)


def test_every_port_that_is_in_use_is_named_at_once(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        taken = [each.getsockname()[1] for each in (one, two)]
        command = [*RUN, f"PORT={taken[0]}", f"VIEWER_PORT={taken[1]}"]
        with running(command, folder, tmp_path / "log") as program:
            assert program.process.wait(30) != 0
    others = [port % 60000 + 1000 for port in taken]
    assert program.output().splitlines()[:3] == [
        f"Port {taken[0]} cannot be used for backend: Address already in use.",
        f"Port {taken[1]} cannot be used for viewer: Address already in use.",
        "Another project may be running. Stop it, or use other ports: "
        f"make run PORT={others[0]} VIEWER_PORT={others[1]}",
    ]


@pytest.mark.parametrize(
    ("dotenv", "printed"),
    [
        ("", "shell, , 4567."),
        ("WHO=file\nALSO=file\nNAME=\nPORT=4999\n", "shell, file, 4999."),
        ("PORT=\n", "shell, , 4567."),
    ],
)
def test_shell_variables_override_dotenv(toy: Path, tmp_path: Path, dotenv: str, printed: str) -> None:
    (toy / "Procfile").write_text('one: echo "got $WHO, $ALSO, ${PORT:-4567}."\n')
    (toy / ".env").write_text("\ufeff" + dotenv)
    with running(["env", "-u", "PORT", *RUN], toy, tmp_path / "log", WHO="shell") as program:
        program.wait_for(f"got {printed}")
