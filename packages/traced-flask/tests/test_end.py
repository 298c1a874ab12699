"""The end of a process: what was traced arrives, in bounded time, whoever ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Run, clean_environment
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receivers import Receiver, answering, hang, unused_port, wait_until
from traced_flask import gunicorn

APP = """
import traced_flask
from traced_flask import FlaskInstrumentor, LoggingHandler, OTLPLogExporter, OTLPSpanExporter

import logging, os, signal, sys, time
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

traced_flask.log_to_stderr()
provider, logs = TracerProvider(), LoggerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=60_000))
trace.set_tracer_provider(provider)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
logging.root.addHandler(LoggingHandler(logger_provider=logs))
traced_flask.shutdown_at_exit(provider, logs)
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)

@app.get("/")
def hello():
    logging.info("said hello")
    return "hello"

@app.get("/slow")
def slow():
    time.sleep(1)
    return "slow"
"""
CONF = "from traced_flask.gunicorn import on_starting, worker_exit, worker_int\ncontrol_socket_disable = True\n"


def names(receiver: Receiver) -> list[str]:
    """The names of the spans that have arrived."""
    requests = (ExportTraceServiceRequest.FromString(each.body) for each in receiver.received if "traces" in each.path)
    scopes = (scope for request in requests for resource in request.resource_spans for scope in resource.scope_spans)
    return sorted(span.name for scope in scopes for span in scope.spans)


def records(receiver: Receiver) -> list[str]:
    """The log records that have arrived."""
    requests = (ExportLogsServiceRequest.FromString(each.body) for each in receiver.received if "logs" in each.path)
    scopes = (scope for request in requests for resource in request.resource_logs for scope in resource.scope_logs)
    return [record.body.string_value for scope in scopes for record in scope.log_records]


class Server:
    """A server of APP that has started."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return str(response.read().decode())

    def end(self, how: signal.Signals) -> str:
        """What it logged until its end."""
        self.process.send_signal(how)
        return self.process.communicate(timeout=60)[0]


