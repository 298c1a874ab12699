"""Telemetry, from what this service is called to where its traces, logs and metrics go.

The only file that imports the OpenTelemetry SDK. It reads from top to bottom in the order in which things
happen: the resource, where to send, what to keep, the three signals, the instrumentation, the end. Every
standard OTEL_* variable keeps its meaning and wins over what is decided here:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import re
import threading
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote
from wsgiref.types import WSGIEnvironment

import flask
import requests
from opentelemetry import _logs, context, metrics, propagate, trace
from opentelemetry.context import Context
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
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from backend.callers import UNDECIDED, Callers, FromCallers, link_stranger
from backend.delivery import CAPACITY, TOGETHER, Address, Batch, Delivery, Outlet, as_given, close_all, hand_over
from backend.span_encoder import encode
from backend.trace_links import PAGES, TraceLinks

logger = logging.getLogger(__name__)

PROJECT: Final = Path(__file__).parents[1]
SIGNALS: Final = {"traces": "otlp", "logs": "otlp", "metrics": "none"}  # and their exporters, if nobody says
LONGEST_SHUTDOWN: Final = 3.0  # seconds; the SDK's own bound is 30 and cannot be set
REDACTED: Final = "REDACTED"
RATES: Final = range(1, 1_000_001)  # of sampling
RANDOM_BITS: Final = 56  # at the end of a trace id: https://www.w3.org/TR/trace-context-2/#random-trace-id-flag
HEALTH: Final = r"^[^/]*//[^/]*/api/health(\?|$)"  # matched with search, on the whole URL
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
    """What makes `key` no Honeycomb API key, in words that do not show it; None for a usable one.

    bin/honeycomb, which can import nothing, has the same function.
    """
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
    if re.match(r"hc[a-z]mk_", key):
        return "is a management key, with which nothing can be sent"
    if re.fullmatch(r"hc[a-z]{2}[ck]_[0-9a-z]{26}", key):
        return "is the id of a key, without the secret that comes after it"
    return None


class HoneycombKey:
    """The API key as it is now: from the environment, or from a file that is read again when it changes.

    `path` is a file that holds the key and nothing else; `dotenv` is a file of variables, used in
    development. A key from `dotenv` that someone also put into the environment counts as the file's.
    """

    def __init__(self, environ: dict[str, str] | os._Environ[str], dotenv: Path | None) -> None:
        self.problems: list[str] = []
        self._lock = threading.Lock()
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
        with self._lock:  # so that a change is said once
            return self._now()

    def _now(self) -> str | None:
        if self._fixed or (stamps := [stamp(path) for path, _ in self._files]) == self._stamps:
            return self._key
        before, began, self._stamps = self._key, bool(self._stamps), stamps
        if began:
            self.problems.clear()
        found = (self._checked(path.name, self._read(path, read)) for path, read in self._files)
        self._key = next((key for key in found if key), None)
        if began and (self._key != before or self.problems):
            does = "now goes" if self._key else "no longer goes" if before else "does not go"
            level = logging.WARNING if self.problems else logging.INFO
            logger.log(level, ". ".join([*self.problems, f"Telemetry {does} to Honeycomb"]) + ".")
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
                named = path if len(path.parts) > 1 else "a file"  # people put the key itself there
                self.problems.append(f"HONEYCOMB_API_KEY_FILE names {named}, which does not exist")
        except (OSError, UnicodeError) as error:
            self.problems.append(f"The file with the Honeycomb API key cannot be read ({type(error).__name__})")
        return None


def from_dotenv(path: Path) -> str | None:
    """The value of HONEYCOMB_API_KEY in the file of variables `path`; an empty one is none."""
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:  # a development dependency
        return None
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


def viewer(endpoint: str, in_honeycomb: Callable[[], str | None]) -> Address:
    """The local viewer's address; it is told where Honeycomb shows a trace, having no key to find that out."""

    def address(batch: Batch) -> tuple[str, dict[str, str]]:
        headers = plain_headers(batch)
        if batch.outlet.signal == "traces" and (there := in_honeycomb()):
            headers["x-honeycomb-trace-url"] = there
        return f"{endpoint}/v1/{batch.outlet.signal}", headers

    return address


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
        if unquote(name).strip(" \"'").lower() == "x-honeycomb-team":
            problem = problem_with_key(unquote(value).strip())
            return problem and f"The Honeycomb API key in {variable} {problem}"
    return None


