"""Which traces are kept, and the weight with which a receiver counts them."""

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

RANDOM_BITS: Final = 56  # at the end of a trace id: https://www.w3.org/TR/trace-context-2/#random-trace-id-flag


def sampler() -> Sampler | None:
    """The sampler that SAMPLE_RATE asks for: with 10, one trace in ten is kept; by default every trace.

    None where OTEL_TRACES_SAMPLER is set: `TracerProvider(sampler=None)` follows that.
    """
    if os.environ.get("OTEL_TRACES_SAMPLER"):
        return None
    rate, _ = checks.sample_rate(settings.own("SAMPLE_RATE") or "1")
    return ConsistentProbabilitySampler(int(rate or 1))


class ConsistentProbabilitySampler(Sampler):
    """Keeps one trace in `rate`, each of its spans with the attribute `SampleRate`, by which Honeycomb counts.

    Where a trace starts, its id decides, so every service decides the same; everywhere else the parent's decision
    applies. The rate of the service that decided travels in tracestate, as the threshold that OpenTelemetry
    specifies, and is what counts: a service that keeps one in 10 gives the spans of a trace that another service kept
    as one in 2 the rate of 2, and those of a trace without a rate, 1.

    https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
    https://docs.honeycomb.io/manage-data-volume/sample/sampled-data-in-honeycomb
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        sampled = round((1 << RANDOM_BITS) / rate)  # of all that the random bits can be
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
        """Decide on a span, in a microsecond or two: this is called for every one."""
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
    """How many traces one stands for, by the threshold `th` in OpenTelemetry's part of tracestate; 1 without one."""
    found = re.search(r"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)", ot or "")
    if found is None:
        return 1
    left_out = int(found[1].ljust(RANDOM_BITS // 4, "0"), 16)
    rate = round((1 << RANDOM_BITS) / ((1 << RANDOM_BITS) - left_out))
    return rate if rate <= checks.MAX_RATE else 1  # anyone can send one, and it multiplies what is counted
