"""The exporters take the place of OpenTelemetry's own, and never wait for the network."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as StockLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as StockSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from receivers import Receiver, answering, hang
from traced_flask import OTLPLogExporter, OTLPSpanExporter, delivery


@pytest.fixture(autouse=True)
def another_end() -> Iterator[None]:
    yield
    delivery.reset_shutdown()


def provider(exporter: OTLPSpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=50))
    return provider


def names(receiver: Receiver) -> list[str]:
    requests = [ExportTraceServiceRequest.FromString(body) for body in receiver.bodies()]
    scopes = [scope for request in requests for resource in request.resource_spans for scope in resource.scope_spans]
    return [span.name for scope in scopes for span in scope.spans]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "traced_flask.exporters"]


@pytest.mark.parametrize(
    ("ours", "stock"), [(OTLPSpanExporter, StockSpanExporter), (OTLPLogExporter, StockLogExporter)]
)
def test_the_arguments_are_those_of_the_stock_exporter(ours: Any, stock: Any) -> None:
    expected = [
        (name, parameter.kind, parameter.default)
        for name, parameter in inspect.signature(stock.__init__).parameters.items()
        if not name.startswith("_")
    ]
    found = inspect.signature(ours.__init__).parameters.items()
    assert [(name, parameter.kind, parameter.default) for name, parameter in found] == expected


def test_spans_and_log_records_arrive_through_the_sdks_processors(receiver: Receiver) -> None:
    to = {"headers": {"X-Test": "1"}, "timeout": 5, "compression": Compression.NoCompression}
    traces = provider(OTLPSpanExporter(f"{receiver.url}/v1/traces", **to))  # type: ignore[arg-type]
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{receiver.url}/v1/logs")))
    traces.get_tracer("a").start_span("span \ud800").end()
    logs.get_logger("a").emit(LogRecord(body="record \ud800"))
    traces.shutdown()
    logs.shutdown()
    assert {received.path for received in receiver.received} == {"/v1/traces", "/v1/logs"}
    by_path = {received.path: received for received in receiver.received}
    assert by_path["/v1/traces"].headers["x-test"] == "1"
    assert "span \ufffd".encode() in by_path["/v1/traces"].body
    assert "record \ufffd".encode() in by_path["/v1/logs"].body


def test_after_shutdown_an_export_fails_at_once(receiver: Receiver) -> None:
    exporter = OTLPSpanExporter(receiver.url)
    span = TracerProvider(shutdown_on_exit=False).get_tracer("a").start_span("late")
    exporter.shutdown()
    exporter.shutdown()
    assert exporter.export([span]) is SpanExportResult.FAILURE  # type: ignore[list-item]
    assert receiver.received == []


def test_only_a_span_that_cannot_be_encoded_is_lost_and_logged_once(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = OTLPSpanExporter(receiver.url)
    traces = provider(exporter)
    for number in range(3):
        bad = traces.get_tracer("a").start_span("bad")
        bad.update_name(number + 1)  # type: ignore[arg-type]
        bad.end()
        traces.get_tracer("a").start_span("good").end()
        traces.force_flush()
    traces.shutdown()
    assert names(receiver) == ["good"] * 3
    first, last = lines(caplog)
    assert first == "A span is lost: it cannot be encoded (AttributeError). Others are counted and reported at the end."
    assert last == "3 spans in all were lost before they could be sent."


def test_a_batch_larger_than_max_request_size_is_sent_in_parts(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = OTLPSpanExporter(receiver.url, max_request_size=2000)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a")
    spans = [tracer.start_span(str(number), attributes={"a": "x" * 300}) for number in range(20)]
    large = tracer.start_span("large", attributes={"a": "x" * 3000})
    exporter.export([*spans, large])  # type: ignore[list-item]
    assert exporter.force_flush()
    assert names(receiver) == [str(number) for number in range(20)]
    assert "A span is lost: its 3" in lines(caplog)[0]
    exporter.shutdown()


def test_the_shutdown_of_all_exporters_takes_three_seconds_in_total(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = hang
    exporters = [OTLPSpanExporter(receiver.url) for _ in range(3)]
    span = TracerProvider(shutdown_on_exit=False).get_tracer("a").start_span("a")
    for exporter in exporters:
        exporter.export([span])  # type: ignore[list-item]
    began = time.monotonic()
    assert not exporters[0].force_flush(200)
    assert time.monotonic() - began < 2
    for exporter in exporters:
        exporter.shutdown()
    assert 2.5 < time.monotonic() - began < 6
    assert caplog.text.count("Stopped before all telemetry had reached") == 3


def test_shutting_down_one_exporter_does_not_stop_another_to_the_same_receiver(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traced_flask import routes

    (shared,) = routes.explicit("traces", endpoint=receiver.url)
    monkeypatch.setattr(routes, "deliveries", lambda signal: [shared])
    first, second = OTLPSpanExporter(), OTLPSpanExporter()
    span: Any = TracerProvider(shutdown_on_exit=False).get_tracer("a").start_span("a")
    first.export([span])
    first.shutdown()
    assert len(receiver.received) == 1
    second.export([span])
    second.shutdown()
    assert len(receiver.received) == 2


# Processes

PROGRAM = """
import logging, sys, time
from traced_flask import OTLPLogExporter, OTLPSpanExporter
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""


def run(body: str, receiver: Receiver, **more: str) -> subprocess.CompletedProcess[str]:
    """Run PROGRAM and what follows it in a process of its own."""
    command = [sys.executable, "-c", PROGRAM + body]
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    environ |= more
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("status", [200, 401])
def test_a_short_program_delivers_at_exit_and_logs_little(receiver: Receiver, status: int) -> None:
    receiver.answer = answering(status)
    body = """
for number in range(5):
    with trace.get_tracer("a").start_as_current_span("a") as span:
        span.set_attribute("too large", 2**70)
    provider.force_flush()
    time.sleep(0.2)
with trace.get_tracer("a").start_as_current_span("last"):
    pass
"""
    done = run(body, receiver)
    assert done.returncode == 0, done.stderr
    assert names(receiver)[-1] == "last"
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (0 if status == 200 else 2), done.stderr


def test_force_flush_of_a_provider_waits_for_the_delivery(receiver: Receiver) -> None:
    """A process of multiprocessing ends without exit handlers, so that is its only chance."""
    body = """
from opentelemetry.sdk._logs import LoggerProvider
from traced_flask import BatchLogRecordProcessor, BatchSpanProcessor
import multiprocessing
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=60_000))
logs = LoggerProvider(shutdown_on_exit=False)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(), schedule_delay_millis=60_000))
def work():
    provider.get_tracer("a").start_span("in a process").end()
    logs.get_logger("a").emit(body="in a process")
    print(provider.force_flush(), logs.force_flush())
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""
    answers = []
    for status in (200, 503):
        receiver.answer = answering(status)
        done = run(body, receiver)
        answers.append(done.stdout.strip())
    assert answers == ["True True", "False False"], done.stderr
    assert {received.path for received in receiver.received[:2]} == {"/v1/traces", "/v1/logs"}


def test_a_program_with_only_one_batch_delivers_it(receiver: Receiver) -> None:
    """Since Python 3.12 the thread that sends it can no longer be started."""
    body = "with trace.get_tracer('a').start_as_current_span('only'):\n    pass\n"
    began = time.monotonic()
    done = run(body, receiver, OTEL_BSP_SCHEDULE_DELAY="60000")
    assert (done.returncode, names(receiver)) == (0, ["only"])
    assert time.monotonic() - began < 20
