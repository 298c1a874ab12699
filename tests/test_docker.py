"""Both images and both Compose files, on a real engine: what is inside, what it does, what it leaves out."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
import requests
from conftest import PROJECT, environment, free_ports
from processes import Running
from receiver import Receiver, eventually, receiving

VERSIONS = ("3.14", "3.13")
KEY = "hcaik_01marked" + "k" * 50
OWNER = (1234, 1235) if os.geteuid() == 0 else (os.geteuid(), os.getegid())  # not the image's own 1000
HOME = "/api/activities/home"
PLAIN = """
FROM python:{version}-slim-trixie
COPY requirements.txt .
RUN pip install --no-cache-dir --ignore-installed --require-hashes -r requirements.txt
"""  # --ignore-installed, since Debian's pip in a stand-in for the base image brings packages that pip cannot replace
JAEGER = r"""
import http.server, json, re, socketserver, threading
seen = set()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip
            body = gzip.decompress(body)
        seen.update(re.findall(rb"(?s)service\.name\x12.\n.([a-z-]+)", body))
        if self.path != "/v1/traces":
            seen.add(b"refused " + self.path.encode())
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": sorted(name.decode() for name in seen)}).encode())
for port in (4318, 16686):
    server = http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler)
    threading.Thread(target=server.serve_forever).start()
"""


def run(*command: str, cwd: Path | None = None, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; when it fails, show what it said."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done


def docker(*arguments: str, **options: Any) -> str:
    return run("docker", *arguments, **options).stdout.strip()


def inspect(name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return answer


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip without Docker. In CI that would hide that nothing was tested, so there it fails."""
    for question in (["info"], ["compose", "version"], ["buildx", "version"]):
        try:
            done = run("docker", *question, check=False)
        except FileNotFoundError:
            wrong = "docker is not installed"
        else:
            if not done.returncode:
                continue
            wrong = f"docker {' '.join(question)} answers: {done.stdout.strip().splitlines()[-1]}"
        if os.environ.get("CI") == "true":
            pytest.fail(wrong)
        pytest.skip(wrong)


@pytest.fixture(scope="session")
def name() -> str:
    """A name that nothing else on this engine has."""
    return f"traced-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def host_address(engine: None) -> str:
    """Where a container finds this machine. Docker Desktop, whose bridge is elsewhere, leads it to 127.0.0.1."""
    gateway: str = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"]
    with socket.socket() as probe:
        try:
            probe.bind((gateway, 0))
        except OSError:
            return "127.0.0.1"
    return gateway


@dataclass
class Stack:
    """A rendered project and its containers under a Compose name of their own."""

    folder: Path
    name: str
    file: str = "compose.yaml"
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port, profiles_port, self.viewer_port, self.jaeger_port = free_ports(4)
        self.env = {
            "PORT": str(self.port),
            "PROFILES_PORT": str(profiles_port),
            "VIEWER_PORT": str(self.viewer_port),
            "JAEGER_PORT": str(self.jaeger_port),
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_FILE": self.file,
            **self.env,
        }

    def compose(self, *arguments: str, check: bool = True) -> str:
        return run("docker", "compose", *arguments, cwd=self.folder, check=check, **self.env).stdout

    def inside(self, *command: str, service: str = "backend") -> str:
        return self.compose("exec", "-T", service, *command).strip()

    def get(self, path: str = HOME) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def text(self) -> str:
        """The home feed; nothing while the server is being replaced, which drops what it was about to answer."""
        with contextlib.suppress(requests.ConnectionError):
            return self.get().text
        return ""

    def viewed(self, response: requests.Response) -> list[dict[str, Any]] | None:
        """The spans that the viewer has of the trace of this answer, once there are five."""
        trace_id = response.headers["traceresponse"].split("-")[1]
        answer = requests.get(f"http://127.0.0.1:{self.viewer_port}/api/traces/{trace_id}", timeout=5)
        spans = answer.json().get("spans", []) if answer.ok else []
        return spans if len(spans) >= 5 else None

    def containers(self) -> list[dict[str, Any]]:
        return [inspect(container) for container in self.compose("ps", "--all", "--quiet").split()]


