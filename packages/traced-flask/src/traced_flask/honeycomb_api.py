"""A client of Honeycomb's API for the command line, with explanations of its responses.

https://docs.honeycomb.io/api/
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import requests

from traced_flask.failure import escape, explain
from traced_flask.wire import is_loopback

KEYS_PAGE: Final = "https://docs.honeycomb.io/configure/environments/manage-api-keys/"
TIMEOUT: Final = 10.0  # seconds
MAX_RESPONSE: Final = 1 << 20  # bytes
RETRY: Final = 3  # exit status

# Permissions of a key: the names in API responses and on Honeycomb's pages.
PERMISSIONS: Final = {
    "events": "Send Events",
    "createDatasets": "Create Datasets",
    "queries": "Manage Queries and Columns",
    "columns": "Manage Queries and Columns",
    "boards": "Manage Public Boards",
    "markers": "Manage Markers",
    "triggers": "Manage Triggers",
}


class Problem(Exception):
    """An error message without the key. `status` is the exit status: 1, or 3 if a retry may help."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Account:
    """The owner of a key: slugs of team and environment (empty for classic keys), key type and permissions."""

    team: str
    environment: str
    key_type: str
    access: frozenset[str]

    @property
    def permissions(self) -> list[str]:
        return list(dict.fromkeys(label for name, label in PERMISSIONS.items() if name in self.access))