def shown(url: str) -> str:
    """`url` without user, password, path and query, which may be secret."""
    parts = re.match(r"([a-z][a-z0-9+.-]*://)(?:[^/?#]*@)?([^/?#]*)", url, re.IGNORECASE)
    return parts[1] + parts[2] if parts else "an address that does not begin with http://"


def viewer_endpoint() -> str | None:
    """The local viewer's base address, if VIEWER_ENDPOINT names one."""
    return os.environ.get("VIEWER_ENDPOINT", "").rstrip("/") or None


def exporters(signal: str) -> set[str]:
    """What OTEL_TRACES_EXPORTER, OTEL_LOGS_EXPORTER or OTEL_METRICS_EXPORTER asks for: otlp, console or none."""
    asked = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER") or SIGNALS[signal]
    return {name.strip().lower() for name in asked.split(",")}


def unknown_exporters() -> list[str]:
    """A sentence for each exporter that is asked for and not there."""
    return [
        f"OTEL_{signal.upper()}_EXPORTER: there is no exporter {unknown!r} here, only otlp, console and none."
        for signal in SIGNALS
        for unknown in sorted(exporters(signal) - {"otlp", "console", "none"})
    ]


class Routes:
    """Which deliveries each signal goes to, and the sentence that tells a person so."""

    def __init__(self, service_name: str, debug: bool) -> None:
        self._insists = not debug  # a person who ends a program waits for it
        self.by_signal: dict[str, list[Delivery]] = {signal: [] for signal in SIGNALS}
        self.deliveries: list[Delivery] = []
        self._waiting: Delivery | None = None  # for a key
        self._problems: list[str] = []
        keyed = self._by_standard_variables()
        links = self._by_key(keyed, service_name, debug)
        self.links = links if debug else None
        if endpoint := viewer_endpoint():
            name = shown(endpoint)
            others = [signal for signal in SIGNALS if name not in self._names(signal)]
            self._add(name, viewer(endpoint, links.in_honeycomb), others)
        self.well, self.sentence = self._in_words()

    def _by_standard_variables(self) -> list[str]:
        """Follow the standard variables. Returns the signals that they do not send anywhere."""
        rest = []
        for signal in SIGNALS:
            if (url := standard_url(signal, os.environ)) is None:
                rest.append(signal)
            elif problem := problem_with_headers(signal, os.environ):
                self._problems.append(problem)
            else:
                self._add(shown(url), as_given, [signal])
        return rest

    def _by_key(self, signals: Sequence[str], service_name: str, debug: bool) -> TraceLinks:
        """Send `signals` to Honeycomb with a key, in development with one that comes later too."""
        default = project()["tool"]["telemetry"]["honeycomb-api-endpoint"]
        endpoint = (os.environ.get("HONEYCOMB_API_ENDPOINT") or default).rstrip("/")
        key = HoneycombKey(os.environ, PROJECT / ".env" if debug else None) if signals else None
        if key and (debug or key()):
            delivery = self._add(shown(endpoint), honeycomb(endpoint, key, service_name), signals)
            self._waiting = None if key() else delivery
        if key and key() is None:
            self._problems += key.problems
        pages = PAGES.get(endpoint) or PAGES.get(default, "https://ui.honeycomb.io")
        # In Docker, a browser has another address for the viewer than the backend.
        in_viewer = viewer_endpoint() and (os.environ.get("VIEWER_TRACES") or f"{viewer_endpoint()}/traces/")
        known = key if key and debug and "traces" in signals else lambda: None
        return TraceLinks(known, endpoint, pages, service_name, in_viewer)

    def _in_words(self) -> tuple[bool, str]:
        """Whether all is well, and where telemetry goes."""
        signals = [signal for signal in SIGNALS if "otlp" in exporters(signal)]
        if goes_to := dict.fromkeys(name for signal in signals for name in self._names(signal)):
            sentence = f"Telemetry goes to {' and '.join(goes_to)}"
        else:
            sentence = f"Telemetry goes nowhere{f'. {WHAT_TO_DO}' if signals else ', as OTEL_TRACES_EXPORTER asks'}"
        well = bool(goes_to or not signals) and not self._problems
        return well, ". ".join([*dict.fromkeys(self._problems), sentence]) + "."

    def _names(self, signal: str) -> list[str]:
        return [delivery.name for delivery in self.by_signal[signal] if delivery is not self._waiting]

    def _add(self, name: str, address: Address, signals: Sequence[str]) -> Delivery | None:
        if not signals:
            return None
        same = (each for each in self.deliveries if each.name == name and each.address is address)
        if (delivery := next(same, None)) is None:
            capacity = whole_number(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE"), CAPACITY)
            together = whole_number(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), TOGETHER)
            delivery = Delivery(name, address, capacity, together, self._insists)
            self.deliveries.append(delivery)
        for signal in signals:
            self.by_signal[signal].append(delivery)
        return delivery


