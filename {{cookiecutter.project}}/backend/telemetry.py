"""Telemetry, from what this service is called to where its traces, logs and metrics go.

The only file that imports the OpenTelemetry SDK. It reads from top to bottom in the order in which things
happen: the resource, where to send, the three signals, the instrumentation, the end. Every standard OTEL_*
variable keeps its meaning and wins over what is decided here:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import re
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote
from wsgiref.types import WSGIEnvironment

import flask
import requests
from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation import propagators
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    ConsoleLogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.util.http import redact_url

from backend.delivery import CAPACITY, Address, Batch, Delivery, Outlet, as_given, hand_over

logger = logging.getLogger(__name__)

PROJECT: Final = Path(__file__).parents[1]
SIGNALS: Final = ("traces", "logs", "metrics")
LONGEST_SHUTDOWN: Final = 3.0  # seconds; the SDK's own bound is 30 and cannot be set
REDACTED: Final = "REDACTED"
HEALTH: Final = r"^[^/]+//[^/]+/api/health(\?|$)"  # matched with search, on the whole URL
WHAT_TO_DO: Final = "Set HONEYCOMB_API_KEY, or OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_SDK_DISABLED=true"


@functools.cache
def project() -> dict[str, Any]:
    """What pyproject.toml says: `[project]` for the version, `[tool.telemetry]` for names and addresses."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


# What this service is.


def resource(service_name: str | None, debug: bool) -> Resource:
    """The resource of `service_name` (by default the backend's own); the SDK adds service.instance.id."""
    return Resource.create(
        {
            "service.name": service_name or project()["tool"]["telemetry"]["service-name"],
            "service.version": project()["project"]["version"],
            "deployment.environment.name": "development" if debug else "production",
            **OTELResourceDetector().detect().attributes,
        }
    )


# Where to send: the standard variables, else Honeycomb with a key; and the viewer beside either.


def problem_with_key(key: str) -> str | None:
    """What makes `key` no Honeycomb API key, in words that do not show it; None for a usable one."""
    if not key:
        return "is empty"
    if re.search(r"\$\{|\$\(|^\$|^%.*%$", key):
        return "is the name of a variable that was not expanded"
    if key.strip()[:1] in {'"', "'", "`"} or key.strip()[-1:] in {'"', "'", "`"}:
        return "is in quotes that belong to the key now"
    if key != key.strip():
        return "has white space around it"
    if not re.fullmatch(r"[!-~]+", key):
        return "has characters in it that no key has"
    return None


class HoneycombKey:
    """The API key as it is now: from the environment, or from a file that is read again when it changes.

    `path` is a file that holds the key and nothing else; `dotenv` is a file of variables, used in
    development. A key from `dotenv` that someone also put into the environment counts as the file's.
    """

    def __init__(self, environ: dict[str, str] | os._Environ[str], dotenv: Path | None) -> None:
        self.problems: list[str] = []
        self._files: list[tuple[Path, Callable[[Path], str | None]]] = []
        if path := environ.get("HONEYCOMB_API_KEY_FILE"):
            self._files.append((Path(path), lambda file: file.read_text(encoding="utf-8").rstrip("\r\n")))
        if dotenv:
            self._files.append((dotenv, from_dotenv))
            if environ.get("HONEYCOMB_API_KEY") == self._read(dotenv, from_dotenv):
                environ.pop("HONEYCOMB_API_KEY", None)
        self._fixed = self._checked("HONEYCOMB_API_KEY", environ.get("HONEYCOMB_API_KEY"))
        self._stamps: list[tuple[int, int] | None] = []
        self._key = self._fixed
        self()

    def __call__(self) -> str | None:
        """The key, or None while there is no usable one."""
        if self._fixed or (stamps := [stamp(path) for path, _ in self._files]) == self._stamps:
            return self._key
        before, began, self._stamps = self._key, bool(self._stamps), stamps
        if began:
            self.problems.clear()
        found = (self._checked(path.name, self._read(path, read)) for path, read in self._files)
        self._key = next((key for key in found if key), None)
        if began and self._key != before:
            now = "Telemetry goes to Honeycomb from now on" if self._key else "Telemetry no longer goes to Honeycomb"
            logger.info(". ".join([*self.problems, now]) + ".")
        return self._key

    def _checked(self, where: str, key: str | None) -> str | None:
        if key is None or (problem := problem_with_key(key)) is None:
            return key
        self.problems.append(f"The Honeycomb API key in {where} {problem}")
        return None

    def _read(self, path: Path, read: Callable[[Path], str | None]) -> str | None:
        try:
            return read(path)
        except FileNotFoundError:
            if read is not from_dotenv:
                self.problems.append(f"HONEYCOMB_API_KEY_FILE names {path}, which does not exist")
        except (OSError, UnicodeError) as error:
            self.problems.append(f"The Honeycomb API key in {path} cannot be read ({type(error).__name__})")
        return None


