"""The receiver: OTLP over HTTP, in protobuf and JSON."""

import re
from collections.abc import Callable, Collection

import duckdb
from flask import Blueprint, Response, request
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from werkzeug.exceptions import BadRequest, ServiceUnavailable

from otlp_viewer.receive import body
from otlp_viewer.receive.otlp_json import from_json
from otlp_viewer.receive.records import NotOtlp, Problems, Records, Signal, from_protobuf
from otlp_viewer.store import Added, Store
from otlp_viewer.store.database import reason

# Where Honeycomb shows a trace, but for its id: an exporter that has the key may send it with its spans.
HONEYCOMB_PAGE = re.compile(r"https://ui(\.eu1)?\.honeycomb\.io/[\w./~%-]{1,300}\?trace_id=")


def receiver(store: Store, received: Callable[[Collection[str]], object] | None = None) -> Blueprint:
    """Make /v1/traces, /v1/logs and /v1/metrics; `received` is called with the trace ids of each request's spans."""
    blueprint = Blueprint("receive", __name__)
    pressure = body.Pressure()

    def keep(signal: Signal, add: Callable[[list[Records], Problems], Added]) -> Added:
        """Take the request apart and add what it has, so that it is stored, or sent again."""
        data = body.read(request)
        problems = Problems()
        with pressure.take(len(data)):
            try:
                return add(
                    from_protobuf(data) if request.mimetype == body.PROTOBUF else from_json(data, signal, problems),
                    problems,
                )
            except NotOtlp as error:
                raise BadRequest(str(error)) from error
            except (duckdb.Error, MemoryError) as error:
                message = f"this cannot be stored now: {reason(error)}"
                raise ServiceUnavailable(message, retry_after=body.RETRY_AFTER) from error

    @blueprint.post("/v1/traces")
    def traces() -> Response:
        added = keep("traces", lambda found, problems: store.add_spans(found, problems, honeycomb_page()))
        if received is not None:
            received(added.trace_ids)
        partial = ExportTracePartialSuccess(rejected_spans=added.rejected, error_message=added.reason)
        return body.answer(request, ExportTraceServiceResponse(partial_success=partial if added.reason else None))

    @blueprint.post("/v1/logs")
    def logs() -> Response:
        added = keep("logs", lambda found, problems: store.add_logs(found, problems))
        partial = ExportLogsPartialSuccess(rejected_log_records=added.rejected, error_message=added.reason)
        return body.answer(request, ExportLogsServiceResponse(partial_success=partial if added.reason else None))

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
