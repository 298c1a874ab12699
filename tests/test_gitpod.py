"""Both levels, opened as a Gitpod Classic workspace is: by their own .gitpod.yml, with stand-ins for the platform."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from conftest import LEFTOVERS, ROOT, environment, free_ports
from platforms import stand_in
from receiver import Receiver, eventually, receiving
from test_docker import docker, engine, host_address, run  # noqa: F401

KEY = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
QUICK = 25  # seconds to open what is built already


@dataclass
class Workspace:
    """A checkout, its Compose project, and what opening it said."""

    checkout: Path
    project: Path  # the rendered one in it
    name: str
    honeycomb: Receiver
    store: Path
    logs: Path

    def __post_init__(self) -> None:
        self.port, profiles_port, self.viewer_port = free_ports(3)
        endpoint = f"http://host.docker.internal:{self.honeycomb.url.rpartition(':')[2]}"
        lines = [f"HONEYCOMB_API_ENDPOINT={endpoint}", f"PORT={self.port}"]
        lines += [f"PROFILES_PORT={profiles_port}", f"VIEWER_PORT={self.viewer_port}"]
        self.project.mkdir(exist_ok=True)
        self.dotenv = self.project / ".env"
        self.dotenv.write_text("\n".join([*lines, ""]))
        self.env = {"COMPOSE_PROJECT_NAME": self.name, "GP_STAND_IN_STORE": str(self.store)}

    def open(self, start: str, *arguments: str, seconds: int = 300) -> dict[str, Any]:
        """Open it until the backend answers; with `prebuild`, until that has ended."""
        until = ["--until", f"curl -fs http://127.0.0.1:{self.port}/api/health"] if start != "prebuild" else []
        self.logs.mkdir(exist_ok=True)
        command = [sys.executable, str(stand_in("gitpod/open-workspace")), str(self.checkout), "--start", start]
        command += ["--seconds", str(seconds), "--logs", str(self.logs), *until, *arguments]
        env = environment(**self.env)
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        report: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        assert done.returncode == 0, f"{done.stderr}\n{done.stdout}\n{self.said()[-4000:]}"
        report["tasks"] = {task["name"]: task for task in report["tasks"]}
        print(f"{start}: {report['seconds']} s")
        return report

    def said(self) -> str:
        """What the terminals showed."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.logs.iterdir()))

    def trace(self) -> str:
        """The id of a new trace, once the viewer has five spans of it."""
        answer = requests.get(f"http://127.0.0.1:{self.port}/api/activities/home", timeout=10)
        trace_id: str = answer.headers["traceresponse"].split("-")[1]
        url = f"http://127.0.0.1:{self.viewer_port}/api/traces/{trace_id}"
        assert eventually(lambda: len(requests.get(url, timeout=5).json().get("spans", [])) == 5)
        return trace_id

    def at_honeycomb(self, trace_id: str) -> bool:
        return len(self.honeycomb.traces().get(trace_id, [])) == 5

    def close(self) -> None:
        run("docker", "compose", "stop", "--timeout", "3", cwd=self.project, **self.env)

    def remove(self) -> None:
        run("docker", "compose", "down", "--timeout", "3", cwd=self.project, check=False, **self.env)


@pytest.fixture(scope="module")
def name() -> str:
    return f"gitpod-{uuid.uuid4().hex[:8]}"


Clone = Callable[[], Workspace]


@pytest.fixture(scope="module", params=["project", "template"])
def clone(
    request: pytest.FixtureRequest,
    render_into: Callable[..., Path],
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Clone]:
    """Clone either level into a new workspace of the same user."""
    stand_in("gitpod/open-workspace")
    request.getfixturevalue("engine")
    places: list[Workspace] = []

    def clone() -> Workspace:
        place = tmp_path_factory.mktemp("a workspace")
        if request.param == "project":
            checkout = project = render_into(place)
        else:
            checkout = place / "template"
            leftovers: Callable[[Any, list[str]], set[str]] = lambda path, names: {  # noqa: E731
                *LEFTOVERS(path, names),
                *("demo", ".git", ".lock"),
            }
            shutil.copytree(ROOT, checkout, ignore=leftovers)
            project = checkout / "demo"
        places.append(Workspace(checkout, project, name, honeycomb, store, place / "logs"))
        return places[-1]

    store = tmp_path_factory.mktemp("user") / "gp.json"
    with receiving(host=request.getfixturevalue("host_address")) as honeycomb:
        try:
            yield clone
        finally:
            for workspace in places:
                workspace.remove()
            docker("image", "rm", "--force", f"{name}-dev", check=False)


