"""Spans as OTLP messages: what the exporter's own encoder makes of them, for a third of the CPU.

Most attributes of a span are the same on every request (method, route, status). Each is encoded once and kept
as bytes, which protobuf merges into a span much faster than it takes an attribute. What is rare is left to the
exporter's encoder, and so is all that it has to refuse.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

LONG: Final = 200  # characters of a value that is not worth keeping
OF_TYPE: Final = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
KINDS: Final = {kind: Span.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
LOCAL: Final = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
REMOTE: Final = LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
UNSET: Final = Status()


def encode(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """The request that exports `spans`, which share a resource, as those of one provider do."""
    by_scope: dict[Any, list[ReadableSpan]] = {}
    for span in spans:
        by_scope.setdefault(span.instrumentation_scope, []).append(span)
    request = encode_spans([first for first, *_ in by_scope.values()])
    for resource in request.resource_spans:
        for scope, of_scope in zip(resource.scope_spans, by_scope.values(), strict=True):
            for span in of_scope[1:]:
                add(span, scope.spans)
    return request


def add(span: ReadableSpan, to: Any) -> None:
    """Add one span to a message's spans."""
    attributes = usual(span)
    if attributes is None:
        to.append(encode_spans([span]).resource_spans[0].scope_spans[0].spans[0])
        return
    context, parent = span.context, span.parent
    to.add(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=context.trace_state.to_header() if context.trace_state else "",
        parent_span_id=parent.span_id.to_bytes(8, "big") if parent else b"",
        name=span.name,
        kind=KINDS[span.kind],
        start_time_unix_nano=span.start_time,
        end_time_unix_nano=span.end_time,
        status=UNSET,
        flags=REMOTE if parent and parent.is_remote else LOCAL,
    ).MergeFromString(attributes)


def usual(span: ReadableSpan) -> bytes | None:
    """The attributes of a span that has nothing else but ids, a name and times; None for any other."""
    if span.events or span.links or span.dropped_attributes or span.dropped_events or span.dropped_links:
        return None
    if not span.status.is_unset:
        return None
    attributes: Mapping[str, Any] = span.attributes or {}
    try:
        return b"".join([attribute(name, value) for name, value in attributes.items()])
    except (KeyError, TypeError, ValueError):  # a list, or what cannot be sent
        return None


def attribute(name: str, value: Any) -> bytes:
    """A span that has this attribute and nothing else, in bytes."""
    kind: Any = type(value)
    if kind is float or (kind is str and len(value) > LONG):
        return encoded(name, value, kind)
    return kept(name, value, kind)


def encoded(name: str, value: Any, kind: type) -> bytes:
    span = Span(attributes=[KeyValue(key=name, value=AnyValue(**{OF_TYPE[kind]: value}))])
    return bytes(span.SerializeToString())


kept = functools.lru_cache(maxsize=2048)(encoded)  # `kind` keeps True and 1 apart
