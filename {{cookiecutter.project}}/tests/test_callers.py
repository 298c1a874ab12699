"""What a caller's headers may decide: a stranger's nothing, a page's the trace's id, a service's all."""

from __future__ import annotations

import re
from typing import Any

import pytest
from conftest import Spans
from flask.testing import FlaskClient
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan
from werkzeug.test import TestResponse
from work import WORK, create_app

PAGE = "https://app.example.com"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def asked(flags: str = "01", **headers: str) -> dict[str, str]:
    """The headers of a caller who has a trace, says that it stands for two, and sends baggage."""
    return {
        "traceparent": f"00-{TRACE}-{SPAN}-{flags}",
        "tracestate": "ot=th:8,vendor=1",
        "baggage": "plan=gold",
        **headers,
    }


def request_span(spans: Spans) -> ReadableSpan:
    return spans.named(f"GET {WORK}")


def trace_of(answer: TestResponse) -> str:
    return answer.headers["traceresponse"].split("-")[1]


def client_with(**config: Any) -> FlaskClient:
    return create_app({"TESTING": True, **config}).test_client()


@pytest.mark.parametrize("flags", ["00", "01", "03"])
def test_a_strangers_trace_is_linked_and_not_continued(client: FlaskClient, spans: Spans, flags: str) -> None:
    answer = client.get(WORK, headers=asked(flags))
    span = request_span(spans)
    assert span.parent is None
    assert span.context
    assert trace_of(answer) == trace.format_trace_id(span.context.trace_id) != TRACE
    (link,) = span.links
    assert trace.format_trace_id(link.context.trace_id) == TRACE
    assert trace.format_span_id(link.context.span_id) == SPAN


def test_every_request_of_a_stranger_has_a_trace_of_its_own(client: FlaskClient, spans: Spans) -> None:
    assert len({trace_of(client.get(WORK, headers=asked())) for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": f"{PAGE}.evil"}]
)
def test_a_page_of_another_origin_is_a_stranger(spans: Spans, headers: dict[str, str]) -> None:
    assert trace_of(client_with(CORS_ORIGINS=PAGE).get(WORK, headers=asked(**headers))) != TRACE


@pytest.mark.parametrize("origins", [PAGE, "http://localhost:3000,https://APP.example.com", "*"])
def test_a_trace_may_begin_in_a_page_of_a_named_origin(spans: Spans, origins: str) -> None:
    answer = client_with(CORS_ORIGINS=origins).get(WORK, headers=asked(Origin=PAGE))
    span = request_span(spans)
    assert trace_of(answer) == TRACE
    assert span.parent
    assert trace.format_span_id(span.parent.span_id) == SPAN
    assert not span.links


def test_a_page_cannot_hide_its_requests(spans: Spans) -> None:
    answer = client_with(CORS_ORIGINS=PAGE).get(WORK, headers=asked("00", Origin=PAGE))
    assert trace_of(answer) == TRACE
    assert request_span(spans)


def test_a_trusted_caller_decides_on_all_of_it(spans: Spans) -> None:
    client = client_with(TRUST_TRACEPARENT=True)
    answer = client.get(WORK, headers=asked())
    span = request_span(spans)
    assert trace_of(answer) == TRACE
    assert span.parent
    assert span.attributes
    assert span.attributes["SampleRate"] == 2
    spans_before = len(spans.all())
    hidden = client.get(WORK, headers=asked("00"))
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-0[02]", hidden.headers["traceresponse"])
    assert len(spans.all()) == spans_before


@pytest.mark.parametrize("config", [{}, {"CORS_ORIGINS": PAGE}])
def test_nobody_else_decides_how_much_a_request_counts(spans: Spans, config: dict[str, str]) -> None:
    client_with(**config).get(WORK, headers=asked(Origin=PAGE))
    span = request_span(spans)
    assert "SampleRate" not in (span.attributes or {})
    assert span.context
    assert not span.context.trace_state


@pytest.mark.parametrize(
    ("config", "passed_on"), [({}, {}), ({"CORS_ORIGINS": PAGE}, {}), ({"TRUST_TRACEPARENT": "true"}, {"plan": "gold"})]
)
def test_baggage_is_taken_from_whom_one_trusts(spans: Spans, config: dict[str, str], passed_on: dict[str, str]) -> None:
    app = create_app({"TESTING": True, **config})
    app.add_url_rule("/baggage", view_func=lambda: dict(baggage.get_all()))
    assert app.test_client().get("/baggage", headers=asked(Origin=PAGE)).json == passed_on
    assert app.test_client().get("/baggage", headers={"baggage": "plan=gold", "Origin": PAGE}).json == passed_on


def test_a_request_without_a_trace_begins_one_without_links(client: FlaskClient, spans: Spans) -> None:
    client.get(WORK, headers={"traceparent": "00-nonsense"})
    assert (request_span(spans).parent, list(request_span(spans).links)) == (None, [])


@pytest.mark.parametrize("value", ["true", " TRUE ", True])
def test_trust_can_be_said_in_some_ways(spans: Spans, value: object) -> None:
    assert trace_of(client_with(TRUST_TRACEPARENT=value).get(WORK, headers=asked())) == TRACE


@pytest.mark.parametrize("value", ["yes", "1", "none"])
def test_trust_is_true_or_false(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_TRACEPARENT", value)
    with pytest.raises(ValueError, match=f"TRUST_TRACEPARENT: '{value}' is neither true nor false"):
        create_app()
