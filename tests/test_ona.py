"""What Ona runs: each file has the form that Ona documents, and its commands do what their names say.

Ona publishes its schema on its site alone. AUTOMATIONS is what it says of the parts in use.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import ROOT

TRIGGERS = {
    "type": "array",
    "items": {"enum": ["postEnvironmentStart", "postDevcontainerStart", "prebuild", "manual"]},
    "uniqueItems": True,
}
KEYS = {"pattern": "^[a-zA-Z0-9_-]{1,128}$"}
ABOUT: dict[str, Any] = {
    "name": {"type": "string", "minLength": 1, "maxLength": 80},
    "description": {"type": "string", "maxLength": 1000},
    "triggeredBy": TRIGGERS,
}
AUTOMATIONS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services", "tasks"],
    "properties": {
        "services": {
            "propertyNames": KEYS,
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "commands"],
                "properties": {
                    **ABOUT,
                    "commands": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["start", "ready", "stop"],
                        "properties": {name: {"type": "string"} for name in ("start", "ready", "stop")},
                    },
                },
            },
        },
        "tasks": {
            "propertyNames": KEYS,
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "command"],
                "properties": {**ABOUT, "command": {"type": "string"}},
            },
        },
    },
}


@pytest.fixture(params=["template", "project", "project with Jaeger"])
def automations(request: pytest.FixtureRequest, render: Callable[..., Path]) -> dict[str, Any]:
    folder = ROOT
    if request.param != "template":
        folder = render(local_viewer="jaeger" if "Jaeger" in request.param else "otlp-viewer")
    read: dict[str, Any] = yaml.safe_load((folder / ".ona/automations.yaml").read_text("utf-8"))
    return read


@contextmanager
def answering() -> Iterator[str]:
    """A server that answers every request with 200."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_file_has_the_documented_ona_format(automations: dict[str, Any]) -> None:
    jsonschema.validate(automations, AUTOMATIONS)


def test_nothing_that_needs_a_secret_runs_in_a_prebuild(automations: dict[str, Any]) -> None:
    assert "prebuild" not in automations["tasks"]["honeycomb-key"]["triggeredBy"]


def test_a_service_waits_until_it_is_ready_and_can_be_stopped(automations: dict[str, Any], tmp_path: Path) -> None:
    for service in automations["services"].values():
        address = service["commands"]["ready"].split()[-1].rpartition("/api")[0] or "http://viewer:16686"
        with answering() as url:

            def command(name: str, service: Any = service, address: str = address, url: str = url) -> list[str]:
                text = service["commands"][name].replace(address.rstrip("/"), url)
                return ["bash", "-c", text.replace("/tmp/", f"{tmp_path}/")]  # noqa: S108  as in the file

            assert subprocess.run(command("ready"), check=False).returncode == 0
            started = subprocess.Popen(command("start"), stdout=subprocess.DEVNULL)
            try:
                time.sleep(1)
                assert started.poll() is None
                assert subprocess.run(command("stop"), check=False).returncode == 0
                started.wait(10)
            finally:
                started.kill()
        assert subprocess.run(command("ready"), check=False).returncode != 0
