"""Reads the bodies of OTLP/HTTP requests into protobuf messages, and words the answers."""

import base64
import gzip
import io
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from flask import Request, Response
from google.protobuf.json_format import (  # type: ignore[import-untyped]
    MessageToJson,
    ParseDict,
    ParseError,
)
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnsupportedMediaType,
)

M = TypeVar("M", bound=Message)

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


def _hex_ids_as_base64(fields: dict[str, Any]) -> dict[str, Any]:
    """OTLP's JSON has ids in hex, where protobuf's own JSON mapping has base64."""
    for name in ("traceId", "spanId", "parentSpanId"):
        if isinstance(fields.get(name), str):
            fields[name] = base64.b64encode(bytes.fromhex(fields[name])).decode()
    return fields
