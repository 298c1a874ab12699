"""Baseline (b): the set-up of the getting-started pages, everything at its default.

https://opentelemetry.io/docs/languages/python/getting-started/
https://opentelemetry.io/docs/languages/python/exporters/
https://docs.honeycomb.io/send-data/python/opentelemetry-sdk/

They begin with traces alone. Logs and metrics are added as the second page has them, where the standard variables
ask for them: to compare with what sends these too.
"""

import logging
import os

import routes
import stand_in
from flask import Flask
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def instrument(app: Flask) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    if os.environ.get("OTEL_METRICS_EXPORTER") == "otlp":
        metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    FlaskInstrumentor().instrument_app(app)
    RequestsInstrumentor().instrument()


def send_logs() -> None:
    """After logging itself is set up, or a root logger that has a handler would not get another."""
    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_logger_provider(provider)
    logging.getLogger().addHandler(LoggingHandler())


app = stand_in.create_app(instrument)
routes.add(app)
if os.environ.get("OTEL_LOGS_EXPORTER") == "otlp":
    send_logs()
