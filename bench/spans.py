"""Export requests with many spans each, like those of a service's exporter."""

from __future__ import annotations

import random
import time
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

BATCH: Final = 512  # spans in a request
PER_TRACE: Final = 10
SERVICES: Final = ("shop", "cart", "users", "search")
ROUTES: Final = ("/books", "/books/{id}", "/checkout", "/search")
FIXED: Final[dict[str, str | int]] = {
    "http.request.method": "GET",
    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0"
    " Safari/537.36",
    "client.address": "203.0.113.42",
    "url.scheme": "https",
    "server.address": "shop-42.example.com",
    "server.port": 8000,
}


def trace_id(seed: int, number: int) -> bytes:
    return (seed << 64 | number + 1).to_bytes(16, "big")


def span_id(seed: int, number: int) -> bytes:
    return (seed << 40 | number + 1).to_bytes(8, "big")


def set_attributes(pairs: Any, values: dict[str, str | int]) -> None:
    for name, value in values.items():
        setattr(pairs.add(key=name).value, "string_value" if isinstance(value, str) else "int_value", value)


def exports(count: int, seed: int, per_trace: int = PER_TRACE, failing: float = 0.02) -> list[bytes]:
    """Requests of BATCH spans of about 507 bytes, with their traces over ten minutes that end a minute ago.

    In a trace, every tenth span is a child of the first, and has the nine that follow as its children.
    """
    chance = random.Random(seed)
    start = time.time_ns() - 660 * 10**9
    made = []
    for first in range(0, count, BATCH):
        message = ExportTraceServiceRequest()
        resource_spans = message.resource_spans.add()
        service = SERVICES[first // BATCH % len(SERVICES)]
        set_attributes(resource_spans.resource.attributes, {"service.name": service, "service.version": "1.4.2"})
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = "opentelemetry.instrumentation.flask"
        for number in range(first, min(first + BATCH, count)):
            trace, place = divmod(number, per_trace)
            route = chance.choice(ROUTES)
            failed = chance.random() < failing
            span = scope_spans.spans.add(name=f"GET {route}", kind=2)
            span.trace_id, span.span_id = trace_id(seed, trace), span_id(seed, number)
            if place:
                span.parent_span_id = span_id(seed, number - place if place % 10 == 0 else number - place % 10)
            took = chance.lognormvariate(1.5, 0.6) * (20 if route == "/checkout" else 1)  # milliseconds
            longest = per_trace if place == 0 else 10 if place % 10 == 0 else 0  # of its children's starts
            span.start_time_unix_nano = start + trace * per_trace * 600 * 10**9 // count + place * 10**6
            span.end_time_unix_nano = span.start_time_unix_nano + int((took + longest) * 10**6)
            span.status.code = 2 if failed else 0
            set_attributes(
                span.attributes,
                FIXED
                | {
                    "http.route": route,
                    "url.path": route,
                    "app.user": f"user-{chance.randrange(1000)}",
                    "app.plan": chance.choice(("free", "member")),
                    "http.response.status_code": 500 if failed else 200,
                    "app.result_length": chance.randrange(50),
                },
            )
        made.append(message.SerializeToString())
    return made
