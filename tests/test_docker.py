# ruff: noqa: F811  a fixture that is imported has the name of the parameter that asks for it
"""Both images and both Compose files on a real engine. The client has a proxy configured, as behind a company's."""

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
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import make
from containers import (  # noqa: F401  fixtures
    KEY,
    MARK,
    OTHER_KEY,
    OWNER,
    Services,
    docker,
    engine,
    from_inside,
    honeycomb,
    host_address,
    inspect,
    keys_of,
    open_folder,
    own,
    run,
)
from processes import Running
from receiver import Receiver, eventually

PROXIES = {"proxies": {"default": {"httpProxy": "http://127.0.0.1:9", "httpsProxy": "http://127.0.0.1:9"}}}
# What must stay out of both images: the key is in each of these files.
PLACES = """
.env.local .venv/pyvenv.cfg notes.txt backend/.env backend/production.env backend/app.py~
backend/app.py.bak backend/app.py.orig backend/app.py.old backend/app.py.rej backend/#app.py# backend/.app.py.swp
backend/__pycache__/app.cpython-314.pyc backend/.mypy_cache/app.json backend/traces.duckdb backend/traces.duckdb.wal
backend/app.db backend/app.sqlite3 backend/server.log backend/deeper/.env.production backend/tests/test_key.py
example/.env example/profiles/.env.local example/profiles/app.py~ example/profiles/cache.sqlite-journal
example/profiles/.pytest_cache/lastfailed example/profiles/tests/conftest.py wheels/.env tests/.env
""".split()  # noqa: SIM905


class Stack(Services):
    """A project's containers; without a name, under the one that Compose gives them."""

    def __init__(self, folder: Path, name: str = "", file: str = "compose.yaml", **env: str) -> None:
        super().__init__()
        self.folder, self.name, self.file = folder, name, file
        named = {"COMPOSE_PROJECT_NAME": name} if name else {}
        self.env: dict[str, Any] = {**self.ports, **named, "COMPOSE_FILE": file, **env}

    def compose(self, *arguments: str, check: bool = True) -> str:
        return run("docker", "compose", *arguments, cwd=self.folder, check=check, **self.env).stdout

    def inside(self, *command: str) -> str:
        return self.compose("exec", "-T", "backend", *command).strip()

    def text(self) -> str:
        """The home feed; nothing while the server is being replaced."""
        with contextlib.suppress(requests.RequestException):
            return self.get().text
        return ""

    def containers(self) -> list[dict[str, Any]]:
        return [inspect(container) for container in self.compose("ps", "--all", "--quiet").split()]

    def everything(self) -> list[str]:
        """Everything that Docker can tell about it."""
        image = f"{self.name}-dev" if self.file == "compose.yaml" else self.name
        about = [docker("image", "inspect", image), docker("image", "history", "--no-trunc", image)]
        return [*about, self.compose("config"), self.compose("logs", "--no-color"), json.dumps(self.containers())]


@contextlib.contextmanager
def cleaned_up(stack: Stack) -> Iterator[Stack]:
    try:
        yield stack
    except BaseException:
        print(stack.compose("logs", "--no-color", check=False)[-8000:])
        raise
    finally:
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)


@contextlib.contextmanager
def built(folder: Path, name: str) -> Iterator[str]:
    """Both images of a project: `name`-dev and `name`-prod."""
    try:
        for file, project in (("compose.yaml", name), ("compose.prod.yaml", f"{name}-prod")):
            labels: dict[str, Any] = {"VERSION": "1.2.3", "REVISION": "abcdef"}
            env: dict[str, Any] = {"COMPOSE_PROJECT_NAME": project, "COMPOSE_FILE": file, "HONEYCOMB_API_KEY": KEY}
            run("docker", "compose", "build", cwd=folder, **env, **labels)
        yield name
    finally:
        docker("image", "rm", "--force", f"{name}-prod", f"{name}-dev", check=False)


@pytest.fixture(scope="module")
def name() -> str:
    """A name that nothing else on this engine has."""
    return f"traced-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A Docker client that gives every container a proxy where nothing answers."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "config.json").write_text(json.dumps(PROXIES))
    return {"DOCKER_CONFIG": str(folder)}


