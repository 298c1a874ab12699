"""Query strings contain tokens and names: they are redacted in every attribute that would contain them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import requests
from opentelemetry.trace import Span

REDACTED: Final = "REDACTED"
WITH_QUERY: Final = ("url.full", "http.url", "http.target")
URL: Final = re.compile(r"(\burl: [^\s?]*\?)\S*")  # as messages of requests and urllib3 have it


def redact(span: Span) -> None:
    """Redact the query in the attributes of `span`, by their stable and their older names."""
    attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    for name in WITH_QUERY:
        before, mark, _ = str(attributes.get(name, "")).partition("?")
        if mark:
            span.set_attribute(name, f"{before}?{REDACTED}")
    if "url.query" in attributes:
        span.set_attribute("url.query", REDACTED)


def redact_query(span: Span, request: requests.PreparedRequest) -> None:
    """Redact the query of an outgoing request: a request hook.

    Example:
        RequestsInstrumentor().instrument(request_hook=redact_query)
    """
    if "?" in (request.url or ""):
        redact(span)


def redact_urls(text: str) -> str:
    """Redact the query of each URL in the message or the traceback of an exception of `requests`.

    `Max retries exceeded with url: /path?token=...` would otherwise show what `redact_query` hides.
    """
    return URL.sub(rf"\g<1>{REDACTED}", text) if "url: " in text else text