class Response(NamedTuple):
    status: int
    body: Any
    """The parsed JSON, or None if it is not JSON."""
    headers: requests.structures.CaseInsensitiveDict[str]

    @property
    def is_page(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("text/html")

    @property
    def clock_skew(self) -> float:
        """Seconds by which this machine's clock is ahead of the server's; 0 if the response has no date."""
        try:
            return time.time() - parsedate_to_datetime(self.headers["Date"]).timestamp()
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            return 0


class HoneycombAPI:
    """A client for the API at `address`. Follows no redirects, because their targets would get the key."""

    def __init__(self, address: str, key: str) -> None:
        self.address = address
        self._key = key
        self._session = requests.Session()
        self._session.trust_env = not is_loopback(urlsplit(address).hostname or "")  # no proxy to localhost
        self._session.auth = lambda request: request  # ignore .netrc
        self._session.headers.update({"X-Honeycomb-Team": key, "User-Agent": "traced-flask"})

    def request(self, method: str, path: str, body: Any = None) -> Response:
        """Send one request. Raises Problem if there is no response."""
        url = f"{self.address}{path}"
        verify = os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE") or True
        try:
            with self._session.request(
                method, url, json=body, timeout=TIMEOUT, allow_redirects=False, stream=True, verify=verify
            ) as response:
                text = b""
                for part in response.iter_content(1 << 16):
                    text += part
                    if len(text) > MAX_RESPONSE:
                        break
        except (requests.RequestException, OSError, ValueError) as error:
            raise _connection_problem(error, self.address) from None
        with contextlib.suppress(ValueError):
            return Response(response.status_code, json.loads(text), response.headers)
        return Response(response.status_code, None, response.headers)

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of a successful response. Raises Problem for any other."""
        response = self.request(method, path, body)
        self.check(response)
        return response.body

    def account(self) -> Account:
        return self.account_in(self.get("/1/auth"))

    def account_in(self, body: Any) -> Account:
        """Parse https://docs.honeycomb.io/api/auth/list-authorizations"""
        try:
            access = frozenset(str(name) for name, allowed in body["api_key_access"].items() if allowed is True)
            team, environment = body["team"]["slug"], (body.get("environment") or {}).get("slug") or ""
            key_type = str(body.get("type") or "configuration")
            return Account(self.readable(team), self.readable(environment), self.readable(key_type), access)
        except (AttributeError, KeyError, TypeError):
            raise Problem("This is not Honeycomb's API. Check HONEYCOMB_API_ENDPOINT.") from None

    def readable(self, text: object) -> str:
        """Return text from the server for a terminal: short, without control characters and without the key."""
        return escape(str(text).replace(self._key, "REDACTED"))

    def check(self, response: Response) -> None:
        """Raise Problem with advice unless the request succeeded."""
        status = response.status
        if 200 <= status < 300 and not response.is_page:
            return
        if response.is_page and (status < 400 or status == HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED):
            raise Problem(
                "The response is a web page, not one of the API. Log in to this network if it asks you to; otherwise"
                " check HONEYCOMB_API_ENDPOINT."
            )
        reason = self._reason(response)
        why = f"({status}: {reason})" if reason else f"({status})"
        if 300 <= status < 400:
            to = self.readable(urlsplit(response.headers.get("Location", "")).netloc.rpartition("@")[2]) or "elsewhere"
            raise Problem(f"The API redirects to {to}. If that is right, set HONEYCOMB_API_ENDPOINT to that address.")
        if status == HTTPStatus.UNAUTHORIZED:
            raise Problem(
                f"Honeycomb does not accept this key {why}. Check that it is complete, still enabled and from this"
                f" region: {KEYS_PAGE}"
            )
        if status == HTTPStatus.FORBIDDEN:
            raise Problem(f"The key lacks a permission for this {why}. Set permissions at {KEYS_PAGE}")
        if status == HTTPStatus.NOT_FOUND:
            raise Problem(f"Not found {why}. Check HONEYCOMB_API_ENDPOINT and the name of the dataset.")
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise Problem(PROXY_PASSWORD)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            when = self.readable(response.headers.get("Retry-After", "")) or "a minute has passed"
            raise Problem(f"Honeycomb's rate limit is reached (429). Wait until {when}.", RETRY)
        if status >= 500:
            raise Problem(f"Honeycomb has a problem {why}. Try again later: https://status.honeycomb.io", RETRY)
        raise Problem(f"Honeycomb rejected the request {why}.")

    def _reason(self, response: Response) -> str:
        body = response.body if isinstance(response.body, dict) else {}
        details = [item.get("description") for item in body.get("type_detail") or [] if isinstance(item, dict)]
        return self.readable("; ".join(map(str, filter(None, details))) or body.get("error") or "")


PROXY_PASSWORD: Final = "The proxy needs a user and a password: HTTPS_PROXY=http://user:password@host:port"  # noqa: S105


def _connection_problem(error: Exception, address: str) -> Problem:
    """Explain why there is no response. The error's own text may contain a proxy's password."""
    errors = [error]
    for cause in errors:
        related = (*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__)
        errors += [other for other in related if isinstance(other, Exception) and other not in errors]
    host = urlsplit(address).hostname or ""
    if isinstance(error, requests.exceptions.ProxyError):
        if any("407" in str(cause) for cause in errors):
            return Problem(PROXY_PASSWORD)
        scheme = urlsplit(address).scheme.upper()
        return Problem(f"The proxy in {scheme}_PROXY does not connect to {host}. Check it, or add {host} to NO_PROXY.")
    if isinstance(error, requests.exceptions.InvalidSchema):
        return Problem("A SOCKS proxy needs the package PySocks. Install it, or check ALL_PROXY.")
    if isinstance(error, requests.Timeout):
        errors = [TimeoutError()]
    for cause in errors:
        if isinstance(cause, ssl.SSLError | socket.gaierror | TimeoutError | ConnectionError):
            custom_ca = bool(os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE"))
            reason = explain(cause, TIMEOUT, custom_ca).reason
            return Problem(f"{address}: {reason}.", 1 if isinstance(cause, ssl.SSLError) else RETRY)
    if not isinstance(error, requests.RequestException | ValueError):
        return Problem("The file in OTEL_EXPORTER_OTLP_CERTIFICATE or REQUESTS_CA_BUNDLE cannot be read.")
    return Problem(f"{address}: it does not respond like Honeycomb's API. Check HONEYCOMB_API_ENDPOINT.")
