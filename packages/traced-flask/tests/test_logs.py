"""Logging: what goes over OTLP, and what standard error shows."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from traced_flask import LoggingHandler, log_to_stderr
from traced_flask.logs import detach


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The root logger without pytest's handlers."""
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers[:] = []
    yield logging.root
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def sent(root: logging.Logger) -> InMemoryLogRecordExporter:
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    root.addHandler(LoggingHandler(logger_provider=provider))
    return exporter


def bodies(exporter: InMemoryLogRecordExporter) -> list[object]:
    return [each.log_record.body for each in exporter.get_finished_logs()]


def test_access_logs_and_records_about_telemetry_are_not_sent(sent: InMemoryLogRecordExporter) -> None:
    for name in ("werkzeug", "gunicorn.access", "urllib3.connectionpool", "opentelemetry.sdk", "traced_flask.delivery"):
        logging.getLogger(name).error("not sent")
    for name in ("app", "gunicorn.error", "werkzeugs", "traced_flask_app"):
        logging.getLogger(name).error(name)
    assert bodies(sent) == ["app", "gunicorn.error", "werkzeugs", "traced_flask_app"]


def test_a_record_that_cannot_be_formatted_does_not_raise(
    sent: InMemoryLogRecordExporter, capsys: pytest.CaptureFixture[str]
) -> None:
    [handler] = [each for each in logging.root.handlers if isinstance(each, LoggingHandler)]
    for text in ("%d things", "%s things"):
        handler.handle(logging.LogRecord("app", logging.ERROR, __file__, 1, text, ("no",), None))
    assert bodies(sent) == ["no things"]
    assert "Logging error" in capsys.readouterr().err


def test_a_detached_handler_sends_nothing(sent: InMemoryLogRecordExporter) -> None:
    detach()
    logging.getLogger("app").error("not sent")
    assert bodies(sent) == []


@pytest.fixture
def written(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What `log_to_stderr` writes."""
    monkeypatch.setattr("sys.stderr", stream := io.StringIO())
    log_to_stderr()
    return stream


def test_lines_have_the_ids_of_the_current_span(written: io.StringIO) -> None:
    logging.getLogger("app").info("before")
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        logging.getLogger("app").info("%s", "within")
        context = span.get_span_context()
    ids = f"trace_id={trace.format_trace_id(context.trace_id)} span_id={trace.format_span_id(context.span_id)}"
    before, within = written.getvalue().splitlines()
    assert before.endswith("INFO app before")
    assert within.endswith(f"INFO app {ids} within")


def test_access_log_lines_are_unchanged_and_health_checks_are_skipped(written: io.StringIO) -> None:
    for line in ('"GET /healthz HTTP/1.1" 200', '"HEAD /api/health?x HTTP/1.1" 200', '"GET /healthy HTTP/1.1" 200'):
        logging.getLogger("werkzeug").info(line)
    assert written.getvalue() == '"GET /healthy HTTP/1.1" 200\n'


def test_the_same_traceback_is_written_once(written: io.StringIO, root: logging.Logger) -> None:
    root.addHandler(other := logging.StreamHandler(everything := io.StringIO()))
    other.setFormatter(logging.Formatter("%(message)s"))
    for text in ("user 1", "user 2", "user 3"):
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("app").exception("It failed")
    try:
        raise ValueError("elsewhere")
    except ValueError:
        logging.getLogger("app").exception("It failed")
    assert written.getvalue().count("It failed") == 4
    assert written.getvalue().count("Traceback") == 2
    assert "ValueError: user 2 (its traceback is above)" in written.getvalue()
    assert everything.getvalue().count("Traceback") == 4


def test_logging_that_is_set_up_already_is_left_alone(root: logging.Logger) -> None:
    root.addHandler(logging.NullHandler())
    before = root.handlers[:]
    log_to_stderr()
    assert root.handlers == before
