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
from otlp_viewer.store import AddResult, Store
from otlp_viewer.store.database import reason

# The URL of a trace in Honeycomb without the ID. An exporter that has the key may send it with its spans.
HONEYCOMB_PAGE = re.compile(r"https://ui(\.eu1)?\.honeycomb\.io/[\w./~%-]{1,300}\?trace_id=")


def receiver(store: Store, received: Callable[[Collection[str]], object] | None = None) -> Blueprint:
    """Create /v1/traces, /v1/logs and /v1/metrics. Calls `received` with the trace IDs of each request's spans."""
    blueprint = Blueprint("receive", __name__)
    backpressure = body.Backpressure()

    def store_records(signal: Signal, add: Callable[[list[Records], Problems], AddResult]) -> AddResult:
        """Store the records of the request. If that fails for now, the response makes the sender retry."""
        data = body.read(request)
        problems = Problems()
        with backpressure.reserve(len(data)):
            try:
                return add(
                    from_protobuf(data) if request.mimetype == body.PROTOBUF else from_json(data, signal, problems),
                    problems,
                )
            except NotOtlp as error:
                raise BadRequest(str(error)) from error
            except (duckdb.Error, MemoryError) as error:
                message = f"cannot store this now: {reason(error)}"
                raise ServiceUnavailable(message, retry_after=body.RETRY_AFTER) from error

    @blueprint.post("/v1/traces")
    def traces() -> Response:
        added = store_records("traces", lambda records, problems: store.add_spans(records, problems, honeycomb_page()))
        if received is not None:
            received(added.trace_ids)
        partial = ExportTracePartialSuccess(rejected_spans=added.rejected, error_message=added.reason)
        return body.respond(request, ExportTraceServiceResponse(partial_success=partial if added.reason else None))

    @blueprint.post("/v1/logs")
    def logs() -> Response:
        added = store_records("logs", lambda records, problems: store.add_logs(records, problems))
        partial = ExportLogsPartialSuccess(rejected_log_records=added.rejected, error_message=added.reason)
        return body.respond(request, ExportLogsServiceResponse(partial_success=partial if added.reason else None))

    @blueprint.post("/v1/metrics")
    def metrics() -> Response:
        """Accept and discard metrics: the viewer does not show them, but rejecting them would fill the sender's log."""
        body.check_metrics(request)
        return body.respond(request, ExportMetricsServiceResponse())

    return blueprint


def honeycomb_page() -> str:
    """Return the Honeycomb URL of traces that the sender gives; "" if there is none or it points elsewhere."""
    url = request.headers.get("x-honeycomb-trace-url", "")
    return url if HONEYCOMB_PAGE.fullmatch(url) else ""
