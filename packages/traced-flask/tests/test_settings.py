"""Variables: whatever they hold, the application starts, and what is not followed is reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import certifi
import pytest
from conftest import Run
from opentelemetry import environment_variables, sdk
from traced_flask import checks
from traced_flask.settings import prepare

MARKED = "MARKED0KEY-as-long-as-a-key"  # as if somebody had put the key into the wrong variable
HUGE = "9" * 5000

PROGRAM = """
import traced_flask
from traced_flask import FlaskInstrumentor, LoggingHandler, OTLPLogExporter, OTLPSpanExporter

import logging
from flask import Flask
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as StockSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor as StockInstrumentor
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"a": 1}), sampler=traced_flask.sampler())
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
logs = LoggerProvider()
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
logging.root.addHandler(LoggingHandler(logger_provider=logs))
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
traced_flask.shutdown_at_exit(provider, logs, meters)
BatchSpanProcessor(StockSpanExporter()).shutdown()
LoggingInstrumentor().instrument(set_logging_format=True)
RequestsInstrumentor().instrument(request_hook=traced_flask.redact_query)
for instrumentor in (FlaskInstrumentor, StockInstrumentor):
    app = Flask(__name__)
    instrumentor().instrument_app(app)
    app.add_url_rule("/", view_func=lambda: "hello")
    assert app.test_client().get("/", headers={"X-A": "1"}).text == "hello"
with trace.get_tracer("t").start_as_current_span("s", attributes={"a": "b"}) as span:
    span.add_event("e", {"a": "b"})
    span.add_link(span.get_span_context(), {"a": "b"})
    logging.warning("logged by the application")
