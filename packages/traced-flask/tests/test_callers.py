"""What a caller's headers may decide: a stranger's nothing, a page's the trace's id, a trusted service's all."""

from __future__ import annotations

import logging

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import get_value
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanContext
from recorder import Recorder, ids
from traced_flask.callers import UNDECIDED
from werkzeug.test import TestResponse

PAGE = "https://app.example.com"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PATH = "/hello/a"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def asked(flags: str = "01", **headers: str) -> dict[str, str]:
    """The headers of a caller who has a trace, says that it stands for two, and sends baggage."""
    return {
        "traceparent": f"00-{TRACE}-{SPAN}-{flags}",
        "tracestate": "ot=th:8,vendor=1",
        "baggage": "plan=gold",
        **headers,
    }


def trace_of(answer: TestResponse) -> str:
    return answer.headers["traceresponse"].split("-")[1]


def hexadecimal(context: SpanContext | None) -> tuple[str, str] | None:
    return (trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)) if context else None


@pytest.mark.parametrize("flags", ["00", "01", "03"])
def test_a_strangers_trace_is_linked_and_not_continued(recorder: Recorder, flags: str) -> None:
    answer = recorder.app().test_client().get(PATH, headers=asked(flags))
    span = recorder.only()
    assert span.parent is None
    assert trace_of(answer) == trace.format_trace_id(ids(span).trace_id) != TRACE
    assert [hexadecimal(link.context) for link in span.links] == [(TRACE, SPAN)]


def test_every_untrusted_request_has_its_own_trace(recorder: Recorder) -> None:
    client = recorder.app().test_client()
    assert len({trace_of(client.get(PATH, headers=asked())) for _ in range(3)}) == 3


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{PAGE}.evil", f"{PAGE}:8443", ""])
def test_a_page_of_another_origin_is_a_stranger(recorder: Recorder, origin: str) -> None:
    client = recorder.app({"CORS_ORIGINS": PAGE}).test_client()
    assert trace_of(client.get(PATH, headers=asked(Origin=origin))) != TRACE


@pytest.mark.parametrize("origins", [PAGE, "http://[::1]:3000, https://APP.example.com", "*"])
def test_a_page_of_a_listed_origin_can_start_a_trace(recorder: Recorder, origins: str) -> None:
    answer = recorder.app({"CORS_ORIGINS": origins}).test_client().get(PATH, headers=asked(Origin=PAGE))
    assert trace_of(answer) == TRACE
    assert hexadecimal(recorder.only().parent) == (TRACE, SPAN)
    assert not recorder.only().links


@pytest.mark.parametrize("origin", [PAGE, "https://stranger.example"])
def test_neither_a_page_nor_a_stranger_can_hide_a_request(recorder: Recorder, origin: str) -> None:
    recorder.app({"CORS_ORIGINS": PAGE}).test_client().get(PATH, headers=asked("00", Origin=origin))
    assert recorder.names() == ["GET /hello/<name>"]


def test_a_sampler_knows_that_a_page_makes_no_decision(recorder: Recorder) -> None:
    app = recorder.app({"CORS_ORIGINS": PAGE})
    app.add_url_rule("/undecided", "undecided", lambda: str(get_value(UNDECIDED)))
    client = app.test_client()
    assert client.get("/undecided", headers=asked(Origin=PAGE)).text == "True"
    assert client.get("/undecided", headers=asked()).text == "None"


def test_a_trusted_caller_decides_everything() -> None:
    recorder = Recorder(sampler=ParentBased(ALWAYS_OFF))
    client = recorder.app({"TRUST_TRACEPARENT": True}).test_client()
    client.get(PATH, headers=asked("00"))
    client.get(PATH)
    assert recorder.spans() == []
    assert trace_of(client.get(PATH, headers=asked())) == TRACE
    assert hexadecimal(recorder.only().parent) == (TRACE, SPAN)
    assert ids(recorder.only()).trace_state == {"ot": "th:8", "vendor": "1"}


