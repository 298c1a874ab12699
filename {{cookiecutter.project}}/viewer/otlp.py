"""Reads OTLP/HTTP requests into wide events with Honeycomb's field names, and words the answers."""

import base64
import gzip
import io
import json
import math
import re
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from flask import Request, Response
from google.protobuf.json_format import (  # type: ignore[import-untyped]
    MessageToJson,
    ParseDict,
    ParseError,
)
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnsupportedMediaType,
)

Event = dict[str, Any]
M = TypeVar("M", bound=Message)

MAX_BYTES = 16 * 1024 * 1024
RETRY_AFTER = 1  # seconds
PROTOBUF = "application/x-protobuf"
KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
# Never taken from an attribute, not even where the event itself has no such field.
RESERVED = ("trace.trace_id", "trace.span_id", "trace.parent_id", "status_message")


class Pressure:
    """Bounds the bytes that are being worked on: what comes beyond waits a little, and is then told to come again."""

    def __init__(self, most: int = 2 * MAX_BYTES, patience: float = 1.0) -> None:
        self._most = most
        self._patience = patience  # seconds
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Raises werkzeug's ServiceUnavailable, with Retry-After, when there is no room in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._taken + size <= self._most, self._patience):
                raise ServiceUnavailable("busy with what came before; send this again", retry_after=RETRY_AFTER)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


# Where Honeycomb shows a trace, but for its id; the backend, which has the key, tells with its spans.
IN_HONEYCOMB = re.compile(r"https://ui(\.eu1)?\.honeycomb\.io/[\w./~%-]{1,300}\?trace_id=")


def in_honeycomb(request: Request) -> str:
    """Return what the sender says of where Honeycomb shows its traces; "" when it does not, or it is elsewhere."""
    told = request.headers.get("x-honeycomb-trace-url", "")
    return told if IN_HONEYCOMB.fullmatch(told) else ""


def read(request: Request) -> bytes:
    """Return the request's body, decompressed.

    Raises werkzeug's BadRequest, RequestEntityTooLarge (more than MAX_BYTES, after decompression
    too) or UnsupportedMediaType.
    """
    if request.mimetype not in (PROTOBUF, "application/json"):
        raise UnsupportedMediaType(f"send {PROTOBUF} or application/json")
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaType("send the body as it is or with Content-Encoding: gzip")
    body = request.get_data(cache=False)
    try:
        if encoding == "gzip":
            body = gzip.GzipFile(fileobj=io.BytesIO(body)).read(MAX_BYTES + 1)
            if len(body) > MAX_BYTES:
                raise RequestEntityTooLarge(f"more than {MAX_BYTES} bytes when decompressed")
    except (OSError, EOFError, zlib.error) as error:
        raise BadRequest(f"not gzip: {error}") from error
    return body


def decode(request: Request, body: bytes, message: M) -> M:
    """Return `message` filled from the body; raises werkzeug's BadRequest."""
    try:
        if request.mimetype == PROTOBUF:
            message.ParseFromString(body)
        else:
            fields = json.loads(body, object_hook=_hex_ids_as_base64)
            if not isinstance(fields, dict):
                raise BadRequest("the body must be a JSON object")
            ParseDict(fields, message, ignore_unknown_fields=True)
    except (DecodeError, ParseError, ValueError, RecursionError) as error:
        name = message.DESCRIPTOR.name
        raise BadRequest(f"not an {name}: {str(error)[:500]}") from error
    return message


def answer(request: Request, message: Message, status: int = 200) -> Response:
    """Return `message` in the content type of the request (JSON where that is neither)."""
    if request.mimetype == PROTOBUF:
        return Response(message.SerializeToString(), status, mimetype=PROTOBUF)
    return Response(MessageToJson(message, indent=None), status, mimetype="application/json")


def failure(request: Request, error: HTTPException) -> Response:
    """Return the error as the google.rpc.Status that OTLP/HTTP asks for."""
    response = answer(request, Status(message=error.description), error.code or 500)
    if isinstance(error, ServiceUnavailable):
        response.retry_after = error.retry_after
    return response


