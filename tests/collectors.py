# ruff: noqa: F811  a fixture that is imported has the name of the parameter that asks for it
"""The real Collector with the project's configuration, and traces to send to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import environment, free_ports
from containers import docker, engine, run  # noqa: F401
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from platforms import stand_in
from receiver import Receiver, eventually

GATE = "--feature-gates=processor.tailsamplingprocessor.recordpolicy"
MARKED = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
BUILDER = "collector/collector"  # among the stand-ins; the Collector that it builds is a real one


@pytest.fixture(scope="session")
def otelcol() -> str:
    """The Collector's program. OTELCOL names one; it must have the components of the configuration."""
    if found := os.environ.get("OTELCOL") or shutil.which("otelcol-contrib"):
        return found
    return run(str(stand_in(BUILDER)), "--build").stdout.split()[-1]


@pytest.fixture
def collector_image(engine: None) -> Iterator[str]:
    """An image of the Collector. COLLECTOR_IMAGE names one that can be pulled."""
    if named := os.environ.get("COLLECTOR_IMAGE"):
        yield named
        return
    name = f"local/collector:test-{uuid.uuid4().hex[:8]}"
    run(str(stand_in(BUILDER)), "--image", name)
    yield name
    docker("image", "rm", "--force", name, check=False)


@pytest.fixture(scope="session")
def collector_config(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration that a rendered project has."""
    project = render_into(tmp_path_factory.mktemp("with a collector"), deployment="Kubernetes too")
    return project / "deploy/collector/config.yaml"


class Collector:
    """A Collector with the project's configuration and shorter waits. It keeps its port and its files over restarts."""

    def __init__(self, program: str, config: Path, folder: Path, destination: str, *changes: str, **env: str) -> None:
        port, grpc, health = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        self._health = f"http://127.0.0.1:{health}"
        self._log = folder / "collector.log"
        storage = folder / "collector"
        storage.mkdir(exist_ok=True)
        merged = [
            f"receivers::otlp::protocols::http::endpoint: 127.0.0.1:{port}",
            f"receivers::otlp::protocols::grpc::endpoint: 127.0.0.1:{grpc}",
            f"extensions::health_check::endpoint: 127.0.0.1:{health}",
            "processors::tail_sampling::decision_wait: 2s",
            "processors::tail_sampling::decision_wait_after_root_received: 1s",
            "exporters::otlp_http::retry_on_failure::initial_interval: 200ms",
            "exporters::otlp_http::retry_on_failure::max_interval: 500ms",
            "service::telemetry::metrics::level: none",
            *changes,
        ]
        self._command = [program, GATE, f"--config={config}", *(f"--config=yaml:{each}" for each in merged)]
        key = {} if "HONEYCOMB_API_KEY_FILE" in env else {"HONEYCOMB_API_KEY": MARKED}
        self._env = environment(
            **{"HONEYCOMB_API_ENDPOINT": destination, "COLLECTOR_STORAGE": str(storage), **key, **env}
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log)
        assert eventually(self._ready, 60), self.output()

    def _ready(self) -> bool:
        try:
            return requests.get(self._health, timeout=5).ok
        except requests.RequestException:
            return False

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(sign)
        self._process.wait(60)

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def collector(otelcol: str, collector_config: Path, tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """Start a Collector that sends to a receiver."""
    started: list[Collector] = []

    def start(receiver: Receiver, *changes: str, **env: str) -> Collector:
        started.append(Collector(otelcol, collector_config, tmp_path, receiver.url, *changes, **env))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop(signal.SIGKILL)


@dataclass
class Request:
    """A request to the backend, which leaves a trace of three spans in two services."""

    trace_id: bytes
    route: str = "/api/activities/home"
    status: int = 200
    seconds: float = 0.05
    sample_rate: int | None = None  # what the services' own sampling writes

    def spans(self) -> list[tuple[str, Span]]:
        """The service and the span of each part."""
        parts = [("backend", 0, None), ("backend", 1, 0), ("profiles", 2, 1)]
        return [(service, self._span(number, parent)) for service, number, parent in parts]

    def _span(self, number: int, parent: int | None) -> Span:
        start = 1_800_000_000_000_000_000
        span = Span(
            trace_id=self.trace_id,
            span_id=self.trace_id[:7] + bytes([number + 1]),
            parent_span_id=b"" if parent is None else self.trace_id[:7] + bytes([parent + 1]),
            name=f"part {number}",
            kind=Span.SPAN_KIND_SERVER if number != 1 else Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=start,
            end_time_unix_nano=start + int(self.seconds * 1e9),
            attributes=[
                KeyValue(key="http.route", value=AnyValue(string_value=self.route)),
                KeyValue(key="http.response.status_code", value=AnyValue(int_value=self.status)),
            ],
        )
        if self.sample_rate is not None:
            span.attributes.append(KeyValue(key="SampleRate", value=AnyValue(int_value=self.sample_rate)))
        if parent is None and self.status >= 500:
            span.status.code = Status.STATUS_CODE_ERROR
        return span


def encode(spans: list[tuple[str, Span]]) -> bytes:
    message = ExportTraceServiceRequest()
    by_service: dict[str, Any] = {}
    for service, span in spans:
        if service not in by_service:
            resource_spans = message.resource_spans.add()
            resource_spans.resource.attributes.add(key="service.name").value.string_value = service
            by_service[service] = resource_spans.scope_spans.add().spans
        by_service[service].append(span)
    return message.SerializeToString()


PROTOBUF = {"Content-Type": "application/x-protobuf"}


def send(url: str, many: list[Request]) -> bool:
    """Whether the Collector acknowledged them. Each service sends its own batch, as real ones do."""
    spans = [each for request in many for each in request.spans()]
    for service in ("profiles", "backend"):
        body = encode([each for each in spans if each[0] == service])
        try:
            if not requests.post(f"{url}/v1/traces", data=body, headers=PROTOBUF, timeout=30).ok:
                return False
        except requests.RequestException:
            return False
    return True


def send_all(url: str, many: list[Request]) -> None:
    batches = [many[start : start + 100] for start in range(0, len(many), 100)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda batch: send(url, batch), batches))


def quiet(receiver: Receiver, seconds: float = 6) -> None:
    """Wait until nothing has come for some seconds, which is longer than the Collector waits for a decision."""
    before, since, until = -1, time.monotonic(), time.monotonic() + 120
    while time.monotonic() < min(since + seconds, until):
        if len(receiver.requests) != before:
            before, since = len(receiver.requests), time.monotonic()
        time.sleep(0.1)


def trace_ids(count: int, seed: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(16) for _ in range(count)]


class Sender:
    """Sends one request after the other until it is stopped, each until it is acknowledged."""

    def __init__(self, url: str) -> None:
        self.acknowledged: dict[str, float] = {}  # ids of traces, and when
        self._url = url
        self._stopping = threading.Event()
        self._source = random.Random(4)
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]
        for each in self._threads:
            each.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                many = [Request(self._source.randbytes(16)) for _ in range(5)]
            while not send(self._url, many):
                if self._stopping.wait(0.1):
                    return
            self.acknowledged |= {each.trace_id.hex(): time.monotonic() for each in many}

    def wait_for(self, more: int) -> None:
        """Wait until that many more traces are acknowledged."""
        before = len(self.acknowledged)
        assert eventually(lambda: len(self.acknowledged) >= before + more, 60)

    def stop(self) -> None:
        self._stopping.set()
        for each in self._threads:
            each.join()


@contextmanager
def sending(url: str) -> Iterator[Sender]:
    sender = Sender(url)
    try:
        yield sender
    finally:
        sender.stop()


SMALL_QUEUE = "exporters::otlp_http::sending_queue::queue_size: 1000000"  # bytes; larger than any batch
EVERYTHING = {"COLLECTOR_KEEP_PERCENT": "100"}
