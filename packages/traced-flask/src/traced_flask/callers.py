"""Which callers of a service may influence its traces."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from wsgiref.types import WSGIEnvironment

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.wsgi import WSGIGetter
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags

UNDECIDED: Final = contexts.create_key("undecided")  # True: use the caller's trace ID but not its sampling decision
ORIGIN: Final = re.compile(r"\*|https?://(\[[0-9a-f:.]+\]|[\w.-]+)(:\d+)?", re.IGNORECASE | re.ASCII)

OTHER_HEADERS: Final = frozenset({"baggage", "tracestate"})

logger = logging.getLogger(__name__)


class IdsGetter(WSGIGetter):
    """Reads only the headers with IDs, since an untrusted caller could send anything in the others."""

    def get(self, carrier: WSGIEnvironment, key: str) -> list[str] | None:
        return None if key in OTHER_HEADERS else super().get(carrier, key)


ALL_HEADERS: Final = WSGIGetter()
IDS: Final = IdsGetter()
NO_PARENT: Final = Context()


@dataclass(frozen=True)
class Callers:
    """Whose traces an application continues: everyone's if `trusted`, else those of pages from `origins`.

    A trusted caller sets the trace ID, the sampling decision and baggage; a page sets only the ID. For anyone else, a
    new trace starts, with a link to the caller's. Otherwise strangers could put all requests into one trace, hide
    requests, or inflate counts.
    https://www.w3.org/TR/trace-context-2/#privacy-considerations
    """

    trusted: bool = False
    origins: frozenset[str] = frozenset()  # in lower case; "*" means every origin

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Callers:
        """Read TRUST_TRACEPARENT and CORS_ORIGINS from `config`, else from the environment; never raises.

        Logs an invalid value and trusts nobody because of it.
        """
        trust = str(setting(config, "TRUST_TRACEPARENT")).strip().lower()
        if trust not in ("true", "false", ""):
            logger.warning("TRUST_TRACEPARENT is neither true nor false; no caller's traceparent is trusted.")
        value = setting(config, "CORS_ORIGINS")
        names = [] if isinstance(value, bool) else str(value).split(",")
        origins = {name.strip().lower() for name in names if name.strip()}
        if invalid := {origin for origin in origins if not ORIGIN.fullmatch(origin)}:
            logger.warning(
                "CORS_ORIGINS has an entry that is not an origin such as https://app.example.com:3000. "
                "Its pages cannot start traces."
            )
        return cls(trust == "true", frozenset(origins.difference(invalid)))

    @functools.cached_property
    def id_headers(self) -> list[str]:
        """The WSGI names of the headers that may contain a caller's IDs."""
        fields = propagate.get_global_textmap().fields - OTHER_HEADERS
        return [f"HTTP_{field.upper().replace('-', '_')}" for field in fields]

    def parent(self, environ: WSGIEnvironment) -> tuple[Context, Sequence[Link]]:
        """Return the context in which the span of a request starts, and its links."""
        if self.trusted:
            return propagate.extract(environ, getter=ALL_HEADERS), ()
        if not any(header in environ for header in self.id_headers):  # most requests
            return NO_PARENT, ()
        extracted = propagate.extract(environ, getter=IDS)
        caller = trace.get_current_span(extracted).get_span_context()
        if not caller.is_valid:
            return NO_PARENT, ()
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not ("*" in self.origins or origin.lower() in self.origins):
            return NO_PARENT, (Link(caller),)
        # Sampled, so that a page cannot turn off a parent-based sampler.
        flags = TraceFlags(caller.trace_flags | TraceFlags.SAMPLED)
        ids = SpanContext(caller.trace_id, caller.span_id, is_remote=True, trace_flags=flags)
        return contexts.set_value(UNDECIDED, True, trace.set_span_in_context(NonRecordingSpan(ids), NO_PARENT)), ()


def setting(config: Mapping[str, Any], name: str) -> Any:
    """Return a setting of the application, or else of the environment; "" if there is none."""
    value = config.get(name)
    return os.environ.get(name, "") if value is None else value
