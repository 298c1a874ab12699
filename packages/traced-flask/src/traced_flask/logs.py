"""Logging: records over OTLP, and lines with trace IDs on standard error."""

from __future__ import annotations

import contextlib
import copy
import logging
import re
import time
from typing import Final

from opentelemetry import trace
from opentelemetry._logs import LoggerProvider
from opentelemetry.instrumentation.logging import handler

SKIPPED: Final = re.compile(r"(werkzeug|gunicorn\.access|waitress\.queue|urllib3|opentelemetry|traced_flask)(\.|$)")
HEALTH_CHECK: Final = re.compile(r'"(GET|HEAD) \S*/(health|healthz|healthcheck|livez|readyz|live|ready|ping)/?[ ?]')
LINE: Final = "%(asctime)s %(levelname)s %(name)s%(trace)s %(message)s"
MAX_TRACEBACKS: Final = 100  # tracebacks
INTERVAL: Final = 60.0  # seconds between copies of the same traceback


class LoggingHandler(handler.LoggingHandler):
    """Sends log records to a logger provider, like OpenTelemetry's handler of the same name.

    It skips access logs, which spans replace, and records about telemetry itself, which would create more telemetry. A
    record that cannot be formatted is reported as in Python's own handlers, not raised.
    """

    def __init__(
        self,
        level: int = logging.NOTSET,
        logger_provider: LoggerProvider | None = None,
        log_code_attributes: bool = False,
    ) -> None:
        super().__init__(level, logger_provider, log_code_attributes)
        self.addFilter(lambda record: not SKIPPED.match(record.name))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        with contextlib.suppress(RuntimeError):  # since Python 3.12, no thread starts during shutdown
            super().flush()


def detach() -> None:
    """Remove every `LoggingHandler` from the root logger."""
    for log_handler in logging.root.handlers[:]:
        if isinstance(log_handler, LoggingHandler):
            logging.root.removeHandler(log_handler)


def log_to_stderr() -> None:
    """Write log records of INFO and above to standard error, with the IDs of the current span.

    Does nothing if the root logger already has another handler. Skips access-log lines of health checks, and writes the
    same traceback at most once a minute.
    """
    if all(isinstance(log_handler, LoggingHandler) for log_handler in logging.root.handlers):
        stream = logging.StreamHandler()
        stream.setFormatter(StderrFormatter())
        stream.addFilter(lambda record: not (record.name == "werkzeug" and HEALTH_CHECK.search(record.getMessage())))
        logging.root.addHandler(stream)
        logging.root.setLevel(logging.INFO)


class StderrFormatter(logging.Formatter):
    """Formats a line with the IDs of the current span, if any, and each traceback at most once a minute."""

    def __init__(self) -> None:
        super().__init__(LINE)
        self._written: dict[str, float] = {}  # frames of tracebacks: time on time.monotonic()

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name == "werkzeug":  # its lines contain the time
            return record.getMessage()
        span = trace.get_current_span().get_span_context()
        ids = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
        suffix = " trace_id={} span_id={}".format(*ids) if span.is_valid else ""
        return LINE % {**vars(record), "trace": suffix}

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and not record.exc_text:
            text = self.formatException(record.exc_info)
            record = copy.copy(record)  # other handlers write all of it
            record.exc_text = f"{text.splitlines()[-1]} (its traceback is above)" if self._repeats(text) else text
        return super().format(record)

    def _repeats(self, text: str) -> bool:
        """Return whether a traceback with the same frames was written in the last minute, even with another message."""
        now = time.monotonic()
        frames = "\n".join(line for line in text.splitlines() if line.startswith("  "))
        if now - self._written.get(frames, -INTERVAL) < INTERVAL:
            return True
        self._written[frames] = now
        if len(self._written) > MAX_TRACEBACKS:
            del self._written[next(iter(self._written))]
        return False
