# ruff: noqa: F811  a fixture that is imported has the name of the parameter that asks for it
"""The production Compose file on a real Swarm of one node: it is taken, becomes healthy, and is updated."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PROJECT, ROOT, environment, free_ports
from containers import KEY, docker, engine  # noqa: F401
from receiver import eventually


@pytest.fixture
def swarm(engine: None) -> Iterator[None]:
    """A Swarm; one that was made here is left at the end."""
    state = docker("info", "--format={{.Swarm.LocalNodeState}}")
    if state == "active":
        yield
        return
    docker("swarm", "init", "--advertise-addr=127.0.0.1")
    try:
        yield
    finally:
        docker("swarm", "leave", "--force")


def up(stack: str) -> bool:
    replicas = docker("stack", "services", stack, "--format={{.Replicas}}").split()
    return bool(replicas) and all(each == "2/2" for each in replicas)


def test_without_an_image_the_script_says_how_it_is_used() -> None:
    script = ROOT / PROJECT / "deploy" / "swarm.py"
    done = subprocess.run([sys.executable, script], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("Usage: docker compose --file compose.prod.yaml config --format json | ")


@pytest.mark.docker
@pytest.mark.usefixtures("swarm")
def test_the_production_services_run_on_swarm_and_are_updated_one_replica_after_another(
    render: Callable[..., Path], tmp_path: Path
) -> None:
    project = render(deployment="Kubernetes too")
    key = tmp_path / "key"
    key.write_text(KEY)
    name = f"shop{uuid.uuid4().hex[:8]}"
    (port,) = free_ports(1)
    env = environment(COMPOSE_PROJECT_NAME=name, HONEYCOMB_API_KEY_FILE=str(key), PORT=str(port))
    compose = ["docker", "compose", "--file=compose.prod.yaml"]
    subprocess.run([*compose, "build", "--quiet"], cwd=project, env=env, check=True, capture_output=True)
    resolved = subprocess.run(
        [*compose, "config", "--format=json"], cwd=project, env=env, check=True, capture_output=True
    ).stdout
    stack = project / "stack.json"
    with stack.open("wb") as file:
        subprocess.run(["python3", "deploy/swarm.py", name], cwd=project, input=resolved, stdout=file, check=True)
    assert KEY not in stack.read_text()
    services = json.loads(stack.read_text())["services"]
    assert services["backend"]["environment"]["HONEYCOMB_API_KEY_FILE"] == "/run/secrets/honeycomb_api_key"
    try:
        docker("stack", "deploy", "--detach=true", "--resolve-image=never", f"--compose-file={stack}", name)
        assert eventually(lambda: up(name), 180), docker("stack", "ps", "--no-trunc", name)
        before = set(docker("ps", "--quiet", f"--filter=name={name}_backend").split())
        docker("service", "update", "--force", "--detach=false", "--quiet", f"{name}_backend")
        assert eventually(lambda: up(name), 180)
        assert not before & set(docker("ps", "--quiet", f"--filter=name={name}_backend").split())
    finally:
        docker("stack", "rm", name, check=False)
        eventually(lambda: not docker("ps", "--quiet", "--all", f"--filter=name={name}_"), 60)
        eventually(lambda: not docker("network", "ls", "--quiet", f"--filter=name={name}_"), 30)
        docker("image", "rm", "--force", name, check=False)
