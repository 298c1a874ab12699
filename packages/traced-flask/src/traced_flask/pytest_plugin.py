"""The object that the `spans` fixture of traced-flask's pytest plugin returns.

    def test_the_list_of_activities_is_traced(client, spans):
        client.get("/api/activities")
        assert spans.named("list-activities").attributes["app.result_length"] == 3

The fixture itself is in `pytest_traced_flask`, because importing this package changes the environment, which must not
happen in projects that do not use it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans:
    """The spans that have ended since the test started, in this order."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        """Return all spans."""
        return list(self._exporter.get_finished_spans())

    def names(self) -> list[str]:
        """Return the names of all spans."""
        return [span.name for span in self.all()]

    def named(self, name: str) -> ReadableSpan:
        """Return the only span with this name. Raises AssertionError, with all names, if there is not exactly one."""
        matching = [span for span in self.all() if span.name == name]
        assert len(matching) == 1, f"{len(matching)} spans are named {name!r}, of {self.names()}"  # noqa: S101
        return matching[0]

    def __len__(self) -> int:
        return len(self.all())

    def __iter__(self) -> Iterator[ReadableSpan]:
        return iter(self.all())


@functools.cache
def _exporter_of(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def recorded_spans() -> Iterator[Spans]:
    """Record the spans of the global TracerProvider; set one if there is none."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        trace.set_tracer_provider(provider := TracerProvider())
    exporter = _exporter_of(provider)
    exporter.clear()
    yield Spans(exporter)
    exporter.clear()
