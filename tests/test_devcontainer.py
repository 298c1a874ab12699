"""The devcontainers of both levels, opened by the real client on a real engine, for a user who is not 1000."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import LEFTOVERS, ROOT, free_ports
from platforms import stand_in
from receiver import Receiver, eventually, receiving
from test_docker import OWNER, docker, engine, host_address, inspect, run  # noqa: F401

CLI = "@devcontainers/cli@0.89.0"
KEY = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
AS_OWNER = """
mount --bind "$1" /etc/passwd
groups=$(stat --format %g /var/run/docker.sock)
shift
exec setpriv --reuid={} --regid={} --groups="$groups" "$@"
"""
DEBUGGER = """
import json, socket
debugger = socket.create_connection(("backend", 5678), 10)
body = json.dumps({"seq": 1, "type": "request", "command": "initialize", "arguments": {"adapterID": "test"}}).encode()
debugger.sendall(b"Content-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
answers = b""
while b"supportsConditionalBreakpoints" not in answers:
    answers += debugger.recv(65536) or exit("the debugger hung up")
print("it answers")
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that is not pytest's, whose folders only root can enter; of OWNER, with blanks in its name."""
    folder = Path(tempfile.mkdtemp(prefix="opened "))
    folder.chmod(0o755)
    (folder / "home").mkdir()
    os.chown(folder, *OWNER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def client(place: Path, request: pytest.FixtureRequest) -> list[str]:
    """The real client, started by OWNER."""
    request.getfixturevalue("engine")
    install = ("npm", "install", "--no-audit", "--no-fund", "--prefix", str(place / "client"), CLI)
    if not shutil.which("npm") or run(*install, check=False).returncode:
        wrong = f"npm is not here, or cannot install {CLI}"
        if os.environ.get("CI") == "true":
            pytest.fail(wrong)
        pytest.skip(wrong)
    client = ["node", str(place / "client/node_modules/@devcontainers/cli/devcontainer.js")]
    if os.geteuid() != 0:
        return client
    passwd = place / "passwd"
    passwd.write_text(Path("/etc/passwd").read_text() + f"owner:x:{OWNER[0]}:{OWNER[1]}::{place}/home:/bin/sh\n")
    as_owner = ["unshare", "--mount", "--propagation=private", "sh", "-euc", AS_OWNER.format(*OWNER), "sh"]
    return [*as_owner, str(passwd), *client]


@dataclass
class Devcontainer:
    """A folder that the client opens, whose services have a Compose name and ports of their own."""

    folder: Path
    project: Path  # the rendered one in it
    client: list[str]
    honeycomb: Receiver
    name: str = field(default_factory=lambda: f"opened-{uuid.uuid4().hex[:8]}")
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port, profiles_port, self.viewer_port = free_ports(3)
        self.env = {
            "CODESPACE_NAME": "stand-in",
            "COMPOSE_PROJECT_NAME": self.name,
            "HOME": str(self.folder.parent / "home"),
            "PORT": str(self.port),
            "PROFILES_PORT": str(profiles_port),
            "TMPDIR": str(self.folder.parent),
            "VIEWER_PORT": str(self.viewer_port),
        }
        self.project.mkdir(exist_ok=True)
        endpoint = f"http://host.docker.internal:{self.honeycomb.url.rpartition(':')[2]}"
        (self.project / ".env").write_text(f"# mine\nHONEYCOMB_API_ENDPOINT={endpoint}\n")
        for path in [self.folder.parent / "home", self.folder, *self.folder.rglob("*")]:
            os.chown(path, *OWNER, follow_symlinks=False)

    def ask(self, command: str, *arguments: str, **env: str) -> str:
        more = ["--workspace-folder", str(self.folder), *arguments]
        said = run(*self.client, command, *more, **{**self.env, **env}).stdout
        self.said.append(said)
        return said

    def up(self, *arguments: str, **env: str) -> None:
        """Open it. Where it is open already, first close it, or the client would have nothing to do."""
        for container in self.containers():
            docker("stop", "--time", "2", container)
        said = self.ask("up", "--log-level", "trace", *arguments, **env)
        assert '"outcome":"success"' in said.splitlines()[-1]
        url = f"http://127.0.0.1:{self.port}/api/health"
        assert eventually(lambda: answers(url), 30), run("docker", "logs", f"{self.name}-backend-1").stdout

    def inside(self, *command: str) -> str:
        return self.ask("exec", *command).strip()

    def containers(self) -> list[str]:
        return docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.name}").split()

    def trace(self) -> tuple[str, list[dict[str, Any]]]:
        """Of a new request: its id, and its spans at the viewer once there are five of them."""
        answer = requests.get(f"http://127.0.0.1:{self.port}/api/activities/home", timeout=10)
        trace_id = answer.headers["traceresponse"].split("-")[1]
        url = f"http://127.0.0.1:{self.viewer_port}/api/traces/{trace_id}"

        def come() -> list[dict[str, Any]]:
            spans: list[dict[str, Any]] = requests.get(url, timeout=5).json().get("spans", [])
            return spans if len(spans) >= 5 else []

        return trace_id, eventually(come)

    def at_honeycomb(self, trace_id: str) -> bool:
        return len(self.honeycomb.traces().get(trace_id, [])) == 5

    def remove(self) -> None:
        containers = self.containers()
        images = {inspect(container)["Image"] for container in containers}
        names = [f"{self.name}-{image}" for image in ("dev", "workspace", "render")]
        docker("rm", "--force", *containers, check=False)
        docker("network", "rm", f"{self.name}_default", check=False)
        docker("image", "rm", "--force", *names, *images, check=False)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="module", params=["project", "template"])