@pytest.fixture(scope="module")
def project(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a path with blanks, of OWNER, with the key in every place that no image may hold."""
    project = render_into(tmp_path_factory.mktemp("on docker") / "my projects")
    for place in PLACES:
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / place).write_text(f"# HONEYCOMB_API_KEY={KEY}\n")
    (project / ".env").write_text(f"HONEYCOMB_API_KEY={KEY}\n")
    run("git", "init", "--quiet", cwd=project)
    (project / ".git" / "description").write_text(KEY)
    own(project)
    return project


@pytest.fixture(scope="module")
def images(project: Path, name: str, engine: None) -> Iterator[str]:
    with built(project, name) as name:
        yield name


@pytest.fixture(scope="module")
def closed(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A clone made under umask 077 of a project for Python 3.13, and a worktree of it beside it."""
    place = tmp_path_factory.mktemp("closed")
    project = render_into(place, python_version="3.13")
    git = ("git", "-c", "user.name=Me", "-c", "user.email=me@example.com")
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "Start")):
        run(*git, *command, cwd=project)
    before = os.umask(0o077)
    try:
        run("git", "clone", "--quiet", str(project), f"{name}-clone", cwd=place)
        run("git", "worktree", "add", "--quiet", f"../{name}-worktree", cwd=place / f"{name}-clone")
    finally:
        os.umask(before)
    assert (place / f"{name}-clone" / "backend" / "app.py").stat().st_mode & 0o777 == 0o600
    return place / f"{name}-clone"


@pytest.fixture(scope="module")
def closed_images(closed: Path, name: str, engine: None) -> Iterator[str]:
    with built(closed, closed.name) as name:
        yield name


# Without an engine.


def installed(program: str) -> str:
    """Where this program is: beside the Python that runs the tests."""
    return str(Path(sys.executable).with_name(program))


