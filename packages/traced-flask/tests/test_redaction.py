"""Query strings never leave in an attribute."""

from __future__ import annotations

import traceback

import pytest
import requests
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.trace import NonRecordingSpan, SpanContext
from receivers import Receiver, unused_port
from recorder import Recorder, attributes
from traced_flask.redaction import redact, redact_query, redact_urls


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("url.full", "http://a/b?token=marked", "http://a/b?REDACTED"),
        ("url.full", "http://a/b", "http://a/b"),
        ("http.url", "http://a/b?", "http://a/b?REDACTED"),
        ("http.target", "/b?x=marked?y", "/b?REDACTED"),
        ("url.query", "token=marked", "REDACTED"),
        ("app.note", "what?", "what?"),
    ],
)
def test_a_query_is_redacted_in_all_attributes(name: str, value: str, expected: str) -> None:
    recorder = Recorder()
    span = recorder.tracer.start_span("request", attributes={name: value})
    redact(span)
    span.end()
    assert attributes(recorder.only()) == {name: expected}


def test_a_span_that_is_not_recorded_is_not_changed() -> None:
    redact(NonRecordingSpan(SpanContext(1, 1, is_remote=False)))


def test_an_outgoing_request_is_traced_without_its_query(receiver: Receiver) -> None:
    recorder = Recorder()
    RequestsInstrumentor().instrument(tracer_provider=recorder.provider, request_hook=redact_query)
    try:
        requests.get(f"{receiver.url}/path?token=marked-secret", timeout=10)
        requests.get(f"{receiver.url}/path", timeout=10)
    finally:
        RequestsInstrumentor().uninstrument()
    urls = [attributes(span)["url.full"] for span in recorder.spans()]
    assert urls == [f"{receiver.url}/path?REDACTED", f"{receiver.url}/path"]
    assert "marked-secret" not in "".join(span.to_json() for span in recorder.spans())


@pytest.mark.parametrize(
    "path", ["/path?token=marked-secret", "/path?a=b&token=marked-secret#part", "/a'b?x='marked-secret'"]
)
def test_no_message_of_an_exception_shows_a_query(receiver: Receiver, path: str) -> None:
    with pytest.raises(requests.ConnectionError) as unreachable:
        requests.get(f"http://127.0.0.1:{unused_port()}{path}", timeout=10)
    with pytest.raises(requests.HTTPError) as refused:
        requests.get(f"{receiver.url}{path}", timeout=10).raise_for_status()  # it takes POST alone
    for caught in (unreachable, refused):
        text = "".join(traceback.format_exception(caught.value))
        assert "marked-secret" in text
        assert "marked-secret" not in redact_urls(text)
        assert "?REDACTED" in redact_urls(str(caught.value))


@pytest.mark.parametrize("text", ["url: /path", "what? url", "KeyError: 'url?'"])
def test_a_message_without_a_query_is_not_changed(text: str) -> None:
    assert redact_urls(text) == text
