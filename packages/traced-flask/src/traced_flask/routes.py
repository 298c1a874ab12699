"""Selects where telemetry goes, and announces it.

1. To the receiver that the standard variables OTEL_EXPORTER_OTLP_* set, if any.
2. Otherwise to Honeycomb, with an API key: HONEYCOMB_API_KEY, HONEYCOMB_API_KEY_FILE or, in development, .env.
3. In development, also to the viewer, if VIEWER_ENDPOINT is set.
4. Otherwise nowhere, with a warning that explains what to do.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast
from urllib.parse import urlsplit

import requests
from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector
from opentelemetry.util.re import parse_env_headers
from werkzeug.serving import is_running_from_reloader

from traced_flask import regions, settings
from traced_flask.account import Account
from traced_flask.checks import is_address
from traced_flask.delivery import Delivery
from traced_flask.destination import Destination, Endpoint
from traced_flask.key import NAME, HoneycombKey, is_classic, problem_with_key
from traced_flask.wire import is_loopback

logger = logging.getLogger(__name__)

SIGNALS: Final = {"traces": "otlp", "logs": "otlp", "metrics": "none"}  # with the default exporters
MAX_TIMEOUT: Final = 600.0  # seconds
ADVICE: Final = "Set HONEYCOMB_API_KEY or OTEL_EXPORTER_OTLP_ENDPOINT, or turn it off with OTEL_SDK_DISABLED=true"

Compression = Literal["gzip", "deflate"]


def without_credentials(url: str) -> str:
    """Return `url` without user, password, path and query, which may be secret."""
    if not is_address(url):
        return "an invalid address"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def service_name() -> str:
    """Return the service name from the global TracerProvider's resource, or else from the environment."""
    resource = getattr(trace.get_tracer_provider(), "resource", None) or OTELResourceDetector().detect()
    return str(resource.attributes.get("service.name") or "unknown_service")


class Routes:
    """The destinations of each signal, from the environment at creation time."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._api = ""
        self.account: Account | None = None  # in development, where traces go to Honeycomb
        self._endpoints: dict[str, dict[str, Endpoint]] = {}  # by destination, then by signal
        self._waiting: str | None = None  # the destination that waits for a key
        signals = [signal for signal, default in SIGNALS.items() if "otlp" in _exporters(signal, default)]
        self._add_honeycomb([signal for signal in signals if not self._add_standard(signal)])
        self._add_viewer(signals)
        self._signals = signals

    def to(self, signal: str) -> dict[str, Endpoint]:
        """Return the endpoints of `signal`, by destination."""
        return {name: by_signal[signal] for name, by_signal in self._endpoints.items() if signal in by_signal}

    def deliveries(self) -> dict[str, Delivery]:
        """Create a delivery for each destination, by its name."""
        return {name: _delivery(Destination(name, endpoints)) for name, endpoints in self._endpoints.items()}

    def announcement(self) -> tuple[int, str]:
        """Return the level and text of the log line about where telemetry goes."""
        names = dict.fromkeys(name for name in self._endpoints if name != self._waiting)
        if names:
            sentence = f"Telemetry goes to {' and '.join(names)}"
        elif self._signals:
            sentence = f"Telemetry is not being sent. {ADVICE}"
        else:
            sentence = "Telemetry is not being sent, because OTEL_TRACES_EXPORTER turns it off"
        is_valid = bool(names or not self._signals) and not self.problems
        return logging.INFO if is_valid else logging.WARNING, ". ".join([*self.problems, sentence]) + "."

    def _add(self, name: str, signal: str, endpoint: Endpoint) -> None:
        self._endpoints.setdefault(name, {}).setdefault(signal, endpoint)

    def _add_standard(self, signal: str) -> bool:
        """Apply the standard variables. Return whether they set a receiver for `signal`, even an invalid one."""
        if (url := standard_url(signal)) is None:
            return False
        headers = _standard_headers(signal)
        if "x-honeycomb-team" in headers and (problem := problem_with_key(headers["x-honeycomb-team"])):
            self._note(f"The Honeycomb API key in {_variable(signal, 'HEADERS')} {problem}")
        elif is_address(url):
            self._add(without_credentials(url), signal, _endpoint(signal, url, lambda: headers))
        return True

    def _add_honeycomb(self, signals: Sequence[str]) -> None:
        """Send `signals` to Honeycomb if there is a key or, in development, as soon as there is one."""
        if not signals:
            return
        development = settings.development()
        key = HoneycombKey(os.environ, Path(".env").absolute() if development else None)
        for problem in key.problems:
            self._note(problem)
        if not development and key() is None and os.environ.get(NAME) == "":
            self._note("The Honeycomb API key in the environment is empty")
        if not (key() or development):
            return
        self._api = api = regions.api_endpoint()
        if not is_address(api):
            self._note("HONEYCOMB_API_ENDPOINT is not an address like https://api.honeycomb.io; nothing is sent to it")
            return
        name = without_credentials(api)
        self._waiting = None if key() or name in self._endpoints else name
        for signal in signals:
            self._add(name, signal, _endpoint(signal, f"{api}/v1/{signal}", _honeycomb_headers(key, signal)))
        if development and "traces" in signals:
            self.account = Account(key, api)

    def _add_viewer(self, signals: Sequence[str]) -> None:
        base = viewer_endpoint()
        if base is None or not settings.development():
            return
        if not is_address(base):
            self._note("VIEWER_ENDPOINT is not an address like http://localhost:4318; it is ignored")
            return
        for signal in signals:
            headers = self._viewer_trace_headers if signal == "traces" else dict
            endpoint = Endpoint(url=f"{base}/v1/{signal}", headers=headers, timeout=_timeout(signal))
            self._add(without_credentials(base), signal, endpoint)

    def _viewer_trace_headers(self) -> dict[str, str]:
        """Tell the viewer, which has no key, the URL of this service's traces in Honeycomb."""
        base = self.honeycomb_traces(service_name())
        return {"x-honeycomb-trace-url": base} if base else {}

    def honeycomb_traces(self, service: str) -> str | None:
        """Return the URL of a trace of `service` in Honeycomb without the ID; None until it is known."""
        if self.account is None or (owner := self.account()) is None:
            return None
        pages = regions.region_of(self._api).pages
        dataset = regions.dataset_slug(service)
        return regions.page(pages, owner.team, owner.environment, "datasets", dataset, "trace") + "?trace_id="

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


