"""Explains for the log why telemetry was not delivered, and whether to retry.

A reason never contains the value of a header, or the text of an exception, which may contain one.
"""

from __future__ import annotations

import dataclasses
import http.client
import os
import socket
import ssl
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from traced_flask.wire import Unreachable

MAX_RETRY_AFTER: Final = 60.0  # s
MAX_TEXT: Final = 200  # characters of a receiver's text in a log line

# Statuses after which to send the same batch again:
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
RETRYABLE: Final = frozenset({429, 502, 503, 504})

STATUSES: Final = {
    400: "it does not understand this telemetry ({}). Compare its OTLP version with this one's",
    401: "the API key is not accepted ({}). Check that it is complete, still valid and from this region",
    403: "the API key may not send here ({}). Check its permissions",
    404: "there is no OTLP receiver at this address ({}). Check it; leave /v1/traces off a base URL",
    405: "there is no OTLP receiver at this address ({}). Check it; leave /v1/traces off a base URL",
    413: "a single span or record is larger than it accepts ({}). Raise its limit, or send shorter attributes",
    429: "it is rate-limiting requests ({}). Sample, or raise its limit",
}
REDIRECTED: Final = "it redirects ({}), which exporters do not follow. Set the final address (https instead of http?)"
UNAVAILABLE: Final = "it is unavailable ({}). Check its log"
REFUSED: Final = "it rejects this telemetry ({})"
NO_RECEIVER: Final = "there is no OTLP receiver at this address: it answered with {}. Check the address and the port"
BAD_ADDRESS: Final = "the address is not valid. An example: http://localhost:4318"
NO_CONNECTION: Final = "nothing accepts connections there. Check the address, and that the receiver is running"
NO_TLS: Final = "it does not speak TLS. Check whether its address begins with http://, not https://"
NO_RESPONSE: Final = "no answer within {:.2g} s. Check that it runs and can be reached"
CLOSED: Final = (
    "the connection closed before the response was complete. Check that it runs, and whether it expects http or https"
)
NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"})


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a batch or a part of it was not delivered.

    Attributes:
        reason: follows the receiver's name and a colon in log lines; "it" is the receiver. No final period, no secrets.
        retryable: whether to send the same batch again.
        pause: seconds from the Retry-After header, at most a minute.
        too_large: whether the receiver may accept the batch in parts (413).
        rejected: items that the receiver rejected although it accepted the rest; None if it accepted nothing.
    """

    reason: str
    retryable: bool = False
    pause: float | None = None
    too_large: bool = False
    rejected: int | None = None


UNCONFIGURED: Final = Failure("there is no API key")  # a setting: neither a loss nor an outage


def failure_of(response: http.client.HTTPResponse, body: bytes, secrets: Iterable[str] = ()) -> Failure | None:
    """Return why the receiver did not accept everything; None if it did."""
    status = response.status
    if 200 <= status < 300:
        if (response.getheader("Content-Type") or "").lower().startswith("text/html"):
            return Failure(NO_RECEIVER.format("a web page"))
        return partial_failure(body, secrets)
    default_text = REDIRECTED if 300 <= status < 400 else UNAVAILABLE if status in RETRYABLE else REFUSED
    retryable = status in RETRYABLE
    pause = retry_after(response.getheader("Retry-After")) if retryable else None
    return Failure(STATUSES.get(status, default_text).format(status), retryable, pause, too_large=status == 413)


def partial_failure(body: bytes, secrets: Iterable[str]) -> Failure | None:
    """Return what the receiver rejected: https://opentelemetry.io/docs/specs/otlp/#partial-success"""
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return None
    if partial.rejected_spans <= 0:
        return None
    text = partial.error_message
    for secret in secrets:
        for word in secret.split():
            text = text.replace(word, "REDACTED") if len(word) >= 8 else text
    return Failure(escape(text) or "it gave no reason", rejected=partial.rejected_spans)


def escape(text: str) -> str:
    """Make external text safe for a log line: one line, no control characters, at most 200 characters."""
    result = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:MAX_TEXT])
    return result[:MAX_TEXT]


def retry_after(value: str | None) -> float | None:
    """Parse a Retry-After header (seconds or an HTTP date) into seconds; None if it is missing or invalid."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (IndexError, OverflowError, TypeError, ValueError):
            return None
    return min(seconds, MAX_RETRY_AFTER) if seconds > 0 else None


def explain(error: Exception, timeout: float, custom_ca: bool) -> Failure:
    """Explain why there is no response. `custom_ca`: the user has set the CA of the receiver."""
    if isinstance(error, Unreachable):
        return Failure(str(error), retryable=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        problem = escape(error.verify_message)
        if custom_ca:
            return Failure(
                f"its TLS certificate is not from the CA in OTEL_EXPORTER_OTLP_CERTIFICATE ({problem})", True
            )
        return Failure(
            f"its TLS certificate is not accepted ({problem}). OTEL_EXPORTER_OTLP_CERTIFICATE names your own CA's file",
            True,
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError | http.client.IncompleteRead):
        return Failure(CLOSED, True)
    if isinstance(error, ssl.SSLError):
        name = error.reason or "no reason given"
        if any(part in name for part in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")):
            names = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY"
            return Failure(f"it does not accept the client certificate, or there is none ({name}). Check {names}", True)
        return Failure(NO_TLS if name in NOT_TLS else f"TLS fails ({name})", True)
    if isinstance(error, socket.gaierror):
        return Failure("its name cannot be resolved. Check the address and the network", True)
    if isinstance(error, TimeoutError):
        return Failure(NO_RESPONSE.format(timeout), True)
    if isinstance(error, ConnectionRefusedError):
        return Failure(NO_CONNECTION, True)
    if isinstance(error, http.client.InvalidURL | UnicodeError):
        return Failure(BAD_ADDRESS)
    if isinstance(error, http.client.HTTPException):
        return Failure(
            "its answer is not HTTP. Check the address and the port: OTLP over HTTP is 4318, gRPC 4317", True
        )
    if isinstance(error, OSError):
        return Failure(
            f"it cannot be reached ({os.strerror(error.errno) if error.errno else type(error).__name__})", True
        )
    return Failure(f"{type(error).__name__} before anything was sent")
