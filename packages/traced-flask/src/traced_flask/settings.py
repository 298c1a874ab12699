"""Checks the environment variables once, when the package is imported.

OpenTelemetry's SDK and instrumentations read their variables where they need them, some at import. Invalid values cause
exceptions, tracebacks or silent failures. `prepare` leaves only valid values in the environment, and returns one
sentence for each value that it changes or that nothing here reads.

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
    "OTEL_BSP_SCHEDULE_DELAY": "500",  # ms; how much a killed process loses, and how long a user waits
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
    """Return one of this package's own variables, without surrounding white space; None if it is empty."""
    return os.environ.get(name, "").strip() or None


def disabled() -> bool:
    """Return whether OTEL_SDK_DISABLED=true turns telemetry off."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def development() -> bool:
    """Return whether Flask runs in debug mode according to FLASK_DEBUG, which `flask run --debug` sets."""
    from flask.helpers import get_debug_flag  # not at import, since `prepare` runs first

    return get_debug_flag()


def prepare(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Make `environ` valid, and return a sentence for each value that is changed or ignored.

    Empty variables are removed, because the specification treats them as unset.
    """
    messages: list[str] = []

    def apply(name: str, check: Check) -> None:
        usable, item_problems = check(environ[name].strip())
        messages.extend(f"{name} {item}." for item in item_problems)
        if usable is None:
            del environ[name]
        elif usable != environ[name]:
            environ[name] = usable

    for name in sorted(item for item in environ if item.startswith("OTEL_") or item == "SAMPLE_RATE"):
        if not environ[name].strip():
            del environ[name]
        elif check := next((check for names, check in CHECKS if re.fullmatch(names, name)), None):
            apply(name, check)
    if "OTEL_TRACES_SAMPLER" in environ and "SAMPLE_RATE" in environ:
        messages.append("SAMPLE_RATE has no effect; OTEL_TRACES_SAMPLER is used.")
    if environ.get("OTEL_TRACES_SAMPLER", "").endswith("traceidratio"):
        environ.setdefault("OTEL_TRACES_SAMPLER_ARG", "1")
        apply("OTEL_TRACES_SAMPLER_ARG", number(0, 1, 1))
    for processor in ("OTEL_BSP", "OTEL_BLRP"):
        size, queue = f"{processor}_MAX_EXPORT_BATCH_SIZE", f"{processor}_MAX_QUEUE_SIZE"
        limit = int(environ.get(queue, 2048))
        if int(environ.get(size, 512)) > limit:
            if size in environ:
                messages.append(f"{size} is more than {queue}; {limit} is used.")
            environ[size] = str(limit)
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)
    if "OTEL_PROPAGATORS" in environ:  # last, because this may import OpenTelemetry
        apply("OTEL_PROPAGATORS", checks.propagators)
    return messages


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
    ("OTEL_METRIC_EXPORT_INTERVAL", number(0, checks.MAX_INT, 60_000, " of milliseconds")),
    ("OTEL_METRIC_EXPORT_TIMEOUT", number(0, checks.MAX_INT, 30_000, " of milliseconds")),
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
    # The specification uses milliseconds, but Python's exporters read seconds.
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
