"""The command: its settings, what it prints, and how it ends."""

import contextlib
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
from running import free_port

# Running it


def start_viewer(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "otlp_viewer", *arguments],
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


@pytest.mark.parametrize("memory", ["x", "", "63MB", "-1", "512 apples"])
def test_a_bad_amount_of_memory_is_one_clear_line(memory: str) -> None:
    process = start_viewer("--memory", memory or "0")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert "--memory is" in err
    assert "such as 512MB" in err


def test_the_memory_that_is_set_is_the_capacity_that_health_reports() -> None:
    port = free_port()
    with start_viewer("--port", str(port), VIEWER_MEMORY="128MB") as process:
        try:
            assert process.stdout
            process.stdout.readline()
            health = json.loads(get(port, "/api/health"))
        finally:
            process.kill()
    assert (health["capacity_bytes"], health["dropped_spans"]) == (64 << 20, 0)


def get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    return connection.getresponse().read()


def test_many_half_sent_requests_do_not_hold_up_the_pages(running_viewer: tuple[subprocess.Popen[str], int]) -> None:
    process, port = running_viewer
    assert process.stdout
    process.stdout.readline()
    head = (
        b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for number in range(300):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            half.sendall(head + b"1234" if number % 2 else head[:30])
        assert json.loads(get(port, "/api/health"))["status"] == "ok"


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST /opentelemetry.proto.collector.trace.v1.TraceService/Export HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_client_of_another_protocol_is_told_what_the_port_is_for(
    running_viewer: tuple[subprocess.Popen[str], int], sent: bytes
) -> None:
    process, port = running_viewer
    assert process.stdout
    process.stdout.readline()
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.split()[1] == b"400", answer
    assert b"OTLP over HTTP" in answer
    assert b"waitress" not in answer.lower().split(b"\r\n\r\n", 1)[1]