metrics.get_meter("m").create_counter("c").add(1)
print("started")
"""

# Every variable that the SDK, the exporters and the instrumentations read. `EVERYTHING_GOES` have no wrong value.
NUMBERS = [
    *(f"OTEL_{processor}_{what}" for processor in ("BSP", "BLRP") for what in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT")),
    *(f"OTEL_{p}_{what}" for p in ("BSP", "BLRP") for what in ("MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")),
    *(f"OTEL_{of}ATTRIBUTE_COUNT_LIMIT" for of in ("", "SPAN_", "EVENT_", "LINK_", "LOGRECORD_")),
    *(f"OTEL_{of}ATTRIBUTE_VALUE_LENGTH_LIMIT" for of in ("", "SPAN_", "LOGRECORD_")),
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    *(f"OTEL_EXPORTER_OTLP_{signal}TIMEOUT" for signal in ("", "TRACES_", "LOGS_", "METRICS_")),
    "SAMPLE_RATE",
]
OTHERS = [
    *(
        f"OTEL_EXPORTER_OTLP_{signal}{what}"
        for signal in ("", "TRACES_", "LOGS_", "METRICS_")
        for what in (
            "ENDPOINT",
            "HEADERS",
            "COMPRESSION",
            "PROTOCOL",
            "CERTIFICATE",
            "CLIENT_KEY",
            "CLIENT_CERTIFICATE",
        )
    ),
    *(f"OTEL_{signal}_EXPORTER" for signal in ("TRACES", "LOGS", "METRICS")),
    *(f"OTEL_PYTHON_{kind}_{what}" for kind in ("TRACER", "METER", "LOGGER") for what in ("PROVIDER", "CONFIGURATOR")),
    *(f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{of}CREDENTIAL_PROVIDER" for of in ("", "TRACES_", "LOGS_", "METRICS_")),
    "OTEL_CONFIG_FILE",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
    "OTEL_LOG_LEVEL",
    *(f"OTEL_PYTHON_LOG_{what}" for what in ("CORRELATION", "CODE_ATTRIBUTES", "AUTO_INSTRUMENTATION", "LEVEL")),
    *(f"OTEL_PYTHON_LOG_{what}" for what in ("HANDLER_LEVEL", "FORMAT")),
    "OTEL_METRICS_EXEMPLAR_FILTER",
    "OTEL_PROPAGATORS",
    "OTEL_PYTHON_CONTEXT",
    "OTEL_PYTHON_ID_GENERATOR",
    "OTEL_PYTHON_INSTRUMENTATION_HTTP_CAPTURE_ALL_METHODS",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SEMCONV_STABILITY_OPT_IN",
    "OTEL_TRACES_SAMPLER",
]
PATTERNS = [
    *(f"OTEL_PYTHON_{of}EXCLUDED_URLS" for of in ("", "FLASK_", "REQUESTS_", "WSGI_")),
    *(
        f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{of}"
        for of in ("SERVER_REQUEST", "SERVER_RESPONSE", "CLIENT_REQUEST", "CLIENT_RESPONSE", "SANITIZE_FIELDS")
    ),
]
EVERYTHING_GOES = ["OTEL_SERVICE_NAME"]
ALL = [*NUMBERS, *OTHERS, *PATTERNS, *EVERYTHING_GOES]


def starts(run: Run, environ: Mapping[str, str], reported: list[str]) -> str:
    """The program starts with `environ`, logs each of `reported` once, no other variable, and no traceback."""
    done = run(PROGRAM, **environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "started\n"
    assert "Traceback" not in done.stderr
    assert MARKED not in done.stderr
    lines = done.stderr.splitlines()
    counts = {name: sum(line.startswith(f"{name} ") for line in lines) for name in ALL}
    assert counts == {name: int(name in reported) for name in ALL}, done.stderr
    return done.stderr


def test_empty_variables_count_as_unset(run: Run) -> None:
    logged = starts(run, dict.fromkeys(ALL, ""), reported=[])
    assert "OTEL_BSP" not in logged
    environ = dict.fromkeys(ALL, " ")
    assert prepare(environ) == []
    assert environ == {
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_BLRP_SCHEDULE_DELAY": "500",
    }


def test_every_invalid_value_is_reported_by_its_variable(run: Run) -> None:
    environ = {**dict.fromkeys([*NUMBERS, *OTHERS], MARKED), **dict.fromkeys(PATTERNS, f"*/{MARKED}")}
    starts(run, environ, reported=list(environ))


@pytest.mark.parametrize("value", ["-1", "nan", "1e400", HUGE, "0.5x"])
def test_a_number_that_is_out_of_every_range_is_replaced(run: Run, value: str) -> None:
    starts(run, dict.fromkeys(NUMBERS, value), reported=NUMBERS)


def test_long_values_do_not_block_startup(run: Run) -> None:
    long = "a" * 100_000
    environ = {
        "OTEL_SERVICE_NAME": long,
        "OTEL_RESOURCE_ATTRIBUTES": f"a={long}",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:9/{long}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"a={long}",
        "OTEL_PYTHON_FLASK_EXCLUDED_URLS": "(" * 50_000,
        "OTEL_PYTHON_REQUESTS_EXCLUDED_URLS": "a{99999999999}",
        "OTEL_PROPAGATORS": "," * 50_000,
    }
    starts(run, environ, reported=["OTEL_PYTHON_FLASK_EXCLUDED_URLS", "OTEL_PYTHON_REQUESTS_EXCLUDED_URLS"])


def test_every_variable_of_the_sdk_is_checked() -> None:
    read_by_others = re.compile(".*(ZIPKIN|PROMETHEUS|GRPC|INSECURE|AUTO_INSTRUMENTATION|_SAMPLER_ARG)")
    names = [*vars(environment_variables).values(), *vars(sdk.environment_variables).values()]
    names = [name for name in names if str(name).startswith("OTEL_") and not read_by_others.match(name)]
    assert len(names) > 50
    assert [name for name in names if name not in ALL] == []


def test_disabled_telemetry_reports_nothing(run: Run) -> None:
    environ = {**dict.fromkeys([*NUMBERS, *OTHERS], MARKED), "OTEL_SDK_DISABLED": "true"}
    starts(run, environ, reported=[])


@pytest.mark.parametrize(
    ("given", "used", "sentence"),
    [
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100"}, None),
        (
            {"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "4096"},
            {"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "2048"},
            "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE is more than OTEL_BLRP_MAX_QUEUE_SIZE; 2048 is used.",
        ),
        (
            {"OTEL_PROPAGATORS": "b3, tracecontext"},
            {"OTEL_PROPAGATORS": "tracecontext"},
            "OTEL_PROPAGATORS names b3, which is not installed; tracecontext is used.",
        ),
        ({"OTEL_PROPAGATORS": "none"}, {"OTEL_PROPAGATORS": "none"}, None),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, {"OTEL_TRACES_SAMPLER_ARG": "1"}, None),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
            {"OTEL_TRACES_SAMPLER_ARG": "1"},
            "OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1; 1 is used.",
        ),
        (
            {"OTEL_TRACES_SAMPLER": "always_on", "SAMPLE_RATE": "10"},
            {},
            "SAMPLE_RATE has no effect; OTEL_TRACES_SAMPLER is used.",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/v1/traces"},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
            "OTEL_EXPORTER_OTLP_ENDPOINT ends in the path of a signal, which is removed, since it is appended.",
        ),
        (
            {"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "health,(a,b),"},
            {"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "health,(a,b)"},
            None,
        ),
        (
            {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": "*token"},
            {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": ".*"},
            "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS contains an invalid regular expression; "
            ".* is used.",
        ),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "team=a,,nonsense"},
            {"OTEL_RESOURCE_ATTRIBUTES": "team=a"},
            "OTEL_RESOURCE_ATTRIBUTES is a list of name=value pairs separated by commas; other entries are ignored.",
        ),
        ({"OTEL_PYTHON_INSTRUMENTATION_HTTP_CAPTURE_ALL_METHODS": "false"}, {}, None),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "ALWAYS_ON"}, {"OTEL_METRICS_EXEMPLAR_FILTER": "always_on"}, None),
        (
            {"OTEL_SERVICE_NAME": "sh\udce9"},
            {"OTEL_SERVICE_NAME": "sh\ufffd"},
            "OTEL_SERVICE_NAME is not UTF-8; \ufffd replaces what cannot be read.",
        ),
    ],
)
def test_invalid_values_are_replaced_and_reported(
    given: dict[str, str], used: dict[str, str | None], sentence: str | None
) -> None:
    environ = dict(given)
    assert prepare(environ) == ([sentence] if sentence else [])
    assert {name: environ.get(name) for name in used} == used


@pytest.mark.parametrize(
    ("text", "used", "header"),
    [
        (f"x-honeycomb-team={MARKED},a=%20b", f"x-honeycomb-team={MARKED},a=%20b", None),
        (f"a=b, x-honeycomb-team: {MARKED}", "a=b", "the header x-honeycomb-team"),
        (f"x-honeycomb-team={MARKED};x-honeycomb-dataset=d", None, "the header x-honeycomb-team"),
        (f"x-honeycomb-team%3D{MARKED}", None, "the header x-honeycomb-team"),
        (f'x-honeycomb-team="{MARKED}"', None, "the header x-honeycomb-team"),
        (f"authorization: Basic {MARKED}==", None, "the header authorization"),
        (f"a={MARKED}%0D%0Ab: c", None, "the header a"),
        (f"a={MARKED}%E4%BD%A0", None, "the header a"),
        (MARKED, None, "a header without a name"),
        (f"{MARKED}==", f"{MARKED}==", None),
        (f"={MARKED}", None, "a header without a name"),
    ],
)
def test_invalid_headers_are_reported_by_name_only(text: str, used: str | None, header: str | None) -> None:
    usable, wrong = checks.headers(text)
    assert usable == used
    expected = f"contains {header} in another form than name=value,name=value; it is not sent"
    assert wrong == ([expected] if header else [])
    assert MARKED not in "".join(wrong)


def test_a_file_without_certificates_is_reported_by_its_variable(tmp_path: Path) -> None:
    (file := tmp_path / "ca.pem").write_text("nothing")
    assert checks.certificate(str(file)) == (
        None,
        ["names a file that does not contain certificates; the default authorities are trusted"],
    )
    assert checks.certificate(certifi.where()) == (certifi.where(), [])
    assert checks.certificate(str(tmp_path)) == (str(tmp_path), [])
