"""Sends one POST to an OTLP receiver within a time limit, and explains failures.

Connecting, proxy, TLS, sending and the complete response share one deadline, whatever the receiver does. Only the
system's name lookup has its own limit. At most `MAX_RESPONSE` bytes of a response are read. Connections stay open for
the next batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import http.client
import os
import re
import ssl
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from opentelemetry.exporter.otlp.proto.http.version import __version__ as otlp_version
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from traced_flask.failure import NO_RECEIVER, UNCONFIGURED, Failure, escape, explain, failure_of
from traced_flask.wire import Proxy, ResponseTooLong, Unreachable, Wire, open_wire


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where one signal goes.

    Attributes:
        url: the full URL, with /v1/traces.
        headers: returns the current headers with the API key; None while there is no key.
        timeout: seconds for one complete attempt.
        certificate: PEM file or folder of the CAs to trust. None: REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or certifi's.
        client_certificate: PEM file, with `client_key` if the key is in another file.
    """

    url: str = dataclasses.field(repr=False)
    headers: Callable[[], Mapping[str, str] | None] = dataclasses.field(repr=False)
    timeout: float = 10.0
    compression: Literal["gzip", "deflate"] | None = None
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


class Connection(http.client.HTTPConnection):
    """A connection over a `Wire` that stays open until `disconnect`."""

    sock: Wire

    def close(self) -> None:
        """Do nothing: `http.client` calls this before it reads a response after which the server closes."""

    def disconnect(self) -> None:
        self.sock.close()


class Destination:
    """An OTLP receiver, with an endpoint for each signal ("traces", "logs") that it accepts.

    `name` is for log lines: only scheme, host and port. Safe to use from any thread and in a forked child.
    """

    def __init__(self, name: str, endpoints: Mapping[str, Endpoint]) -> None:
        self.name = name
        self.endpoints = endpoints
        self._idle: dict[object, Connection] = {}
        self._process = os.getpid()

    def send(self, signal: str, body: bytes, timeout: float) -> Failure | None:
        """POST `body`, an encoded export request, once. Takes at most `timeout` seconds. Never raises."""
        endpoint = self.endpoints[signal]
        proxy = None
        try:
            url = parse_url(endpoint.url)
            custom = endpoint.headers()
            if custom is None:
                return UNCONFIGURED
            if (headers := all_headers(custom, url, endpoint.compression)) is None:
                return Failure("one of its headers cannot be sent. Check OTEL_EXPORTER_OTLP_HEADERS and the API key")
            proxy = Proxy.of(endpoint.url)
            result = self._post(endpoint, url, proxy, headers, compress(body, endpoint.compression), timeout)
            failure = failure_of(*result, secrets=custom.values())
        except ResponseTooLong:
            failure = Failure(NO_RECEIVER.format("more than 64 kB"))
        except Exception as error:
            failure = explain(error, timeout, custom_ca=bool(endpoint.certificate))
        if failure and proxy and failure.rejected is None and proxy.name not in failure.reason:
            reason_with_proxy = (
                f"{failure.reason}. Telemetry goes through the proxy {proxy.name}; NO_PROXY lists hosts that need none"
            )
            failure = dataclasses.replace(failure, reason=reason_with_proxy)
        return failure

    def close(self) -> None:
        """Close the idle connections. The next `send` opens a new one."""
        idle, self._idle = self._idle, {}
        for connection in idle.values():
            connection.disconnect()

    def _post(
        self,
        endpoint: Endpoint,
        url: SplitResult,
        proxy: Proxy | None,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Return the response and its body, over an idle connection or a new one.

        A receiver may close an idle connection at any time, so if one fails, a new one is tried.
        """
        deadline = time.monotonic() + timeout
        route = (url.scheme, url.netloc, proxy, endpoint.certificate, endpoint.client_certificate, endpoint.client_key)
        if self._process != os.getpid():  # the connections belong to the parent process
            self._idle, self._process = {}, os.getpid()
        connection = self._idle.pop(route, None)
        if connection is not None:
            connection.sock.renew(deadline)
            if not connection.sock.readable():  # readable without a request: the receiver has closed it
                try:
                    return self._exchange(connection, route, url, proxy, headers, body)
                except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                    pass
            connection.disconnect()
        connection = Connection(url.hostname or "", url.port or default_port(url))
        tls = functools.partial(tls_context, endpoint) if url.scheme == "https" else None
        connection.sock = open_wire(url.hostname or "", connection.port, deadline, proxy, tls)
        return self._exchange(connection, route, url, proxy, headers, body)

    def _exchange(
        self,
        connection: Connection,
        route: object,
        url: SplitResult,
        proxy: Proxy | None,
        headers: Mapping[str, str],
        body: bytes,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        done = False
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            if proxy and proxy.forwards and url.scheme == "http":
                host = url.netloc.rpartition("@")[2]
                target, headers = f"http://{host}{target}", {**headers, **proxy.headers()}
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", target, body, dict(headers))
            # Even if it broke: the receiver may respond (413) before it has read everything.
            response = connection.getresponse()
            try:
                content = response.read(Wire.MAX_RESPONSE)
                if response.length:  # the number of missing bytes
                    raise http.client.IncompleteRead(b"", response.length)
            except (OSError, http.client.HTTPException, ResponseTooLong):
                if 200 <= response.status < 300:
                    raise
                return response, b""  # the status is sufficient
            done = response.isclosed() and not response.will_close
            return response, content
        finally:
            if done:
                self._idle[route] = connection
            else:
                connection.disconnect()


def parse_url(address: str) -> SplitResult:
    """Parse an endpoint's URL. Raises `http.client.InvalidURL` if it is invalid."""
    try:
        url = urlsplit(address)
        usable = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port)
    except ValueError:
        usable = False
    if not usable:
        raise http.client.InvalidURL
    return url


