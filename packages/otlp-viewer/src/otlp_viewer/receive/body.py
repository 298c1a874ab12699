"""Reads OTLP/HTTP request bodies and builds responses."""

import gzip
import io
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Request, Response
from google.protobuf.json_format import MessageToJson  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnsupportedMediaType,
)

MAX_BYTES = 16 * 1024 * 1024
RETRY_AFTER = 1  # seconds
PROTOBUF = "application/x-protobuf"


class Backpressure:
    """Limits the bytes in progress. Requests beyond the limit wait briefly, then get 503 with Retry-After."""

    def __init__(self, limit: int = 2 * MAX_BYTES, timeout: float = 1.0) -> None:
        self._limit = limit
        self._timeout = timeout  # seconds
        self._in_use = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserve bytes. Raises werkzeug's ServiceUnavailable, with Retry-After, after the timeout."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_use + size <= self._limit, self._timeout):
                raise ServiceUnavailable("busy with earlier requests; try again", retry_after=RETRY_AFTER)
            self._in_use += size
        try:
            yield
        finally:
            with self._changed:
                self._in_use -= size
                self._changed.notify_all()


def read(request: Request) -> bytes:
    """Return the request's body, decompressed.

    Raises werkzeug's BadRequest, RequestEntityTooLarge (more than MAX_BYTES, before or after decompression) or
    UnsupportedMediaType.
    """
    if request.mimetype not in (PROTOBUF, "application/json"):
        raise UnsupportedMediaType(f"send {PROTOBUF} or application/json")
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaType("send the body uncompressed or with Content-Encoding: gzip")
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise RequestEntityTooLarge(f"more than {MAX_BYTES} bytes: send fewer records at a time") from error
    try:
        if encoding == "gzip":
            body = gzip.GzipFile(fileobj=io.BytesIO(body)).read(MAX_BYTES + 1)
            if len(body) > MAX_BYTES:
                raise RequestEntityTooLarge(
                    f"more than {MAX_BYTES} bytes when decompressed: send fewer records at a time"
                )
    except (OSError, EOFError, zlib.error) as error:
        raise BadRequest(f"invalid gzip: {error}") from error
    return body


def check_metrics(request: Request) -> None:
    """Raise werkzeug's BadRequest if the body is not an OTLP metrics export."""
    body = read(request)
    try:
        if request.mimetype == PROTOBUF:
            ExportMetricsServiceRequest.FromString(body)
            return
        export = json.loads(body)
        if not isinstance(export, dict):
            raise BadRequest("the body must be a JSON object")
    except (DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"not an OTLP metrics export: {error}") from error
    for name, path in (("resourceSpans", "/v1/traces"), ("resourceLogs", "/v1/logs")):
        if name in export:
            raise BadRequest(f"send {name} to {path}, not to /v1/metrics")
    if export and not {"resourceMetrics", "resource_metrics"} & set(export):
        raise BadRequest("not an OTLP metrics export: it has no resourceMetrics")


def respond(request: Request, message: Message, status: int = 200) -> Response:
    """Return `message` in the content type of the request, or in JSON if that type is not supported."""
    if request.mimetype == PROTOBUF:
        return Response(message.SerializeToString(), status, mimetype=PROTOBUF)
    return Response(MessageToJson(message, indent=None), status, mimetype="application/json")


def failure(request: Request, error: HTTPException) -> Response:
    """Return the error as a google.rpc.Status, as OTLP/HTTP requires."""
    response = respond(request, Status(message=error.description), error.code or 500)
    if isinstance(error, ServiceUnavailable):
        response.retry_after = error.retry_after
    return response
