"""Redacts query strings, which can contain tokens and personal data, in all attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import requests
from opentelemetry.trace import Span

REDACTED: Final = "REDACTED"
URL_ATTRIBUTES: Final = ("url.full", "http.url", "http.target")
URL: Final = re.compile(r"(\burl: [^\s?]*\?)\S*")  # as in messages of requests and urllib3


def redact(span: Span) -> None:
    """Redact the query in the attributes of `span`, under their stable and older names."""
    attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    for name in URL_ATTRIBUTES:
        before, mark, _ = str(attributes.get(name, "")).partition("?")
        if mark:
            span.set_attribute(name, f"{before}?{REDACTED}")
    if "url.query" in attributes:
        span.set_attribute("url.query", REDACTED)


def redact_query(span: Span, request: requests.PreparedRequest) -> None:
    """Request hook that redacts the query of an outgoing request.

    Example:
        RequestsInstrumentor().instrument(request_hook=redact_query)
    """
    if "?" in (request.url or ""):
        redact(span)


def redact_urls(text: str) -> str:
    """Redact the query of each URL in the message or traceback of an exception from `requests`.

    Otherwise `Max retries exceeded with url: /path?token=...` would reveal what `redact_query` hides.
    """
    return URL.sub(rf"\g<1>{REDACTED}", text) if "url: " in text else text
