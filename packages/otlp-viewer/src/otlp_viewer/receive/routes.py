"""The receiver: OTLP over HTTP, in protobuf and JSON."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import duckdb
from flask import Blueprint, Response, request
from google.protobuf.message import Message  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from werkzeug.exceptions import ServiceUnavailable

from otlp_viewer.receive import body
from otlp_viewer.store import Store

M = TypeVar("M", bound=Message)

# Where Honeycomb shows a trace, but for its id: an exporter that has the key may send it with its spans.
HONEYCOMB_PAGE = re.compile(r"https://ui(\.eu1)?\.honeycomb\.io/[\w./~%-]{1,300}\?trace_id=")


def receiver(store: Store, received: Callable[[set[str]], object] | None = None) -> Blueprint:
    """Make /v1/traces, /v1/logs and /v1/metrics; `received` is called with the trace ids of each request's spans."""
    blueprint = Blueprint("receive", __name__)
    pressure = body.Pressure()

    @contextmanager
    def received_as(message: M) -> Iterator[M]:
        """Fill `message` from the request, and see to it that what is kept of it is kept, or sent again."""
        data = body.read(request)
        with pressure.take(len(data)):
            try:
                yield body.decode(request, data, message)
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise ServiceUnavailable(f"this cannot be kept now: {reason}", retry_after=body.RETRY_AFTER) from error

    @blueprint.post("/v1/traces")
    def traces() -> Response:
        with received_as(ExportTraceServiceRequest()) as message:
            added = store.add_spans(message.resource_spans, honeycomb_page())
        if received is not None:
            received(added.trace_ids)
        answer = ExportTraceServiceResponse()
        if added.rejected:
            answer.partial_success.rejected_spans = added.rejected
            answer.partial_success.error_message = added.reason
        return body.answer(request, answer)

    @blueprint.post("/v1/logs")
    def logs() -> Response:
        with received_as(ExportLogsServiceRequest()) as message:
            store.add_logs(message.resource_logs)
        return body.answer(request, ExportLogsServiceResponse())

    @blueprint.post("/v1/metrics")
    def metrics() -> Response:
        with received_as(ExportMetricsServiceRequest()):
            pass  # there is no place for them here, and refusing them would fill the sender's log
        return body.answer(request, ExportMetricsServiceResponse())

    return blueprint


def honeycomb_page() -> str:
    """Return where the sender says that Honeycomb shows its traces; "" when it does not, or it is elsewhere."""
    named = request.headers.get("x-honeycomb-trace-url", "")
    return named if HONEYCOMB_PAGE.fullmatch(named) else ""