_lock = threading.Lock()
_routes: Routes | None = None
_deliveries: dict[str, Delivery] = {}
_explicit: list[str] = []  # destinations of exporters with arguments
_announced: set[str] = set()  # log lines; forked processes inherit them
_announced_for_workers = False


def routes() -> Routes:
    """Return the routes of this process, which are created once."""
    global _routes
    if _routes is None:
        with _lock:
            if _routes is None:
                new = Routes()
                _deliveries.update(new.deliveries())
                _routes = new
    return _routes


def deliveries(signal: str) -> Sequence[Delivery]:
    """Return the deliveries of `signal`. All exporters of a process share them."""
    if settings.disabled():
        return []
    return [_deliveries[name] for name in routes().to(signal)]


def explicit(
    signal: str,
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    compression: str | None = None,
    certificate_file: str | None = None,
    client_certificate_file: str | None = None,
    client_key_file: str | None = None,
) -> Sequence[Delivery]:
    """Return the delivery of an exporter. An argument that is None defaults to its standard variable."""
    url = endpoint or standard_url(signal) or f"http://localhost:4318/v1/{signal}"
    all_headers = {**_standard_headers(signal), **{name.lower(): value for name, value in (headers or {}).items()}}
    options: dict[str, Any] = {
        "timeout": timeout if timeout and 0 < timeout <= MAX_TIMEOUT else None,
        "certificate": certificate_file,
        "client_certificate": client_certificate_file,
        "client_key": client_key_file,
    }
    target = _endpoint(signal, url, lambda: all_headers)
    target = dataclasses.replace(target, **{name: value for name, value in options.items() if value is not None})
    if compression is not None:
        target = dataclasses.replace(target, compression=_compression(compression))
    name = without_credentials(url)
    _explicit.append(name)
    return [_delivery(Destination(name, {signal: target}))]


def destinations(signal: str) -> list[dict[str, Any]]:
    """Return the destinations of `signal` as keyword arguments for OpenTelemetry's exporters.

    `signal` is "traces", "logs" or "metrics"; metrics are off unless OTEL_METRICS_EXPORTER=otlp. The arguments are
    endpoint, headers and session. The session uses no proxy for this machine. The headers contain the current Honeycomb
    API key; an exporter that is created with them does not pick up a new key.
    """
    if settings.disabled():
        return []
    standard = _standard_headers(signal)
    result = []
    for endpoint in routes().to(signal).values():
        if (headers := endpoint.headers()) is not None:
            # OpenTelemetry's exporters add headers from the environment, which are for another receiver.
            blanks = dict.fromkeys(standard.keys() - headers.keys(), "")
            session = requests.Session()
            session.trust_env = not is_loopback(urlsplit(endpoint.url).hostname or "")
            result.append({"endpoint": endpoint.url, "headers": {**blanks, **headers}, "session": session})
    return result


