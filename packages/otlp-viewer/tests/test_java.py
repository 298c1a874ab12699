"""Spans and logs from OpenTelemetry's Java SDK arrive as they were made."""

import os
import shutil
import subprocess

import pytest
from running import get

VERSION = "1.49.0"
POM = f"""
<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>example</groupId><artifactId>ship</artifactId><version>1</version>
<dependencies>
<dependency><groupId>io.opentelemetry</groupId><artifactId>opentelemetry-sdk</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>io.opentelemetry</groupId><artifactId>opentelemetry-exporter-otlp</artifactId><version>{VERSION}</version></dependency>
</dependencies>
</project>
"""
PROGRAM = """
import io.opentelemetry.api.common.*;
import io.opentelemetry.api.logs.Severity;
import io.opentelemetry.api.trace.*;
import io.opentelemetry.context.Context;
import io.opentelemetry.exporter.otlp.http.logs.OtlpHttpLogRecordExporter;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.sdk.logs.SdkLoggerProvider;
import io.opentelemetry.sdk.logs.export.BatchLogRecordProcessor;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;

class Ship {
  public static void main(String[] arguments) {
    Resource named = Resource.getDefault().toBuilder().put("service.name", "shipping").build();
    var traces = OtlpHttpSpanExporter.builder().setEndpoint(arguments[0] + "/v1/traces").setCompression(arguments[1]);
    var logs = OtlpHttpLogRecordExporter.builder().setEndpoint(arguments[0] + "/v1/logs").setCompression(arguments[1]);
    SdkTracerProvider provider = SdkTracerProvider.builder().setResource(named)
        .addSpanProcessor(BatchSpanProcessor.builder(traces.build()).build()).build();
    SdkLoggerProvider logging = SdkLoggerProvider.builder().setResource(named)
        .addLogRecordProcessor(BatchLogRecordProcessor.builder(logs.build()).build()).build();
    Tracer tracer = provider.tracerBuilder("warehouse.shipping").setInstrumentationVersion("3.1").build();
    Span root = tracer.spanBuilder("ship order").setSpanKind(SpanKind.SERVER).startSpan();
    root.setAttribute("app.parcels", 3L).setAttribute("app.weight", 2.5).setAttribute("app.text", "ü")
        .setAttribute(AttributeKey.longArrayKey("app.sizes"), java.util.List.of(1L, 2L));
    Context inside = Context.current().with(root);
    Span child = tracer.spanBuilder("print label").setParent(inside).startSpan();
    child.addEvent("paper", Attributes.of(AttributeKey.longKey("app.sheets"), 0L));
    child.recordException(new IllegalStateException("no paper"));
    child.setStatus(StatusCode.ERROR, "could not print");
    logging.get("warehouse.shipping").logRecordBuilder().setContext(inside.with(child)).setSeverity(Severity.ERROR)
        .setBody("The printer is empty").setAttribute(AttributeKey.stringKey("app.printer"), "north").emit();
    child.end();
    root.end();
    provider.shutdown().join(10, java.util.concurrent.TimeUnit.SECONDS);
    logging.shutdown().join(10, java.util.concurrent.TimeUnit.SECONDS);
    System.out.println(root.getSpanContext().getTraceId());
  }
}
"""


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a program that sends a trace and a log, and prints the trace's id."""
    folder = tmp_path_factory.mktemp("java")
    if not (shutil.which("mvn") and shutil.which("java")):
        pytest.skip("java and mvn are not installed")
    (folder / "pom.xml").write_text(POM)
    (folder / "Ship.java").write_text(PROGRAM)
    command = ["mvn", "-q", "-B", "dependency:build-classpath", "-Dmdep.outputFile=path"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"mvn could not get the SDK: {done.stdout[-500:]}")
    return ["java", "-cp", (folder / "path").read_text().strip(), str(folder / "Ship.java")]


def run(java: list[str], address: str, compression: str = "none") -> str:
    """Run the program; the id of the trace that it sent."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAVA_TOOL")}
    done = subprocess.run([*java, address, compression], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_java_sdk_is_understood(java: list[str], viewer_address: str, compression: str) -> None:
    trace_id = run(java, viewer_address, compression)
    trace = get(viewer_address, f"/api/traces/{trace_id}")
    summary = trace["name"], trace["service"], trace["span_count"], trace["complete"]
    assert summary == ("ship order", "shipping", 2, True)
    root, child = trace["spans"]
    assert (root["app.parcels"], root["app.weight"], root["app.text"], root["app.sizes"]) == (3, 2.5, "ü", [1, 2])
    assert (root["span.kind"], root["library.name"], root["library.version"]) == ("server", "warehouse.shipping", "3.1")
    assert (child["trace.parent_id"], child["status_message"]) == (root["trace.span_id"], "could not print")
    assert child["events"][1]["attributes"]["exception.type"] == "java.lang.IllegalStateException"
    (log,) = trace["logs"]
    assert (log["body"], log["app.printer"], log["severity_number"]) == ("The printer is empty", "north", 17)
    assert log["trace.span_id"] == child["trace.span_id"]
