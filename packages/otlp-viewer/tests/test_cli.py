"""The command: its settings, what it prints, and how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from export import export, json_span

# Running it


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_viewer(**settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "otlp_viewer"],
        env={**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture
def running_viewer() -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    with start_viewer(VIEWER_PORT=str(port)) as process:
        # A line that never comes must fail the test, not hang it.
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        yield process, port
        watchdog.cancel()
        process.kill()


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "4318 x"])
def test_a_bad_port_is_one_clear_line(port: str) -> None:
    process = start_viewer(VIEWER_PORT=port)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert f"VIEWER_PORT is '{port}'" in err


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start_viewer(VIEWER_PORT=str(taken.getsockname()[1]))
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert "cannot listen on 127.0.0.1" in err
    assert "VIEWER_PORT" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_viewer_prints_what_it_is_sent_and_stops_when_told(
    running_viewer: tuple[subprocess.Popen[str], int], stop: signal.Signals
) -> None:
    process, port = running_viewer
    assert process.stdout
    assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = json.dumps(export(json_span(1), json_span(2, 1)))
    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    assert process.stdout.readline().startswith("span-1  backend")
    assert process.stdout.readline().startswith("└─ span-2")
    told = time.monotonic()
    process.send_signal(stop)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert time.monotonic() - told < 5