@pytest.mark.parametrize("config", [{}, {"CORS_ORIGINS": PAGE}])
def test_untrusted_callers_pass_no_tracestate(recorder: Recorder, config: dict[str, str]) -> None:
    recorder.app(config).test_client().get(PATH, headers=asked(Origin=PAGE))
    assert not ids(recorder.only()).trace_state
    assert not any(link.context.trace_state for link in recorder.only().links)


@pytest.mark.parametrize(
    ("config", "passed_on"), [({}, {}), ({"CORS_ORIGINS": PAGE}, {}), ({"TRUST_TRACEPARENT": "true"}, {"plan": "gold"})]
)
def test_baggage_is_accepted_only_from_trusted_callers(
    recorder: Recorder, config: dict[str, str], passed_on: dict[str, str]
) -> None:
    app = recorder.app(config)
    app.add_url_rule("/baggage", "baggage", lambda: dict(baggage.get_all()))
    assert app.test_client().get("/baggage", headers=asked(Origin=PAGE)).json == passed_on
    assert app.test_client().get("/baggage", headers={"baggage": "plan=gold", "Origin": PAGE}).json == passed_on


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "00-nonsense"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"tracestate": "a=" + "b" * 1000, "baggage": "=;;,"},
        asked() | {"tracestate": "nonsense,=", "baggage": "a b=c," * 200},
    ],
)
def test_untrusted_input_causes_no_errors_and_no_log_lines(
    recorder: Recorder, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert recorder.app().test_client().get(PATH, headers=headers).status_code == 200
    assert recorder.only().parent is None
    assert caplog.records == []


@pytest.mark.parametrize("value", ["true", " TRUE ", True])
def test_the_configuration_says_whom_to_trust(recorder: Recorder, value: object) -> None:
    assert trace_of(recorder.app({"TRUST_TRACEPARENT": value}).test_client().get(PATH, headers=asked())) == TRACE


def test_the_configuration_is_read_at_the_first_request(recorder: Recorder) -> None:
    app = recorder.app()
    app.config["TRUST_TRACEPARENT"] = True
    assert trace_of(app.test_client().get(PATH, headers=asked())) == TRACE


@pytest.mark.parametrize("name", ["TRUST_TRACEPARENT", "CORS_ORIGINS"])
def test_the_environment_applies_without_configuration(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, {"TRUST_TRACEPARENT": "true", "CORS_ORIGINS": PAGE}[name])
    headers = asked(Origin=PAGE)
    assert trace_of(recorder.app().test_client().get(PATH, headers=headers)) == TRACE
    assert trace_of(recorder.app({name: ""}).test_client().get(PATH, headers=headers)) != TRACE


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"TRUST_TRACEPARENT": "yes"},
            "TRUST_TRACEPARENT is neither true nor false; no caller's traceparent is trusted.",
        ),
        ({"TRUST_TRACEPARENT": 1}, "TRUST_TRACEPARENT is neither true nor false; no caller's traceparent is trusted."),
        ({"CORS_ORIGINS": "app.example.com"}, "CORS_ORIGINS has an entry that is not an origin"),
        ({"CORS_ORIGINS": f"{PAGE}/, *.example.com"}, "CORS_ORIGINS has an entry that is not an origin"),
        ({"CORS_ORIGINS": [PAGE]}, "CORS_ORIGINS"),
    ],
)
def test_an_invalid_setting_trusts_nobody_and_is_logged_once(
    recorder: Recorder, config: dict[str, object], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = recorder.app(config).test_client()
    for _ in range(2):
        assert trace_of(client.get(PATH, headers=asked(Origin=PAGE))) != TRACE
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert sentence in warning.getMessage()


def test_another_propagator_is_used(recorder: Recorder) -> None:
    before = get_global_textmap()
    set_global_textmap(CompositePropagator([]))
    try:
        recorder.app({"TRUST_TRACEPARENT": True}).test_client().get(PATH, headers=asked())
    finally:
        set_global_textmap(before)
    assert recorder.only().parent is None
