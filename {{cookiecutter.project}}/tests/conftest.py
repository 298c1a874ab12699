"""Fixtures: the application, a client for it, and the spans that it finished."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backend.app import create_app

finished = InMemorySpanExporter()


class Spans:
    """The spans that were finished since the test began."""

    def all(self) -> list[ReadableSpan]:
        return list(finished.get_finished_spans())

    def names(self) -> list[str]:
        return [span.name for span in self.all()]

    def named(self, name: str) -> ReadableSpan:
        """The one span of that name."""
        found = [span for span in self.all() if span.name == name]
        assert len(found) == 1, f"{len(found)} spans are called {name!r}, among {self.names()}"
        return found[0]


@pytest.fixture(scope="session", autouse=True)
def tracing() -> None:
    """Set up telemetry, once for the process: tests send nothing, and no setting of the machine counts."""
    for variable in list(os.environ):
        if variable.startswith(("OTEL_", "HONEYCOMB_", "VIEWER_")) or variable in {"PROFILES_URL", "CORS_ORIGINS"}:
            del os.environ[variable]
    os.environ["OTEL_TRACES_EXPORTER"] = os.environ["OTEL_LOGS_EXPORTER"] = "none"
    create_app()
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(SimpleSpanProcessor(finished))


@pytest.fixture
def spans() -> Iterator[Spans]:
    finished.clear()
    yield Spans()
    finished.clear()


@pytest.fixture
def app(spans: Spans) -> Flask:
    return create_app({"TESTING": True})


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
