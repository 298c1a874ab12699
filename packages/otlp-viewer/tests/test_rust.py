"""Spans from OpenTelemetry's Rust SDK arrive as they were made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from running import get

MANIFEST = """
[package]
name = "depot"
version = "0.1.0"
edition = "2021"

[profile.dev]
debug = false

[dependencies]
opentelemetry = "=0.31.0"
opentelemetry_sdk = "=0.31.0"

[dependencies.opentelemetry-otlp]
version = "=0.31.1"
default-features = false
features = ["http-proto", "reqwest-blocking-client", "trace", "gzip-http"]
"""
PROGRAM = """
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Array, Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{trace::SdkTracerProvider, Resource};

fn main() {
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(SpanExporter::builder().with_http().build().unwrap())
        .with_resource(Resource::builder().with_service_name("depot").build())
        .build();
    let tracer = provider.tracer_with_scope(InstrumentationScope::builder("gate").with_version("4.2.0").build());
    let shelves = Value::Array(Array::String(vec!["a".into(), "b".into()]));
    let root = tracer
        .span_builder("receive")
        .with_kind(SpanKind::Server)
        .with_attributes([
            KeyValue::new("app.large", i64::MAX),
            KeyValue::new("app.half", 0.5),
            KeyValue::new("app.text", "ü"),
            KeyValue::new("app.shelves", shelves),
        ])
        .start(&tracer);
    let context = Context::current_with_span(root);
    let mut child = tracer.start_with_context("weigh", &context);
    child.add_event("scale", vec![KeyValue::new("app.kilograms", 3)]);
    child.set_status(Status::error("too heavy"));
    child.end();
    context.span().end();
    provider.shutdown().unwrap();
    println!("{}", context.span().span_context().trace_id());
}
"""


@pytest.fixture(scope="module")
def rust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that sends a trace, and prints its id."""
    folder = tmp_path_factory.mktemp("rust")
    cargo = shutil.which("cargo")
    if not cargo:
        pytest.skip("cargo is not installed")
    (folder / "src").mkdir()
    (folder / "Cargo.toml").write_text(MANIFEST)
    (folder / "src" / "main.rs").write_text(PROGRAM, "utf-8")
    done = subprocess.run([cargo, "fetch", "-q"], cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"cargo could not get the SDK: {done.stderr[-500:]}")
    target = tmp_path_factory.getbasetemp() / "cargo"  # both modules that use this fixture share what is compiled
    build = [cargo, "build", "-q", "--offline", "--target-dir", target]
    subprocess.run(build, cwd=folder, check=True, timeout=900)
    return target / "debug" / "depot"


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_the_rust_sdk_is_understood(rust: Path, viewer_address: str, compression: str | None) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": viewer_address}
    if compression:
        settings["OTEL_EXPORTER_OTLP_COMPRESSION"] = compression
    done = subprocess.run([rust], env={**os.environ, **settings}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    trace = get(viewer_address, f"/api/traces/{done.stdout.strip()}")
    assert (trace["name"], trace["service"], trace["span_count"], trace["complete"]) == ("receive", "depot", 2, True)
    root, child = trace["spans"]
    assert (root["app.large"], root["app.half"]) == (2**63 - 1, 0.5)
    assert (root["app.shelves"], root["app.text"], root["span.kind"]) == (["a", "b"], "ü", "server")
    assert (root["library.name"], root["library.version"]) == ("gate", "4.2.0")
    assert (child["trace.parent_id"], child["status_message"]) == (root["trace.span_id"], "too heavy")
    assert child["events"][0]["attributes"] == {"app.kilograms": 3}