def from_dotenv(path: Path) -> str | None:
    """The value of HONEYCOMB_API_KEY in the file of variables `path`; an empty one is none."""
    from dotenv import dotenv_values  # a development dependency

    return dotenv_values(path).get("HONEYCOMB_API_KEY") or None


def stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def plain_headers(batch: Batch) -> dict[str, str]:
    """The headers that describe a batch, without those meant for the receiver in OTEL_EXPORTER_OTLP_HEADERS."""
    kept = ("content-type", "content-encoding", "user-agent")
    return {name: value for name, value in batch.headers.items() if name.lower() in kept}


def honeycomb(endpoint: str, key: HoneycombKey, service_name: str) -> Address:
    """Honeycomb's address, with the key of the moment.

    Classic keys and metrics also need a dataset: https://docs.honeycomb.io/send-data/opentelemetry/
    """

    def address(batch: Batch) -> tuple[str, dict[str, str]] | None:
        api_key = key()
        if api_key is None:
            return None
        headers = {**plain_headers(batch), "x-honeycomb-team": api_key}
        if batch.outlet.signal == "metrics":
            headers["x-honeycomb-dataset"] = f"{service_name}_metrics"
        elif re.fullmatch(r"[0-9a-f]{32}|hc[a-z]ic_[0-9a-z]{58}", api_key):
            headers["x-honeycomb-dataset"] = service_name
        return f"{endpoint}/v1/{batch.outlet.signal}", headers

    return address


def viewer(endpoint: str) -> Address:
    """The local viewer's address."""
    return lambda batch: (f"{endpoint}/v1/{batch.outlet.signal}", plain_headers(batch))


def standard_url(signal: str, environ: Mapping[str, str]) -> str | None:
    """Where the standard variables send `signal`, as the exporter works it out; None where none is set."""
    own, common = f"OTEL_EXPORTER_OTLP_{signal.upper()}_", "OTEL_EXPORTER_OTLP_"
    if url := environ.get(own + "ENDPOINT"):
        return url
    if base := environ.get(common + "ENDPOINT"):
        return f"{base.removesuffix('/')}/v1/{signal}"
    if environ.get(own + "HEADERS") or environ.get(common + "HEADERS"):
        return f"http://localhost:4318/v1/{signal}"
    return None


def problem_with_headers(signal: str, environ: Mapping[str, str]) -> str | None:
    """What is wrong with the API key in the standard headers of `signal`, if it is there and no key."""
    own, common = f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"
    variable = own if environ.get(own) else common
    for header in environ.get(variable, "").split(","):
        name, _, value = header.partition("=")
        if unquote(name).strip().lower() == "x-honeycomb-team":
            problem = problem_with_key(unquote(value).strip())
            return problem and f"The Honeycomb API key in {variable} {problem}"
    return None


def shown(url: str) -> str:
    """`url` without user, password, path and query."""
    return re.sub(r"^([a-z]+://)(?:[^/]*@)?([^/?#]*).*$", r"\1\2", url)


class Routes:
    """Which deliveries each signal goes to, and the sentence that tells a person so."""

    def __init__(self, service_name: str, debug: bool) -> None:
        environ = os.environ
        self.by_signal: dict[str, list[Delivery]] = {signal: [] for signal in SIGNALS}
        self.deliveries: dict[str, Delivery] = {}
        problems: list[str] = []
        silent: set[str] = set()
        keyed: list[str] = []  # signals that go to Honeycomb
        for signal in SIGNALS:
            if (url := standard_url(signal, environ)) is None:
                keyed.append(signal)
            elif problem := problem_with_headers(signal, environ):
                problems.append(problem)
            else:
                self._add(shown(url), as_given, [signal])
        if keyed:
            key = HoneycombKey(environ, PROJECT / ".env" if debug else None)
            default = project()["tool"]["telemetry"]["honeycomb-api-endpoint"]
            endpoint = (environ.get("HONEYCOMB_API_ENDPOINT") or default).rstrip("/")
            if debug or key():
                self._add(shown(endpoint), honeycomb(endpoint, key, service_name), keyed)
            if key() is None:
                silent.add(shown(endpoint))
                problems += key.problems
        if endpoint := environ.get("VIEWER_ENDPOINT", "").rstrip("/"):
            self._add(shown(endpoint), viewer(endpoint), SIGNALS)
        goes_to = [name for name in self.deliveries if name not in silent]
        self.well = bool(goes_to) and not problems
        sentence = f"Telemetry goes to {' and '.join(goes_to)}" if goes_to else f"Telemetry goes nowhere. {WHAT_TO_DO}"
        self.sentence = ". ".join([*dict.fromkeys(problems), sentence]) + "."

    def _add(self, name: str, address: Address, signals: Sequence[str]) -> None:
        if name not in self.deliveries:
            capacity = os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
            self.deliveries[name] = Delivery(name, address, int(capacity) if capacity.isdecimal() else CAPACITY)
        for signal in signals:
            self.by_signal[signal].append(self.deliveries[name])


