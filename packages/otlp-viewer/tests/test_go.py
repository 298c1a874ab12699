"""Spans and logs from OpenTelemetry's Go SDK arrive as they were made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from running import get, missing

MODULES = (
    "go.opentelemetry.io/otel@v1.38.0",
    "go.opentelemetry.io/otel/sdk@v1.38.0",
    "go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp@v1.38.0",
)
PROGRAM = """
package main

import (
	"context"
	"errors"
	"fmt"
	"math"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	ctx := context.Background()
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		panic(err)
	}
	named := resource.NewSchemaless(attribute.String("service.name", "warehouse"))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(named))
	otel.SetTracerProvider(provider)
	tracer := otel.Tracer("shelf", trace.WithInstrumentationVersion("2.0.1"))
	ctx, root := tracer.Start(ctx, "pick", trace.WithSpanKind(trace.SpanKindServer))
	root.SetAttributes(attribute.Int64("app.large", math.MaxInt64), attribute.Float64("app.half", 0.5),
		attribute.StringSlice("app.shelves", []string{"a", "b"}), attribute.String("app.text", "ü"))
	_, child := tracer.Start(ctx, "lift")
	child.RecordError(errors.New("too heavy"))
	child.SetStatus(codes.Error, "could not lift")
	child.End()
	root.End()
	if err := provider.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	fmt.Println(root.SpanContext().TraceID())
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that sends a trace, and prints its id."""
    folder = tmp_path_factory.mktemp("go")
    go = shutil.which("go")
    if not go:
        missing("go is not installed")
    (folder / "main.go").write_text(PROGRAM)
    for command in (["mod", "init", "example.com/pick"], ["get", *MODULES], ["build", "-o", "pick", "."]):
        done = subprocess.run([go, *command], cwd=folder, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            missing(f"the Go SDK cannot be built: {done.stderr[-500:]}")
    return folder / "pick"


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_go_sdk_is_understood(program: Path, viewer_address: str, compression: str) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": viewer_address, "OTEL_EXPORTER_OTLP_COMPRESSION": compression}
    done = subprocess.run([program], env={**os.environ, **settings}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    trace = get(viewer_address, f"/api/traces/{done.stdout.strip()}")
    assert (trace["name"], trace["service"], trace["span_count"], trace["complete"]) == ("pick", "warehouse", 2, True)
    root, child = trace["spans"]
    assert (root["app.large"], root["app.half"]) == (2**63 - 1, 0.5)
    assert (root["app.shelves"], root["app.text"], root["span.kind"]) == (["a", "b"], "ü", "server")
    assert (root["library.name"], root["library.version"]) == ("shelf", "2.0.1")
    assert (child["trace.parent_id"], child["status_message"]) == (root["trace.span_id"], "could not lift")
    assert child["events"][0]["attributes"]["exception.message"] == "too heavy"