@pytest.mark.parametrize("answers", [{}, {"local_viewer": "jaeger"}, {"example": "none", "deployment": "one host"}])
def test_the_dockerfiles_and_the_compose_files_are_valid(render: Callable[..., Path], answers: dict[str, str]) -> None:
    project = render(**answers)
    run(installed("hadolint"), "--failure-threshold", "style", "Dockerfile", "Dockerfile.dev", cwd=project)
    files = sorted(path.name for path in project.glob("compose*.yaml"))
    run(installed("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files, cwd=project)
    if shutil.which("docker"):
        for file in ("compose.yaml", "compose.prod.yaml"):
            config = run("docker", "compose", "--file", file, "config", cwd=project).stdout
            assert ("profiles" in config) == ("example" not in answers)
            assert ("jaegertracing/jaeger" in config) == ("local_viewer" in answers and file == "compose.yaml")


# The images.

UNWANTED = """
import importlib.util, os, shutil
print([name for name in "pip pip3 uv vim ssh curl wget git gcc make sudo pytest ruff".split() if shutil.which(name)])
modules = "pip ensurepip setuptools pytest debugpy mypy dotenv otlp_viewer tests".split()
print([name for name in modules if importlib.util.find_spec(name)])
print(sorted(os.listdir(".")))
everything = [os.path.join(top, name) for root in ("/usr", "/opt", "/root") for top, folders, files in os.walk(root)
              for name in (*folders, *files)]
print([path for path in everything if os.path.basename(path).partition("-")[0] in ("pip", "ensurepip")])
print([path for path in everything if path.startswith("/opt/venv/lib") and path.endswith(".py")
       and not os.path.exists(importlib.util.cache_from_source(path))])
print([top for root in ("/app", "/opt", "/usr", "/etc") for top, *_ in os.walk(root) if os.access(top, os.W_OK)])
"""
TOOLS = "git vim less ssh curl ps ip sudo make python pip pytest ruff mypy otlp-viewer traced-flask"


def found_in(image: str, *needles: bytes) -> set[bytes]:
    """Which of the texts are anywhere in the image: in its configuration, its history or a file of any layer."""
    found: set[bytes] = set()
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
        with tarfile.open(fileobj=saved.stdout, mode="r|") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                stream: Any = archive.extractfile(member)
                if stream.peek(2)[:2] == b"\x1f\x8b":  # an engine that packs its layers
                    stream = gzip.GzipFile(fileobj=stream)
                rest = b""
                while part := stream.read(1 << 20):
                    found |= {needle for needle in needles if needle in rest + part}
                    rest = part[-100:]
        assert saved.stdout is not None
        saved.stdout.read()
    assert saved.returncode == 0
    return found


@pytest.mark.docker
def test_no_image_layer_contains_files_other_than_code(images: str) -> None:
    assert found_in(f"{images}-prod", MARK.encode(), b"home-activities-mock-data") == {b"home-activities-mock-data"}
    assert found_in(f"{images}-dev", MARK.encode(), b"setpriv --reuid") == {b"setpriv --reuid"}


@pytest.mark.docker
@pytest.mark.parametrize("version", ["3.14", "3.13"])
def test_the_production_image_contains_the_app_and_no_tools(request: pytest.FixtureRequest, version: str) -> None:
    image = request.getfixturevalue("images" if version == "3.14" else "closed_images") + "-prod"
    programs, modules, app, pip, without_bytecode, writable = docker(
        "run", "--rm", image, "python", "-c", UNWANTED
    ).splitlines()
    assert (programs, modules, pip, without_bytecode, writable) == ("[]",) * 5
    assert app == "['backend', 'example', 'gunicorn.conf.py', 'pyproject.toml']"
    assert docker("run", "--rm", image, "python", "--version").startswith(f"Python {version}.")
    config = inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items() if "opencontainers" in name}
    assert labels == {"title": "cruddur", "version": "1.2.3", "revision": "abcdef"}


@pytest.mark.docker
@pytest.mark.parametrize("port", ["", "8080"])
def test_the_production_image_listens_on_port_and_accepts_empty_variables(closed_images: str, port: str) -> None:
    """The image was built from files that nobody but their owner may read."""
    number = port or "4567"
    locks = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=64", "--memory=256m")
    variables = (f"--env=PORT={port}", "--env=WEB_CONCURRENCY=", "--env=OTEL_BSP_SCHEDULE_DELAY=")
    container = docker("run", "--detach", *locks, *variables, f"--publish=127.0.0.1::{number}", f"{closed_images}-prod")
    try:
        healthy = eventually(lambda: inspect(container)["State"]["Health"]["Status"] == "healthy", 60)
        assert healthy, docker("logs", container)
        published = inspect(container)["NetworkSettings"]["Ports"][f"{number}/tcp"][0]["HostPort"]
        assert len(requests.get(f"http://127.0.0.1:{published}/api/activities/home", timeout=10).json()) == 3
        ask = "print(open('/proc/1/cmdline').read().replace('\\0', ' '), open('/proc/1/status').read())"
        first_process = docker("exec", container, "python", "-c", ask)
        assert "/opt/venv/bin/gunicorn" in first_process
        assert re.search(r"CapEff:\s0+\n", first_process)
        docker("stop", "--time", "30", container)
        assert inspect(container)["State"]["ExitCode"] == 0
        logs = docker("logs", container)
        assert f":{number} " in logs
        assert logs.count("Telemetry is not being sent") == logs.count("WARNING") == 1
        assert "Traceback" not in logs
    finally:
        docker("rm", "--force", container)


# Development.


@pytest.fixture(scope="module")
def dev(project: Path, images: str, honeycomb: Receiver, proxied: dict[str, str]) -> Iterator[Stack]:
    """`docker compose up --wait`, with a key in .env alone and a proxy between services where nothing answers."""
    with (project / ".env").open("a") as file:
        file.write(f"HONEYCOMB_API_ENDPOINT={from_inside(honeycomb)}\nWEB_CONCURRENCY=\nOTEL_BSP_SCHEDULE_DELAY=\n")
    with cleaned_up(Stack(project, images, **proxied)) as stack:
        stack.compose("up", "--wait", "--no-build")
        yield stack


@pytest.mark.docker
def test_the_first_request_is_a_trace_across_two_services_though_there_is_a_proxy(dev: Stack) -> None:
    containers = dev.containers()
    assert {container["State"]["Health"]["Status"] for container in containers} == {"healthy"}
    assert all("HTTP_PROXY=http://127.0.0.1:9" in container["Config"]["Env"] for container in containers)
    assert all(activity["profile"] for activity in dev.get().json())
    spans = dev.traced()
    assert {span["service.name"] for span in spans} == {"backend-flask", "profiles"}
    assert "home-activities-mock-data" in {span["name"] for span in spans}
    assert eventually(lambda: "home-activities-mock-data" in dev.compose("logs", "viewer"))  # the tree in the terminal


@pytest.mark.docker
def test_make_up_prints_the_addresses_last_and_ctrl_c_stops_everything(
    closed: Path, closed_images: str, tmp_path: Path
) -> None:
    with cleaned_up(Stack(closed, closed_images)) as stack:
        terminal = Running(["make", "up"], closed, tmp_path / "log", **stack.env)
        try:
            assert eventually(lambda: "Press Ctrl-C" in terminal.output(), 120), terminal.output()
            lines, _, ready = terminal.output().partition("Ready: ")
            assert lines.count("\n") < 15
            assert "development server" not in lines
            backend, profiles, viewer = (f"http://127.0.0.1:{port}" for port in stack.ports.values())
            assert f"backend {backend}/api/activities/home, profiles {profiles}, viewer {viewer}. Press" in ready
            assert stack.traced()
            assert eventually(lambda: "└─ home-activities-mock-data" in terminal.output()), terminal.output()
        finally:
            terminal.interrupt(30)
        assert {container["State"]["Status"] for container in stack.containers()} == {"exited"}
        assert "Traceback" not in terminal.output()


@pytest.mark.docker
def test_make_up_names_a_port_that_is_in_use_and_leaves_nothing_running(closed: Path, closed_images: str) -> None:
    with cleaned_up(Stack(closed, closed_images)) as stack, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        del stack.env["PROFILES_PORT"]
        (closed / ".env").write_text(f"PROFILES_PORT={port}\n")
        try:
            done = make(closed, "up", check=False, **stack.env)
        finally:
            (closed / ".env").unlink()
        command = f"make up PROFILES_PORT={port % 60000 + 1000}"
        assert [line for line in done.stderr.splitlines() if not line.startswith("make")] == [
            f"Port {port} cannot be used for profiles: Address already in use.",
            f"Another project may be running. Stop it, or use another port: {command}",
        ]
        assert "running" not in {container["State"]["Status"] for container in stack.containers()}


@pytest.mark.docker
def test_ports_are_published_only_on_this_machine(dev: Stack) -> None:
    ports = [container["NetworkSettings"]["Ports"] for container in dev.containers()]
    bindings = [binding for each in ports for bound in each.values() for binding in bound or []]
    assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}
    assert {each["HostPort"] for each in bindings} == set(dev.ports.values())


