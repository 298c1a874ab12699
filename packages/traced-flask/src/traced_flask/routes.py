"""Where telemetry goes, and the sentence that says so.

1. To the receiver that the standard variables OTEL_EXPORTER_OTLP_* name, if they do.
2. Otherwise to Honeycomb, with an API key: HONEYCOMB_API_KEY, HONEYCOMB_API_KEY_FILE or, in development, .env.
3. In development to the viewer as well, if VIEWER_ENDPOINT names one.
4. Otherwise nowhere, and a warning says what to do.
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

SIGNALS: Final = {"traces": "otlp", "logs": "otlp", "metrics": "none"}  # and the default exporters
MAX_TIMEOUT: Final = 600.0  # seconds
WHAT_TO_DO: Final = "Set HONEYCOMB_API_KEY, or OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_SDK_DISABLED=true"

Compression = Literal["gzip", "deflate"]


def without_credentials(url: str) -> str:
    """`url` without user, password, path and query, which may be secret."""
    if not is_address(url):
        return "an invalid address"
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def service_name() -> str:
    """The service's name, from the global TracerProvider's resource, else from the environment."""
    resource = getattr(trace.get_tracer_provider(), "resource", None) or OTELResourceDetector().detect()
    return str(resource.attributes.get("service.name") or "unknown_service")


class Routes:
    """The destinations of each signal, by the environment at the time of creation."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._api = ""
        self.account: Account | None = None  # in development, where traces go to Honeycomb
        self._endpoints: dict[str, dict[str, Endpoint]] = {}  # by destination, then by signal
        self._waiting: str | None = None  # for a key
        signals = [signal for signal, default in SIGNALS.items() if "otlp" in _exporters(signal, default)]
        self._add_honeycomb([signal for signal in signals if not self._add_standard(signal)])
        self._add_viewer(signals)
        self._signals = signals

    def to(self, signal: str) -> dict[str, Endpoint]:
        """Where `signal` goes: an endpoint for each destination."""
        return {name: each[signal] for name, each in self._endpoints.items() if signal in each}

    def deliveries(self) -> dict[str, Delivery]:
        """A new delivery for each destination, by the destination's name."""
        return {name: _delivery(Destination(name, endpoints)) for name, endpoints in self._endpoints.items()}

    def announcement(self) -> tuple[int, str]:
        """The sentence that says where telemetry goes, and the level of its log line."""
        names = dict.fromkeys(name for name in self._endpoints if name != self._waiting)
        if names:
            sentence = f"Telemetry goes to {' and '.join(names)}"
        elif self._signals:
            sentence = f"Telemetry goes nowhere. {WHAT_TO_DO}"
        else:
            sentence = "Telemetry goes nowhere, as OTEL_TRACES_EXPORTER asks"
        fine = bool(names or not self._signals) and not self.problems
        return logging.INFO if fine else logging.WARNING, ". ".join([*self.problems, sentence]) + "."

    def _add(self, name: str, signal: str, endpoint: Endpoint) -> None:
        self._endpoints.setdefault(name, {}).setdefault(signal, endpoint)

    def _add_standard(self, signal: str) -> bool:
        """Follow the standard variables; whether they name a receiver for `signal`, even with a wrong address."""
        if (url := standard_url(signal)) is None:
            return False
        headers = _standard_headers(signal)
        if "x-honeycomb-team" in headers and (problem := problem_with_key(headers["x-honeycomb-team"])):
            self._note(f"The Honeycomb API key in {_variable(signal, 'HEADERS')} {problem}")
        elif is_address(url):
            self._add(without_credentials(url), signal, _endpoint(signal, url, lambda: headers))
        return True

    def _add_honeycomb(self, signals: Sequence[str]) -> None:
        """Send `signals` to Honeycomb if there is a key; in development, also once there is one."""
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
        """Where Honeycomb shows a trace of this service: the viewer has no key to look it up."""
        base = self.honeycomb_traces(service_name())
        return {"x-honeycomb-trace-url": base} if base else {}

    def honeycomb_traces(self, service: str) -> str | None:
        """Where Honeycomb shows the traces of `service`, without the trace id; None until it is known."""
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
_announced: set[str] = set()  # sentences; a forked process inherits them
_announced_for_workers = False


def routes() -> Routes:
    """The routes of this process, made once."""
    global _routes
    if _routes is None:
        with _lock:
            if _routes is None:
                new = Routes()
                _deliveries.update(new.deliveries())
                _routes = new
    return _routes


