"""The fixture `spans`, in projects that use it and in those that do not."""

from __future__ import annotations

import os

import pytest

TESTS = """
import pytest
from opentelemetry import trace

def work(name):
    with trace.get_tracer("app").start_as_current_span(name):
        pass

def test_spans_are_found_by_name(spans):
    work("one")
    work("two")
    work("two")
    assert spans.names() == ["one", "two", "two"] == [span.name for span in spans.all()] == [s.name for s in spans]
    assert spans.named("one").name == "one"
    assert len(spans) == 3
    with pytest.raises(AssertionError, match=r"2 spans are named 'two', of \\['one', 'two', 'two'\\]"):
        spans.named("two")
    with pytest.raises(AssertionError, match="0 spans are named 'three'"):
        spans.named("three")

def test_each_test_has_its_own_spans(spans):
    assert spans.names() == []
"""


def test_spans_are_recorded_without_setup(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=2)


def test_spans_are_recorded_in_addition_to_the_applications_exporter(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
        trace.set_tracer_provider(provider := TracerProvider())
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        """
    )
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-q", "-s")
    result.assert_outcomes(passed=2)
    assert result.stdout.str().count('"name": "two"') == 2


def test_the_plugin_does_not_affect_projects_that_do_not_use_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in os.environ if each.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    pytester.makepyfile(
        """
        import os, sys

        def test_that_nothing_is_imported_or_set():
            assert not [name for name in sys.modules if name.startswith(("opentelemetry", "traced_flask", "flask"))]
            assert not [name for name in os.environ if name.startswith("OTEL_")]
        """
    )
    pytester.runpytest_subprocess("-q", "-p", "no:pytest_httpserver").assert_outcomes(passed=1)
