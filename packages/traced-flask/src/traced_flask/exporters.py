"""OTLPSpanExporter and OTLPLogExporter: replacements for the SDK's exporters that never wait for the network.

They encode telemetry and put it into queues, which `traced_flask.delivery` sends.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from traced_flask import routes, settings, setup
from traced_flask.batch import in_words
from traced_flask.delivery import BATCH_BYTES, Delivery, reset_shutdown, shutdown_deadlines, start_shutdown
from traced_flask.encoder import Encoded, encode_logs, encode_spans

if TYPE_CHECKING:
    import requests
    from opentelemetry.metrics import MeterProvider

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

MAX_REQUEST_SIZE: Final = 64 * 1024 * 1024  # bytes, as in the SDK's exporters
IN_OUTAGE: Final = 0.5  # s for a receiver in an outage when a program exits in development


class Exporter:
    """Common to both exporters: puts batches into the deliveries of `signal` until the exporter is shut down."""

    signal: ClassVar[str]
    in_use: Final[weakref.WeakSet[Exporter]] = weakref.WeakSet()

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
        """Without arguments, the environment sets the destinations: see `traced_flask.routes`.

        With any of the first seven arguments, the exporter sends only to `endpoint`.

        Args:
            endpoint: the full URL of the receiver, with /v1/traces or /v1/logs.
            certificate_file: the CAs to trust, in PEM format.
            client_key_file: the key for `client_certificate_file`.
            client_certificate_file: the client certificate, in PEM format.
            headers: sent with each request.
            timeout: seconds for one complete attempt: connecting, sending and the response.
            compression: of requests.
            session: not used; the exporter opens its own connections.
            max_request_size: bytes of a request before compression; default 64 MiB, 0 for no limit. A single span
                or log record that is larger is lost.
            meter_provider: not used. The metrics of OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED have no public interface;
                the log reports what is lost.
        """
        self._max_request_size = (MAX_REQUEST_SIZE if max_request_size is None else max_request_size) or math.inf
        self._lost = 0  # items that could not be encoded or are too large
        self._is_shut_down = False
        self._deliveries: Sequence[Delivery] = ()
        self.in_use.add(self)
        reset_shutdown()
        if settings.disabled():
            return
        if session is not None:
            logger.warning("The exporters of traced_flask do not use the argument `session`.")
        arguments: dict[str, Any] = {
            "endpoint": endpoint,
            "certificate_file": certificate_file,
            "client_key_file": client_key_file,
            "client_certificate_file": client_certificate_file,
            "headers": headers,
            "timeout": timeout,
            "compression": compression.value if isinstance(compression, Compression) else compression,
        }
        if any(value is not None for value in arguments.values()):
            self._deliveries = routes.explicit(self.signal, **arguments)
        else:
            self._deliveries = routes.deliveries(self.signal)
        routes.announce()
        setup.end_on_sigterm()

    def _export(self, items: Sequence[Item], encode: Callable[[Sequence[Item], float], Encoded]) -> bool:
        """Queue `items` in every delivery, in requests of up to 4 MiB. Return whether all could be encoded."""
        complete = not self._is_shut_down
        while items and not self._is_shut_down:
            encoded = encode(items, min(BATCH_BYTES, self._max_request_size))
            items = items[encoded.count + encoded.lost :]
            if encoded.lost:
                complete = False
                self._lose(encoded.lost, f"it cannot be encoded ({encoded.problem})")
            if encoded.count == 1 and len(encoded.body) > self._max_request_size:
                self._lose(1, f"its {len(encoded.body)} bytes are more than max_request_size")
            elif encoded.count:
                for delivery in self._deliveries:
                    delivery.put(self.signal, encoded.body, encoded.count)
        return complete

    def _lose(self, count: int, problem: str) -> None:
        if not self._lost:
            what = "A span" if self.signal == "traces" else "A log record"
            logger.warning("%s is lost: %s. Others are counted and reported at the end.", what, problem)
        self._lost += count

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Wait until everything is delivered, at most `timeout_millis` ms. Return False if not, or in an outage."""
        deadline = time.monotonic() + timeout_millis / 1000
        return all(delivery.flush(deadline) for delivery in self._deliveries)

    def shutdown(self) -> None:
        """Send the rest within the 3 s that all exporters of a process share at exit.

        A delivery that another exporter uses continues after that.
        """
        if self._is_shut_down:
            return
        self._is_shut_down = True
        self.in_use.discard(self)
        start_shutdown(in_outage=IN_OUTAGE if settings.development() else None)
        deadline, outage_deadline = shutdown_deadlines()
        shared = {delivery for other in self.in_use for delivery in other._deliveries}
        for delivery in self._deliveries:
            if delivery not in shared:
                delivery.start_closing(deadline, outage_deadline)  # start all first, so that they share the time
        for delivery in self._deliveries:
            if delivery in shared:
                delivery.flush(deadline)
            else:
                delivery.close(deadline, outage_deadline)
        if self._lost > 1:
            lost = in_words({self.signal: self._lost})
            logger.warning("%s in all were lost before they could be sent.", lost)


class OTLPSpanExporter(Exporter, SpanExporter):
    """Sends spans over OTLP/HTTP like OpenTelemetry's exporter of this name, but never waits for the network."""

    signal = "traces"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Encode `spans` and queue them. Return FAILURE after `shutdown` or if a span could not be encoded."""
        return SpanExportResult.SUCCESS if self._export(spans, encode_spans) else SpanExportResult.FAILURE


class OTLPLogExporter(Exporter, LogRecordExporter):
    """Sends log records over OTLP/HTTP. See `OTLPSpanExporter`."""

    signal = "logs"

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Encode `batch` and queue it. Return FAILURE after `shutdown` or if a record could not be encoded."""
        return LogRecordExportResult.SUCCESS if self._export(batch, encode_logs) else LogRecordExportResult.FAILURE
