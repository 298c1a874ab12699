"""Spans as JSON: every attribute is there, under a name of its own, whatever it is called."""

import json
from typing import Any

import pytest
from export import TRACE, event
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from otlp_viewer.messages import Span
from otlp_viewer.model import SPAN_FIELDS, column_name
from otlp_viewer.store import Store
from otlp_viewer.web.wide import NAMES, span_json
from sender import add, trace

names = st.one_of(st.sampled_from(sorted(NAMES)), st.text(max_size=3))
values = st.one_of(st.text(max_size=300), st.booleans(), st.integers(-(2**63), 2**63 - 1))
some = st.dictionaries(names, values, max_size=4)


def put(pairs: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        kind = {str: "string_value", bool: "bool_value", int: "int_value"}[type(value)]
        setattr(pairs.add(key=name).value, kind, value)


@given(
    own=some, of_scope=some, of_resource=some, text=st.text(max_size=5), parent=st.booleans(), dropped=st.integers(0, 1)
)
def test_a_spans_json_has_every_attribute_once(
    own: dict[str, Any], of_scope: dict[str, Any], of_resource: dict[str, Any], text: str, parent: bool, dropped: int
) -> None:
    message = SpanMessage(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        parent_span_id=b"p" * 8 if parent else b"",
        name=text,
        kind=SpanMessage.SPAN_KIND_CLIENT,
        start_time_unix_nano=1_500_000,
        end_time_unix_nano=4_000_000,
        trace_state=text,
        status=Status(code=Status.STATUS_CODE_ERROR, message=text),
        dropped_links_count=dropped,
    )
    message.events.add(name=text, time_unix_nano=2_000)
    scope, resource = InstrumentationScope(name="made by", version="1"), Resource()
    for pairs, attributes in (
        (message.attributes, own),
        (scope.attributes, of_scope),
        (resource.attributes, of_resource),
    ):
        put(pairs, attributes)
    fields: dict[str, Any] = {
        "time": "1970-01-01T00:00:00.001500Z",
        "name": text,
        "duration_ms": 2.5,
        "trace.trace_id": b"t".hex() * 16,
        "trace.span_id": b"s".hex() * 8,
        "span.kind": "client",
        "status_code": 2,
        "error": True,
        "events": [{"name": text, "time": "1970-01-01T00:00:00.000002Z", "attributes": {}}],
        "links": [],
        "service.name": "shop",
        "library.name": "made by",
        "library.version": "1",
    }
    fields |= {"trace.parent_id": b"p".hex() * 8} if parent else {}
    fields |= {"status_message": text, "trace_state": text} if text else {}
    fields |= {"dropped_links_count": 1} if dropped else {}
    beside = {name: value for name, value in of_resource.items() if name != "service.name"} | of_scope | own
    taken = {*SPAN_FIELDS, *fields}
    expected = fields | {column_name(name, taken): value for name, value in beside.items()}

    span = Span(1, message.SerializeToString(), "shop", resource.SerializeToString(), scope.SerializeToString())
    pairs = json.loads(span_json(span), object_pairs_hook=list)
    assert sorted(name for name, _ in pairs) == sorted(expected)
    assert json.loads(span_json(span)) == expected


def test_an_attribute_that_already_has_the_name_of_a_renamed_one_stays() -> None:
    message = SpanMessage(trace_id=b"t" * 16, span_id=b"s" * 8)
    put(message.attributes, {"name": "first", "attributes.name": "second"})
    span = json.loads(span_json(Span(1, message.SerializeToString(), "", b"", b"")))
    assert (span["attributes.name"], span["attributes.attributes.name"]) == ("second", "first")


def test_a_trace_is_the_same_at_once_and_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, [event(n, (n - 1) // 3, **{"app.text": "ü" * n}) for n in (7, 3, 1, 2, 9, 4, 8, 6, 5)])
    at_once = trace(store, TRACE)
    assert at_once
    assert len(at_once["spans"]) == 9
    for limit in ("MAX_SPANS", "MAX_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(f"otlp_viewer.store.traces.{limit}", 5)
            assert trace(store, TRACE) == at_once