class Log(Protocol):
    """A `logging.Logger` or gunicorn's logger."""

    def log(self, level: int, text: str) -> None: ...


def announce() -> None:
    """Log problems with the settings, and where telemetry goes: once for a process and its forks.

    The reloader's child logs nothing, because its parent has logged it.
    """
    if settings.disabled() or is_running_from_reloader():
        return
    if _routes or not _explicit:
        _log_all(logger, routes())
    for name in _explicit:
        _log_once(logger, logging.INFO, f"Telemetry goes to {name}.")


def announce_for_workers(log: Log) -> None:
    """Announce in a server's main process, on behalf of its workers, which then log nothing."""
    global _announced_for_workers
    if not settings.disabled():
        _log_all(log, Routes())  # not stored, because a worker's application may set variables
        _announced_for_workers = True


def _log_all(log: Log, current: Routes) -> None:
    for problem in settings.problems:
        _log_once(log, logging.WARNING, problem)
    _log_once(log, *current.announcement())


def _log_once(log: Log, level: int, sentence: str) -> None:
    is_written = log is not logger or logger.isEnabledFor(level)  # if not, a server's logger may write it later
    if is_written and sentence not in _announced and not _announced_for_workers:
        _announced.add(sentence)
        log.log(level, sentence)


def viewer_endpoint() -> str | None:
    """Return the base address of the viewer from VIEWER_ENDPOINT."""
    return (settings.own("VIEWER_ENDPOINT") or "").rstrip("/") or None


# The standard variables. The one for a signal overrides the one for all signals.


def _variable(signal: str, what: str) -> str:
    specific = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}"
    return specific if os.environ.get(specific) else f"OTEL_EXPORTER_OTLP_{what}"


def _standard(signal: str, what: str) -> str | None:
    return os.environ.get(_variable(signal, what)) or None


def standard_url(signal: str) -> str | None:
    """Return the URL of `signal` from the standard variables, or None if none is set."""
    if url := os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"):
        return url
    if base := os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return f"{base.removesuffix('/')}/v1/{signal}"
    return f"http://localhost:4318/v1/{signal}" if _standard(signal, "HEADERS") else None


def _standard_headers(signal: str) -> dict[str, str]:
    return dict(parse_env_headers(_standard(signal, "HEADERS") or "", liberal=True))


def _timeout(signal: str) -> float:
    return float(_standard(signal, "TIMEOUT") or 10)


def _compression(name: str | None) -> Compression | None:
    return cast(Compression, name) if name in ("gzip", "deflate") else None


def _endpoint(signal: str, url: str, headers: Callable[[], Mapping[str, str] | None]) -> Endpoint:
    return Endpoint(
        url=url,
        headers=headers,
        timeout=_timeout(signal),
        compression=_compression(_standard(signal, "COMPRESSION")),
        certificate=_standard(signal, "CERTIFICATE"),
        client_certificate=_standard(signal, "CLIENT_CERTIFICATE"),
        client_key=_standard(signal, "CLIENT_KEY"),
    )


def _honeycomb_headers(key: HoneycombKey, signal: str) -> Callable[[], dict[str, str] | None]:
    """Return a function that returns the current headers. Metrics and classic keys need a dataset.

    https://docs.honeycomb.io/send-data/opentelemetry/
    """

    def headers() -> dict[str, str] | None:
        if (api_key := key()) is None:
            return None
        result = {"x-honeycomb-team": api_key}
        if signal == "metrics":
            result["x-honeycomb-dataset"] = f"{_as_header(service_name())}_metrics"
        elif is_classic(api_key):
            result["x-honeycomb-dataset"] = _as_header(service_name())
        return result

    return headers


def _as_header(text: str) -> str:
    return re.sub(r"[^ -~]+", "-", text)


def _delivery(destination: Destination) -> Delivery:
    capacity = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", 2048))
    return Delivery(destination, capacity, int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)))


def _exporters(signal: str, default: str) -> list[str]:
    return (os.environ.get(f"OTEL_{signal.upper()}_EXPORTER") or default).split(",")
