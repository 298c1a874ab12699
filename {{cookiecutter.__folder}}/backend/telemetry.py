"""Traces, logs and metrics, set up in the order of OpenTelemetry's Python guide.

Each class from `traced_flask` replaces OpenTelemetry's class of the same name and takes the same arguments.
"""

import logging
import os
import tomllib
from pathlib import Path

import traced_flask
from traced_flask import FlaskInstrumentor, LoggingHandler, OTLPLogExporter, OTLPSpanExporter
from flask import Flask
from flask.helpers import get_debug_flag
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
VERSION: str = PYPROJECT["project"]["version"]
SETTINGS = PYPROJECT["tool"]["traced-flask"]
HEALTH = r"^[^/]*//[^/]*/api/health(\?|$)"  # never traced

os.environ["HONEYCOMB_API_ENDPOINT"] = os.environ.get("HONEYCOMB_API_ENDPOINT") or SETTINGS["honeycomb-api-endpoint"]
traced_flask.log_to_stderr()

resource = Resource.create({"service.name": SETTINGS["service-name"], "service.version": VERSION})
environment = "development" if get_debug_flag() else "production"
resource = resource.merge(Resource({"deployment.environment.name": environment})).merge(OTELResourceDetector().detect())

tracer_provider = TracerProvider(resource=resource, sampler=traced_flask.sampler())
tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(tracer_provider)

logger_provider = LoggerProvider(resource=resource)
logger_provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
logging.root.addHandler(LoggingHandler(logger_provider=logger_provider))

readers = [PeriodicExportingMetricReader(OTLPMetricExporter(**each)) for each in traced_flask.destinations("metrics")]
meter_provider = MeterProvider(resource=resource, metric_readers=readers)
if readers:
    metrics.set_meter_provider(meter_provider)

RequestsInstrumentor().instrument(request_hook=traced_flask.redact_query)
traced_flask.shutdown_at_exit(tracer_provider, logger_provider, meter_provider)


def instrument(app: Flask) -> None:
    """Trace an application. Call this right after `Flask()`: handlers registered earlier run outside the span."""
    FlaskInstrumentor().instrument_app(app, excluded_urls=HEALTH)