def default_port(url: SplitResult) -> int:
    return 443 if url.scheme == "https" else 80


def all_headers(custom: Mapping[str, str], url: SplitResult, compression: str | None) -> dict[str, str] | None:
    """Return all headers of the request; None if one of `custom` cannot be sent."""
    headers = {
        "content-type": "application/x-protobuf",
        "user-agent": f"OTel-OTLP-Exporter-Python/{otlp_version}",
        **{name.lower(): value for name, value in custom.items()},
    }
    if compression:
        headers["content-encoding"] = compression
    if url.username and "authorization" not in headers:
        headers["authorization"] = basic(url)
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name) or not re.fullmatch(r"[\t -~]*", value):
            return None
    return headers


def basic(url: SplitResult) -> str:
    """Return the user and password of `url` as the value of an Authorization header."""
    user = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return "Basic " + b64encode(user.encode()).decode()


def compress(body: bytes, compression: str | None) -> bytes:
    if compression == "gzip":
        return gzip.compress(body, compresslevel=6, mtime=0)
    return zlib.compress(body) if compression == "deflate" else body


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Return a context with the CAs and certificate of `endpoint`. Reloads changed files. Raises `Unreachable`."""
    variable, ca_path = "OTEL_EXPORTER_OTLP_CERTIFICATE", endpoint.certificate
    for other in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if not ca_path and os.environ.get(other):
            variable, ca_path = other, os.environ[other]
    ca_path = ca_path or DEFAULT_CA_BUNDLE_PATH
    files = {variable: ca_path}
    if endpoint.client_certificate:
        files["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = endpoint.client_certificate
        if endpoint.client_key:
            files["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = endpoint.client_key
    mtimes = []
    for variable, path in files.items():
        try:
            mtimes.append(os.stat(path).st_mtime_ns)
            if not os.access(path, os.R_OK):
                raise PermissionError(13, "Permission denied")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a path"
            raise Unreachable(f"the file {escape(path)} cannot be read ({reason}). Check {variable}") from None
    try:
        return loaded_context(ca_path, endpoint.client_certificate, endpoint.client_key, tuple(mtimes))
    except (OSError, ValueError):  # an SSLError is an OSError
        names = " and ".join(files)
        raise Unreachable(f"a certificate or key is not in PEM form, or they do not match. Check {names}") from None


@functools.lru_cache(maxsize=8)
def loaded_context(ca_path: str, certificate: str | None, key: str | None, mtimes: tuple[int, ...]) -> ssl.SSLContext:
    folder = os.path.isdir(ca_path)
    context = ssl.create_default_context(cafile=None if folder else ca_path, capath=ca_path if folder else None)
    if certificate:
        context.load_cert_chain(certificate, key, password=lambda: "")  # otherwise OpenSSL prompts on the terminal
    return context
