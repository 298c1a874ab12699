# ruff: noqa: F811  a fixture that is imported has the name of the parameter that asks for it
"""compose.collector.yaml: the production services with the real Collector in front of Honeycomb's stand-in."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from collectors import collector_image  # noqa: F401
from conftest import free_ports
from containers import (  # noqa: F401  fixtures
    KEY,
    docker,
    engine,
    from_inside,
    honeycomb,
    host_address,
    inspect,
    keys_of,
)
from receiver import Receiver, eventually


def ask(port: str, count: int) -> set[str]:
    """The traces of some requests."""
    url = f"http://127.0.0.1:{port}/api/activities/home"
    return {requests.get(url, timeout=20).headers["traceresponse"].split("-")[1] for _ in range(count)}


@pytest.mark.docker
@pytest.mark.parametrize("variable", ["HONEYCOMB_API_KEY", "HONEYCOMB_API_KEY_FILE"])
def test_traces_go_through_the_collector_the_only_holder_of_the_key_across_a_restart(
    collector_image: str, honeycomb: Receiver, render: Callable[..., Path], tmp_path: Path, variable: str
) -> None:
    project = render(deployment="Kubernetes too")
    honeycomb.requests.clear()
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    port, profiles = map(str, free_ports(2))
    env = {
        "COLLECTOR_IMAGE": collector_image,
        "COLLECTOR_KEEP_PERCENT": "50",
        "COMPOSE_PROJECT_NAME": f"shop{uuid.uuid4().hex[:8]}",
        "HONEYCOMB_API_ENDPOINT": from_inside(honeycomb),
        variable: str(file) if variable.endswith("_FILE") else KEY,
        "PORT": port,
        "PROFILES_PORT": profiles,
    }

    def compose(*arguments: str, check: bool = True) -> str:
        files = ("--file=compose.prod.yaml", "--file=compose.collector.yaml")
        return docker("compose", *files, *arguments, cwd=project, check=check, **env)

    try:
        compose("up", "--build", "--detach", "--wait")
        traces = ask(port, 100)
        compose("restart", "collector")
        traces |= ask(port, 100)
        assert eventually(lambda: len(honeycomb.traces()) > 60, 60), compose("logs")
        for service in ("backend", "profiles", "collector"):
            env_of_service = inspect(compose("ps", "--quiet", service))["Config"]["Env"]
            has_key = service == "collector" and variable == "HONEYCOMB_API_KEY"
            assert (f"HONEYCOMB_API_KEY={KEY}" in env_of_service) is has_key
        assert KEY not in compose("logs")
    finally:
        compose("down", "--volumes", "--timeout=5", check=False)
        docker("image", "rm", "--force", env["COMPOSE_PROJECT_NAME"], check=False)
    assert set(honeycomb.traces()) <= traces
    assert {span["SampleRate"] for span in honeycomb.spans() if "SampleRate" in span} == {2}
    assert keys_of(honeycomb) == {KEY}
