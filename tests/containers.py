"""Docker for tests: its commands, the engine, and how containers and this machine reach each other."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import LEFTOVERS, ROOT, environment, free_ports
from receiver import Receiver, eventually, receiving

KEY = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
OTHER_KEY = "hcaik_01marked00key0of0a0rotation00000000000000000000000000000000"[:64]
MARK = "01marked00key"  # in both
OWNER = (1234, 1235) if os.geteuid() == 0 else (os.geteuid(), os.getegid())  # not dev's own 1000


def run(*command: str, cwd: Path | None = None, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run to the end. A failure shows what it printed."""
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


def missing(reason: str) -> None:
    """Skip. In CI that would hide that nothing was tested, so there it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> None:
    if not shutil.which("docker"):
        missing("docker is not installed")
    for question in (["info"], ["compose", "version"], ["buildx", "version"]):
        done = run("docker", *question, check=False)
        if done.returncode:
            missing(f"docker {' '.join(question)} answers: {done.stdout.strip().splitlines()[-1]}")


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


@pytest.fixture(scope="module")
def honeycomb(host_address: str) -> Iterator[Receiver]:
    """A receiver in Honeycomb's place, which containers can reach."""
    with receiving(host=host_address) as receiver:
        yield receiver


def from_inside(receiver: Receiver) -> str:
    return f"http://host.docker.internal:{receiver.url.rpartition(':')[2]}"


def keys_of(receiver: Receiver) -> set[str | None]:
    return {headers.get("x-honeycomb-team") for _, headers, _ in receiver.requests}


def own(folder: Path, owner: tuple[int, int] = OWNER) -> None:
    """Give a folder and what is in it to another user."""
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, *owner, follow_symlinks=False)


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder of OWNER with a blank in its name. Only root can enter those that pytest makes."""
    folder = Path(tempfile.mkdtemp(prefix="opened "))
    folder.chmod(0o755)
    own(folder)
    yield folder
    shutil.rmtree(folder)


def clone_of_template(folder: Path) -> Path:
    """The template as it is here, without what is not part of it, readable for its owner alone."""
    shutil.copytree(ROOT, folder, ignore=lambda path, names: {*LEFTOVERS(path, names), "demo", "site", ".git", ".lock"})
    run("chmod", "--recursive", "go=", str(folder))
    return folder


class Services:
    """The services of a project on ports of their own."""

    def __init__(self) -> None:
        self.ports = dict(zip(("PORT", "PROFILES_PORT", "VIEWER_PORT"), map(str, free_ports(3)), strict=True))
        self.viewer = f"http://127.0.0.1:{self.ports['VIEWER_PORT']}"

    def get(self, path: str = "/api/activities/home") -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.ports['PORT']}{path}", timeout=10)

    def responds(self) -> bool:
        """Whether a request is answered; not while the services reload."""
        try:
            return self.get().ok
        except requests.ConnectionError:
            return False

    def traced(self) -> list[dict[str, Any]]:
        """The spans of a new request, once the viewer has all five."""
        trace_id = self.get().headers["traceresponse"].split("-")[1]

        def spans() -> list[dict[str, Any]]:
            answer = requests.get(f"{self.viewer}/api/traces/{trace_id}", timeout=5)
            found: list[dict[str, Any]] = answer.json().get("spans", []) if answer.ok else []
            return found if len(found) >= 5 else []

        found: list[dict[str, Any]] = eventually(spans)
        return found