def deliveries(signal: str) -> Sequence[Delivery]:
    """Where an exporter of `signal` puts its batches; the same deliveries for all exporters of a process."""
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
    """The delivery of an exporter with arguments. What is None comes from the standard variables."""
    url = endpoint or standard_url(signal) or f"http://localhost:4318/v1/{signal}"
    sent = {**_standard_headers(signal), **{name.lower(): value for name, value in (headers or {}).items()}}
    given: dict[str, Any] = {
        "timeout": timeout if timeout and 0 < timeout <= MAX_TIMEOUT else None,
        "certificate": certificate_file,
        "client_certificate": client_certificate_file,
        "client_key": client_key_file,
    }
    to = _endpoint(signal, url, lambda: sent)
    to = dataclasses.replace(to, **{name: value for name, value in given.items() if value is not None})
    if compression is not None:
        to = dataclasses.replace(to, compression=_compression(compression))
    name = without_credentials(url)
    _explicit.append(name)
    return [_delivery(Destination(name, {signal: to}))]


def destinations(signal: str) -> list[dict[str, Any]]:
    """Where `signal` goes, as keyword arguments of OpenTelemetry's own exporters: endpoint, headers and session.

    `signal` is "traces", "logs" or "metrics"; metrics are off until OTEL_METRICS_EXPORTER=otlp. The session reaches
    this machine without a proxy. The headers contain the current Honeycomb API key: an exporter that is created with
    them does not notice a new one.
    """
    if settings.disabled():
        return []
    standard = _standard_headers(signal)
    found = []
    for endpoint in routes().to(signal).values():
        if (headers := endpoint.headers()) is not None:
            # OpenTelemetry's exporters add the headers of the environment, which are for another receiver.
            others = dict.fromkeys(standard.keys() - headers.keys(), "")
            session = requests.Session()
            session.trust_env = not is_loopback(urlsplit(endpoint.url).hostname or "")
            found.append({"endpoint": endpoint.url, "headers": {**others, **headers}, "session": session})
    return found


class Log(Protocol):
    """A `logging.Logger`, or gunicorn's."""

    def log(self, level: int, text: str) -> None: ...


def announce() -> None:
    """Log what is wrong with the settings, and where telemetry goes: once for a process and those that it forks.

    The reloader's child logs nothing, since its parent has done so.
    """
    if settings.disabled() or is_running_from_reloader():
        return
    if _routes or not _explicit:
        _log(logger, routes())
    for name in _explicit:
        _log_once(logger, logging.INFO, f"Telemetry goes to {name}.")


def announce_for_workers(log: Log) -> None:
    """Announce in a server's first process, for all those that it forks, which then log nothing."""
    global _announced_for_workers
    if not settings.disabled():
        _log(log, Routes())  # not kept, since a worker's application may set variables
        _announced_for_workers = True


def _log(log: Log, found: Routes) -> None:
    for problem in settings.problems:
        _log_once(log, logging.WARNING, problem)
    _log_once(log, *found.announcement())


def _log_once(log: Log, level: int, sentence: str) -> None:
    is_written = log is not logger or logger.isEnabledFor(level)  # if not, a server's own log may write it later
    if is_written and sentence not in _announced and not _announced_for_workers:
        _announced.add(sentence)
        log.log(level, sentence)


def viewer_endpoint() -> str | None:
    """The base address of the viewer, if VIEWER_ENDPOINT names one."""
    return (settings.own("VIEWER_ENDPOINT") or "").rstrip("/") or None


# The standard variables. The one for a signal overrides the one for all signals.


def _variable(signal: str, what: str) -> str:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}"
    return own if os.environ.get(own) else f"OTEL_EXPORTER_OTLP_{what}"


def _standard(signal: str, what: str) -> str | None:
    return os.environ.get(_variable(signal, what)) or None


def standard_url(signal: str) -> str | None:
    """Where the standard variables send `signal`; None where none is set."""
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
    """The current headers. Metrics and classic keys need a dataset.

    https://docs.honeycomb.io/send-data/opentelemetry/
    """

    def headers() -> dict[str, str] | None:
        if (api_key := key()) is None:
            return None
        found = {"x-honeycomb-team": api_key}
        if signal == "metrics":
            found["x-honeycomb-dataset"] = f"{_as_header(service_name())}_metrics"
        elif is_classic(api_key):
            found["x-honeycomb-dataset"] = _as_header(service_name())
        return found

    return headers


def _as_header(text: str) -> str:
    return re.sub(r"[^ -~]+", "-", text)


def _delivery(destination: Destination) -> Delivery:
    capacity = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", 2048))
    return Delivery(destination, capacity, int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)))


def _exporters(signal: str, default: str) -> list[str]:
    return (os.environ.get(f"OTEL_{signal.upper()}_EXPORTER") or default).split(",")
