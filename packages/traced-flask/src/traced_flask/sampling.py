"""Decides which traces are kept, and the weight with which receivers count them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from typing import Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from traced_flask import checks, settings
from traced_flask.callers import UNDECIDED

RANDOM_BITS: Final = 56  # at the end of a trace ID: https://www.w3.org/TR/trace-context-2/#random-trace-id-flag


def sampler() -> Sampler | None:
    """Return the sampler for SAMPLE_RATE: 10 keeps one trace in ten; the default keeps every trace.

    None if OTEL_TRACES_SAMPLER is set, which `TracerProvider(sampler=None)` uses.
    """
    if os.environ.get("OTEL_TRACES_SAMPLER"):
        return None
    rate, _ = checks.sample_rate(settings.own("SAMPLE_RATE") or "1")
    return ConsistentProbabilitySampler(int(rate or 1))


class ConsistentProbabilitySampler(Sampler):
    """Keeps one trace in `rate`. Its spans get the attribute `SampleRate`, by which Honeycomb multiplies counts.

    For a root span, the trace ID decides, so all services make the same decision; otherwise the parent's decision
    applies. tracestate carries the rate of the service that decided, as a threshold that OpenTelemetry specifies, and
    that rate applies: in a service that keeps one in 10, spans get 2 if another service kept the trace as one in 2, and
    1 if the trace has no rate.

    https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
    https://docs.honeycomb.io/manage-data-volume/sample/sampled-data-in-honeycomb
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        sampled = round((1 << RANDOM_BITS) / rate)  # out of all values of the random bits
        self._threshold = (1 << RANDOM_BITS) - sampled
        digits = f"{self._threshold:0{RANDOM_BITS // 4}x}".rstrip("0") or "0"
        self._state = TraceState([("ot", f"th:{digits}")]) if rate > 1 else None
        self._dropped = SamplingResult(Decision.DROP)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide on a span, in a microsecond or two, since this is called for every span."""
        parent = trace.get_current_span(parent_context).get_span_context()
        if not parent.is_valid or (parent.is_remote and context.get_value(UNDECIDED, parent_context)):
            if trace_id & ((1 << RANDOM_BITS) - 1) < self._threshold:
                return self._dropped
            state, rate = self._state, self.rate
        elif not parent.trace_flags.sampled:
            state = parent.trace_state
            return SamplingResult(Decision.DROP, trace_state=state) if state else self._dropped
        else:
            state = parent.trace_state
            rate = rate_in(state.get("ot")) if state else 1
        if rate > 1 or self.rate > 1:
            attributes = {**(attributes or {}), "SampleRate": rate}
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        return f"ConsistentProbabilitySampler({self.rate})"


@functools.lru_cache(maxsize=256)
def rate_in(ot: str | None) -> int:
    """Return the rate for the threshold `th` in OpenTelemetry's part of tracestate; 1 without a threshold."""
    match = re.search(r"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)", ot or "")
    if match is None:
        return 1
    dropped = int(match[1].ljust(RANDOM_BITS // 4, "0"), 16)
    rate = round((1 << RANDOM_BITS) / ((1 << RANDOM_BITS) - dropped))
    return rate if rate <= checks.MAX_RATE else 1  # anyone can send a threshold, and it multiplies counts
