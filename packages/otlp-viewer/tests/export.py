"""Makes exports in OTLP's JSON, and spans of the same trace as wide events."""

from typing import Any

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECOND = 1_000_000_000
START = 1_767_323_045 * SECOND  # 2026-01-02T03:04:05Z
PROTOBUF = "application/x-protobuf"


def json_span(number: int, parent: int = 0, trace: str = TRACE, **fields: Any) -> dict[str, Any]:
    """A span in OTLP's JSON; `number` makes its id, its name and its place in time."""
    span = {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "name": f"span-{number}",
        "kind": 1,
        "startTimeUnixNano": str(START + number * 1_000_000),
        "endTimeUnixNano": str(START + number * 1_000_000 + 2_500_000),
    }
    if parent:
        span["parentSpanId"] = f"{parent:016x}"
    return span | fields


def attributes(**values: Any) -> list[dict[str, Any]]:
    """Attributes in OTLP's JSON: `__` in a name is a dot, a value that is no text an AnyValue."""
    return [
        {
            "key": name.replace("__", "."),
            "value": value if isinstance(value, dict) else {"stringValue": value},
        }
        for name, value in values.items()
    ]


def export(*spans: dict[str, Any], service: str = "backend") -> dict[str, Any]:
    resource = {"attributes": attributes(service__name=service, app__where="resource")}
    scope = {"name": "backend", "version": "1.0"}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": list(spans)}]}]}


def event(number: int, parent: int = 0, trace: str = TRACE, **fields: Any) -> dict[str, Any]:
    """A span of TRACE as a wide event."""
    span = {
        "time": f"2026-01-02T03:04:05.{number:06}Z",
        "name": f"span-{number}",
        "duration_ms": 2.5,
        "trace.trace_id": trace,
        "trace.span_id": f"{number:016x}",
        "service.name": "backend",
        "error": False,
        "events": [],
    }
    if parent:
        span["trace.parent_id"] = f"{parent:016x}"
    return span | fields