def announce(routes: Routes) -> None:
    """Say where telemetry goes: once for a process and the children that it forks or starts."""
    pid, _, said = os.environ.get("TELEMETRY_ANNOUNCED", "").partition(" ")
    if said == routes.sentence and pid in (str(os.getpid()), str(os.getppid())):
        return
    os.environ["TELEMETRY_ANNOUNCED"] = f"{os.getpid()} {routes.sentence}"
    logger.log(logging.INFO if routes.well else logging.WARNING, routes.sentence)


# The three signals. Exporters leave their batches with an outlet and never wait for the network.


class SpanExporter(OTLPSpanExporter):
    """The OTLP exporter, telling its outlet how many spans a batch holds."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(session=outlet)
        self._outlet = outlet

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._outlet.count = len(spans)
        return super().export(spans)


class LogExporter(OTLPLogExporter):
    """The OTLP exporter, telling its outlet how many log records a batch holds."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(session=outlet)
        self._outlet = outlet

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self._outlet.count = len(batch)
        return super().export(batch)


def exporters(signal: str, default: str) -> set[str]:
    """What OTEL_TRACES_EXPORTER, OTEL_LOGS_EXPORTER or OTEL_METRICS_EXPORTER asks for: otlp, console or none."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    asked = {name.strip().lower() for name in (os.environ.get(variable) or default).split(",")}
    for unknown in asked - {"otlp", "console", "none"}:
        logger.warning("%s: there is no exporter %r here; known are otlp, console and none.", variable, unknown)
    return asked


def start_traces(about: Resource, deliveries: Sequence[Delivery]) -> TracerProvider:
    provider = TracerProvider(resource=about, shutdown_on_exit=False)
    asked = exporters("traces", "otlp")
    if "otlp" in asked and deliveries:
        provider.add_span_processor(BatchSpanProcessor(SpanExporter(Outlet("traces", deliveries))))
    if "console" in asked:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def start_logs(about: Resource, deliveries: Sequence[Delivery]) -> LoggerProvider:
    provider = LoggerProvider(resource=about, shutdown_on_exit=False)
    asked = exporters("logs", "otlp")
    if "otlp" in asked and deliveries:
        provider.add_log_record_processor(BatchLogRecordProcessor(LogExporter(Outlet("logs", deliveries))))
    if "console" in asked:
        provider.add_log_record_processor(SimpleLogRecordProcessor(ConsoleLogRecordExporter()))
    _logs.set_logger_provider(provider)
    return provider


def start_metrics(about: Resource, deliveries: Sequence[Delivery]) -> MeterProvider | None:
    readers: list[MetricReader] = []
    asked = exporters("metrics", "none")
    if "otlp" in asked and deliveries:
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(session=Outlet("metrics", deliveries))))
    if "console" in asked:
        readers.append(PeriodicExportingMetricReader(ConsoleMetricExporter()))
    if not readers:
        return None
    provider = MeterProvider(readers, resource=about, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider


class TraceContext(logging.Filter):
    """Gives each log record `trace`: the ids of the current span, or nothing outside of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = trace.get_current_span().get_span_context()
        record.trace = ""
        if context.is_valid:
            ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
            record.trace = " trace_id={} span_id={}".format(*ids)
        return True


def log_to_terminal() -> None:
    """Log to standard error with trace ids, unless someone has set logging up already."""
    if logging.root.handlers:
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s%(trace)s %(message)s")
    for handler in logging.root.handlers:
        handler.addFilter(TraceContext())


class OverOTLP(LoggingHandler):
    """Sends log records over OTLP, but for the servers' access logs (spans say it better) and its own path's."""

    left_out = ("werkzeug", "urllib3", "opentelemetry")

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] not in self.left_out and bool(super().filter(record))


# The instrumentation.


