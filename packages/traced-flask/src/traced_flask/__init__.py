"""OpenTelemetry for Flask, with the parts that production needs.

Each name replaces OpenTelemetry's class of the same name, or adds to it:

    from traced_flask import BatchSpanProcessor, FlaskInstrumentor, OTLPSpanExporter

    trace.set_tracer_provider(provider := TracerProvider())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FlaskInstrumentor().instrument_app(app)

Import it before OpenTelemetry, because it first corrects environment variables that OpenTelemetry cannot use.
"""

from traced_flask import settings

settings.problems.extend(settings.prepare())

# OpenTelemetry reads the environment at import.
from traced_flask.exporters import OTLPLogExporter, OTLPSpanExporter  # noqa: E402
from traced_flask.flask import FlaskInstrumentor  # noqa: E402
from traced_flask.links import trace_url  # noqa: E402
from traced_flask.logs import LoggingHandler, log_to_stderr  # noqa: E402
from traced_flask.processors import BatchLogRecordProcessor, BatchSpanProcessor  # noqa: E402
from traced_flask.redaction import redact_query  # noqa: E402
from traced_flask.routes import destinations  # noqa: E402
from traced_flask.sampling import sampler  # noqa: E402
from traced_flask.setup import shutdown_at_exit  # noqa: E402

__all__ = [
    "BatchLogRecordProcessor",
    "BatchSpanProcessor",
    "FlaskInstrumentor",
    "LoggingHandler",
    "OTLPLogExporter",
    "OTLPSpanExporter",
    "destinations",
    "log_to_stderr",
    "redact_query",
    "sampler",
    "shutdown_at_exit",
    "trace_url",
]