@contextlib.contextmanager
def serving(
    folder: Path,
    receiver: Receiver,
    command: list[str],
    app: str = APP,
    python: str = sys.executable,
    conf: str = CONF,
) -> Iterator[Server]:
    (folder / "app.py").write_text(app)
    (folder / "gunicorn.conf.py").write_text(conf)
    port = unused_port()
    process = subprocess.Popen(
        [python, "-m", *(each.format(port=port) for each in command)],
        cwd=folder,
        env={**clean_environment(), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Server(process, f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: answers(server), seconds=60)
        yield server
    finally:
        process.kill()
        process.communicate()


def answers(server: Server) -> bool:
    assert server.process.poll() is None, server.process.communicate()[0]
    try:
        return server.get("/") == "hello"
    except OSError:
        return False


FLASK = ["flask", "run", "--port", "{port}"]
WAITRESS = ["waitress", "--listen=127.0.0.1:{port}", "app:app"]
GUNICORN = ["gunicorn", "--bind=127.0.0.1:{port}", "app:app"]


def test_gunicorns_log_does_not_quote_rejected_requests(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path, receiver, GUNICORN) as server:
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nAuthorization Bearer marked-secret\r\n\r\n")
            assert b"400" in connection.recv(1 << 16)
        log = server.end(signal.SIGTERM)
    assert "Invalid request from ip=127.0.0.1" in log
    assert "marked-secret" not in log


@pytest.mark.parametrize(
    "command",
    [
        FLASK,
        WAITRESS,
        GUNICORN,
        [*GUNICORN, "--preload"],
        [*GUNICORN, "-k", "gevent"],
    ],
    ids=" ".join,
)
def test_nothing_is_lost_when_sigterm_ends_a_server(tmp_path: Path, receiver: Receiver, command: list[str]) -> None:
    with serving(tmp_path, receiver, command) as server:
        server.get("/")
        log = server.end(signal.SIGTERM)
        assert set(names(receiver)) == {"GET /"}
        assert len(names(receiver)) == records(receiver).count("said hello") >= 2
    assert "Traceback" not in log
    assert log.count("Telemetry goes to") == 1


@pytest.mark.parametrize("patch", ["", "from gevent import monkey\nmonkey.patch_all()\n"])
def test_gevent_workers_of_a_preloaded_application_send_too(tmp_path: Path, receiver: Receiver, patch: str) -> None:
    """Unless gevent has patched everything before, what is left at the end may be lost, and a warning says so."""
    app = APP if patch else APP.replace(", schedule_delay_millis=60_000", "")
    with serving(tmp_path, receiver, [*GUNICORN, "-k", "gevent", "--preload"], app, conf=patch + CONF) as server:
        if not patch:
            wait_until(lambda: "GET /" in names(receiver))
        log = server.end(signal.SIGTERM)
    assert "GET /" in names(receiver)
    assert "Traceback" not in log
    assert log.count("Leave preload_app off") == (0 if patch else 1)


def test_the_reloader_and_its_child_announce_the_destination_once(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path, receiver, [*FLASK, "--debug"]) as server:
        assert server.end(signal.SIGTERM).count("Telemetry goes to") == 1


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_sigint_ends_a_gunicorn_worker_without_an_error(tmp_path: Path, receiver: Receiver, worker: str) -> None:
    with serving(tmp_path, receiver, [*GUNICORN, "-k", worker, "--threads", "2"]) as server:
        log = server.end(signal.SIGINT)
        assert "GET /" in names(receiver)
    assert "Traceback" not in log


def test_requests_in_progress_finish_when_sigint_ends_a_threaded_worker(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path, receiver, [*GUNICORN, "-k", "gthread", "--threads", "2"]) as server:
        bodies: list[str] = []
        waiting = threading.Thread(target=lambda: bodies.append(server.get("/slow")))
        waiting.start()
        time.sleep(0.5)
        server.end(signal.SIGINT)
        waiting.join()
        assert bodies == ["slow"]
        assert "GET /slow" in names(receiver)


SPAN = """
with trace.get_tracer("test").start_as_current_span("work"):
    pass
"""


def test_a_script_ended_by_sigterm_delivers_and_reports_the_signal(run: Run, receiver: Receiver) -> None:
    done = run(APP + SPAN + "os.kill(os.getpid(), signal.SIGTERM)", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert done.returncode == 143
    assert names(receiver) == ["work"]


@pytest.mark.parametrize("first", ["os.kill(os.getpid(), signal.SIGTERM)", "sys.exit(143)"])
def test_sigterm_does_not_interrupt_a_shutdown_in_progress(run: Run, receiver: Receiver, first: str) -> None:
    receiver.answer = answering(200, after=1)
    later = """
import threading
timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
timer.daemon = True
timer.start()
"""
    done = run(APP + SPAN + later + first, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert done.returncode == 143
    assert names(receiver) == ["work"]
    assert "Traceback" not in done.stderr


def test_a_forked_child_delivers_its_own_spans(run: Run, receiver: Receiver) -> None:
    forked = "if os.fork():\n    os.wait()\nelse:\n    provider.get_tracer('test').start_span('of the child').end()\n"
    done = run(APP + SPAN + forked, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, PYTHONWARNINGS="ignore")
    assert done.returncode == 0
    assert names(receiver) == ["of the child", "work"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_multiprocessing_child_exits_at_once_when_its_parent_terminates_it(
    tmp_path: Path, receiver: Receiver, method: str
) -> None:
    program = """
import multiprocessing

def work(started):
    started.set()
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    started = context.Event()
    child = context.Process(target=work, args=[started])
    child.start()
    started.wait()
    child.terminate()
    child.join()
    print(child.exitcode)
"""
    (tmp_path / "program.py").write_text(APP + program)
    environ = {**clean_environment(), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    command = [sys.executable, "-W", "ignore", "program.py", method]
    done = subprocess.run(command, cwd=tmp_path, env=environ, text=True, capture_output=True, timeout=60)
    assert done.stdout == f"-{signal.SIGTERM.value}\n", done.stderr


def test_an_application_keeps_its_own_handler_of_sigterm(run: Run, receiver: Receiver) -> None:
    own = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('own'))\n"
    done = run(own + APP + "os.kill(os.getpid(), signal.SIGTERM)", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert done.stdout == "own\n"
    assert done.returncode == 0


def test_a_script_exits_in_time_even_if_stock_exporters_hang(run: Run, receiver: Receiver) -> None:
    receiver.answer = hang
    stock = APP.replace("OTLPSpanExporter()", "StockExporter()").replace(
        "import logging",
        "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as StockExporter\n"
        "import logging",
    )
    metrics = """
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
meters.get_meter("m").create_counter("c").add(1)
traced_flask.shutdown_at_exit(meters)
import atexit
began = time.monotonic()
logging.warning("one record")
"""
    # Registered before the providers' own handlers, so called after them.
    last = "import atexit, time\natexit.register(lambda: print(time.monotonic() - began < 8))\n"
    done = run(last + stock + SPAN + metrics, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert done.stdout == "True\n", done.stderr
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "1 log record sent without an answer" in done.stderr


def test_a_replaced_worker_gives_a_destination_in_an_outage_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(gunicorn, "shutdown", lambda in_outage: calls.append(in_outage))
    cfg = SimpleNamespace(preload_app=False, worker_class_str="gthread")
    pid = os.getpid()
    for worker in (
        SimpleNamespace(pid=pid, nr=9, max_requests=10, cfg=cfg),
        SimpleNamespace(pid=pid, nr=10, max_requests=10, cfg=cfg),
        SimpleNamespace(pid=pid + 1, nr=10, max_requests=10, cfg=cfg),  # as the master calls it
    ):
        gunicorn.worker_exit(None, worker)
    assert calls == [None, 0.5]