def whole_number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() else default


def announce(routes: Routes) -> None:
    """Say where telemetry goes: once for a process and the children that it forks or starts."""
    pid, _, said = os.environ.get("TELEMETRY_ANNOUNCED", "").partition(" ")
    if said == routes.sentence and pid in (str(os.getpid()), str(os.getppid())):
        return
    os.environ["TELEMETRY_ANNOUNCED"] = f"{os.getpid()} {routes.sentence}"
    logger.log(logging.INFO if routes.well else logging.WARNING, routes.sentence)


# Which traces to keep.


class KeepOneIn(Sampler):
    """Keeps one trace in `rate`, each of its spans with the rate, so that a receiver can count what is left out.

    Where a trace begins, its id decides, so every service comes to the same answer; everywhere else the
    parent's decision stands. The rate of who decided goes along in tracestate, as the threshold that
    OpenTelemetry specifies, and is what counts: a service that keeps one in 10 gives the spans of a trace
    that another kept as one in 2 the rate of 2, and of one that came without a rate, 1.
    https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
    https://docs.honeycomb.io/manage-data-volume/sample/sampled-data-in-honeycomb
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        kept = round((1 << RANDOM_BITS) / rate)  # of all that the random bits can be
        self._threshold = (1 << RANDOM_BITS) - kept
        digits = f"{self._threshold:0{RANDOM_BITS // 4}x}".rstrip("0") or "0"
        self._state = TraceState([("ot", f"th:{digits}")]) if rate > 1 else None
        self._none = SamplingResult(Decision.DROP)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide on a span, in a microsecond or two: this is called for every one."""
        parent = trace.get_current_span(parent_context).get_span_context()
        if not parent.is_valid or (parent.is_remote and context.get_value(UNDECIDED, parent_context)):
            if trace_id & ((1 << RANDOM_BITS) - 1) < self._threshold:
                return self._none
            state, rate = self._state, self.rate
        elif not parent.trace_flags.sampled:
            state = parent.trace_state
            return SamplingResult(Decision.DROP, trace_state=state) if state else self._none
        else:
            state = parent.trace_state
            rate = rate_in(state.get("ot")) if state else 1
        if rate > 1 or self.rate > 1:
            attributes = {**(attributes or {}), "SampleRate": rate}
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        return f"KeepOneIn({self.rate})"


