"""The project as a person runs it while developing: `make run`, over real HTTP."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import environment, free_ports
from processes import Running, alive, answers, family
from receiver import eventually, receiving

MARKED = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"


class Project:
    """A project that `make run` runs, on free ports."""

    def __init__(self, folder: Path, log: Path, **env: str) -> None:
        self.folder = folder
        ports = dict(zip(("PORT", "PROFILES_PORT", "VIEWER_PORT"), map(str, free_ports(3)), strict=True))
        self.backend, self.profiles, self.viewer = (f"http://127.0.0.1:{port}" for port in ports.values())
        self.program = Running(["make", "run"], folder, log, **ports, **env)
        for base in (self.backend, self.profiles, self.viewer):
            assert eventually(lambda base=base: answers(f"{base}/api/health"), 40), self.program.output()

    def home(self) -> requests.Response:
        return requests.get(f"{self.backend}/api/activities/home", timeout=10)

    def said(self) -> str:
        """The home feed; nothing while the server is being replaced, which drops what it was about to answer."""
        try:
            return self.home().text
        except requests.RequestException:
            return ""

    def trace(self, answer: requests.Response, spans: int) -> dict[str, Any]:
        """The trace that an answer belongs to, once `spans` of it have come to the viewer."""
        url = f"{self.viewer}/api/traces/{answer.headers['traceresponse'].split('-')[1]}"

        def come() -> dict[str, Any] | None:
            found = requests.get(url, timeout=5).json()
            return found if found.get("span_count", 0) >= spans else None

        trace = eventually(come)
        assert trace, self.program.output()
        return dict(trace)


@pytest.fixture(scope="module")
def project(installed_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with receiving() as honeycomb:
        log = tmp_path_factory.mktemp("run") / "output"
        project = Project(installed_project, log, HONEYCOMB_API_ENDPOINT=honeycomb.url)
        project.honeycomb = honeycomb  # type: ignore[attr-defined]
        try:
            yield project
        finally:
            (project.folder / ".env").unlink(missing_ok=True)
            if project.program.process.poll() is None:
                project.program.interrupt()


def test_the_first_request_gives_a_trace_across_two_services(project: Project) -> None:
    answer = project.home()
    trace = project.trace(answer, 5)
    assert trace["services"] == ["backend-flask", "profiles"]
    server, activities, client, profiles, find = trace["spans"]
    assert [span["name"] for span in trace["spans"]] == [
        "GET /api/activities/home",
        "home-activities-mock-data",
        "GET",
        "GET /api/profiles/<handles>",
        "find-profiles-mock-data",
    ]
    assert [span["service.name"] for span in trace["spans"]] == ["backend-flask"] * 3 + ["profiles"] * 2
    assert [span["span.kind"] for span in trace["spans"]] == ["server", "internal", "client", "server", "internal"]
    for parent, child in ((server, activities), (activities, client), (client, profiles), (profiles, find)):
        assert child["trace.parent_id"] == parent["trace.span_id"]
    assert activities["app.result_length"] == len(answer.json())
    assert activities["app.now"].startswith("20")
    assert server["http.route"] == "/api/activities/home"
    assert server["deployment.environment.name"] == "development"
    listed = requests.get(f"{project.viewer}/api/traces", timeout=5).json()
    assert trace["trace_id"] in [each["trace_id"] for each in listed]


def test_the_terminal_shows_a_finished_trace_as_a_tree(project: Project) -> None:
    trace_id = project.home().headers["traceresponse"].split("-")[1]
    assert eventually(lambda: f"trace {trace_id}" in project.program.output())
    shown = project.program.output().partition(f"trace {trace_id}")[2]
    assert re.search(r"└─ home-activities-mock-data +\d+\.\d ms  app\.now=.*  app\.result_length=3", shown)


def test_a_failure_is_json_with_its_trace_and_its_log_is_there(project: Project) -> None:
    answer = requests.get(f"{project.backend}/api/examples/failing", timeout=10)
    assert answer.status_code == 500
    trace = project.trace(answer, 2)
    assert answer.json()["trace_id"] == trace["trace_id"]
    assert trace["error"] is True
    url = f"{project.viewer}/api/traces/{trace['trace_id']}"
    logs = eventually(lambda: requests.get(url, timeout=5).json()["logs"])
    assert logs[0]["exception.type"] == "ZeroDivisionError"
    assert f"trace_id={trace['trace_id']}" in project.program.output()


def test_an_edit_is_answered_without_a_restart(project: Project) -> None:
    file = project.folder / "backend" / "activities.py"
    before = file.read_text()
    try:
        file.write_text(before.replace("prune juice", "raktajino"))
        assert eventually(lambda: "raktajino" in project.said())
        file.write_text("not python (")
        assert eventually(lambda: "500 Internal Server Error" in project.said())
    finally:
        file.write_text(before)
    assert eventually(lambda: "prune juice" in project.said())


def test_a_key_in_dotenv_is_noticed_while_it_runs_and_so_is_its_end(project: Project) -> None:
    honeycomb = project.honeycomb  # type: ignore[attr-defined]
    dotenv = project.folder / ".env"
    project.trace(project.home(), 5)
    assert honeycomb.requests == []
    dotenv.write_text(f"HONEYCOMB_API_KEY={MARKED}\n")
    trace_id = project.home().headers["traceresponse"].split("-")[1]
    assert eventually(lambda: len(honeycomb.traces().get(trace_id, [])) == 5)
    assert {headers.get("x-honeycomb-team") for _, headers, _ in honeycomb.requests} == {MARKED}
    dotenv.unlink()
    answer = project.home()
    project.trace(answer, 5)
    assert answer.headers["traceresponse"].split("-")[1] not in honeycomb.traces()
    assert MARKED not in project.program.output()


def test_traffic_shows_what_came_back(project: Project) -> None:
    done = subprocess.run(
        [".venv/bin/python", "bin/traffic", "--seconds", "4", "--url", project.backend],
        cwd=project.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("/api/")]
    assert {row[0]: row[1] for row in rows}["/api/activities/home"] == "200"
    assert {row[1] for row in rows} <= {"200", "404", "500"}
    assert len(rows) >= 4


def test_closing_the_terminal_ends_everything(installed_project: Path) -> None:
    terminal, inside = pty.openpty()
    at = dict(zip(("PORT", "PROFILES_PORT", "VIEWER_PORT"), map(str, free_ports(3)), strict=True))
    make = subprocess.Popen(
        ["make", "run"],
        cwd=installed_project,
        env=environment(**at),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    shown = b""
    while shown.count(b"Debug mode: on") < 2:
        shown += os.read(terminal, 4096)
    started = family(make.pid)
    assert len(started) > 6
    os.close(terminal)
    os.killpg(make.pid, signal.SIGHUP)  # from the system, where make's session has the terminal as its own
    try:
        assert eventually(lambda: not alive(started), 15)
    finally:
        for pid in alive(started):
            os.kill(pid, signal.SIGKILL)
        make.wait()


def test_ctrl_c_ends_everything(project: Project) -> None:
    started = family(project.program.process.pid)
    assert len(started) > 6
    project.program.interrupt()
    assert eventually(lambda: not alive(started), 10)
    assert "Traceback" not in project.program.output().partition("SIGINT received")[2]


def test_traffic_without_a_backend_says_what_to_do(installed_project: Path) -> None:
    (port,) = free_ports(1)
    done = subprocess.run(
        ["make", "traffic"],
        cwd=installed_project,
        env=environment(PORT=str(port)),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"Nothing answers at http://127.0.0.1:{port}/api/health. Start it first: make run" in done.stderr


@pytest.mark.parametrize(
    ("command", "dotenv", "said"),
    [
        (["make", "run"], "", "shell  4567"),
        (["make", "run"], "WHO=file\nALSO=file\nPORT=4999\n", "shell file 4999"),
        (["make", "run", "PORT=5001"], "PORT=4999\n", "shell  5001"),
    ],
)
def test_the_shells_variables_win_over_those_of_dotenv(
    installed_project: Path, tmp_path: Path, command: list[str], dotenv: str, said: str
) -> None:
    for name in ("Makefile", "bin", ".venv", "requirements-dev.txt"):
        (tmp_path / name).symlink_to(installed_project / name)
    (tmp_path / "Procfile").write_text('one: echo said $WHO "$ALSO" $PORT.\n')
    (tmp_path / ".env").write_text(dotenv)
    env = environment(WHO="shell")
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30)
    assert f"said {said}." in ran.stdout
