"""Sampling: which traces are kept, and whether what is left can be counted as if all were there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from backend.telemetry import KeepOneIn, rate_in, sampler

NOWHERE = Context()  # no span is current in it


def some_ids(count: int) -> list[int]:
    """Trace ids as the SDK makes them, the same ones each time."""
    generator = random.Random(4567)
    return [generator.getrandbits(128) for _ in range(count)]


def decide(keep: KeepOneIn, trace_id: int, parent: Context = NOWHERE, **more: Any) -> SamplingResult:
    return keep.should_sample(parent, trace_id, "GET /api/activities/home", **more)


def within(trace_id: int, sampled: bool, **state: str) -> Context:
    """The context of a request that came with a traceparent, and with `state` as its tracestate."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    parent = SpanContext(
        trace_id, 0x1234, is_remote=True, trace_flags=flags, trace_state=TraceState(list(state.items()))
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), NOWHERE)


@pytest.mark.parametrize("rate", [1, 2, 3, 10, 1000])
def test_counts_of_100_000_traces_are_right_within_the_statistics(rate: int) -> None:
    keep, ids = KeepOneIn(rate), some_ids(100_000)
    results = [result for each in ids if (result := decide(keep, each)).decision.is_sampled()]
    deviation = (len(ids) * (1 / rate) * (1 - 1 / rate)) ** 0.5
    assert abs(len(results) - len(ids) / rate) <= 3 * deviation
    estimated = sum((result.attributes or {}).get("SampleRate", 1) for result in results)  # as Honeycomb counts
    assert abs(estimated - len(ids)) <= 3 * deviation * rate
    if rate == 10:
        assert estimated == pytest.approx(len(ids), rel=0.03)


def test_every_service_decides_alike_and_a_lower_rate_keeps_what_a_higher_one_does() -> None:
    kept = {
        rate: {each for each in some_ids(10_000) if decide(KeepOneIn(rate), each).decision.is_sampled()}
        for rate in (2, 5, 10, 10)
    }
    assert kept[10] < kept[5] < kept[2]
    assert kept[10] == {each for each in some_ids(10_000) if decide(KeepOneIn(10), each).decision.is_sampled()}


def test_the_decision_and_what_goes_along_are_those_that_opentelemetry_specifies() -> None:
    """The SDK has samplers of that specification too, still experimental: they come to the same answer."""
    theirs = pytest.importorskip("opentelemetry.sdk.trace._sampling_experimental")
    other = theirs.composite_sampler(theirs.composable_traceid_ratio_based(0.1))
    for trace_id in some_ids(1000):
        mine, its = decide(KeepOneIn(10), trace_id), other.should_sample(NOWHERE, trace_id, "x")
        assert mine.decision == its.decision
        assert (mine.trace_state or {}).get("ot", "")[:12] == (its.trace_state or {}).get("ot", "")[:12]


@pytest.mark.parametrize("rate", [1, 10])
def test_a_trace_that_its_parent_left_out_stays_out(rate: int) -> None:
    for trace_id in some_ids(100):
        result = decide(KeepOneIn(rate), trace_id, within(trace_id, sampled=False, mine="1"))
        assert result.decision == Decision.DROP
        assert result.trace_state == {"mine": "1"}


@pytest.mark.parametrize(
    ("state", "rate"),
    [
        ({}, 1),  # nobody said, so nothing is multiplied
        ({"ot": "th:8"}, 2),
        ({"ot": "th:e6666666666668"}, 10),
        ({"ot": "rv:00000000000001;th:c;x:y"}, 4),
        ({"ot": "th:0"}, 1),
        ({"other": "th:8"}, 1),
    ],
)
def test_a_trace_that_its_parent_kept_is_kept_at_its_parents_rate(state: dict[str, str], rate: int) -> None:
    for trace_id in some_ids(100):
        result = decide(KeepOneIn(10), trace_id, within(trace_id, sampled=True, **state), attributes={"a": 1})
        assert result.decision == Decision.RECORD_AND_SAMPLE
        assert result.attributes == {"a": 1, "SampleRate": rate}
        assert result.trace_state == state