def opened(
    request: pytest.FixtureRequest, place: Path, client: list[str], render_into: Callable[..., Path]
) -> Iterator[Devcontainer]:
    """A fresh clone of either level, opened without a key; the client's own environment has one, which is not ours."""
    folder = place / "a template"
    if request.param == "project":
        folder = render_into(place)
    else:
        shutil.copytree(ROOT, folder, ignore=lambda path, names: {*LEFTOVERS(path, names), "demo", ".git", ".lock"})
    project = folder if request.param == "project" else folder / "demo"
    with receiving(host=request.getfixturevalue("host_address")) as honeycomb:
        devcontainer = Devcontainer(folder, project, client, honeycomb)
        try:
            devcontainer.up(HONEYCOMB_API_KEY=KEY)
            yield devcontainer
        finally:
            devcontainer.remove()


# Without an engine.


@pytest.fixture(params=["built-in", "jaeger"])
def rendered(request: pytest.FixtureRequest, render: Callable[..., Path]) -> Path:
    return render(local_viewer=request.param, project_name='It\'s "mine" \\o/')


def test_the_configurations_are_valid(rendered: Path) -> None:
    schema = stand_in("schemas/devContainer.base.schema.json")
    check = (sys.executable, "-m", "check_jsonschema")
    for folder in (rendered, ROOT):
        run(*check, "--schemafile", str(schema), str(folder / ".devcontainer" / "devcontainer.json"))
        run(*check, "--builtin-schema", "vendor.compose-spec", str(folder / ".devcontainer" / "compose.yaml"))
    devcontainer = json.loads((rendered / ".devcontainer" / "devcontainer.json").read_text())
    assert devcontainer["name"] == 'It\'s "mine" \\o/'
    assert set(devcontainer["portsAttributes"]) == set(devcontainer["forwardPorts"])


def test_what_runs_on_the_host_needs_no_shell() -> None:
    """cmd.exe runs a string on Windows; a list is run as it is."""
    for text in (ROOT / "{{cookiecutter.project}}", ROOT):
        command = json.loads((text / ".devcontainer" / "devcontainer.json").read_text()).get("initializeCommand", [])
        assert isinstance(command, list)
        assert command[:1] in ([], ["docker"])


# With one, in the order in which they stand here.


