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

from traced_flask.failure import escaped, explain
from traced_flask.wire import is_loopback

WHERE_KEYS_ARE: Final = "https://docs.honeycomb.io/configure/environments/manage-api-keys/"
TIMEOUT: Final = 10.0  # seconds
MAX_RESPONSE: Final = 1 << 20  # bytes
RETRY: Final = 3  # exit status

# What a key may do: the names in the API's answers and on Honeycomb's pages.
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
    """A reason to stop, in sentences without the key. `status` is the exit status: 1, or 3 if a retry may help."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Account:
    """The owner of a key: slugs of team and environment (empty for classic keys), its type, and what it may do."""

    team: str
    environment: str
    key_type: str
    access: frozenset[str]

    @property
    def permissions(self) -> list[str]:
        return list(dict.fromkeys(words for name, words in PERMISSIONS.items() if name in self.access))


class Answer(NamedTuple):
    status: int
    body: Any
    """The JSON; None if it is not JSON."""
    headers: requests.structures.CaseInsensitiveDict[str]

    @property
    def is_page(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("text/html")

    @property
    def clock_skew(self) -> float:
        """Seconds by which this machine's clock is ahead of the server's; 0 if the response does not tell."""
        try:
            return time.time() - parsedate_to_datetime(self.headers["Date"]).timestamp()
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            return 0


class HoneycombAPI:
    """The API at `address`, with `key`. Follows no redirect, which would get the key."""

    def __init__(self, address: str, key: str) -> None:
        self.address = address
        self._key = key
        self._session = requests.Session()
        self._session.trust_env = not is_loopback(urlsplit(address).hostname or "")  # no proxy to this machine
        self._session.auth = lambda request: request  # nothing from .netrc
        self._session.headers.update({"X-Honeycomb-Team": key, "User-Agent": "traced-flask"})

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """One request. Raises Problem if there is no answer."""
        url = f"{self.address}{path}"
        verify = os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE") or True
        try:
            with self._session.request(
                method, url, json=body, timeout=TIMEOUT, allow_redirects=False, stream=True, verify=verify
            ) as answer:
                text = b""
                for part in answer.iter_content(1 << 16):
                    text += part
                    if len(text) > MAX_RESPONSE:
                        break
        except (requests.RequestException, OSError, ValueError) as error:
            raise _no_answer(error, self.address) from None
        with contextlib.suppress(ValueError):
            return Answer(answer.status_code, json.loads(text), answer.headers)
        return Answer(answer.status_code, None, answer.headers)

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a successful response. Raises Problem for any other."""
        answer = self.ask(method, path, body)
        self.check(answer)
        return answer.body

    def account(self) -> Account:
        return self.account_in(self.get("/1/auth"))

    def account_in(self, body: Any) -> Account:
        """https://docs.honeycomb.io/api/auth/list-authorizations"""
        try:
            access = frozenset(str(name) for name, allowed in body["api_key_access"].items() if allowed is True)
            team, environment = body["team"]["slug"], (body.get("environment") or {}).get("slug") or ""
            key_type = str(body.get("type") or "configuration")
            return Account(self.readable(team), self.readable(environment), self.readable(key_type), access)
        except (AttributeError, KeyError, TypeError):
            raise Problem("This is not Honeycomb's API. Check HONEYCOMB_API_ENDPOINT.") from None

    def readable(self, text: object) -> str:
        """Text from the server, for a terminal: short, without control characters and without the key."""
        return escaped(str(text).replace(self._key, "REDACTED"))

    def check(self, answer: Answer) -> None:
        """Raise Problem, which says what to do, unless the request succeeded."""
        status = answer.status
        if 200 <= status < 300 and not answer.is_page:
            return
        if answer.is_page and (status < 400 or status == HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED):
            raise Problem(
                "A web page answers instead of the API. Does this network want you to log in? If not, check"
                " HONEYCOMB_API_ENDPOINT."
            )
        reason = self._reason(answer)
        why = f"({status}: {reason})" if reason else f"({status})"
        if 300 <= status < 400:
            to = self.readable(urlsplit(answer.headers.get("Location", "")).netloc.rpartition("@")[2]) or "elsewhere"
            raise Problem(f"The API redirects to {to}. If that is right, set HONEYCOMB_API_ENDPOINT to that address.")
        if status == HTTPStatus.UNAUTHORIZED:
            raise Problem(
                f"Honeycomb does not accept this key {why}. Check that it is complete, still enabled and of this"
                f" region: {WHERE_KEYS_ARE}"
            )
        if status == HTTPStatus.FORBIDDEN:
            raise Problem(f"The key lacks a permission for this {why}. Permissions are set at {WHERE_KEYS_ARE}")
        if status == HTTPStatus.NOT_FOUND:
            raise Problem(f"Not found {why}. Check HONEYCOMB_API_ENDPOINT and the name of the dataset.")
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise Problem(PROXY_PASSWORD)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            when = self.readable(answer.headers.get("Retry-After", "")) or "a minute has passed"
            raise Problem(f"Honeycomb's rate limit is reached (429). Wait until {when}.", RETRY)
        if status >= 500:
            raise Problem(f"Honeycomb has a problem {why}. Try again later: https://status.honeycomb.io", RETRY)
        raise Problem(f"Honeycomb refused the request {why}.")

    def _reason(self, answer: Answer) -> str:
        body = answer.body if isinstance(answer.body, dict) else {}
        details = [each.get("description") for each in body.get("type_detail") or [] if isinstance(each, dict)]
        return self.readable("; ".join(map(str, filter(None, details))) or body.get("error") or "")


PROXY_PASSWORD: Final = "The proxy needs a user and a password: HTTPS_PROXY=http://user:password@host:port"  # noqa: S105


def _no_answer(error: Exception, address: str) -> Problem:
    """Why there is no answer, and what to do. The error's own text may hold a proxy's password."""
    causes = [error]
    for each in causes:
        related = (*each.args, getattr(each, "reason", None), each.__cause__, each.__context__)
        causes += [other for other in related if isinstance(other, Exception) and other not in causes]
    host = urlsplit(address).hostname or ""
    if isinstance(error, requests.exceptions.ProxyError):
        if any("407" in str(each) for each in causes):
            return Problem(PROXY_PASSWORD)
        scheme = urlsplit(address).scheme.upper()
        return Problem(
            f"The proxy that {scheme}_PROXY names does not connect to {host}. Check it, or add {host} to NO_PROXY."
        )
    if isinstance(error, requests.exceptions.InvalidSchema):
        return Problem("The proxy speaks SOCKS, which needs the package PySocks. Install it, or check ALL_PROXY.")
    if isinstance(error, requests.Timeout):
        causes = [TimeoutError()]
    for each in causes:
        if isinstance(each, ssl.SSLError | socket.gaierror | TimeoutError | ConnectionError):
            own_ca = bool(os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE"))
            reason = explain(each, TIMEOUT, own_ca).reason
            return Problem(f"{address}: {reason}.", 1 if isinstance(each, ssl.SSLError) else RETRY)
    if not isinstance(error, requests.RequestException | ValueError):
        return Problem("The file that OTEL_EXPORTER_OTLP_CERTIFICATE or REQUESTS_CA_BUNDLE names cannot be read.")
    return Problem(f"{address}: it does not answer as Honeycomb's API does. Check HONEYCOMB_API_ENDPOINT.")
