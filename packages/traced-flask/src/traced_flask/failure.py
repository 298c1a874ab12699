"""Why telemetry did not arrive, in sentences for a log, and whether to send it again.

A reason never contains a header's value, nor an exception's own text, which may contain one.
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

# Statuses after which the same batch may be sent again:
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
RETRYABLE: Final = frozenset({429, 502, 503, 504})

STATUSES: Final = {
    400: "it does not understand this telemetry ({}). Compare its OTLP version with this one's",
    401: "the API key is not accepted ({}). Check that it is complete, still valid and from this region",
    403: "the API key may not send here ({}). Check its permissions",
    404: "there is no OTLP receiver at this address ({}). Check it; a base address is without /v1/traces",
    405: "there is no OTLP receiver at this address ({}). Check it; a base address is without /v1/traces",
    413: "a single span or record is larger than it accepts ({}). Raise its limit, or send shorter attributes",
    429: "it limits the rate ({}). Sample, or raise its limit",
}
REDIRECTED: Final = (
    "it redirects ({}), which telemetry does not follow. Give the final address (https instead of http?)"
)
UNAVAILABLE: Final = "it is unavailable ({}). Look at its log"
REFUSED: Final = "it rejects this telemetry ({})"
NO_RECEIVER: Final = "there is no OTLP receiver at this address: it answered with {}. Check the address and the port"
BAD_ADDRESS: Final = "the address is not valid. An example: http://localhost:4318"
NO_CONNECTION: Final = "nothing accepts connections there. Check the address and that it runs"
NO_TLS: Final = "it does not speak TLS. Check whether its address begins with http://, not https://"
NO_ANSWER: Final = "no answer within {:.2g} s. Check that it runs and can be reached"
CUT: Final = (
    "the connection broke before the answer was complete. Check that it runs, and whether it wants http or https"
)
NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"})


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a batch, or a part of it, was not delivered.

    Attributes:
        reason: what follows the receiver's name and a colon, where "it" is the receiver; without full stop and secrets.
        retryable: whether the same batch may be sent again.
        pause: seconds that the receiver asked for in Retry-After, a minute at most.
        too_large: the receiver may accept the batch in parts (413).
        rejected: items that the receiver rejected when it accepted the rest; None when it accepted nothing.
    """

    reason: str
    retryable: bool = False
    pause: float | None = None
    too_large: bool = False
    rejected: int | None = None


UNCONFIGURED: Final = Failure("there is nothing to send with")  # a setting: neither a loss nor an outage


def failure_of(response: http.client.HTTPResponse, answer: bytes, secrets: Iterable[str] = ()) -> Failure | None:
    """Why the receiver did not accept everything; None if it did."""
    status = response.status
    if 200 <= status < 300:
        if (response.getheader("Content-Type") or "").lower().startswith("text/html"):
            return Failure(NO_RECEIVER.format("a web page"))
        return partly_rejected(answer, secrets)
    otherwise = REDIRECTED if 300 <= status < 400 else UNAVAILABLE if status in RETRYABLE else REFUSED
    retryable = status in RETRYABLE
    pause = retry_after(response.getheader("Retry-After")) if retryable else None
    return Failure(STATUSES.get(status, otherwise).format(status), retryable, pause, too_large=status == 413)


def partly_rejected(answer: bytes, secrets: Iterable[str]) -> Failure | None:
    """What the receiver rejected: https://opentelemetry.io/docs/specs/otlp/#partial-success (the signals are alike)."""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return None
    if partial.rejected_spans <= 0:
        return None
    text = partial.error_message
    for secret in secrets:
        for word in secret.split():
            text = text.replace(word, "REDACTED") if len(word) >= 8 else text
    return Failure(escaped(text) or "it gave no reason", rejected=partial.rejected_spans)


def escaped(text: str) -> str:
    """`text` from outside for a log line: one line, without control characters, 200 characters at most."""
    written = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:MAX_TEXT])
    return written[:MAX_TEXT]


def retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header (a number of seconds or an HTTP date); None without a usable one."""
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


def explain(error: Exception, timeout: float, own_ca: bool) -> Failure:
    """Why no answer came, and what to do. `own_ca`: the receiver's CA is one that the user named."""
    if isinstance(error, Unreachable):
        return Failure(str(error), retryable=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = escaped(error.verify_message)
        if own_ca:
            return Failure(f"its TLS certificate is not one of the CA in OTEL_EXPORTER_OTLP_CERTIFICATE ({why})", True)
        return Failure(
            f"its TLS certificate is not accepted ({why}). OTEL_EXPORTER_OTLP_CERTIFICATE names your own CA's file",
            True,
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError | http.client.IncompleteRead):
        return Failure(CUT, True)
    if isinstance(error, ssl.SSLError):
        name = error.reason or "no reason given"
        if any(part in name for part in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")):
            wants = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY"
            return Failure(f"it does not accept the client certificate, or there is none ({name}). Check {wants}", True)
        return Failure(NO_TLS if name in NOT_TLS else f"TLS fails ({name})", True)
    if isinstance(error, socket.gaierror):
        return Failure("its name cannot be resolved. Check the address and the network", True)
    if isinstance(error, TimeoutError):
        return Failure(NO_ANSWER.format(timeout), True)
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
