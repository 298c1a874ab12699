"""Sampling: which traces are kept, and whether what is left can be counted as if all were there."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from traced_flask import sampler
from traced_flask.callers import UNDECIDED
from traced_flask.sampling import ConsistentProbabilitySampler, rate_in

NO_PARENT = Context()


def some_ids(count: int) -> list[int]:
    """Trace ids as the SDK makes them, the same ones each time."""
    generator = random.Random(4567)
    return [generator.getrandbits(128) for _ in range(count)]


def decide(rate: int, trace_id: int, parent: Context = NO_PARENT, **more: Any) -> SamplingResult:
    return ConsistentProbabilitySampler(rate).should_sample(parent, trace_id, "GET /", **more)


def is_sampled(result: SamplingResult) -> bool:
    return result.decision is Decision.RECORD_AND_SAMPLE


def weight(result: SamplingResult) -> int:
    """What Honeycomb counts the span as."""
    attributes: Mapping[str, Any] = result.attributes or {}
    return int(attributes.get("SampleRate", 1))


def threshold(result: SamplingResult) -> str:
    return result.trace_state.get("ot", "") if result.trace_state else ""


def within(trace_id: int, sampled: bool, **state: str) -> Context:
    """The context of a request that came with a traceparent, and with `state` as its tracestate."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    parent = SpanContext(trace_id, 0x1234, True, flags, TraceState(list(state.items())))
    return trace.set_span_in_context(NonRecordingSpan(parent), NO_PARENT)


@pytest.mark.parametrize("rate", [1, 2, 10, 1000])
def test_weighted_counts_of_many_traces_are_statistically_correct(rate: int) -> None:
    keep, ids = ConsistentProbabilitySampler(rate), some_ids(20_000)
    results = [result for each in ids if is_sampled(result := keep.should_sample(NO_PARENT, each, "x"))]
    deviation = (len(ids) * (1 / rate) * (1 - 1 / rate)) ** 0.5
    assert abs(len(results) - len(ids) / rate) <= 3 * deviation
    estimated = sum(weight(result) for result in results)
    assert abs(estimated - len(ids)) <= 3 * deviation * rate


def test_decision_and_tracestate_follow_opentelemetrys_specification() -> None:
    """The SDK has samplers of that specification too, still experimental: they come to the same answer."""
    theirs = pytest.importorskip("opentelemetry.sdk.trace._sampling_experimental")
    other = theirs.composite_sampler(theirs.composable_traceid_ratio_based(0.1))
    for trace_id in some_ids(1000):
        mine, its = decide(10, trace_id), other.should_sample(NO_PARENT, trace_id, "x")
        assert mine.decision == its.decision
        assert threshold(mine)[:12] == threshold(its)[:12]


@pytest.mark.parametrize("rate", [1, 10])
def test_an_unsampled_parents_trace_is_dropped(rate: int) -> None:
    for trace_id in some_ids(100):
        result = decide(rate, trace_id, within(trace_id, sampled=False, mine="1"))
        assert not is_sampled(result)
        assert dict(result.trace_state or {}) == {"mine": "1"}


@pytest.mark.parametrize(
    ("state", "rate"),
    [
        ({}, 1),  # without a rate nothing is multiplied
        ({"ot": "th:8"}, 2),
        ({"ot": "th:e6666666666668"}, 10),
        ({"ot": "rv:00000000000001;th:c;x:y"}, 4),
        ({"ot": "th:0"}, 1),
        ({"other": "th:8"}, 1),
    ],
)
def test_a_sampled_parents_trace_is_kept_at_the_parents_rate(state: dict[str, str], rate: int) -> None:
    for trace_id in some_ids(100):
        result = decide(10, trace_id, within(trace_id, sampled=True, **state), attributes={"a": 1})
        assert result.decision == Decision.RECORD_AND_SAMPLE
        assert result.attributes == {"a": 1, "SampleRate": rate}
        assert dict(result.trace_state or {}) == state


def test_the_trace_id_decides_for_a_caller_that_may_not_decide() -> None:
    for trace_id in some_ids(100):
        parent = context.set_value(UNDECIDED, True, within(trace_id, sampled=False, ot="th:8"))
        assert decide(10, trace_id, parent).decision == decide(10, trace_id).decision


@pytest.mark.parametrize("ot", [None, "", "th:", "th:xyz", "th:ffffffffffffff", "th:123456789012345", "xth:8", "TH:8"])
def test_an_implausible_rate_is_ignored(ot: str | None) -> None:
    assert rate_in(ot) == 1


@pytest.mark.parametrize("rate", [2, 3, 7, 33, 999, 12_345, 1_000_000])
def test_any_rate_survives_tracestate(rate: int) -> None:
    result = decide(rate, (1 << 56) - 1)
    assert result.attributes == {"SampleRate": rate}
    assert result.trace_state is not None
    assert rate_in(result.trace_state["ot"]) == rate


def test_every_span_of_a_trace_has_its_rate_in_every_service_and_no_trace_is_half_sampled() -> None:
    exporters = InMemorySpanExporter(), InMemorySpanExporter()
    tracers = []
    for exporter, rate in zip(exporters, (5, 20), strict=True):
        provider = TracerProvider(ConsistentProbabilitySampler(rate))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracers.append(provider.get_tracer("test"))
    for _ in range(500):
        with tracers[0].start_as_current_span("GET /", context=NO_PARENT):
            carrier: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(carrier)
        arrived = TraceContextTextMapPropagator().extract(carrier, NO_PARENT)
        with tracers[1].start_as_current_span("GET /called", context=arrived):
            pass
    first, second = ([each for each in exporter.get_finished_spans() if each.context] for exporter in exporters)
    assert {(each.attributes or {}).get("SampleRate") for each in [*first, *second]} == {5}
    assert sorted(each.context.trace_id for each in first) == sorted(each.context.trace_id for each in second)
    assert 50 <= len(first) <= 150  # ten deviations


@pytest.mark.parametrize(("asked", "rate"), [("", 1), ("1", 1), (" 25 ", 25), ("ten", 1), ("0", 1), ("\u0661", 1)])
def test_the_rate_is_the_configured_one(monkeypatch: pytest.MonkeyPatch, asked: str, rate: int) -> None:
    monkeypatch.setenv("SAMPLE_RATE", asked)
    found = sampler()
    assert isinstance(found, ConsistentProbabilitySampler)
    assert found.rate == rate
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert sampler() is None