@functools.lru_cache(maxsize=256)
def rate_in(ot: str | None) -> int:
    """How many traces one stands for, by the threshold `th` in OpenTelemetry's part of tracestate; 1 without one."""
    found = re.search(r"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)", ot or "")
    if found is None:
        return 1
    left_out = int(found[1].ljust(RANDOM_BITS // 4, "0"), 16)
    rate = round((1 << RANDOM_BITS) / ((1 << RANDOM_BITS) - left_out))
    return rate if rate in RATES else 1  # anyone can send one, and it multiplies what is counted


def sampler() -> tuple[Sampler | None, str | None]:
    """The sampler that SAMPLE_RATE asks for, or None where a standard one is chosen; and what is wrong, if anything."""
    asked = os.environ.get("SAMPLE_RATE", "").strip()
    if chosen := os.environ.get("OTEL_TRACES_SAMPLER"):
        return None, f"SAMPLE_RATE has no effect: OTEL_TRACES_SAMPLER={chosen} wins" if asked else None
    if not asked:
        return KeepOneIn(1), None
    if asked.isascii() and asked.isdecimal() and len(asked) <= 7 and int(asked) in RATES:
        return KeepOneIn(int(asked)), None
    return KeepOneIn(1), f"SAMPLE_RATE is {asked[:20]!r}; every trace is kept, as with 1. 10 keeps one trace in ten"


# The three signals. Exporters leave their batches with an outlet and never wait for the network.


class SpanExporter(OTLPSpanExporter):
    """The OTLP exporter with a faster encoder, telling its outlet how many spans a batch holds."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(session=outlet)
        self._outlet = outlet

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._outlet.count = len(spans)
        sent = self._client.export(encode(spans).SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


class LogExporter(OTLPLogExporter):
    """The OTLP exporter, telling its outlet how many log records a batch holds."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(session=outlet)
        self._outlet = outlet

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self._outlet.count = len(batch)
        return super().export(batch)


def start_traces(about: Resource, deliveries: Sequence[Delivery], keep: Sampler | None = None) -> TracerProvider:
    provider = TracerProvider(keep, resource=about, shutdown_on_exit=False)
    asked = exporters("traces")
    if "otlp" in asked and deliveries:
        provider.add_span_processor(BatchSpanProcessor(SpanExporter(Outlet("traces", deliveries))))
    if "console" in asked:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def start_logs(about: Resource, deliveries: Sequence[Delivery]) -> LoggerProvider:
    provider = LoggerProvider(resource=about, shutdown_on_exit=False)
    asked = exporters("logs")
    if "otlp" in asked and deliveries:
        provider.add_log_record_processor(BatchLogRecordProcessor(LogExporter(Outlet("logs", deliveries))))
    if "console" in asked:
        provider.add_log_record_processor(SimpleLogRecordProcessor(ConsoleLogRecordExporter()))
    _logs.set_logger_provider(provider)
    return provider


def start_metrics(about: Resource, deliveries: Sequence[Delivery]) -> MeterProvider | None:
    readers: list[MetricReader] = []
    asked = exporters("metrics")
    if "otlp" in asked and deliveries:
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(session=Outlet("metrics", deliveries))))
    if "console" in asked:
        readers.append(PeriodicExportingMetricReader(ConsoleMetricExporter()))
    if not readers:
        return None
    provider = MeterProvider(readers, resource=about, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider


class ForTerminal(logging.Formatter):
    """A line with the ids of the current span, where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(trace)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        context = trace.get_current_span().get_span_context()
        ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
        shown = " trace_id={} span_id={}".format(*ids) if context.is_valid else ""
        return str(self._fmt) % {**vars(record), "trace": shown}


def log_to_terminal() -> None:
    """Log to standard error with trace ids, unless someone has set logging up already."""
    if not logging.root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(ForTerminal())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Health checks would drown what is worth reading.
    logging.getLogger("werkzeug").addFilter(lambda record: '"GET /api/health ' not in record.getMessage())


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


def begun(span: trace.Span, environ: WSGIEnvironment) -> None:
    """Name the span of a path that no route matches by its method alone: a name for each path would never end."""
    link_stranger(span)
    if flask.request.url_rule is None and span.is_recording():
        span.update_name(span.name.partition(" ")[0])  # type: ignore[attr-defined]


def redact_query(span: trace.Span | None, status: str, headers: list[tuple[str, str]]) -> None:
    """Queries hold tokens and names; what was asked for is in the route."""
    if span is not None and flask.request.query_string:
        redact(span)


def redact_url_query(span: trace.Span, request: requests.PreparedRequest) -> None:
    """The same for a request that this service makes."""
    if "?" in (request.url or ""):
        redact(span)


def redact(span: trace.Span) -> None:
    """Take the query out of every attribute that holds it, by its stable or its older name."""
    attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    for name in ("url.full", "http.url", "http.target"):
        if name in attributes:
            span.set_attribute(name, str(attributes[name]).partition("?")[0] + "?" + REDACTED)
    if "url.query" in attributes:
        span.set_attribute("url.query", REDACTED)


def instrument(app: flask.Flask, service_name: str | None = None, callers: Callers | None = None) -> None:
    """Trace `app`, and start telemetry in this process if nothing has yet.

    Call it right after `Flask()`: handlers registered before run outside the span. `service_name` is the
    backend's own when left out, and `callers` are strangers. Does nothing with OTEL_SDK_DISABLED=true.
    """
    if disabled():
        return
    app.extensions["callers"] = callers or Callers()
    start(service_name, app.debug)
    more = os.environ.get("OTEL_PYTHON_FLASK_EXCLUDED_URLS", os.environ.get("OTEL_PYTHON_EXCLUDED_URLS"))
    excluded = ",".join(filter(None, [HEALTH, more]))
    FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
        app,
        excluded_urls=excluded,
        request_hook=begun,
        response_hook=redact_query,
        enable_commenter=False,
    )


# The beginning and the end.

_stop: Callable[[bool], None] | None = None
_links: TraceLinks | None = None  # in development


def trace_url() -> str | None:
    """Where a person can look at the current trace; None outside of development, and for one that is not kept."""
    context = trace.get_current_span().get_span_context()
    if _links is None or not context.trace_flags.sampled or not (begin := _links()):
        return None
    return begin + trace.format_trace_id(context.trace_id)


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
    global _stop, _links
    if _stop is not None:
        return
    # Stable attribute names (http.request.method, not http.method); read once, at the first instrumentation.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    # Half a second, not five: what a killed process loses, and what a person waits for.
    os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", "500")
    os.environ.setdefault("OTEL_BLRP_SCHEDULE_DELAY", "500")
    # Its warning about a header that it cannot read would print the header, with the key in it.
    logging.getLogger("opentelemetry.util.re").setLevel(logging.ERROR)
    # Nor is the log for strangers to fill, with a tracestate or baggage that is none.
    for name in ("baggage.propagation", "trace.propagation.tracecontext", "trace.span"):
        logging.getLogger(f"opentelemetry.{name}").setLevel(logging.ERROR)
    log_to_terminal()
    if (protocol := os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf") != "http/protobuf":
        logger.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %s; this service sends http/protobuf all the same.", protocol)

    keep, wrong = sampler()
    for problem in [*unknown_exporters(), *([f"{wrong}."] if wrong else [])]:
        logger.warning(problem)
    about = resource(service_name, debug)
    routes = Routes(str(about.attributes["service.name"]), debug)
    announce(routes)
    if _links := routes.links:
        _links()  # so that it is known when it is asked for
    to = routes.by_signal
    ends = [start_traces(about, to["traces"], keep).shutdown, start_logs(about, to["logs"]).shutdown]
    if meter_provider := start_metrics(about, to["metrics"]):
        ends.append(meter_provider.shutdown)
    handler = OverOTLP()
    logging.root.addHandler(handler)
    RequestsInstrumentor().instrument(request_hook=redact_url_query)
    if not isinstance(headers := propagate.get_global_textmap(), FromCallers):
        propagate.set_global_textmap(FromCallers(headers))
    propagators.set_global_response_propagator(TraceHeaders())  # type: ignore[no-untyped-call]

    def stop(replaced: bool) -> None:
        logging.root.removeHandler(handler)
        deliveries = routes.deliveries
        if replaced:
            for delivery in deliveries:
                delivery.hold_back()
        for end in ends:
            end()
        if replaced:
            hand_over(deliveries, LONGEST_SHUTDOWN)
        close_all(deliveries, time.monotonic() + (0 if replaced else LONGEST_SHUTDOWN))

    _stop = stop
    atexit.register(shutdown)


def shutdown(replaced: bool = False) -> None:
    """Send what is left, in `LONGEST_SHUTDOWN` seconds at most, and log what could not be sent.

    With `replaced`, for a gunicorn worker whose successor waits for it to go, a child process does that.
    """
    global _stop, _links
    stop, _stop, _links = _stop, None, None
    if stop is not None:
        stop(replaced)
