"""What the callers of a service may decide about its traces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import flask
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator, default_getter, default_setter
from opentelemetry.trace import NonRecordingSpan, SpanContext

STRANGER: Final = contexts.create_key("stranger")  # the ids of a caller whose trace is not continued
UNDECIDED: Final = contexts.create_key("undecided")  # set where the caller's trace is continued, not its decision


@dataclass(frozen=True)
class Callers:
    """Whose traces an application continues: everybody's when `trusted`, else those of pages of `origins`."""

    trusted: bool = False
    origins: Sequence[re.Pattern[str]] = ()

    def are_pages(self, origin: str | None) -> bool:
        return origin is not None and any(each.match(origin) for each in self.origins)


class FromCallers(TextMapPropagator):
    """Takes from the headers of a request no more than its caller may decide.

    Whom an application trusts decides on the trace, whether it is kept, at which weight, and on baggage; a page
    on the trace's id; anybody else on nothing: a new trace begins. A stranger could otherwise put every request
    into one trace, hide requests, or have each counted as a million.
    https://www.w3.org/TR/trace-context-2/#privacy-considerations
    """

    def __init__(self, propagator: TextMapPropagator) -> None:
        self._propagator = propagator

    @property
    def fields(self) -> set[str]:
        return self._propagator.fields

    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        self._propagator.inject(carrier, context, setter)

    def extract(self, carrier: Any, context: Context | None = None, getter: Any = default_getter) -> Context:
        found = self._propagator.extract(carrier, context, getter)
        callers = flask.current_app.extensions.get("callers") if flask.has_request_context() else None
        if callers is None or callers.trusted or carrier is not flask.request.environ:
            return found
        nothing = context or Context()
        caller = trace.get_current_span(found).get_span_context()
        if not caller.is_valid:
            return nothing  # baggage alone
        ids = SpanContext(caller.trace_id, caller.span_id, is_remote=True, trace_flags=caller.trace_flags)
        if not callers.are_pages(flask.request.origin):
            return contexts.set_value(STRANGER, ids, nothing)
        return contexts.set_value(UNDECIDED, True, trace.set_span_in_context(NonRecordingSpan(ids), nothing))


def link_stranger(span: trace.Span) -> None:
    """Link a span to that of the caller whose trace it does not continue, if there is one."""
    if isinstance(stranger := contexts.get_value(STRANGER), SpanContext):
        span.add_link(stranger)