@pytest.mark.docker
def test_the_container_has_its_tools_and_the_user_owns_new_files(dev: Stack) -> None:
    assert dev.inside("id", "-u") == str(OWNER[0])
    assert dev.inside("id", "-un") == "dev"
    dev.inside(
        "sh", "-c", "mkdir made && echo x >made/file && touch ~/file && git status && git add --all --force made"
    )
    assert dev.inside("sh", "-c", f"for tool in {TOOLS}; do command -v $tool >/dev/null || echo $tool; done") == ""
    assert dev.inside("cat", "/proc/1/comm") == "tini"
    assert dev.inside("sudo", "id", "-u") == "0"
    assert " passed" in dev.inside("make", "test")
    assert f"http://127.0.0.1:{dev.ports['PORT']} for 0 s" in dev.inside("bin/traffic", "--seconds", "0")
    assert "Nothing to be done" in dev.inside("make", "install")
    made = [path for path in dev.folder.rglob("*") if (path.lstat().st_uid, path.lstat().st_gid) != OWNER]
    assert made == []


@pytest.mark.docker
def test_an_edit_on_the_host_takes_effect_without_a_restart(dev: Stack) -> None:
    file = dev.folder / "example" / "activities.py"
    before = file.read_text()
    started = [container["State"]["StartedAt"] for container in dev.containers()]
    assert "prune juice" in dev.text()
    file.write_text(before.replace("prune juice", "raktajino"))
    try:
        assert eventually(lambda: "raktajino" in dev.text(), 60)
        file.write_text("this is no Python\n")
        assert eventually(lambda: "Internal Server Error" in dev.text(), 60)
    finally:
        file.write_text(before)
    assert eventually(lambda: "prune juice" in dev.text(), 60)
    assert [container["State"]["StartedAt"] for container in dev.containers()] == started


