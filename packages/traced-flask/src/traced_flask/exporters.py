"""OTLPSpanExporter and OTLPLogExporter: the SDK's exporters, without waiting for the network.

They encode what they are given and leave it with the deliveries of their signal. What becomes of it there is in
`traced_flask.delivery`.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from traced_flask import routes, settings, setup
from traced_flask.delivery import Delivery, begin_end, end, forget_end
from traced_flask.encoder import Encoded, encode_logs, encode_spans, halves

if TYPE_CHECKING:
    import requests
    from opentelemetry.metrics import MeterProvider

logger = logging.getLogger(__name__)

MAX_REQUEST_SIZE: Final = 64 * 1024 * 1024  # bytes, as in the SDK's exporters
IN_OUTAGE: Final = 0.5  # s, which a person who ends a program in development waits for a receiver in an outage


class Outbox:
    """What both exporters are made of: where encoded batches of `signal` go, until the exporter is shut down."""

    in_use: Final[weakref.WeakSet[Outbox]] = weakref.WeakSet()

    def __init__(self, signal: str, deliveries: Sequence[Delivery], max_request_size: int | None) -> None:
        self.signal = signal
        self.deliveries = deliveries
        self.max_request_size = MAX_REQUEST_SIZE if max_request_size is None else max_request_size
        self.lost = 0  # items that could not be encoded, or are too large one by one
        self.is_shut_down = False
        self.in_use.add(self)
        forget_end()

    def put(self, encoded: Encoded) -> bool:
        """Leave a batch with every delivery; whether all of it could be encoded."""
        if encoded.lost:
            self._lose(encoded.lost, f"it cannot be encoded ({encoded.problem})")
        if encoded.count:
            self._put(encoded.body, encoded.count)
        return not encoded.lost

    def _put(self, body: bytes, count: int) -> None:
        if not 0 < self.max_request_size < len(body):
            for delivery in self.deliveries:
                delivery.put(self.signal, body, count)
        elif count == 1:
            self._lose(1, f"its {len(body)} bytes are more than max_request_size")
        else:
            for part in halves(self.signal, body):
                self._put(*part)

    def _lose(self, count: int, problem: str) -> None:
        if not self.lost:
            what = "A span" if self.signal == "traces" else "A log record"
            logger.warning("%s is lost: %s. Others are counted and reported at the end.", what, problem)
        self.lost += count

    def flush(self, seconds: float) -> bool:
        """Wait until everything is delivered, but at most `seconds`; False at once in an outage."""
        until = time.monotonic() + seconds
        return all(delivery.flush(until) for delivery in self.deliveries)

    def shut_down(self) -> None:
        """Give each delivery what is left of the end's time. One that another exporter uses goes on after that."""
        if self.is_shut_down:
            return
        self.is_shut_down = True
        self.in_use.discard(self)
        begin_end(in_outage=IN_OUTAGE if settings.development() else None)
        until, in_outage = end()
        others = {delivery for other in self.in_use for delivery in other.deliveries}
        for delivery in self.deliveries:
            if delivery not in others:
                delivery.last_call(until, in_outage)  # all at once, so that none waits for another's time
        for delivery in self.deliveries:
            if delivery in others:
                delivery.flush(until)
            else:
                delivery.close(until, in_outage)
        if self.lost > 1:
            what = "spans" if self.signal == "traces" else "log records"
            logger.warning("%d %s in all were lost before they could be sent.", self.lost, what)


def outbox(signal: str, session: requests.Session | None, max_request_size: int | None, **given: Any) -> Outbox:
    """The outbox of an exporter with the arguments `given`: as the environment says, where there are none."""
    if settings.disabled():
        return Outbox(signal, (), max_request_size)
    if session is not None:
        logger.warning("The OTLP exporters of traced_flask do not use the `session` that one of them was given.")
    if isinstance(given["compression"], Compression):
        given["compression"] = given["compression"].value
    if any(value is not None for value in given.values()):
        deliveries = routes.explicit(signal, **given)
    else:
        deliveries = routes.deliveries(signal)
    routes.announce()
    setup.end_on_sigterm()
    return Outbox(signal, deliveries, max_request_size)


class OTLPSpanExporter(SpanExporter):
    """Sends spans over OTLP/HTTP, as the OpenTelemetry exporter of this name does, and never waits for the network.

    Without arguments the environment says where: the standard OTEL_EXPORTER_OTLP_* variables, HONEYCOMB_API_KEY and,
    in development, VIEWER_ENDPOINT. With any of the first seven it sends to `endpoint` alone.

    Args:
        endpoint: the receiver's URL in full, with /v1/traces.
        certificate_file: the CAs to trust, in PEM.
        client_key_file: the key for `client_certificate_file`.
        client_certificate_file: the certificate to show to the receiver, in PEM.
        headers: sent with each request.
        timeout: seconds for one attempt as a whole: connecting, sending and the answer.
        compression: of requests.
        session: not used; connections are the exporter's own.
        max_request_size: bytes of a request before compression, 64 MiB by default, 0 for any number. A larger one is
            sent in parts.
        meter_provider: not used. The counts that the OpenTelemetry exporter records with
            OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED have no public interface; losses are in the log, with their number.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        certificate_file: str | None = None,
        client_key_file: str | None = None,
        client_certificate_file: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: Compression | None = None,
        session: requests.Session | None = None,
        *,
        max_request_size: int | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._outbox = outbox(
            "traces",
            session,
            max_request_size,
            endpoint=endpoint,
            certificate_file=certificate_file,
            client_key_file=client_key_file,
            client_certificate_file=client_certificate_file,
            headers=headers,
            timeout=timeout,
            compression=compression,
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Encode `spans` and queue them. FAILURE after `shutdown`, or where one of them could not be encoded."""
        if self._outbox.is_shut_down:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS if self._outbox.put(encode_spans(spans)) else SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until all is delivered, at most `timeout_millis` ms. False if it is not, at once in an outage."""
        return self._outbox.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Send what is left, in what remains of the 3 s that all exporters of a process share when it ends."""
        self._outbox.shut_down()


class OTLPLogExporter(LogRecordExporter):
    """Sends log records over OTLP/HTTP. Arguments and promises are those of `OTLPSpanExporter`, with /v1/logs."""

    def __init__(
        self,
        endpoint: str | None = None,
        certificate_file: str | None = None,
        client_key_file: str | None = None,
        client_certificate_file: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: Compression | None = None,
        session: requests.Session | None = None,
        *,
        max_request_size: int | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._outbox = outbox(
            "logs",
            session,
            max_request_size,
            endpoint=endpoint,
            certificate_file=certificate_file,
            client_key_file=client_key_file,
            client_certificate_file=client_certificate_file,
            headers=headers,
            timeout=timeout,
            compression=compression,
        )

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Encode `batch` and queue it. FAILURE after `shutdown`, or where a record could not be encoded."""
        if self._outbox.is_shut_down:
            return LogRecordExportResult.FAILURE
        return LogRecordExportResult.SUCCESS if self._outbox.put(encode_logs(batch)) else LogRecordExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Wait until all is delivered, at most `timeout_millis` ms. False if it is not, at once in an outage."""
        return self._outbox.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Send what is left, in what remains of the 3 s that all exporters of a process share when it ends."""
        self._outbox.shut_down()
