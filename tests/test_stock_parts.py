"""OpenTelemetry's own parts go back into backend/telemetry.py by one line, and the application stays traced."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import free_ports, make
from processes import answers, running
from receiver import eventually, receiving

STOCK = {
    "FlaskInstrumentor": "opentelemetry.instrumentation.flask",
    "OTLPSpanExporter": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "OTLPLogExporter": "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "LoggingHandler": "opentelemetry.instrumentation.logging.handler",
}
HOME = "/api/activities/home"


@pytest.fixture
def project(render: Callable[..., Path]) -> Path:
    return render()


def put_back(project: Path, *names: str) -> None:
    """Import `names` from OpenTelemetry, in the place of traced_flask's."""
    path = project / "backend" / "telemetry.py"
    text = path.read_text("utf-8")
    for name in names:
        line = f"from {STOCK[name]} import {name}\n"
        text = re.sub(r"(?m)^(from traced_flask import .*\n)", rf"\1{line}", text)
        assert line in text
    path.write_text(text, "utf-8")


@pytest.mark.parametrize("names", [*((name,) for name in STOCK), tuple(STOCK)], ids=" and ".join)
def test_a_stock_part_traces_the_application(
    project: Path, installed_project: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    put_back(project, *names)
    python = installed_project / ".venv" / "bin" / "python"
    (port,) = free_ports(1)
    base = f"http://127.0.0.1:{port}"
    with receiving() as receiver:
        command = [str(python), "-m", "flask", "--app", "backend.app", "run", "--port", str(port)]
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "NO_PROXY": "*", "no_proxy": "*"}
        with running(command, project, tmp_path / "log", **env) as server:
            assert eventually(lambda: answers(f"{base}/api/health"), 30), server.output()
            assert answers(base + HOME)
            wanted = {f"GET {HOME}", "home-activities-mock-data", "find-profiles-mock-data"}
            assert eventually(lambda: wanted <= {span["name"] for span in receiver.spans()}), server.output()
        assert {span["service"] for span in receiver.spans()} == {"backend-flask"}
        assert len({span["trace_id"] for span in receiver.spans()}) == 1
        (request,) = (span for span in receiver.spans() if span["name"] == f"GET {HOME}")
        assert request["http.response.status_code"] == 200  # the stable names


@pytest.mark.parametrize("name", STOCK)
def test_the_projects_own_tests_pass_with_a_stock_part(project: Path, installed_project: Path, name: str) -> None:
    put_back(project, name)
    venv = str(installed_project / ".venv" / "bin").replace(" ", r"\ ")
    make(project, "test", f"BIN={venv}", "INSTALLED=")


def test_the_guides_plain_setup_has_the_same_order_as_the_file(default_project: Path) -> None:
    text = (default_project / "backend" / "telemetry.py").read_text("utf-8")
    order = [
        "resource = Resource",
        "TracerProvider(",
        "BatchSpanProcessor(OTLPSpanExporter())",
        "set_tracer_provider",
        "LoggerProvider(",
        "MeterProvider(",
        "RequestsInstrumentor()",
        "FlaskInstrumentor()",
    ]
    places = [text.index(each) for each in order]
    assert places == sorted(places)


def test_only_the_named_parts_of_traced_flask_are_imported(default_project: Path) -> None:
    text = (default_project / "backend" / "telemetry.py").read_text("utf-8")
    (line,) = re.findall(r"^from traced_flask import (.*)$", text, re.MULTILINE)
    assert sorted(line.split(", ")) == sorted(STOCK)