@pytest.mark.docker
def test_the_key_in_the_mount_is_used_replaced_and_never_shown(dev: Stack, honeycomb: Receiver) -> None:
    dev.get()
    assert eventually(lambda: keys_of(honeycomb) == {KEY}), keys_of(honeycomb)
    change = f"echo {OTHER_KEY[:20]}$0 | python bin/honeycomb key set && python bin/honeycomb key status"
    texts = [dev.inside("sh", "-c", change, OTHER_KEY[20:])]
    assert eventually(lambda: dev.responds() and OTHER_KEY in keys_of(honeycomb))
    assert (dev.folder / ".env").stat().st_mode & 0o777 == 0o600
    texts += [body.decode("latin-1") for _, _, body in honeycomb.requests]
    assert [text for text in [*texts, *dev.everything()] if MARK in text] == []
    assert dev.inside("git", "status", "--short", "--ignored", ".env").startswith("!!")


@pytest.mark.docker
@pytest.mark.parametrize(
    ("owner", "mode", "user"), [(0, 0o700, "0"), (0, 0o777, "1000"), (1000, 0o700, "1000"), (1234, 0o700, "1234")]
)
def test_a_private_folder_of_any_owner_works_until_ctrl_c(
    closed: Path, closed_images: str, tmp_path: Path, owner: int, mode: int, user: str
) -> None:
    """Docker Desktop shows a folder as root's and open to everybody: there, files are made as dev."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files to others")
    own(closed, (owner, owner))
    run("chmod", "--recursive", "go=" if mode == 0o700 else "go=rwX", str(closed))
    with cleaned_up(Stack(closed, closed_images)) as stack:
        terminal = Running(["docker", "compose", "up", "--no-build"], closed, tmp_path / "log", **stack.env)
        try:
            assert eventually(lambda: "healthy" in stack.compose("ps", "backend", check=False), 60), terminal.output()
            assert stack.inside("id", "-u") == user
            assert stack.traced(), terminal.output()
        finally:
            terminal.stop(signal.SIGINT, wait=30)
        assert {container["State"]["ExitCode"] for container in stack.containers()} == {0}


@pytest.mark.docker
def test_a_clone_and_its_worktree_run_side_by_side(closed: Path, closed_images: str) -> None:
    """Under the names that Compose gives them."""
    worktree = closed.with_name(closed.name.replace("clone", "worktree"))
    own(worktree)
    own(closed)
    with cleaned_up(Stack(closed)) as first, cleaned_up(Stack(worktree)) as second:
        for stack in (first, second):
            stack.compose("up", "--build", "--wait")
        assert (first.get().status_code, second.get().status_code) == (200, 200)
        second.compose("down")
        docker("image", "rm", f"{worktree.name}-dev")
        assert first.get().status_code == 200
        assert len(first.containers()) == 3


# Production on one host.


@pytest.fixture
def prod(project: Path, images: str, honeycomb: Receiver, proxied: dict[str, str]) -> Iterator[Callable[..., Stack]]:
    """`docker compose -f compose.prod.yaml up --wait` with the given variables, and without .env's."""
    honeycomb.requests.clear()
    env = {"HONEYCOMB_API_ENDPOINT": from_inside(honeycomb), "COMPOSE_ENV_FILES": os.devnull, **proxied}
    with contextlib.ExitStack() as exits:

        def prod(**more: str) -> Stack:
            stack = exits.enter_context(
                cleaned_up(Stack(project, f"{images}-prod", "compose.prod.yaml", **{**env, **more}))
            )
            stack.compose("up", "--wait", "--no-build")
            return stack

        yield prod