def test_a_service_that_keeps_all_that_begins_with_it_still_weighs_what_another_sampled() -> None:
    trace_id = some_ids(1)[0]
    assert decide(KeepOneIn(1), trace_id).attributes == {}
    assert decide(KeepOneIn(1), trace_id, within(trace_id, sampled=True)).attributes == {}
    assert decide(KeepOneIn(1), trace_id, within(trace_id, sampled=True, ot="th:8")).attributes == {"SampleRate": 2}


@pytest.mark.parametrize(
    "ot", [None, "", "th:", "th:xyz", "th:ffffffffffffff", "th:123456789012345", "xth:8", "th:8x", "TH:8", "th:-8"]
)
def test_a_rate_that_cannot_be_believed_multiplies_nothing(ot: str | None) -> None:
    assert rate_in(ot) == 1


@pytest.mark.parametrize("rate", [2, 3, 7, 10, 33, 100, 999, 12_345, 1_000_000])
def test_any_rate_arrives_as_it_was_sent(rate: int) -> None:
    keep = KeepOneIn(rate)
    kept = decide(keep, (1 << 56) - 1)
    assert kept.attributes == {"SampleRate": rate}
    assert kept.trace_state is not None
    assert rate_in(kept.trace_state["ot"]) == rate


# Through the SDK


class Service:
    """A service with spans of its own."""

    def __init__(self, rate: int) -> None:
        self.finished = InMemorySpanExporter()
        provider = TracerProvider(KeepOneIn(rate))
        provider.add_span_processor(SimpleSpanProcessor(self.finished))
        self.tracer = provider.get_tracer("test")

    def rates(self) -> set[Any]:
        return {(span.attributes or {}).get("SampleRate") for span in self.spans()}

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.finished.get_finished_spans()


@pytest.fixture
def at_the_top() -> Iterator[None]:
    """No span is current, whatever other tests do."""
    yield
    assert not trace.get_current_span().get_span_context().is_valid


def test_every_span_of_a_trace_has_its_rate_in_every_service_and_no_trace_is_half_kept(at_the_top: None) -> None:
    backend, profiles = Service(5), Service(20)
    for _ in range(500):
        with backend.tracer.start_as_current_span("GET /api/activities/home"):
            carrier: dict[str, str] = {}
            with backend.tracer.start_as_current_span("GET", attributes={"url.full": "http://profiles"}):
                TraceContextTextMapPropagator().inject(carrier)
            arrived = TraceContextTextMapPropagator().extract(carrier, NOWHERE)
            with profiles.tracer.start_as_current_span("GET /api/profiles", context=arrived):
                pass
    assert backend.rates() == profiles.rates() == {5}
    kept = [span.context.trace_id for span in profiles.spans() if span.context]
    assert sorted(kept * 2) == sorted(span.context.trace_id for span in backend.spans() if span.context)
    assert 50 <= len(kept) <= 150  # ten deviations


# What is asked for


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SAMPLE_RATE", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(("asked", "rate"), [(None, 1), ("", 1), (" ", 1), ("1", 1), ("10", 10), (" 25 ", 25)])
def test_the_rate_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, asked: str | None, rate: int) -> None:
    if asked is not None:
        monkeypatch.setenv("SAMPLE_RATE", asked)
    keep, wrong = sampler()
    assert isinstance(keep, KeepOneIn)
    assert (keep.rate, wrong) == (rate, None)


@pytest.mark.parametrize(
    "asked", ["0", "-1", "0.1", "10%", "1/10", "ten", "1e3", "1_000", "1000001", "9" * 999, "\u0661\u0660", "²", "0x10"]
)
def test_a_bad_rate_keeps_everything_and_says_so(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("SAMPLE_RATE", asked)
    keep, wrong = sampler()
    assert isinstance(keep, KeepOneIn)
    assert keep.rate == 1
    assert wrong is not None
    assert wrong.startswith("SAMPLE_RATE is ")
    assert len(wrong) < 120


def test_the_standard_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert sampler() == (None, None)
    monkeypatch.setenv("SAMPLE_RATE", "10")
    keep, wrong = sampler()
    assert keep is None
    assert wrong == "SAMPLE_RATE has no effect: OTEL_TRACES_SAMPLER=always_on wins"
