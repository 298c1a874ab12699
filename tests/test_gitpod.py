# ruff: noqa: F811  a fixture that is imported has the name of the parameter that asks for it
"""Both levels, opened as a Gitpod Classic workspace is: by their own .gitpod.yml, with stand-ins for the platform."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from conftest import ROOT, environment
from containers import (  # noqa: F401  fixtures
    KEY,
    MARK,
    Services,
    clone_of_template,
    docker,
    engine,
    from_inside,
    honeycomb,
    host_address,
    keys_of,
    run,
)
from platforms import stand_in
from receiver import Receiver, eventually


class Workspace(Services):
    """A checkout with the rendered project in it, its Compose project, and what opening it printed."""

    def __init__(self, checkout: Path, project: Path, name: str, receiver: Receiver, store: Path, logs: Path) -> None:
        super().__init__()
        self.checkout, self.project, self.name, self.honeycomb, self.logs = checkout, project, name, receiver, logs
        self.env: dict[str, Any] = {"COMPOSE_PROJECT_NAME": name, "GP_STAND_IN_STORE": str(store)}
        settings = {"HONEYCOMB_API_ENDPOINT": from_inside(receiver), **self.ports}
        project.mkdir(exist_ok=True)
        self.dotenv = project / ".env"
        self.dotenv.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def open(self, start: str, *arguments: str) -> dict[str, Any]:
        """Open it until the backend answers; with `prebuild`, until that has ended."""
        until = ["--until", f"curl -fs http://127.0.0.1:{self.ports['PORT']}/api/health"] if start != "prebuild" else []
        self.logs.mkdir(exist_ok=True)
        command = [sys.executable, str(stand_in("gitpod/open-workspace")), str(self.checkout), "--start", start]
        command += ["--seconds", "600", "--logs", str(self.logs), *until, *arguments]
        done = subprocess.run(command, env=environment(**self.env), capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr}\n{done.stdout}\n{self.output()[-4000:]}"
        report: dict[str, Any] = json.loads(done.stdout)
        return {task["name"]: task for task in report["tasks"]}

    def output(self) -> str:
        """What the terminals showed."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.logs.iterdir()))

    def close(self, how: str = "stop") -> str:
        """End it, and answer what its services logged."""
        logs = run("docker", "compose", "logs", cwd=self.project, check=False, **self.env).stdout
        run("docker", "compose", how, "--timeout", "3", cwd=self.project, check=False, **self.env)
        return logs


Clone = Callable[[], Workspace]


@pytest.fixture(scope="module", params=["project", "template"])
def clone(
    request: pytest.FixtureRequest,
    render_into: Callable[..., Path],
    honeycomb: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Clone]:
    """Clone either level into a new workspace of the same user."""
    store, name = tmp_path_factory.mktemp("user") / "gp.json", f"gitpod-{uuid.uuid4().hex[:8]}"
    honeycomb.requests.clear()
    workspaces: list[Workspace] = []

    def clone() -> Workspace:
        place = tmp_path_factory.mktemp("a workspace")
        is_project = request.param == "project"
        checkout = render_into(place) if is_project else clone_of_template(place / "template")
        project = checkout if is_project else checkout / "demo"
        workspaces.append(Workspace(checkout, project, name, honeycomb, store, place / "logs"))
        return workspaces[-1]

    try:
        yield clone
    finally:
        for workspace in workspaces:
            workspace.close("down")
        docker("image", "rm", "--force", f"{name}-dev", check=False)


@pytest.mark.parametrize("local_viewer", ["otlp-viewer", "jaeger", None])
def test_the_configurations_are_valid_and_every_port_is_private(
    render: Callable[..., Path], local_viewer: str | None
) -> None:
    file = (render(local_viewer=local_viewer) if local_viewer else ROOT) / ".gitpod.yml"
    schema = str(stand_in("schemas/gitpod-schema.json"))
    run(sys.executable, "-m", "check_jsonschema", "--schemafile", schema, str(file))
    ports = yaml.safe_load(file.read_text())["ports"]
    assert all(port["name"] and port["description"] and port["visibility"] == "private" for port in ports)
    previewed = [port["port"] for port in ports if port["onOpen"] == "open-preview"]
    assert previewed == [16686 if local_viewer == "jaeger" else 4318]


@pytest.fixture(scope="module")
def prebuilt(clone: Clone) -> Workspace:
    """A workspace after its prebuild, in which there is no key."""
    workspace = clone()
    tasks = workspace.open("prebuild")
    assert {task["exit"] for task in tasks.values()} == {0}
    return workspace


@pytest.mark.docker
def test_without_a_key_it_opens_from_its_prebuild_and_the_traces_are_in_the_viewer(prebuilt: Workspace) -> None:
    assert docker("image", "inspect", f"{prebuilt.name}-dev")  # before it is opened
    tasks = prebuilt.open("from-prebuild")
    assert tasks["Services"]["running"]
    assert tasks["Honeycomb key"]["running"]  # asks, in a terminal of its own
    assert prebuilt.traced()
    assert prebuilt.honeycomb.requests == []
    assert "No Honeycomb API key yet" in prebuilt.output()
    assert (prebuilt.logs / "1-Honeycomb-key.log").read_text().startswith("Honeycomb API key, from ")
    for host, status in (("4318-stand-in.ws.gitpod.example", 200), ("4318-other.ws.gitpod.example", 403)):
        assert requests.get(f"{prebuilt.viewer}/api/health", headers={"Host": host}, timeout=5).status_code == status
    prebuilt.close()


@pytest.mark.docker
def test_with_a_stored_key_a_restarted_workspace_and_a_new_one_send_to_honeycomb(
    prebuilt: Workspace, clone: Clone
) -> None:
    tasks = prebuilt.open("restart", "--set", f"HONEYCOMB_API_KEY={KEY}")
    assert eventually(lambda: prebuilt.responds() and keys_of(prebuilt.honeycomb) == {KEY})
    assert tasks["Honeycomb key"]["exit"] == 0
    assert prebuilt.dotenv.stat().st_mode & 0o777 == 0o600
    assert MARK not in prebuilt.close("down") + prebuilt.output()

    second = clone()
    second.honeycomb.requests.clear()
    tasks = second.open("fresh")
    assert eventually(lambda: second.responds() and keys_of(second.honeycomb) == {KEY})
    assert tasks["Honeycomb key"]["exit"] == 0
    assert MARK not in second.close("down") + second.output()
    assert not any(MARK.encode() in body for _, _, body in second.honeycomb.requests)