@pytest.mark.docker
def test_production_is_hardened_and_loses_nothing_on_stop(prod: Callable[..., Stack], honeycomb: Receiver) -> None:
    stack = prod(HONEYCOMB_API_KEY=KEY, WEB_CONCURRENCY="")
    for container in stack.containers():
        config, host = container["Config"], container["HostConfig"]
        assert (config["User"], config["StopTimeout"]) == ("10001:10001", 15)
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert (host["Memory"], host["PidsLimit"]) == (512 << 20, 128)
        assert (host["LogConfig"]["Type"], host["LogConfig"]["Config"]["max-size"]) == ("json-file", "10m")
        assert container["State"]["Health"]["Status"] == "healthy"
        published = [binding for bindings in host["PortBindings"].values() for binding in bindings]
        assert {binding["HostIp"] for binding in published} <= {"127.0.0.1"}
    for _ in range(50):
        assert all(activity["profile"] for activity in stack.get().json())
    stack.compose("stop")
    assert {container["State"]["ExitCode"] for container in stack.containers()} == {0}
    traces = honeycomb.traces().values()
    assert sorted(map(len, traces)) == [5] * 50
    assert all({span["service"] for span in spans} == {"backend-flask", "profiles"} for spans in traces)
    assert keys_of(honeycomb) == {KEY}
    assert MARK not in stack.compose("logs", "--no-color")


@pytest.mark.docker
def test_production_reads_the_key_from_a_file_and_picks_up_a_new_one(
    prod: Callable[..., Stack], honeycomb: Receiver, open_folder: Path
) -> None:
    """As compose.prod.yaml says: a folder of mode 700, a file of mode 644 that its owner writes into again."""
    file = open_folder / "secrets" / "honeycomb"
    file.parent.mkdir(mode=0o700)
    file.write_text(f"{KEY}\n")
    file.chmod(0o644)
    own(file.parent)
    stack = prod(HONEYCOMB_API_KEY_FILE=str(file))
    assert eventually(lambda: stack.responds() and keys_of(honeycomb) == {KEY})
    write = ["sh", "-c", 'cat >"$0"', str(file)]
    as_owner = [f"--reuid={OWNER[0]}", f"--regid={OWNER[1]}", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run(["setpriv", *as_owner, *write], input=f"{OTHER_KEY}\n", text=True, check=True)
    assert eventually(lambda: stack.responds() and OTHER_KEY in keys_of(honeycomb))
    texts = [body.decode("latin-1") for _, _, body in honeycomb.requests]
    assert [text for text in [*texts, *stack.everything()] if MARK in text] == []


@pytest.mark.docker
def test_a_key_that_docker_would_show_gives_a_warning(project: Path, tmp_path: Path) -> None:
    """With a `docker` that starts nothing."""
    real = shutil.which("docker")
    if real is None:
        pytest.skip("docker is not installed")
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\ncase " $* " in *" up "*|*" ls "*) exit;; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    env: dict[str, Any] = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "COMPOSE_ENV_FILES": os.devnull}
    for more in ("HONEYCOMB_API_KEY", "HONEYCOMB_API_KEY_FILE", "SAMPLE_RATE"):
        done = make(project, "prod-up", **{**env, more: KEY})
        assert ("`docker inspect` will show HONEYCOMB_API_KEY." in done.stderr) is (more == "HONEYCOMB_API_KEY")
        assert MARK not in done.stderr + done.stdout


@pytest.mark.docker
def test_production_without_a_key_works(prod: Callable[..., Stack]) -> None:
    stack = prod()
    assert all(activity["profile"] for activity in stack.get().json())
    for service in ("backend", "profiles"):
        logs = stack.compose("logs", "--no-color", service)
        assert logs.count("Telemetry is not being sent") == logs.count("WARNING") == 1