@contextlib.contextmanager
def cleaned_up(stack: Stack) -> Iterator[Stack]:
    try:
        yield stack
    except BaseException:
        print(stack.compose("logs", "--no-color", check=False)[-8000:])
        raise
    finally:
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)


Render = Callable[..., Path]


@pytest.fixture(scope="session")
def projects(render_into: Render, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render a project for one test: in a path with blanks, of the user OWNER, with what no image may hold."""

    def projects(**prompts: str) -> Path:
        project = render_into(tmp_path_factory.mktemp("on docker") / "my projects", **prompts)
        (project / ".env").write_text(f"HONEYCOMB_API_KEY={KEY}\n")
        (project / ".git").mkdir()
        (project / ".git" / "config").write_text(KEY)
        (project / ".venv" / "bin").mkdir(parents=True)  # of another machine, and of no use in a container
        (project / ".venv" / "bin" / "python").symlink_to("/nowhere/python")
        (project / "notes.txt").write_text(KEY)
        if os.geteuid() == 0:
            for path in [project, *project.rglob("*")]:
                os.chown(path, *OWNER, follow_symlinks=False)
        return project

    return projects


@pytest.fixture(scope="session")
def by_version(projects: Render) -> dict[str, Path]:
    return {version: projects(python_version=version) for version in VERSIONS}


@pytest.fixture(scope="session")
def prod_images(by_version: dict[str, Path], name: str, engine: None) -> Iterator[dict[str, str]]:
    """The production image by Python version."""
    images = {version: f"{name}-{version}" for version in VERSIONS}
    try:
        for version, image in images.items():
            arguments = ["--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abcdef"]
            docker("build", "--tag", image, *arguments, ".", cwd=by_version[version], HONEYCOMB_API_KEY=KEY)
        yield images
    finally:
        docker("image", "rm", "--force", *images.values(), check=False)


@pytest.fixture(scope="session")
def dev_images(by_version: dict[str, Path], name: str, engine: None) -> Iterator[dict[str, str]]:
    """The development image by Python version, under the name that Compose gives it."""
    projects = {version: f"{name}-{version.replace('.', '')}" for version in VERSIONS}
    try:
        for version, project in projects.items():
            compose = {"COMPOSE_PROJECT_NAME": project, "HONEYCOMB_API_KEY": KEY}
            docker("compose", "build", cwd=by_version[version], **compose)
        yield projects
    finally:
        docker("image", "rm", "--force", *(f"{project}-dev" for project in projects.values()), check=False)


def in_chunks(stream: IO[bytes], overlap: int) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(1 << 20):
        yield rest + chunk
        rest = chunk[-overlap:]


def found_in(image: str, *needles: bytes) -> set[bytes]:
    """Which of the texts are anywhere in the image: in its configuration, its history or a file of any layer."""
    saved = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
    assert saved.stdout is not None
    found = set()
    with tarfile.open(fileobj=saved.stdout, mode="r|") as archive:
        for member in archive:
            packed = archive.extractfile(member)
            if packed is None:
                continue
            first = packed.read(2)
            if first == b"\x1f\x8b":  # an engine that keeps its layers packed
                packed = gzip.GzipFile(fileobj=Rewound(first, packed))  # type: ignore[assignment]
            for chunk in in_chunks(packed, max(map(len, needles))):  # type: ignore[arg-type]
                found |= {needle for needle in needles if needle in chunk}
    assert saved.wait() == 0
    return found


class Rewound:
    """A stream whose first bytes have been read already."""

    def __init__(self, first: bytes, stream: IO[bytes]) -> None:
        self.first, self.stream = first, stream

    def read(self, size: int = -1) -> bytes:
        if not self.first:
            return self.stream.read(size)
        first, self.first = self.first, b""
        return first


# Without an engine.


@pytest.fixture(scope="session", params=["built-in", "jaeger"])
def chosen(request: pytest.FixtureRequest, render_into: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_into(tmp_path_factory.mktemp("lint"), local_viewer=request.param)


def installed(program: str) -> str:
    """Where this program is: beside the Python that runs the tests."""
    return str(Path(sys.executable).with_name(program))


def test_the_dockerfiles_are_clean(chosen: Path, template: Path) -> None:
    for folder in (chosen, template / PROJECT):
        run(installed("hadolint"), "--failure-threshold", "style", "Dockerfile", "Dockerfile.dev", cwd=folder)


def test_the_compose_files_are_valid(chosen: Path, template: Path) -> None:
    for folder in (chosen, template / PROJECT):
        command = (installed("check-jsonschema"), "--builtin-schema", "vendor.compose-spec")
        run(*command, "compose.yaml", "compose.prod.yaml", cwd=folder)


# The production image.

UNWANTED = """
import importlib.util, os, shutil, sys
programs = "pip pip3 uv vim vi ssh curl wget git gcc cc make sudo pytest ruff"
modules = "pip ensurepip setuptools pytest debugpy mypy honcho dotenv waitress viewer tests"
print([name for name in programs.split() if shutil.which(name)])
print([name for name in modules.split() if importlib.util.find_spec(name)])
print(sorted(os.listdir(".")))
pip = [os.path.join(top, name) for root in ("/usr", "/opt", "/root") for top, folders, files in os.walk(root)
       for name in (*folders, *files) if name in ("pip", "ensurepip") or name.startswith("pip-")]
print(pip)
left = [os.path.join(top, name) for top, _, files in os.walk("/opt/venv/lib") for name in files
        if name.endswith(".py") and not os.path.exists(importlib.util.cache_from_source(os.path.join(top, name)))]
print(left)
print(os.getuid(), os.getgid())
writable = [top for root in ("/app", "/opt", "/usr", "/etc") for top, *_ in os.walk(root) if os.access(top, os.W_OK)]
print(writable)
"""


@pytest.mark.docker
@pytest.mark.parametrize("version", VERSIONS)
def test_the_production_image_holds_the_app_and_nothing_for_an_intruder(
    prod_images: dict[str, str], version: str
) -> None:
    said = docker("run", "--rm", prod_images[version], "python", "-c", UNWANTED).splitlines()
    programs, modules, listing, pip, without_bytecode, user, writable = said
    assert (programs, modules, pip, without_bytecode, writable) == ("[]",) * 5
    assert listing == "['backend', 'gunicorn.conf.py', 'profiles', 'pyproject.toml']"
    assert user == "10001 10001"
    assert docker("run", "--rm", prod_images[version], "python", "--version").startswith(f"Python {version}.")
    config = inspect(prod_images[version])["Config"]
    assert config["User"] == "10001:10001"
    assert config["Cmd"][0] == "gunicorn"
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items() if "opencontainers" in name}
    assert labels == {"title": "cruddur", "version": "1.2.3", "revision": "abcdef"}


@pytest.mark.docker
@pytest.mark.parametrize("version", VERSIONS)
def test_it_runs_locked_up_and_stops_cleanly(prod_images: dict[str, str], version: str) -> None:
    locks = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=64", "--memory=256m")
    container = docker("run", "--detach", *locks, "--publish=127.0.0.1::4567", prod_images[version])
    try:
        healthy = eventually(lambda: inspect(container)["State"]["Health"]["Status"] == "healthy", 30)
        assert healthy, docker("logs", container)
        port = inspect(container)["NetworkSettings"]["Ports"]["4567/tcp"][0]["HostPort"]
        assert len(requests.get(f"http://127.0.0.1:{port}{HOME}", timeout=10).json()) == 3
        ask = "print(open('/proc/1/cmdline').read().split('\\0')[1], open('/proc/1/status').read())"
        first_process = docker("exec", container, "python", "-c", ask)
        assert first_process.startswith("/opt/venv/bin/gunicorn")
        assert re.search(r"CapEff:\s0+\n", first_process)
        began = time.monotonic()
        docker("stop", container)
        assert time.monotonic() - began < 5
        assert inspect(container)["State"]["ExitCode"] == 0
        logs = docker("logs", container)
        assert logs.count("Telemetry goes nowhere") == 1
        assert "Traceback" not in logs
    finally:
        docker("rm", "--force", container)


@pytest.mark.docker
@pytest.mark.parametrize("version", VERSIONS)
def test_it_adds_no_more_to_its_base_than_pip_install_does(
    prod_images: dict[str, str], by_version: dict[str, Path], version: str, tmp_path: Path
) -> None:
    shutil.copy(by_version[version] / "requirements.txt", tmp_path)
    (tmp_path / "Dockerfile").write_text(PLAIN.format(version=version))
    plain = f"{prod_images[version]}-plain"
    docker("build", "--tag", plain, ".", cwd=tmp_path)
    try:
        base, ours, pip = (inspect(f)["Size"] for f in (f"python:{version}-slim-trixie", prod_images[version], plain))
    finally:
        docker("image", "rm", "--force", plain)
    print(f"Python {version}: base {base:,}; ours adds {ours - base:,}, pip install {pip - base:,} bytes")
    assert ours <= pip


@pytest.mark.docker
def test_an_edit_rebuilds_nothing_but_the_app(
    prod_images: dict[str, str], by_version: dict[str, Path], tmp_path: Path
) -> None:
    before = inspect(prod_images["3.14"])["RootFS"]["Layers"]
    edited = shutil.copytree(by_version["3.14"], tmp_path / "edited", symlinks=True)
    with (edited / "backend" / "activities.py").open("a") as file:
        file.write(f"# edited: {uuid.uuid4()}\n")
    began = time.monotonic()
    said = docker("build", "--progress=plain", "--tag", f"{prod_images['3.14']}-edited", ".", cwd=edited)
    seconds = time.monotonic() - began
    try:
        after = inspect(f"{prod_images['3.14']}-edited")["RootFS"]["Layers"]
    finally:
        docker("image", "rm", "--force", f"{prod_images['3.14']}-edited")
    print(f"rebuilt in {seconds:.1f} s")
    assert (before[:-1], before[-1] == after[-1]) == (after[:-1], False)
    assert re.search(r"^#(\d+) .*pip .* install .*\n#\1 CACHED$", said, re.MULTILINE)


@pytest.mark.docker
@pytest.mark.parametrize("version", VERSIONS)
def test_no_layer_of_an_image_holds_a_key(
    prod_images: dict[str, str], dev_images: dict[str, str], version: str
) -> None:
    assert found_in(prod_images[version], KEY.encode(), b"home-activities-mock-data") == {b"home-activities-mock-data"}
    assert found_in(f"{dev_images[version]}-dev", KEY.encode(), b"setpriv --reuid") == {b"setpriv --reuid"}


# Development.


@pytest.fixture(scope="session")
def honeycomb(host_address: str) -> Iterator[Receiver]:
    """What stands in for Honeycomb."""
    with receiving(host=host_address) as receiver:
        yield receiver


def from_inside(receiver: Receiver) -> str:
    return f"http://host.docker.internal:{receiver.url.rpartition(':')[2]}"


@pytest.fixture(scope="session")
def dev(dev_images: dict[str, str], by_version: dict[str, Path], honeycomb: Receiver) -> Iterator[Stack]:
    """`docker compose up --wait` in a path with blanks, for a user other than 1000, with a key in .env alone."""
    project = by_version["3.14"]
    with (project / ".env").open("a") as file:
        file.write(f"HONEYCOMB_API_ENDPOINT={from_inside(honeycomb)}\n")
    with cleaned_up(Stack(project, dev_images["3.14"], env={"HONEYCOMB_API_KEY": ""})) as stack:
        stack.compose("up", "--wait")
        yield stack


@pytest.mark.docker
def test_the_first_request_is_a_trace_across_two_services(dev: Stack) -> None:
    assert {container["State"]["Health"]["Status"] for container in dev.containers()} == {"healthy"}
    response = dev.get()
    spans = eventually(lambda: dev.viewed(response))
    assert spans
    assert {span["service.name"] for span in spans} == {"backend-flask", "profiles"}
    assert "home-activities-mock-data" in {span["name"] for span in spans}
    assert eventually(lambda: "home-activities-mock-data" in dev.compose("logs", "viewer"))  # the tree in the terminal


@pytest.mark.docker
def test_the_key_is_read_from_the_mount_and_seen_nowhere(dev: Stack, honeycomb: Receiver) -> None:
    dev.get()
    headers = eventually(lambda: [sent for path, sent, _ in honeycomb.requests if path == "/v1/traces"])
    assert headers
    assert headers[0]["x-honeycomb-team"] == KEY
    said = [dev.compose("config"), dev.compose("logs", "--no-color"), json.dumps(dev.containers())]
    said.append(docker("image", "inspect", f"{dev.name}-dev"))
    said.append(docker("image", "history", "--no-trunc", f"{dev.name}-dev"))
    assert [text for text in said if KEY in text] == []


@pytest.mark.docker
def test_ports_are_published_on_this_machine_alone(dev: Stack) -> None:
    published = [
        (port, binding["HostIp"])
        for container in dev.containers()
        for port, bindings in container["NetworkSettings"]["Ports"].items()
        for binding in bindings or []
    ]
    assert sorted(published) == [("4318/tcp", "127.0.0.1"), ("4567/tcp", "127.0.0.1"), ("4568/tcp", "127.0.0.1")]


@pytest.mark.docker
def test_what_is_made_inside_belongs_to_the_host_s_user(dev: Stack) -> None:
    assert dev.inside("id", "-u") == str(OWNER[0])
    assert dev.inside("id", "-un") == "dev"
    dev.inside("sh", "-c", "mkdir -p made/inside && echo x >made/inside/file && touch ~/file")
    made = [dev.folder / "made", dev.folder / "made" / "inside" / "file"]
    assert [(path.stat().st_uid, path.stat().st_gid) for path in made] == [OWNER, OWNER]
    assert dev.inside("cat", "/proc/1/comm") == "tini"
    assert re.search(rf"^Uid:\s{OWNER[0]}\s", dev.inside("cat", "/proc/1/status"), re.MULTILINE)
    assert dev.inside("sudo", "id", "-u") == "0"
    not_theirs = [path for path in dev.folder.rglob("*") if path.lstat().st_uid != OWNER[0]]
    assert not_theirs == []
    assert list(dev.folder.rglob("__pycache__")) == []


@pytest.mark.docker
@pytest.mark.parametrize("version", VERSIONS)
def test_the_development_image_has_what_a_person_needs(dev_images: dict[str, str], version: str) -> None:
    tools = "git vim less ssh curl ps ip sudo make python pip pytest ruff mypy"
    ask = f"for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done; python --version; id -un"
    said = docker("run", "--rm", f"{dev_images[version]}-dev", "sh", "-c", ask).splitlines()
    assert (said[0].rpartition(".")[0], said[1:]) == (f"Python {version}", ["dev"])
    ask = "import debugpy, dotenv, flask; print(flask.__file__)"
    login = docker("run", "--rm", f"{dev_images[version]}-dev", "bash", "-lc", f"python -c '{ask}'")
    assert login.startswith("/opt/venv/")


@pytest.mark.docker
def test_the_project_s_make_uses_what_the_image_has(dev: Stack) -> None:
    assert dev.inside("make", "-n", "test") == "/opt/venv/bin/pytest"
    assert "Nothing to be done" in dev.inside("make", "install")


@pytest.mark.docker
def test_an_edit_on_the_host_changes_the_answer_without_a_restart(dev: Stack) -> None:
    file = dev.folder / "backend" / "activities.py"
    before = file.read_text()
    started = [container["State"]["StartedAt"] for container in dev.containers()]
    assert "prune juice" in dev.text()
    began = time.monotonic()
    file.write_text(before.replace("prune juice", "raktajino"))
    try:
        assert eventually(lambda: "raktajino" in dev.text(), 3)
        print(f"answered after {time.monotonic() - began:.1f} s")
        file.write_text("this is no Python\n")
        assert eventually(lambda: "Internal Server Error" in dev.text(), 5)
    finally:
        file.write_text(before)
    assert eventually(lambda: "prune juice" in dev.text(), 5)
    assert [container["State"]["StartedAt"] for container in dev.containers()] == started


@pytest.mark.docker
@pytest.mark.parametrize("owner", [None, (0, 0)], ids=["root", "everybody"])
def test_ctrl_c_ends_it_in_time(
    dev_images: dict[str, str], by_version: dict[str, Path], tmp_path: Path, owner: tuple[int, int] | None
) -> None:
    """In the other Python, in a folder of root's: alone, and as Docker Desktop shows it, open to everybody."""
    project = shutil.copytree(by_version["3.13"], tmp_path / "project", symlinks=True)
    (project / ".env").unlink()
    if os.geteuid() == 0:
        for path in [project, *project.rglob("*")]:
            os.chown(path, 0, 0, follow_symlinks=False)
    if owner:
        project.chmod(0o777)
    with cleaned_up(Stack(project, dev_images["3.13"])) as stack:
        terminal = Running(["docker", "compose", "up"], project, tmp_path / "log", **stack.env)
        try:
            up = eventually(lambda: "healthy" in stack.compose("ps", "backend", check=False), 30)
            assert up, terminal.output()
            user = stack.inside("id", "-u")
            response = stack.get()
            assert eventually(lambda: stack.viewed(response)), terminal.output()
        finally:
            seconds = terminal.stop(signal.SIGINT)
        print(f"ended after {seconds:.1f} s")
        assert seconds < 10
        assert {container["State"]["ExitCode"] for container in stack.containers()} == {0}
        if os.geteuid() == 0:
            assert user == ("1000" if owner else "0")


@pytest.mark.docker
def test_jaeger_takes_the_viewer_s_place(projects: Render, dev_images: dict[str, str], tmp_path: Path) -> None:
    """Where Jaeger's image cannot be pulled, a small receiver of the same name stands in for it."""
    project = projects(local_viewer="jaeger")
    assert not (project / "viewer").exists()
    (project / ".env").unlink()
    stack = Stack(project, f"{dev_images['3.14']}-jaeger")
    (image,) = re.findall(r"^jaegertracing/jaeger:2\.\d+\.\d+$", stack.compose("config", "--images"), re.MULTILINE)
    stands_in = run("docker", "image", "inspect", image, check=False).returncode != 0
    if stands_in:
        (tmp_path / "jaeger.py").write_text(JAEGER)
        (tmp_path / "Dockerfile").write_text(
            'FROM python:3.14-slim-trixie\nCOPY jaeger.py /\nCMD ["python", "-u", "/jaeger.py"]\n'
        )
        docker("build", "--tag", image, ".", cwd=tmp_path)
    try:
        with cleaned_up(stack):
            stack.compose("up", "--wait")

            def services() -> set[str]:
                with contextlib.suppress(requests.ConnectionError):
                    address = f"http://127.0.0.1:{stack.jaeger_port}/api/services"
                    return set(requests.get(address, timeout=5).json()["data"] or [])
                return set()

            stack.get()
            stack.get("/api/no-such-page")
            stack.get("/api/examples/failing")  # which logs
            assert eventually(lambda: {"backend-flask", "profiles"} <= services()), services()
            time.sleep(1)
            assert not [name for name in services() if name.startswith("refused")]
            assert "not reaching" not in stack.compose("logs")
    finally:
        docker("image", "rm", "--force", f"{stack.name}-dev", *([image] if stands_in else []), check=False)


# Production.


@pytest.fixture(scope="session")
def on_one_host(
    prod_images: dict[str, str], projects: Render, engine: None
) -> Iterator[Callable[..., contextlib.AbstractContextManager[Stack]]]:
    """`docker compose -f compose.prod.yaml up --wait` with the given variables, in a project without .env."""
    project = projects()
    (project / ".env").unlink()
    name = f"{prod_images['3.14'].rpartition('-')[0]}-host"

    @contextlib.contextmanager
    def on_one_host(**env: str) -> Iterator[Stack]:
        with cleaned_up(Stack(project, name, "compose.prod.yaml", env)) as stack:
            stack.compose("up", "--wait")
            yield stack

    yield on_one_host
    docker("image", "rm", "--force", name, check=False)


OnOneHost = Callable[..., contextlib.AbstractContextManager[Stack]]


def stop(stack: Stack, service: str) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    stack.compose("stop", service)
    seconds = time.monotonic() - began
    print(f"{service} stopped after {seconds:.1f} s")
    return seconds


@pytest.mark.docker
def test_production_sends_to_whatever_the_variables_name_and_loses_nothing_when_it_stops(
    on_one_host: OnOneHost, host_address: str
) -> None:
    with receiving(host=host_address) as receiver:
        plain = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": from_inside(receiver),
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-honeycomb-team={KEY}",
            "OTEL_SERVICE_NAME": "my-backend",
        }
        with on_one_host(**plain) as stack:
            for _ in range(100):
                assert stack.get().ok
            assert stop(stack, "backend") < 5
            assert stop(stack, "profiles") < 5
            assert {container["State"]["ExitCode"] for container in stack.containers()} == {0}
            assert KEY not in stack.compose("logs", "--no-color")
        traces = receiver.traces().values()
        assert sum({span["service"] for span in spans} == {"my-backend", "profiles"} for spans in traces) == 100
        assert {len(spans) for spans in traces} == {5}
        assert {headers["x-honeycomb-team"] for _, headers, _ in receiver.requests} == {KEY}


