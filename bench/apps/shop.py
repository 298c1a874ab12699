"""The measured application: TRACED=no, plain (only OpenTelemetry) or ours (with traced_flask).

PROFILES=http makes the feed ask a second service for the profiles: the receiver. UP_TO=instrumentation sets no tracer
provider, UP_TO=spans no exporter. REQUESTS=no leaves out what traces outgoing requests. METRICS=yes measures.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from flask import Flask
from opentelemetry import metrics, trace

TRACED = os.environ.get("TRACED", "no")
PROFILES = os.environ.get("PROFILES", "here")
HANDLES = ("andrew", "louis", "mina")

tracer = trace.get_tracer(__name__)
session = requests.Session()


def trace_app(app: Flask) -> None:
    """Set up OpenTelemetry as in its guide. With `ours`, only the imports, the sampler and a hook differ."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    hooks = {}
    if TRACED == "ours":
        from traced_flask import FlaskInstrumentor, OTLPSpanExporter, redact_query, sampler

        hooks = {"request_hook": redact_query}
        provider = TracerProvider(sampler=sampler())
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        provider = TracerProvider()
    up_to = os.environ.get("UP_TO", "exporter")
    if up_to == "exporter":
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    if up_to != "instrumentation":
        trace.set_tracer_provider(provider)
    if os.environ.get("METRICS") == "yes":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    FlaskInstrumentor().instrument_app(app)
    if os.environ.get("REQUESTS") != "no":
        from opentelemetry.instrumentation.requests import RequestsInstrumentor

        RequestsInstrumentor().instrument(**hooks)


def profiles(handles: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return profiles from the other service, or look them up here, in a separate span."""
    if PROFILES == "http":
        url = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
        answer = session.get(f"{url}/profiles", params={"handle": handles}, timeout=5)
        answer.raise_for_status()
        return answer.json()
    with tracer.start_as_current_span("look-up-profiles") as span:
        span.set_attribute("app.handles", len(handles))
        return {handle: {"name": handle.title(), "since": "2023"} for handle in handles}


def create_app() -> Flask:
    app = Flask(__name__)
    if TRACED != "no":
        trace_app(app)

    @app.get("/used")
    def used() -> dict[str, float]:
        """Return the CPU seconds and memory bytes that this process has used."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"cpu": time.process_time(), "memory": pages * os.sysconf("SC_PAGE_SIZE")}

    @app.get("/trivial")
    def trivial() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/20ms")
    def twenty_milliseconds() -> dict[str, str]:
        time.sleep(0.02)
        return {"status": "ok"}

    @app.get("/feed")
    def feed() -> list[dict[str, object]]:
        with tracer.start_as_current_span("feed-mock-data") as span:
            now = datetime.now(UTC)
            span.set_attribute("app.now", now.isoformat())
            found = profiles(HANDLES)
            activities = [
                {
                    "handle": handle,
                    "author": found.get(handle),
                    "message": "A message that somebody has written",
                    "created_at": (now - timedelta(days=number)).isoformat(),
                    "expires_at": (now + timedelta(days=number)).isoformat(),
                }
                for number, handle in enumerate(HANDLES)
            ]
            span.set_attribute("app.result_length", len(activities))
        return activities

    return app
