"""What the OpenTelemetry Collector project sends: traces of its generator, and the data of its own tests."""

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from running import get, missing

GENERATOR = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen"
PDATA = "go.opentelemetry.io/collector/pdata"
VERSION = "v0.161.0"
STABLE = "v1.67.0"
PROGRAM = """
package main

import (
	"os"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/collector/pdata/testdata"
)

type request interface {
	MarshalJSON() ([]byte, error)
	MarshalProto() ([]byte, error)
}

func main() {
	var made request = ptraceotlp.NewExportRequestFromTraces(testdata.GenerateTraces(2))
	if os.Args[1] == "logs" {
		made = plogotlp.NewExportRequestFromLogs(testdata.GenerateLogs(2))
	}
	encode := made.MarshalProto
	if os.Args[2] == "application/json" {
		encode = made.MarshalJSON
	}
	body, err := encode()
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(body)
}
"""
TRACE = "0102030405060708090a0b0c0d0e0f10"


def build(folder: Path, modules: list[str], *arguments: str) -> None:
    """Run `go build` with these modules. Skip the test without Go, or where the modules cannot be downloaded."""
    path = shutil.which("go")
    if not path:
        missing("go is not installed")
    subprocess.run([path, "mod", "init", "example.com/send"], cwd=folder, check=True, capture_output=True, timeout=60)
    done = subprocess.run([path, "get", *modules], cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        pytest.skip(f"go could not get the Collector's modules: {done.stderr[-500:]}")
    subprocess.run([path, "build", *arguments], cwd=folder, check=True, timeout=600)


@pytest.fixture(scope="module")
def telemetrygen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Collector's generator of telemetry."""
    folder = tmp_path_factory.mktemp("telemetrygen")
    build(folder, [f"{GENERATOR}@{VERSION}"], "-o", "telemetrygen", GENERATOR)
    return folder / "telemetrygen"


@pytest.fixture(scope="module")
def testdata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that writes the data of the Collector's tests: traces or logs, as JSON or protobuf."""
    folder = tmp_path_factory.mktemp("testdata")
    (folder / "main.go").write_text(PROGRAM)
    libraries = [f"{PDATA}/{name}@{STABLE}" for name in ("ptrace/ptraceotlp", "plog/plogotlp")]
    build(folder, [f"{PDATA}/testdata@{VERSION}", *libraries], "-o", "write", ".")
    return folder / "write"


def generate(telemetrygen: Path, address: str, *options: str) -> None:
    endpoint = ["--otlp-http", "--otlp-insecure", "--otlp-endpoint", address.removeprefix("http://")]
    subprocess.run([telemetrygen, *options, *endpoint], check=True, capture_output=True, timeout=60)


def send_testdata(program: Path, address: str, content_type: str) -> list[Any]:
    """Send its traces and its logs; the answers."""
    answers = []
    for signal in ("traces", "logs"):
        body = subprocess.run([program, signal, content_type], check=True, capture_output=True, timeout=60).stdout
        headers = {"Content-Type": content_type, "Accept": content_type}
        with urllib.request.urlopen(urllib.request.Request(f"{address}/v1/{signal}", body, headers)) as response:
            answers.append(json.loads(response.read()) if content_type.endswith("json") else response.read())
    return answers


def test_the_collectors_generator_is_understood(telemetrygen: Path, viewer_address: str) -> None:
    options = ("--service", "generated", "--traces", "2", "--child-spans", "3", "--span-links", "1")
    generate(telemetrygen, viewer_address, "traces", *options, "--status-code", "Error")
    listed = get(viewer_address, "/api/traces?limit=1000")
    mine = [one for one in listed if one["service"] == "generated"]
    assert [(one["span_count"], one["complete"], one["error"]) for one in mine] == [(4, True, True)] * 2


@pytest.mark.parametrize("content_type", ["application/json", "application/x-protobuf"])
def test_the_data_of_the_collectors_tests_is_understood(testdata: Path, viewer_address: str, content_type: str) -> None:
    answers = send_testdata(testdata, viewer_address, content_type)
    if content_type == "application/json":  # the second span has no ids
        assert (answers[0]["partialSuccess"]["rejectedSpans"], answers[1]) == ("1", {})
    trace = get(viewer_address, f"/api/traces/{TRACE}")
    span = trace["spans"][0]
    assert (trace["span_count"], span["name"], span["status_message"]) == (1, "operationA", "status-cancelled")
    assert [one["name"] for one in span["events"]] == ["event-with-attr", "event"]
    logs = urllib.request.urlopen(f"{viewer_address}/logs?text=log+message", timeout=10).read().decode()
    assert "This is a log message" in logs