@pytest.mark.docker
def test_production_is_locked_up(on_one_host: OnOneHost, honeycomb: Receiver) -> None:
    before = len(honeycomb.requests)
    with on_one_host(HONEYCOMB_API_KEY=KEY, HONEYCOMB_API_ENDPOINT=from_inside(honeycomb)) as stack:
        assert stack.get().ok
        assert eventually(lambda: honeycomb.requests[before:])
        for container in stack.containers():
            config, host = container["Config"], container["HostConfig"]
            assert config["User"] == "10001:10001"
            assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
            assert host["SecurityOpt"] == ["no-new-privileges:true"]
            assert (host["Memory"], host["PidsLimit"]) == (512 << 20, 128)
            assert host["RestartPolicy"]["Name"] == "unless-stopped"
            assert config["StopTimeout"] == 15
            assert (host["LogConfig"]["Type"], host["LogConfig"]["Config"]["max-size"]) == ("json-file", "10m")
            assert container["State"]["Health"]["Status"] == "healthy"
            published = [binding for bindings in host["PortBindings"].values() for binding in bindings]
            assert {binding["HostIp"] for binding in published} <= {"127.0.0.1"}


@pytest.mark.docker
def test_production_stops_in_time_when_what_it_sends_to_hangs_or_is_gone(
    on_one_host: OnOneHost, host_address: str
) -> None:
    with contextlib.ExitStack() as collector:
        receiver = collector.enter_context(receiving(host=host_address, behave=lambda: None))
        settings = {"HONEYCOMB_API_KEY": KEY, "HONEYCOMB_API_ENDPOINT": from_inside(receiver)}
        with on_one_host(**settings) as stack:
            for _ in range(20):
                assert stack.get().ok
            # Before Docker kills it, after 15 s. Telemetry takes 3, and docker itself a few where much else runs.
            assert stop(stack, "backend") < 12
            collector.close()
            assert stop(stack, "profiles") < 12
            logs = stack.compose("logs", "--no-color")
            assert re.search(
                "backend-1 .* Stopped before all telemetry had reached .* (lost|sent without an answer); ", logs
            )
            assert re.search(
                "profiles-1 .* Stopped before all telemetry had reached .* (lost|sent without an answer); ", logs
            )
            assert KEY not in logs


