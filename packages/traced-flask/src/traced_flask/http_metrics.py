"""HTTP server metrics: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#http-server."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)  # seconds
REQUEST_ATTRIBUTES: Final = (HTTP_REQUEST_METHOD, HTTP_ROUTE, NETWORK_PROTOCOL_VERSION, URL_SCHEME)


class HttpMetrics:
    """Records `http.server.request.duration` and `http.server.active_requests` with a meter."""

    def __init__(self, meter: Meter) -> None:
        self.duration = meter.create_histogram(
            HTTP_SERVER_REQUEST_DURATION,
            unit="s",
            description="Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self.active_requests = meter.create_up_down_counter(  # still in development: no stable constant
            "http.server.active_requests", unit="{request}", description="Number of active HTTP server requests."
        )

    def enter(self, method: str, scheme: str) -> None:
        """Count a request that starts."""
        self.active_requests.add(1, {HTTP_REQUEST_METHOD: method, URL_SCHEME: scheme})

    def leave(self, method: str, scheme: str) -> None:
        """Count a request that ends, with the same arguments as `enter`."""
        self.active_requests.add(-1, {HTTP_REQUEST_METHOD: method, URL_SCHEME: scheme})

    def record(
        self, seconds: float, request: dict[str, Any], status: int, error_type: str | None, context: Context
    ) -> None:
        """Record the duration of a request. `request` has its span's attributes; exemplars use `context`."""
        attributes: dict[str, Any] = {name: request[name] for name in REQUEST_ATTRIBUTES if name in request}
        if status:
            attributes[HTTP_RESPONSE_STATUS_CODE] = status
        if error_type:
            attributes[ERROR_TYPE] = error_type
        self.duration.record(max(seconds, 0), attributes, context)
