"""compose.collector.yaml: the production services with the real Collector in front of Honeycomb's stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from conftest import ROOT, environment, free_ports
from receiver import eventually, receiving

BUILDER = ROOT.parent / "shared/collector/collector"
KEY = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
FILES = ("--file=compose.prod.yaml", "--file=compose.collector.yaml")


def run(*command: str, cwd: Path | None = None, check: bool = True, **env: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment(**env))
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture
def collector_image() -> Iterator[str]:
    """The image of a Collector. COLLECTOR_IMAGE names one that can be pulled."""
    if not shutil.which("docker") or not run("docker", "info", "--format={{.ServerVersion}}", check=False):
        if os.environ.get("CI"):
            pytest.fail("there is no Docker engine")
        pytest.skip("there is no Docker engine")
    if named := os.environ.get("COLLECTOR_IMAGE"):
        yield named
        return
    if not BUILDER.exists():
        pytest.skip("name an image of the Collector in COLLECTOR_IMAGE")
    name = f"local/collector:{uuid.uuid4().hex[:8]}"
    run(str(BUILDER), "--image", name)
    yield name
    run("docker", "image", "rm", "--force", name, check=False)


@pytest.mark.docker
def test_traces_go_through_the_collector_which_alone_has_the_key_and_survives_a_restart(
    collector_image: str, render: Callable[..., Path]
) -> None:
    project = render(deployment="Kubernetes too")
    (port, other) = free_ports(2)
    bridge = json.loads(run("docker", "network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"]
    with receiving(host=bridge) as receiver:
        env = {
            "COLLECTOR_IMAGE": collector_image,
            "COLLECTOR_KEEP_PERCENT": "50",
            "COMPOSE_PROJECT_NAME": f"shop{uuid.uuid4().hex[:8]}",
            "HONEYCOMB_API_ENDPOINT": f"http://host.docker.internal:{receiver.url.rpartition(':')[2]}",
            "HONEYCOMB_API_KEY": KEY,
            "PORT": str(port),
            "PROFILES_PORT": str(other),
        }
        compose = ("docker", "compose", *FILES)
        try:
            run(*compose, "up", "--build", "--detach", "--wait", cwd=project, **env)
            traces = ask(port, 100)
            run(*compose, "restart", "collector", cwd=project, **env)
            traces |= ask(port, 100)
            assert eventually(lambda: len(receiver.traces()) > 60, 60), run(*compose, "logs", cwd=project, **env)
            for service, wanted in {"backend": "", "profiles": "", "collector": KEY}.items():
                container = run(*compose, "ps", "--quiet", service, cwd=project, **env)
                variables = json.loads(run("docker", "inspect", container))[0]["Config"]["Env"]
                assert f"HONEYCOMB_API_KEY={wanted}" in variables
            assert KEY not in run(*compose, "logs", cwd=project, **env)
        finally:
            run(*compose, "down", "--volumes", "--timeout=5", cwd=project, check=False, **env)
            run("docker", "image", "rm", "--force", env["COMPOSE_PROJECT_NAME"], check=False)
    assert set(receiver.traces()) <= traces
    assert {span["SampleRate"] for span in receiver.spans() if "SampleRate" in span} == {2}
    assert {headers["x-honeycomb-team"] for _, headers, _ in receiver.requests} == {KEY}


def ask(port: int, count: int) -> set[str]:
    """The traces of some requests."""
    url = f"http://127.0.0.1:{port}/api/activities/home"
    return {requests.get(url, timeout=20).headers["traceresponse"].split("-")[1] for _ in range(count)}
