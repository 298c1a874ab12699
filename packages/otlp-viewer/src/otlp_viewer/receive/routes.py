"""The receiver: OTLP over HTTP, in protobuf and JSON."""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import duckdb
from flask import Blueprint, Response, request
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from werkzeug.exceptions import BadRequest, ServiceUnavailable

from otlp_viewer.receive import body
from otlp_viewer.receive.otlp_json import from_json
from otlp_viewer.receive.records import NotOtlp, Problems, Records, Signal, from_protobuf
from otlp_viewer.store import Store
from otlp_viewer.store.database import reason

# Where Honeycomb shows a trace, but for its id: an exporter that has the key may send it with its spans.
HONEYCOMB_PAGE = re.compile(r"https://ui(\.eu1)?\.honeycomb\.io/[\w./~%-]{1,300}\?trace_id=")


def receiver(store: Store, received: Callable[[Collection[str]], object] | None = None) -> Blueprint:
    """Make /v1/traces, /v1/logs and /v1/metrics; `received` is called with the trace ids of each request's spans."""
    blueprint = Blueprint("receive", __name__)
    pressure = body.Pressure()

    @contextmanager
    def records(signal: Signal, problems: Problems) -> Iterator[list[Records]]:
        """Take the request apart, and see to it that what is taken of it is kept, or sent again."""
        data = body.read(request)
        with pressure.take(len(data)):
            try:
                if request.mimetype == body.PROTOBUF:
                    yield from_protobuf(data)
                else:
                    yield from_json(data, signal, problems)
            except NotOtlp as error:
                raise BadRequest(str(error)) from error
            except duckdb.Error as error:
                said = f"this cannot be kept now: {reason(error)}"
                raise ServiceUnavailable(said, retry_after=body.RETRY_AFTER) from error

    @blueprint.post("/v1/traces")
    def traces() -> Response:
        problems = Problems()
        with records("traces", problems) as found:
            added = store.add_spans(found, problems, honeycomb_page())
        if received is not None:
            received(added.trace_ids)
        answer = ExportTraceServiceResponse()
        if added.reason:
            answer.partial_success.rejected_spans = added.rejected
            answer.partial_success.error_message = added.reason
        return body.answer(request, answer)

    @blueprint.post("/v1/logs")
    def logs() -> Response:
        problems = Problems()
        with records("logs", problems) as found:
            added = store.add_logs(found, problems)
        answer = ExportLogsServiceResponse()
        if added.reason:
            answer.partial_success.rejected_log_records = added.rejected
            answer.partial_success.error_message = added.reason
        return body.answer(request, answer)

    @blueprint.post("/v1/metrics")
    def metrics() -> Response:
        """Take metrics and keep none: there is no place for them, and refusing them would fill the sender's log."""
        body.check_metrics(request)
        return body.answer(request, ExportMetricsServiceResponse())

    return blueprint


def honeycomb_page() -> str:
    """Return where the sender says that Honeycomb shows its traces; "" when it does not, or it is elsewhere."""
    named = request.headers.get("x-honeycomb-trace-url", "")
    return named if HONEYCOMB_PAGE.fullmatch(named) else ""