def spans(request: ExportTraceServiceRequest) -> tuple[list[Event], int]:
    """Return a wide event for each span, and how many spans were refused for their ids."""
    events, refused = [], 0
    for resource_spans in request.resource_spans:
        resource = attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                if _valid(span.trace_id, 16) and _valid(span.span_id, 8) and len(span.parent_span_id) in (0, 8):
                    events.append(_span_event(span, scope_spans.scope, resource))
                else:
                    refused += 1
    return events, refused


def logs(request: ExportLogsServiceRequest) -> list[Event]:
    """Return a wide event for each log record; ids that are no ids are left out."""
    events = []
    for resource_logs in request.resource_logs:
        resource = attributes(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            for log in scope_logs.log_records:
                event = {
                    "time": timestamp(log.time_unix_nano or log.observed_time_unix_nano),
                    "severity_text": log.severity_text,
                    "severity_number": log.severity_number,
                    "body": any_value(log.body),
                }
                if _valid(log.trace_id, 16):
                    event["trace.trace_id"] = log.trace_id.hex()
                    if _valid(log.span_id, 8):
                        event["trace.span_id"] = log.span_id.hex()
                events.append(_wide(event, scope_logs.scope, resource, log.attributes))
    return events


def attributes(pairs: Iterable[KeyValue]) -> Event:
    return {pair.key: any_value(pair.value) for pair in pairs}


def any_value(value: AnyValue) -> Any:
    """Return an AnyValue as JSON has it: bytes as base64, NaN and infinities as their names.

    The recursion is bounded: protobuf decodes at most 100 nested messages.
    """
    match value.WhichOneof("value"):
        case "array_value":
            return [any_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return attributes(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case None:
            return None
        case kind:
            return getattr(value, kind)


def timestamp(nanoseconds: int) -> str:
    """Return nanoseconds since 1970 as ISO 8601 in UTC, always with microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"


def _span_event(span: Span, scope: InstrumentationScope, resource: Event) -> Event:
    event = {
        "time": timestamp(span.start_time_unix_nano),
        "name": span.name,
        "duration_ms": max(span.end_time_unix_nano - span.start_time_unix_nano, 0) / 1e6,
        "trace.trace_id": span.trace_id.hex(),
        "trace.span_id": span.span_id.hex(),
        "span.kind": KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "internal",
        "status_code": span.status.code,
        "error": span.status.code == span.status.STATUS_CODE_ERROR,
        "events": [
            {
                "name": happened.name,
                "time": timestamp(happened.time_unix_nano),
                "attributes": attributes(happened.attributes),
            }
            for happened in span.events
        ],
        "links": [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "attributes": attributes(link.attributes),
            }
            for link in span.links
        ],
    }
    if any(span.parent_span_id):
        event["trace.parent_id"] = span.parent_span_id.hex()
    if span.status.message:
        event["status_message"] = span.status.message
    return _wide(event, scope, resource, span.attributes)


def _wide(event: Event, scope: InstrumentationScope, resource: Event, own: Iterable[KeyValue]) -> Event:
    """Return the event with all attributes beside it; where names clash, the event's own win."""
    beside = resource | attributes(own)
    for name in RESERVED:
        beside.pop(name, None)
    event["service.name"] = str(resource.get("service.name") or "unknown_service")
    event["library.name"] = scope.name
    event["library.version"] = scope.version
    return event | {name: value for name, value in beside.items() if name not in event}


def _valid(span_or_trace_id: bytes, length: int) -> bool:
    return len(span_or_trace_id) == length and any(span_or_trace_id)


def _hex_ids_as_base64(fields: Event) -> Event:
    """OTLP's JSON has ids in hex, where protobuf's own JSON mapping has base64."""
    for name in ("traceId", "spanId", "parentSpanId"):
        if isinstance(fields.get(name), str):
            fields[name] = base64.b64encode(bytes.fromhex(fields[name])).decode()
    return fields