@pytest.mark.parametrize("local_viewer", ["built-in", "jaeger"])
def test_the_configurations_are_valid_and_every_port_is_private(render: Callable[..., Path], local_viewer: str) -> None:
    schema = stand_in("schemas/gitpod-schema.json")
    for folder in (render(local_viewer=local_viewer), ROOT):
        file = folder / ".gitpod.yml"
        run(sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(file))
        ports = yaml.safe_load(file.read_text())["ports"]
        assert all(port["name"] and port["description"] and port["visibility"] == "private" for port in ports)
        viewer = {port["port"]: port["onOpen"] for port in ports}
        pages = 16686 if folder != ROOT and local_viewer == "jaeger" else 4318
        assert [number for number, does in viewer.items() if does == "open-preview"] == [pages]


@pytest.fixture(scope="module")
def prebuilt(clone: Clone) -> Workspace:
    """A workspace after its prebuild, in which there is no key."""
    workspace = clone()
    report = workspace.open("prebuild")
    assert {task["exit"] for task in report["tasks"].values()} == {0}
    assert docker("image", "inspect", f"{workspace.name}-dev")
    return workspace


@pytest.mark.docker
def test_without_a_key_it_opens_as_fast_and_the_traces_are_in_the_viewer(prebuilt: Workspace) -> None:
    report = prebuilt.open("from-prebuild", seconds=120)
    assert report["seconds"] < QUICK
    assert report["tasks"]["Services"]["running"]
    prebuilt.trace()
    assert prebuilt.honeycomb.requests == []
    assert "There is no Honeycomb API key yet" in prebuilt.said()
    assert "Enter skips" in prebuilt.said()  # in a terminal of its own
    url = f"http://127.0.0.1:{prebuilt.viewer_port}/api/health"
    for host, status in (("4318-stand-in.ws.gitpod.example", 200), ("4318-other.ws.gitpod.example", 403)):
        assert requests.get(url, headers={"Host": host}, timeout=5).status_code == status
    prebuilt.close()


@pytest.mark.docker
def test_with_a_key_that_is_kept_its_spans_go_to_honeycomb_after_a_restart(prebuilt: Workspace) -> None:
    report = prebuilt.open("restart", "--set", f"HONEYCOMB_API_KEY={KEY}", seconds=120)
    assert report["seconds"] < QUICK
    trace_id = prebuilt.trace()
    assert eventually(lambda: prebuilt.at_honeycomb(trace_id), 5)
    assert {headers["x-honeycomb-team"] for _, headers, _ in prebuilt.honeycomb.requests} == {KEY}
    assert report["tasks"]["Honeycomb key"]["exit"] == 0
    assert "Enter skips" not in prebuilt.said()
    assert (
        "01marked00key"
        not in prebuilt.said() + run("docker", "compose", "logs", cwd=prebuilt.project, **prebuilt.env).stdout
    )
    assert prebuilt.dotenv.stat().st_mode & 0o777 == 0o600
    prebuilt.remove()


@pytest.mark.docker
def test_a_second_workspace_of_the_same_user_has_the_key(prebuilt: Workspace, clone: Clone) -> None:
    second = clone()
    assert "HONEYCOMB_API_KEY" not in second.dotenv.read_text()
    report = second.open("fresh")
    trace_id = second.trace()
    assert eventually(lambda: second.at_honeycomb(trace_id), 5)
    assert "Enter skips" not in second.said()
    assert report["tasks"]["Honeycomb key"]["exit"] == 0
    assert "01marked00key" not in second.said()
