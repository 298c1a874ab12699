"""What the callers of a service may decide about its traces."""

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

UNDECIDED: Final = contexts.create_key("undecided")  # True if the caller's trace id is continued, but not its decision
ORIGIN: Final = re.compile(r"\*|https?://(\[[0-9a-f:.]+\]|[\w.-]+)(:\d+)?", re.IGNORECASE | re.ASCII)

OTHER_HEADERS: Final = frozenset({"baggage", "tracestate"})

logger = logging.getLogger(__name__)


class IdsGetter(WSGIGetter):
    """Reads the headers with a caller's ids, not those in which an untrusted caller could send anything."""

    def get(self, carrier: WSGIEnvironment, key: str) -> list[str] | None:
        return None if key in OTHER_HEADERS else super().get(carrier, key)


ALL_HEADERS: Final = WSGIGetter()
IDS: Final = IdsGetter()
NO_PARENT: Final = Context()


@dataclass(frozen=True)
class Callers:
    """Whose traces an application continues: everyone's if `trusted`, else those of pages of `origins`.

    A trusted caller decides on the trace id, on sampling and on baggage; a page only on the id; anyone else on
    nothing: a new trace starts, with a link to the caller's. A stranger could otherwise put every request into one
    trace, hide requests, or have each counted as a million.
    https://www.w3.org/TR/trace-context-2/#privacy-considerations
    """

    trusted: bool = False
    origins: frozenset[str] = frozenset()  # in lower case; "*" is every origin

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Callers:
        """Read TRUST_TRACEPARENT and CORS_ORIGINS from `config`, else from the environment; never raises.

        With an invalid value nobody is trusted, and it is logged.
        """
        trust = str(setting(config, "TRUST_TRACEPARENT")).strip().lower()
        if trust not in ("true", "false", ""):
            logger.warning("TRUST_TRACEPARENT is neither true nor false; no caller's traceparent is trusted.")
        listed = setting(config, "CORS_ORIGINS")
        names = [] if isinstance(listed, bool) else str(listed).split(",")
        origins = {name.strip().lower() for name in names if name.strip()}
        if wrong := {origin for origin in origins if not ORIGIN.fullmatch(origin)}:
            logger.warning(
                "CORS_ORIGINS has an entry that is not an origin such as https://app.example.com:3000. "
                "Its pages cannot start traces."
            )
        return cls(trust == "true", frozenset(origins.difference(wrong)))

    @functools.cached_property
    def id_headers(self) -> list[str]:
        """The names, in WSGI, of the headers that may hold a caller's ids."""
        fields = propagate.get_global_textmap().fields - OTHER_HEADERS
        return [f"HTTP_{field.upper().replace('-', '_')}" for field in fields]

    def parent(self, environ: WSGIEnvironment) -> tuple[Context, Sequence[Link]]:
        """Return the context in which the span of a request starts, and its links."""
        if self.trusted:
            return propagate.extract(environ, getter=ALL_HEADERS), ()
        if not any(header in environ for header in self.id_headers):  # most requests
            return NO_PARENT, ()
        found = propagate.extract(environ, getter=IDS)
        caller = trace.get_current_span(found).get_span_context()
        if not caller.is_valid:
            return NO_PARENT, ()
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not ("*" in self.origins or origin.lower() in self.origins):
            return NO_PARENT, (Link(caller),)
        # Sampled, so that a sampler that follows its parent cannot be switched off by a page.
        flags = TraceFlags(caller.trace_flags | TraceFlags.SAMPLED)
        ids = SpanContext(caller.trace_id, caller.span_id, is_remote=True, trace_flags=flags)
        return contexts.set_value(UNDECIDED, True, trace.set_span_in_context(NonRecordingSpan(ids), NO_PARENT)), ()


def setting(config: Mapping[str, Any], name: str) -> Any:
    """The setting `name` of an application, else of the environment; "" where there is none."""
    value = config.get(name)
    return os.environ.get(name, "") if value is None else value
