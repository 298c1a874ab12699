"""The environment variables that are read, checked once, when the package is imported.

OpenTelemetry's SDK and instrumentations read their variables where they need them, some while they are imported.
A value that they cannot follow ends in an exception, a traceback or silence. `prepare` leaves in the environment only
what they can follow, and returns one sentence for each value that it changes or that nothing here reads.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from typing import Final

from traced_flask import checks
from traced_flask.checks import Check, installed, number, one_of, regular_expressions, some_of, whole_number

DEFAULTS: Final = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",  # http.request.method, not http.method
    "OTEL_BSP_SCHEDULE_DELAY": "500",  # ms; what a killed process loses, and what a person waits for
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
}
SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
CONVENTIONS: Final = ("http", "http/dup", "database", "database/dup", "gen_ai_latest_experimental")
SIGNAL: Final = r"((TRACES|LOGS|METRICS)_)?"

problems: list[str] = []
"""A sentence for each value that is changed or ignored. `routes.announce` logs them."""


def own(name: str) -> str | None:
    """The value of one of this package's own variables without white space around it; None for an empty one."""
    return os.environ.get(name, "").strip() or None


def disabled() -> bool:
    """Whether OTEL_SDK_DISABLED=true switches telemetry off."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def development() -> bool:
    """Whether Flask runs in debug mode by FLASK_DEBUG, which `flask run --debug` sets."""
    from flask.helpers import get_debug_flag  # not before `prepare`, which needs nothing of Flask

    return get_debug_flag()


def prepare(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Make `environ` follow the specification, and return a sentence for each value that is changed or ignored.

    An empty variable counts as unset, as the specification says: it is removed.
    """
    found: list[str] = []

    def follow(name: str, check: Check) -> None:
        usable, wrong = check(environ[name].strip())
        found.extend(f"{name} {each}." for each in wrong)
        if usable is None:
            del environ[name]
        elif usable != environ[name]:
            environ[name] = usable

    for name in sorted(each for each in environ if each.startswith("OTEL_") or each == "SAMPLE_RATE"):
        if not environ[name].strip():
            del environ[name]
        elif check := next((check for names, check in CHECKS if re.fullmatch(names, name)), None):
            follow(name, check)
    if "OTEL_TRACES_SAMPLER" in environ and "SAMPLE_RATE" in environ:
        found.append("SAMPLE_RATE has no effect; OTEL_TRACES_SAMPLER is used.")
    if environ.get("OTEL_TRACES_SAMPLER", "").endswith("traceidratio"):
        environ.setdefault("OTEL_TRACES_SAMPLER_ARG", "1")
        follow("OTEL_TRACES_SAMPLER_ARG", number(0, 1, 1))
    for processor in ("OTEL_BSP", "OTEL_BLRP"):
        size, queue = f"{processor}_MAX_EXPORT_BATCH_SIZE", f"{processor}_MAX_QUEUE_SIZE"
        room = int(environ.get(queue, 2048))
        if int(environ.get(size, 512)) > room:
            if size in environ:
                found.append(f"{size} is more than {queue}; {room} is used.")
            environ[size] = str(room)
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)
    if "OTEL_PROPAGATORS" in environ:  # last, since this may import OpenTelemetry
        follow("OTEL_PROPAGATORS", checks.propagators)
    return found


BOOLEAN: Final = one_of("true", "false", default="false")

CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("SAMPLE_RATE", checks.sample_rate),
    ("OTEL_SDK_DISABLED|OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", BOOLEAN),
    ("OTEL_SERVICE_NAME", checks.any_text),
    ("OTEL_RESOURCE_ATTRIBUTES", checks.resource_attributes),
    ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", installed("opentelemetry_resource_detector", None, "*")),
    ("OTEL_PYTHON_CONTEXT", installed("opentelemetry_context", "contextvars_context")),
    ("OTEL_PYTHON_TRACER_PROVIDER", installed("opentelemetry_tracer_provider", "the application's")),
    ("OTEL_PYTHON_METER_PROVIDER", installed("opentelemetry_meter_provider", "the application's")),
    ("OTEL_PYTHON_LOGGER_PROVIDER", installed("opentelemetry_logger_provider", "the application's")),
    ("OTEL_TRACES_SAMPLER", one_of(*SAMPLERS)),
    ("OTEL_(TRACES|LOGS|METRICS)_EXPORTER", some_of("otlp", "none", default="none")),
    ("OTEL_B(SP|LRP)_SCHEDULE_DELAY", whole_number(1, 500)),
    ("OTEL_B(SP|LRP)_EXPORT_TIMEOUT", whole_number(0, 30_000)),
    ("OTEL_B(SP|LRP)_MAX_QUEUE_SIZE", whole_number(1, 2048)),
    ("OTEL_B(SP|LRP)_MAX_EXPORT_BATCH_SIZE", whole_number(1, 512)),
    ("OTEL_((SPAN|EVENT|LINK|LOGRECORD)_)?ATTRIBUTE_(COUNT|VALUE_LENGTH)_LIMIT", whole_number(0)),
    ("OTEL_SPAN_(EVENT|LINK)_COUNT_LIMIT", whole_number(0, 128)),
    ("OTEL_METRIC_EXPORT_INTERVAL", number(0, checks.LARGEST, 60_000, " of milliseconds")),
    ("OTEL_METRIC_EXPORT_TIMEOUT", number(0, checks.LARGEST, 30_000, " of milliseconds")),
    ("OTEL_METRICS_EXEMPLAR_FILTER", one_of("trace_based", "always_on", "always_off", default="trace_based")),
    (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        one_of("cumulative", "delta", "lowmemory", default="cumulative"),
    ),
    (
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        one_of("explicit_bucket_histogram", "base2_exponential_bucket_histogram", default="explicit_bucket_histogram"),
    ),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", checks.base_address),
    ("OTEL_EXPORTER_OTLP_(TRACES|LOGS|METRICS)_ENDPOINT", checks.address),
    (f"OTEL_EXPORTER_OTLP_{SIGNAL}HEADERS", checks.headers),
    # The specification has milliseconds; Python's exporters have always read seconds.
    (f"OTEL_EXPORTER_OTLP_{SIGNAL}TIMEOUT", number(0, 600, 10, " of seconds")),
    (f"OTEL_EXPORTER_OTLP_{SIGNAL}COMPRESSION", one_of("none", "gzip", "deflate", default="none")),
    (f"OTEL_EXPORTER_OTLP_{SIGNAL}PROTOCOL", one_of("http/protobuf", default="http/protobuf")),
    (f"OTEL_EXPORTER_OTLP_{SIGNAL}CERTIFICATE", checks.certificate),
    (f"OTEL_EXPORTER_OTLP_{SIGNAL}CLIENT_(KEY|CERTIFICATE)", checks.client_file),
    ("OTEL_SEMCONV_STABILITY_OPT_IN", some_of(*CONVENTIONS, default="http")),
    ("OTEL_PYTHON_(.+_)?EXCLUDED_URLS", regular_expressions(None)),
    ("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_(SERVER|CLIENT)_(REQUEST|RESPONSE)", regular_expressions(None)),
    ("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", regular_expressions(".*")),
    ("OTEL_PYTHON_INSTRUMENTATION_HTTP_CAPTURE_ALL_METHODS", checks.all_methods),
    ("OTEL_PYTHON_LOG_(CORRELATION|CODE_ATTRIBUTES)", BOOLEAN),
    ("OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION", one_of("true", "false", default="true")),
    ("OTEL_PYTHON_LOG_LEVEL", one_of("debug", "info", "warning", "error", default="info")),
    ("OTEL_PYTHON_LOG_HANDLER_LEVEL", one_of("debug", "info", "warning", "error", "critical", default="notset")),
    ("OTEL_PYTHON_LOG_FORMAT", checks.log_format),
    ("OTEL_(EXPERIMENTAL_)?CONFIG_FILE", checks.not_followed("the other variables are used")),
    ("OTEL_PYTHON_ID_GENERATOR", checks.id_generator),
    ("OTEL_PYTHON_(TRACER|METER|LOGGER)_CONFIGURATOR", checks.not_followed("every tracer, meter and logger is on")),
    (
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_.*CREDENTIAL_PROVIDER",
        lambda text: (None, ["is not supported; headers are taken from OTEL_EXPORTER_OTLP_HEADERS"]),
    ),
    ("OTEL_LOG_LEVEL", checks.not_followed("the level of Python's logging is used")),
)
