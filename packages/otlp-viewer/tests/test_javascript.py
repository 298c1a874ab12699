"""Spans from OpenTelemetry's JavaScript SDK, in protobuf and in JSON, arrive as they were made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from running import get, missing

PACKAGES = (
    "@opentelemetry/api@1",
    "@opentelemetry/sdk-trace-node@2",
    "@opentelemetry/resources@2",
    "@opentelemetry/exporter-trace-otlp-proto",
    "@opentelemetry/exporter-trace-otlp-http",
)
PROGRAM = """
const { trace, SpanKind, SpanStatusCode } = require("@opentelemetry/api");
const { NodeTracerProvider, BatchSpanProcessor } = require("@opentelemetry/sdk-trace-node");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { OTLPTraceExporter } = require(process.argv[2]);

const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "frontend" }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ compression: process.argv[3] }))],
});
provider.register();
trace.getTracer("page", "1.2.3").startActiveSpan("load-page", { kind: SpanKind.CLIENT }, (root) => {
  root.setAttributes({ "app.text": "ü", "app.whole": 42, "app.broken": 0.5, "app.yes": true, "app.list": ["a", "b"] });
  trace.getTracer("page").startActiveSpan("draw", (child) => {
    child.addEvent("painted", { "app.pixels": 7 });
    child.recordException(new TypeError("no canvas"));
    child.setStatus({ code: SpanStatusCode.ERROR, message: "could not draw" });
    child.end();
  });
  root.end();
});
provider.shutdown().then(() => console.log("sent"), (error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK and a program that sends a trace."""
    folder = tmp_path_factory.mktemp("javascript")
    command = [shutil.which("npm") or "", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    reason = "npm is not installed"
    if command[0] and shutil.which("node"):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        reason = "" if done.returncode == 0 else f"npm could not install the SDK: {done.stderr[-500:]}"
    if reason:
        missing(reason)
    (folder / "send.js").write_text(PROGRAM)
    return folder


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("exporter", ["proto", "http"])
def test_the_javascript_sdk_is_understood(
    javascript: Path, viewer_address: str, exporter: str, compression: str
) -> None:
    before = {trace["trace_id"] for trace in get(viewer_address, "/api/traces")}
    done = subprocess.run(
        ["node", "send.js", f"@opentelemetry/exporter-trace-otlp-{exporter}", compression],
        cwd=javascript,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": viewer_address, "OTEL_LOG_LEVEL": "warn"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "sent\n", "")
    (trace,) = (trace for trace in get(viewer_address, "/api/traces") if trace["trace_id"] not in before)
    assert (trace["name"], trace["service"], trace["span_count"], trace["complete"]) == (
        "load-page",
        "frontend",
        2,
        True,
    )
    root, child = get(viewer_address, f"/api/traces/{trace['trace_id']}")["spans"]
    found = {name: root[name] for name in ("app.text", "app.whole", "app.broken", "app.yes", "app.list", "span.kind")}
    assert found == {
        "app.text": "ü",
        "app.whole": 42,
        "app.broken": 0.5,
        "app.yes": True,
        "app.list": ["a", "b"],
        "span.kind": "client",
    }
    assert (root["library.name"], root["library.version"]) == ("page", "1.2.3")
    assert child["trace.parent_id"] == root["trace.span_id"]
    assert (child["error"], child["status_message"]) == (True, "could not draw")
    painted, raised = child["events"]
    assert (painted["name"], painted["attributes"]) == ("painted", {"app.pixels": 7})
    assert raised["attributes"]["exception.type"] == "TypeError"
    assert 0 <= child["duration_ms"] <= root["duration_ms"] < 10_000
