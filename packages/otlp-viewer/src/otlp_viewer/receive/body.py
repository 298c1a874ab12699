"""Reads the bodies of OTLP/HTTP requests, and words the answers."""

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
        raise BadRequest(f"not gzip: {error}") from error
    return body


def check_metrics(request: Request) -> None:
    """Raise werkzeug's BadRequest where the body is no export of metrics."""
    body = read(request)
    try:
        if request.mimetype == PROTOBUF:
            ExportMetricsServiceRequest.FromString(body)
            return
        export = json.loads(body)
        if not isinstance(export, dict):
            raise BadRequest("the body must be a JSON object")
    except (DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"not an OTLP export of metrics: {error}") from error
    for name, path in (("resourceSpans", "/v1/traces"), ("resourceLogs", "/v1/logs")):
        if name in export:
            raise BadRequest(f"{name} belong to {path}, not to /v1/metrics")
    if export and not {"resourceMetrics", "resource_metrics"} & set(export):
        raise BadRequest("not an OTLP export of metrics: it has no resourceMetrics")


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
