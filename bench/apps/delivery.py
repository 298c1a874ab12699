"""A Flask application with one span a request, traced the plain way or with traced_flask (TRACED=plain or ours)."""

import os

from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if os.environ["TRACED"] == "ours":
    from traced_flask import FlaskInstrumentor, OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.flask import FlaskInstrumentor


def create_app() -> Flask:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    app = Flask(__name__)
    FlaskInstrumentor().instrument_app(app)

    @app.get("/")
    def index() -> str:
        return "Hello"

    return app