@pytest.mark.docker
def test_production_takes_the_key_from_a_file_that_inspect_does_not_show(
    on_one_host: OnOneHost, honeycomb: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "secrets" / "honeycomb"
    file.parent.mkdir(mode=0o700)
    file.write_text(KEY + "\n")
    file.chmod(0o444)
    before = len(honeycomb.requests)
    settings = {"HONEYCOMB_API_KEY_FILE": str(file), "HONEYCOMB_API_ENDPOINT": from_inside(honeycomb)}
    with on_one_host(**settings) as stack:
        assert stack.get().ok
        assert eventually(lambda: honeycomb.requests[before:])
        assert {headers["x-honeycomb-team"] for _, headers, _ in honeycomb.requests[before:]} == {KEY}
        for said in (json.dumps(stack.containers()), stack.compose("config"), stack.compose("logs", "--no-color")):
            assert KEY not in said


@pytest.mark.docker
def test_production_without_a_key_starts_and_says_once_that_it_sends_nothing(on_one_host: OnOneHost) -> None:
    with on_one_host() as stack:
        for _ in range(10):
            assert stack.get().ok
        for service in ("backend", "profiles"):
            logs = stack.compose("logs", "--no-color", service)
            assert logs.count("Telemetry goes nowhere") == 1
            assert logs.count("WARNING") == 1
