"""Converts a request and its headers to attributes, by the stable HTTP semantic conventions.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final
from wsgiref.types import WSGIEnvironment

from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS, CLIENT_PORT
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_QUERY, URL_SCHEME
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL
from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE,
    detect_synthetic_user_agent,
    get_custom_header_attributes,
    get_custom_headers,
    normalise_request_header_name,
    normalise_response_header_name,
    sanitize_method,
)

from traced_flask.redaction import REDACTED

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})  # common, for a fast lookup
USER_AGENT_SYNTHETIC_TYPE: Final = "user_agent.synthetic.type"  # still in development: no stable constant

synthetic_type = functools.lru_cache(maxsize=256)(detect_synthetic_user_agent)


def decode_path(raw: str) -> str:
    """Decode a WSGI path (UTF-8 bytes decoded as Latin-1). U+FFFD replaces invalid UTF-8."""
    return raw if raw.isascii() else raw.encode("latin-1", "replace").decode("utf-8", "replace")


def path_of(environ: WSGIEnvironment) -> str:
    """Return the path of the request, including the mount point."""
    return decode_path(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


def method_of(environ: WSGIEnvironment) -> str:
    """Return the method in upper case, or `_OTHER` if it is unknown."""
    method: str = environ.get("REQUEST_METHOD", "")
    return method if method in METHODS else sanitize_method(method.strip())


def parse_port(value: Any) -> int | None:
    """Return `value` as a port number, or None if it is not one."""
    try:
        port = int(value)
    except (TypeError, ValueError):
        return None
    return port if 0 < port < 65536 else None


@functools.lru_cache(maxsize=256)
def split_host(host: str) -> tuple[str, int | None]:
    """Split a Host header into the host, without IPv6 brackets, and the port, if any."""
    name, colon, digits = host.rpartition(":")
    port = parse_port(digits) if colon else None
    return (host if port is None else name).strip("[]"), port


def describe(environ: WSGIEnvironment, rule: str | None) -> tuple[str, dict[str, Any]]:
    """Return the name and attributes of a request's span. `rule` is the route that Flask matched."""
    get = environ.get
    method, original = method_of(environ), get("REQUEST_METHOD", "")
    name = "HTTP" if method == "_OTHER" else method
    attributes: dict[str, Any] = {
        HTTP_REQUEST_METHOD: method,
        URL_SCHEME: environ["wsgi.url_scheme"],
        URL_PATH: path_of(environ),
    }
    if original != method:
        attributes[HTTP_REQUEST_METHOD_ORIGINAL] = original
    if rule is not None:
        attributes[HTTP_ROUTE] = route = decode_path(get("SCRIPT_NAME", "")) + rule
        name = f"{name} {route}"
    if get("QUERY_STRING"):
        attributes[URL_QUERY] = REDACTED
    port = None
    if host := get("HTTP_HOST"):
        attributes[SERVER_ADDRESS], port = split_host(host)
    if port := port or parse_port(get("SERVER_PORT")):
        attributes[SERVER_PORT] = port
    if client := get("REMOTE_HOST") or get("REMOTE_ADDR"):
        attributes[CLIENT_ADDRESS] = client
        if port := parse_port(get("REMOTE_PORT")):
            attributes[CLIENT_PORT] = port
    if agent := get("HTTP_USER_AGENT"):
        attributes[USER_AGENT_ORIGINAL] = agent
        if synthetic := synthetic_type(agent):
            attributes[USER_AGENT_SYNTHETIC_TYPE] = synthetic
    if version := get("SERVER_PROTOCOL", "").removeprefix("HTTP/"):
        attributes[NETWORK_PROTOCOL_VERSION] = version
    return name, attributes


class CapturedHeaders:
    """The headers to capture, from the environment at creation time, in `of_requests` and `of_responses`."""

    def __init__(self) -> None:
        self.of_requests = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST)
        self.of_responses = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE)
        self._sanitized = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS)

    def in_request(self, environ: WSGIEnvironment) -> dict[str, list[str]]:
        """Return the attributes for the headers of a request."""
        headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
        return get_custom_header_attributes(headers, self.of_requests, self._sanitized, normalise_request_header_name)

    def in_response(self, headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        """Return the attributes for the headers of a response. Values of the same name are joined with commas."""
        joined: dict[str, str] = {}
        for name, value in headers:
            key = name.lower()
            joined[key] = f"{joined[key]},{value}" if key in joined else value
        return get_custom_header_attributes(joined, self.of_responses, self._sanitized, normalise_response_header_name)