@pytest.mark.docker
def test_opened_without_a_key_the_first_request_is_a_trace_across_two_services(opened: Devcontainer) -> None:
    _, spans = opened.trace()
    assert {span["service.name"] for span in spans} == {"backend-flask", "profiles"}
    assert opened.honeycomb.requests == []
    assert (opened.project / ".env").read_text().startswith("# mine\n")


@pytest.mark.docker
def test_the_workspace_has_what_a_person_works_with(opened: Devcontainer) -> None:
    uid = opened.inside("id", "-u").splitlines()[-1]
    assert uid == str(OWNER[0])
    if opened.folder == opened.project:
        assert "All checks passed" in opened.inside("ruff", "check", ".devcontainer", "profiles")
        assert " passed" in opened.inside("pytest", "-q", "tests/test_activities.py")
        assert "it answers" in opened.inside("python", "-c", DEBUGGER)
    else:
        assert "All checks passed" in opened.inside("ruff", "check", "hooks")
        assert " passed" in opened.inside("pytest", "-q", "tests/test_prompts.py")
        assert "Nothing to be done" in opened.inside("make", "install")
    not_theirs = [path for path in opened.folder.rglob("*") if path.lstat().st_uid != OWNER[0]]
    assert not_theirs == []


@pytest.mark.docker
def test_the_viewer_answers_where_codespaces_shows_it(opened: Devcontainer) -> None:
    for host, status in (("stand-in-4318.app.github.dev", 200), ("other-4318.app.github.dev", 403)):
        url = f"http://127.0.0.1:{opened.viewer_port}/api/health"
        assert requests.get(url, headers={"Host": host}, timeout=5).status_code == status


@pytest.mark.docker
def test_a_backend_that_crashes_leaves_the_editor_alone(opened: Devcontainer) -> None:
    docker("kill", f"{opened.name}-backend-1")
    assert opened.inside("echo", "still", "here").endswith("still here")
    docker("start", f"{opened.name}-backend-1")


@pytest.mark.docker
def test_a_secret_of_the_platform_reaches_the_running_backend(opened: Devcontainer, place: Path) -> None:
    secrets = place / "secrets.json"
    secrets.write_text(json.dumps({"HONEYCOMB_API_KEY": KEY}))
    opened.up("--secrets-file", str(secrets))
    dotenv = opened.project / ".env"
    assert eventually(lambda: f"\nHONEYCOMB_API_KEY={KEY}\n" in dotenv.read_text(), 5)
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    assert dotenv.stat().st_uid == OWNER[0]
    began = time.monotonic()
    trace_id, _ = opened.trace()
    assert eventually(lambda: opened.at_honeycomb(trace_id), 5)
    print(f"at Honeycomb after {time.monotonic() - began:.1f} s")
    assert {headers["x-honeycomb-team"] for _, headers, _ in opened.honeycomb.requests} == {KEY}


@pytest.mark.docker
def test_a_key_that_is_kept_is_there_the_next_time_and_gone_when_it_is_unset(opened: Devcontainer) -> None:
    opened.up()
    trace_id, _ = opened.trace()
    assert eventually(lambda: opened.at_honeycomb(trace_id), 5)
    command = str(Path(opened.project.name if opened.project != opened.folder else "") / "bin" / "honeycomb")
    assert "ingest key" in opened.inside("python", command, "key", "status")
    opened.inside("python", command, "key", "unset")
    trace_id, spans = opened.trace()
    time.sleep(1)
    assert len(spans) == 5
    assert trace_id not in opened.honeycomb.traces()


@pytest.mark.docker
def test_the_key_is_in_nothing_that_was_said(opened: Devcontainer) -> None:
    traces = [said for said in opened.said if "docker compose" in said and len(said) > 10_000]
    assert len(traces) == 3  # without a key, with a new one, with one that was kept
    said = [*opened.said, *(json.dumps(inspect(container)) for container in opened.containers())]
    said += [run("docker", "logs", container).stdout for container in opened.containers()]
    assert [text for text in said if "01marked00key" in text] == []
