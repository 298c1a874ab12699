"""The command: its settings, what it prints, and how it ends."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from export import export, json_span
from flask.testing import FlaskClient
from otlp_viewer.cli import compile_templates
from otlp_viewer.receive import grpc
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
    assert re.search(r"port \d+ is in use; choose another with --port \(VIEWER_PORT\)", err)


def test_the_version_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "otlp_viewer", "--version"], capture_output=True, text=True, timeout=60
    )
    assert re.fullmatch(r"otlp-viewer \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_viewer_prints_traces_and_stops_on_sigterm(
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
    began = time.monotonic()
    process.send_signal(stop)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("memory", ["x", "", "63MB", "-1", "512 apples"])
def test_a_bad_amount_of_memory_is_one_clear_line(memory: str) -> None:
    process = start_viewer("--memory", memory or "0")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert "--memory is" in err
    assert "such as 512MB" in err


def test_health_reports_the_configured_memory() -> None:
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


def test_many_incomplete_requests_do_not_block_pages(running_viewer: tuple[subprocess.Popen[str], int]) -> None:
    process, port = running_viewer
    assert process.stdout
    process.stdout.readline()
    head = (
        b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        halves = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(300)]
        for number, half in enumerate(halves):
            half.sendall(head + b"\xff" * 4 if number % 2 else head[:30])
        assert json.loads(get(port, "/api/health"))["status"] == "ok"
        assert b"</html>" in get(port, "/traces")
        for number, half in enumerate(halves):
            half.sendall(b"\xff" * 5 if number % 2 else head[30:] + b"\xff" * 9)
        answers = [half.recv(65536) for half in halves]
    assert {response.split()[1] for response in answers} == {b"400"}


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST /opentelemetry.proto.collector.trace.v1.TraceService/Export HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_clients_of_other_protocols_get_an_explanation(
    running_viewer: tuple[subprocess.Popen[str], int], sent: bytes
) -> None:
    process, port = running_viewer
    assert process.stdout
    process.stdout.readline()
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        response = b"".join(iter(lambda: client.recv(65536), b""))
    assert response.split()[1] == b"400", response
    assert b"OTLP over HTTP" in response
    assert b"waitress" not in response.lower().split(b"\r\n\r\n", 1)[1]


def test_a_grpc_client_gets_an_explanation_and_the_terminal_shows_it_once(
    running_viewer: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = running_viewer
    assert process.stdout
    process.stdout.readline()
    ping = grpc.frame(grpc.PING, payload=b"whatever")
    sent = [grpc.PREFACE, grpc.frame(grpc.SETTINGS), ping, grpc.frame(grpc.HEADERS, 4, b"\0\0\0\3", b"any headers")]
    for size in (1000, 7):
        with socket.create_connection(("127.0.0.1", port), 10) as client, client.makefile("rb") as response:
            data = b"".join(sent)
            client.sendall(data[: len(grpc.PREFACE)])
            for first in range(len(grpc.PREFACE), len(data), size):
                client.sendall(data[first : first + size])
            frames = []
            for _ in range(4):
                head = response.read(9)
                frames.append((head[3], head[4], head[5:], response.read(int.from_bytes(head[:3], "big"))))
            client.sendall(b"\xff" * 9)  # an endless frame ends the connection
            assert response.read() == b""
        assert [frame[:2] for frame in frames] == [(grpc.SETTINGS, 0), (grpc.SETTINGS, 1), (grpc.PING, 1), (1, 5)]
        assert frames[2][3] == b"whatever"
        assert frames[3][2] == b"\0\0\0\3"
        assert b"grpc-message" in frames[3][3]
        assert b"OTLP over HTTP" in frames[3][3]
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert err == f"otlp-viewer: {grpc.PURPOSE}\n"


def test_every_template_can_be_compiled_in_advance(client: FlaskClient) -> None:
    environment = client.application.jinja_env
    compile_templates(environment)
    assert environment.cache is not None
    assert len(environment.cache) == len(environment.list_templates()) > 5
