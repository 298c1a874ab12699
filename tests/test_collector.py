"""The Collector's configuration in the real Collector: what it keeps, what that weighs, what a restart costs."""

from __future__ import annotations

import itertools
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from conftest import ROOT, environment, free_ports
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from processes import gunicorn
from receiver import Receiver, eventually, receiving

GATE = "--feature-gates=processor.tailsamplingprocessor.recordpolicy"
MARKED = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
SLOW = 1.0  # seconds, as in the configuration
KEEP_ONE_IN = 10  # the same
BUILDER = ROOT.parent / "shared/collector/collector"  # where the project is built


@pytest.fixture(scope="session")
def otelcol() -> str:
    """The Collector's program. OTELCOL names one; it must have the components of the configuration."""
    if named := os.environ.get("OTELCOL"):
        return named
    if BUILDER.exists():
        built = subprocess.run([BUILDER, "--build"], check=True, capture_output=True, text=True)
        return built.stdout.split()[-1]
    if found := shutil.which("otelcol-contrib"):
        return found
    missing = "no OpenTelemetry Collector here: install otelcol-contrib, or name one in OTELCOL"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def config(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
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
        self._env = environment(
            HONEYCOMB_API_ENDPOINT=destination, HONEYCOMB_API_KEY=MARKED, COLLECTOR_STORAGE=str(storage), **env
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
def collector(otelcol: str, config: Path, tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """Start a Collector that sends to a receiver."""
    started: list[Collector] = []

    def start(receiver: Receiver, *changes: str, **env: str) -> Collector:
        started.append(Collector(otelcol, config, tmp_path, receiver.url, *changes, **env))
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


def traffic() -> tuple[list[Request], list[Request]]:
    """What happened, and what the services send of it: of one route they keep one trace in five themselves."""
    source = random.Random(20)
    happened, sent = [], []
    for trace_id in trace_ids(30_000, seed=1):
        if len(sent) == 10_000:
            break
        draw = source.random()
        request = Request(
            trace_id,
            route=source.choice(["/api/activities/home", "/api/activities/@<handle>", "/api/busy"]),
            status=500 if draw < 0.01 else 404 if draw < 0.05 else 200,
            seconds=source.uniform(1.01, 3) if source.random() < 0.02 else source.uniform(0.001, 0.9),
        )
        happened.append(request)
        if request.route == "/api/busy":
            request.sample_rate = 5
            if int.from_bytes(trace_id[-7:], "big") % 5:
                continue
        sent.append(request)
    return happened, sent


def kept_for_sure(request: Request) -> bool:
    return request.status >= 500 or request.seconds > SLOW


def standard_error(happened: list[Request]) -> float:
    """Of the sum of weights: a request that is kept one time in w adds w - 1 to the variance."""
    weights = [(each.sample_rate or 1) * (1 if kept_for_sure(each) else KEEP_ONE_IN) for each in happened]
    return math.sqrt(sum(weight - 1 for weight in weights))


def test_weighted_counts_of_10_000_traces_agree_with_what_happened(collector: Callable[..., Collector]) -> None:
    happened, sent = traffic()
    with receiving() as receiver:
        gateway = collector(receiver)
        send_all(gateway.url, sent)
        quiet(receiver)
        traces = receiver.traces()
    assert len(sent) == 10_000

    for_sure = {each.trace_id.hex() for each in sent if kept_for_sure(each)}
    assert for_sure <= set(traces), "an error or a slow trace is missing"
    by_id = {each.trace_id.hex(): each for each in sent}
    for trace_id, spans in traces.items():
        request = by_id[trace_id]
        assert len(spans) == 3, "a trace is kept whole"
        rate = (request.sample_rate or 1) * (1 if kept_for_sure(request) else KEEP_ONE_IN)
        assert {span.get("SampleRate", 1) for span in spans} == {rate}
    assert len(traces) < 0.2 * len(sent)

    roots = [span for spans in traces.values() for span in spans if not span["parent_id"]]
    for kind, value in {
        "http.route": lambda request: request.route,
        "http.response.status_code": lambda request: request.status,
    }.items():
        weighted: Counter[Any] = Counter()
        for root in roots:
            weighted[root[kind]] += root.get("SampleRate", 1)
        for group in {value(each) for each in happened}:
            members = [each for each in happened if value(each) == group]
            assert abs(weighted[group] - len(members)) <= 3 * standard_error(members), (kind, group)
    total = sum(root.get("SampleRate", 1) for root in roots)
    assert abs(total - len(happened)) <= 3 * standard_error(happened)


def test_spans_that_come_late_get_the_decision_and_the_weight_of_their_trace(
    collector: Callable[..., Collector],
) -> None:
    many = [Request(trace_id) for trace_id in trace_ids(100, seed=2)]
    spans = [each for request in many for each in request.spans()]
    with receiving() as receiver:
        gateway = collector(receiver)
        for part in ("backend", "profiles"):
            body = encode([each for each in spans if each[0] == part])
            assert requests.post(f"{gateway.url}/v1/traces", data=body, headers=PROTOBUF, timeout=30).ok
            quiet(receiver)
        traces = receiver.traces()
    assert 0 < len(traces) < 50
    assert {len(spans) for spans in traces.values()} == {3}
    assert {span["SampleRate"] for spans in traces.values() for span in spans} == {KEEP_ONE_IN}


def test_another_percentage_gives_another_weight(collector: Callable[..., Collector]) -> None:
    many = [Request(trace_id, sample_rate=3) for trace_id in trace_ids(300, seed=3)]
    with receiving() as receiver:
        gateway = collector(receiver, COLLECTOR_KEEP_PERCENT="25", COLLECTOR_SLOW_MS="10000")
        send_all(gateway.url, many)
        quiet(receiver)
        spans = receiver.spans()
    assert {span["SampleRate"] for span in spans} == {12}
    assert 0.15 * 900 < len(spans) < 0.35 * 900


def test_the_key_goes_to_honeycomb_and_nowhere_else(collector: Callable[..., Collector]) -> None:
    log = ExportLogsServiceRequest()
    log.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "hello"
    metric = ExportMetricsServiceRequest()
    gauge = metric.resource_metrics.add().scope_metrics.add().metrics.add(name="queue").gauge
    gauge.data_points.add(as_int=1, time_unix_nano=1)
    with receiving() as receiver:
        gateway = collector(receiver)
        send_all(gateway.url, [Request(bytes(range(16)), status=500)])
        for signal_name, message in {"logs": log, "metrics": metric}.items():
            body = message.SerializeToString()
            assert requests.post(f"{gateway.url}/v1/{signal_name}", data=body, headers=PROTOBUF, timeout=30).ok
        assert eventually(lambda: len({path for path, _, _ in receiver.requests}) == 3, 30), gateway.output()
        for path, headers, _ in receiver.requests:
            assert headers["x-honeycomb-team"] == MARKED
            assert headers.get("x-honeycomb-dataset") == ("metrics" if path == "/v1/metrics" else None)
        gateway.stop()
    assert MARKED not in gateway.output()


class Sender:
    """Sends one request after the other until it is stopped, each until it is acknowledged."""

    def __init__(self, url: str) -> None:
        self.acknowledged: list[str] = []  # ids of traces
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
            self.acknowledged += [each.trace_id.hex() for each in many]

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


def test_a_collector_that_is_restarted_in_mid_flow_loses_nothing_that_it_acknowledged(
    collector: Callable[..., Collector],
) -> None:
    """While its destination is down, too: what was decided is on disk, and what was not is decided at the end."""
    down = threading.Event()
    down.set()
    with receiving(behave=lambda: (503 if down.is_set() else 200, {})) as receiver:
        gateway = collector(receiver, **EVERYTHING)
        with sending(gateway.url) as sender:
            for _ in range(2):
                sender.wait_for(300)
                gateway.stop(signal.SIGTERM)
                gateway.start()
            down.clear()
            sender.wait_for(300)
        wanted = set(sender.acknowledged)
        eventually(lambda: wanted <= set(receiver.traces()), 60)
        traces = receiver.traces()
    assert not wanted - set(traces)
    assert all({span["name"] for span in traces[each]} == {"part 0", "part 1", "part 2"} for each in wanted)


def test_a_killed_collector_loses_only_what_it_had_not_decided_on(collector: Callable[..., Collector]) -> None:
    """The tail sampler holds undecided traces in memory; what it has decided on is in files."""
    down = threading.Event()
    down.set()
    with receiving(behave=lambda: (503 if down.is_set() else 200, {})) as receiver:
        gateway = collector(receiver, **EVERYTHING)
        with sending(gateway.url) as sender:
            sender.wait_for(300)
            first = set(sender.acknowledged)
            time.sleep(10)  # a decision takes 2 s, a tick and a batch
            gateway.stop(signal.SIGKILL)
            gateway.start()
            sender.wait_for(300)
        down.clear()
        eventually(lambda: first <= set(receiver.traces()), 60)
        assert not first - set(receiver.traces())


def test_logs_are_on_disk_before_they_are_acknowledged(collector: Callable[..., Collector]) -> None:
    down = threading.Event()
    down.set()
    with receiving(behave=lambda: (503 if down.is_set() else 200, {})) as receiver:
        gateway = collector(receiver)
        for number in range(50):
            log = ExportLogsServiceRequest()
            log.resource_logs.add().scope_logs.add().log_records.add().body.string_value = f"line {number}"
            body = log.SerializeToString()
            assert requests.post(f"{gateway.url}/v1/logs", data=body, headers=PROTOBUF, timeout=30).ok
        gateway.stop(signal.SIGKILL)
        gateway.start()
        down.clear()

        def lines() -> set[str]:
            return {
                record.body.string_value
                for message in receiver.messages("/v1/logs")
                for resource in message.resource_logs
                for scope in resource.scope_logs
                for record in scope.log_records
            }

        assert eventually(lambda: lines() == {f"line {number}" for number in range(50)}, 60)


def test_without_the_sampler_a_killed_collector_loses_nothing_that_it_acknowledged(
    collector: Callable[..., Collector],
) -> None:
    down = threading.Event()
    down.set()
    with receiving(behave=lambda: (503 if down.is_set() else 200, {})) as receiver:
        gateway = collector(receiver, "service::pipelines::traces::processors: [memory_limiter]")
        with sending(gateway.url) as sender:
            for _ in range(2):
                sender.wait_for(100)
                gateway.stop(signal.SIGKILL)
                gateway.start()
            down.clear()
        wanted = set(sender.acknowledged)
        eventually(lambda: wanted <= set(receiver.traces()), 60)
        assert not wanted - set(receiver.traces())


def test_a_collector_without_memory_refuses_with_503(collector: Callable[..., Collector]) -> None:
    """503 is what makes an OTLP client keep its data and send it again."""
    small = ["processors::memory_limiter::limit_mib: 1", "processors::memory_limiter::spike_limit_mib: 0"]
    body = encode([each for each in Request(bytes(range(16))).spans() if each[0] == "backend"])
    with receiving() as receiver:
        gateway = collector(receiver, *small)

        def status() -> int:
            return requests.post(f"{gateway.url}/v1/traces", data=body, headers=PROTOBUF, timeout=30).status_code

        assert eventually(lambda: status() == 503, 30)


def test_a_collector_with_full_queues_makes_clients_wait_and_loses_nothing_that_it_acknowledged(
    collector: Callable[..., Collector],
) -> None:
    down = threading.Event()
    down.set()
    with receiving(behave=lambda: (503 if down.is_set() else 200, {})) as receiver:
        gateway = collector(receiver, SMALL_QUEUE, **EVERYTHING)
        with sending(gateway.url) as sender:

            def stuck() -> bool:
                before = len(sender.acknowledged)
                time.sleep(5)
                return len(sender.acknowledged) == before

            assert eventually(stuck, 60)
            down.clear()
            sender.wait_for(100)
        wanted = set(sender.acknowledged)
        eventually(lambda: wanted <= set(receiver.traces()), 60)
        assert not wanted - set(receiver.traces())


def test_a_full_collector_does_not_slow_the_application_down_and_gets_everything_later(
    collector: Callable[..., Collector], installed_project: Path, tmp_path: Path
) -> None:
    down = threading.Event()
    with receiving(behave=lambda: (503 if down.is_set() else 200, {})) as receiver:
        gateway = collector(receiver, SMALL_QUEUE, **EVERYTHING)
        seeds = itertools.count(100)

        def full() -> bool:
            ids = trace_ids(500, seed=next(seeds))
            body = encode([each for trace_id in ids for each in Request(trace_id).spans()])
            try:
                return not requests.post(f"{gateway.url}/v1/traces", data=body, headers=PROTOBUF, timeout=3).ok
            except requests.Timeout:
                return True

        with gunicorn(installed_project, tmp_path / "app.log", OTEL_EXPORTER_OTLP_ENDPOINT=gateway.url) as (_, base):
            healthy = timed(base)
            down.set()
            assert eventually(full, 90)
            unhealthy = timed(base)
            down.clear()
            wanted = {trace_id for trace_id, _ in healthy + unhealthy}
            eventually(lambda: wanted <= set(receiver.traces()), 90)
            traces = receiver.traces()
    assert not wanted - set(traces)
    assert all(any(not span["parent_id"] for span in traces[each]) for each in wanted)
    assert median(unhealthy) <= 2 * median(healthy) + 0.02


def timed(base: str) -> list[tuple[str, float]]:
    """The trace and the seconds of each of 300 requests."""
    result = []
    for _ in range(300):
        began = time.perf_counter()
        answer = requests.get(f"{base}/api/activities/home", timeout=30)
        result.append((answer.headers["traceresponse"].split("-")[1], time.perf_counter() - began))
    return result


def median(measured: list[tuple[str, float]]) -> float:
    return statistics.median(seconds for _, seconds in measured)


def test_the_sampler_is_never_run_without_the_flag_that_records_weights(config: Path) -> None:
    deploy = config.parent.parent
    compose = yaml.safe_load((deploy.parent / "compose.collector.yaml").read_text())
    assert GATE in compose["services"]["collector"]["command"]
    sets = list(yaml.safe_load_all((deploy / "kubernetes/overlays/collector/collector.yaml").read_text()))
    (pod,) = [each["spec"]["template"]["spec"] for each in sets if each["kind"] == "StatefulSet"]
    assert GATE in pod["containers"][0]["args"]