class TraceHeaders(propagators.ResponsePropagator):
    """Answers with the trace they belong to: `traceresponse` for programs, `Server-Timing` for browsers.

    https://www.w3.org/TR/trace-context-2/#trace-context-http-response-headers-format
    """

    def inject(self, carrier: Any, context: Any = None, setter: Any = propagators.default_setter) -> None:
        span = trace.get_current_span(context).get_span_context()
        if span.is_valid:
            ids = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
            value = "00-{}-{}-{:02x}".format(*ids, span.trace_flags)
            setter.set(carrier, "traceresponse", value)
            setter.set(carrier, "Server-Timing", f'traceparent;desc="{value}"')


def name_unmatched(span: trace.Span, environ: WSGIEnvironment) -> None:
    """Name the span of a path that no route matches by its method alone: a name for each path would never end."""
    if flask.request.url_rule is None and span.is_recording():
        span.update_name(span.name.partition(" ")[0])  # type: ignore[attr-defined]


def redact_query(span: trace.Span | None, status: str, headers: list[tuple[str, str]]) -> None:
    """Queries hold tokens and names; what was asked for is in the route."""
    if span is not None and flask.request.query_string:
        span.set_attribute("url.query", REDACTED)


def redact_url_query(span: trace.Span, request: requests.PreparedRequest) -> None:
    """The same for a request that this service makes."""
    url, mark, _ = redact_url(request.url or "").partition("?")
    if mark:
        span.set_attribute("url.full", f"{url}?{REDACTED}")


def instrument(app: flask.Flask, service_name: str | None = None) -> None:
    """Trace `app`, and start telemetry in this process if nothing has yet.

    Call it right after `Flask()`: handlers registered before run outside the span. `service_name` is the
    backend's own when left out. Does nothing with OTEL_SDK_DISABLED=true.
    """
    if disabled():
        return
    start(service_name, app.debug)
    excluded = ",".join(filter(None, [HEALTH, os.environ.get("OTEL_PYTHON_FLASK_EXCLUDED_URLS")]))
    FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
        app,
        excluded_urls=excluded,
        request_hook=name_unmatched,
        response_hook=redact_query,
        enable_commenter=False,
    )


# The beginning and the end.

_stop: Callable[[bool], None] | None = None


def disabled() -> bool:
    """Whether OTEL_SDK_DISABLED=true switches all of it off."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def announce_for_workers() -> None:
    """Say where telemetry goes in a server's first process, so that its workers need not each say it."""
    if not disabled():
        log_to_terminal()
        announce(Routes("", debug=False))


def start(service_name: str | None, debug: bool) -> None:
    """Set up the three signals, once in a process; `shutdown` ends them."""
    global _stop
    if _stop is not None:
        return
    # Stable attribute names (http.request.method, not http.method); read once, at the first instrumentation.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    # Half a second, not five: what a killed process loses, and what a person waits for.
    os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", "500")
    os.environ.setdefault("OTEL_BLRP_SCHEDULE_DELAY", "500")
    # Its warning about a header that it cannot read would print the header, with the key in it.
    logging.getLogger("opentelemetry.util.re").setLevel(logging.ERROR)
    log_to_terminal()
    if (protocol := os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf") != "http/protobuf":
        logger.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %s; this service sends http/protobuf all the same.", protocol)

    about = resource(service_name, debug)
    routes = Routes(str(about.attributes["service.name"]), debug)
    announce(routes)
    to = routes.by_signal
    ends = [start_traces(about, to["traces"]).shutdown, start_logs(about, to["logs"]).shutdown]
    if meter_provider := start_metrics(about, to["metrics"]):
        ends.append(meter_provider.shutdown)
    handler = OverOTLP()
    logging.root.addHandler(handler)
    RequestsInstrumentor().instrument(request_hook=redact_url_query)
    propagators.set_global_response_propagator(TraceHeaders())  # type: ignore[no-untyped-call]

    def stop(replaced: bool) -> None:
        logging.root.removeHandler(handler)
        deliveries = list(routes.deliveries.values())
        if replaced:
            for delivery in deliveries:
                delivery.hold_back()
        for end in ends:
            end()
        if replaced:
            hand_over(deliveries, LONGEST_SHUTDOWN)
        until = time.monotonic() + (0 if replaced else LONGEST_SHUTDOWN)
        for delivery in deliveries:
            delivery.close(until)

    _stop = stop
    atexit.register(shutdown)


def shutdown(replaced: bool = False) -> None:
    """Send what is left, in `LONGEST_SHUTDOWN` seconds at most, and log what could not be sent.

    With `replaced`, for a gunicorn worker whose successor waits for it to go, a child process does that.
    """
    global _stop
    stop, _stop = _stop, None
    if stop is not None:
        stop(replaced)
