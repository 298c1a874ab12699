# ruff: noqa: F811  a fixture that is imported has the name of the parameter that asks for it
"""What it costs to restart or kill the Collector, or to fill it."""

from __future__ import annotations

import itertools
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests
from collectors import (  # noqa: F401  fixtures
    EVERYTHING,
    PROTOBUF,
    SMALL_QUEUE,
    Collector,
    Request,
    collector,
    collector_config,
    encode,
    otelcol,
    sending,
    trace_ids,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from processes import gunicorn
from receiver import eventually, receiving


def test_a_collector_restarted_under_load_loses_no_acknowledged_data(
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


def test_a_killed_collector_loses_at_most_undecided_traces(
    collector: Callable[..., Collector],
) -> None:
    """The tail sampler holds undecided traces in memory; what it has decided on is in files."""
    undecided = 10  # seconds; a decision takes 2 s at most, a tick and a batch
    down = threading.Event()
    down.set()
    with receiving(behave=lambda: (503 if down.is_set() else 200, {})) as receiver:
        gateway = collector(receiver, **EVERYTHING)
        with sending(gateway.url) as sender:
            time.sleep(undecided + 5)
            killed = time.monotonic()
            gateway.stop(signal.SIGKILL)
            gateway.start()
            started = time.monotonic()
            sender.wait_for(300)
        down.clear()
        sure = {each for each, at in sender.acknowledged.items() if not killed - undecided < at < started}
        eventually(lambda: sure <= set(receiver.traces()), 60)
        traces = receiver.traces()
    before = [each for each in sure if sender.acknowledged[each] < killed]
    assert len(before) > 100
    assert not sure - set(traces)
    assert all({span["name"] for span in traces[each]} == {"part 0", "part 1", "part 2"} for each in sure)


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


def test_without_the_sampler_a_killed_collector_loses_no_acknowledged_data(
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


def test_a_collector_without_memory_responds_503(collector: Callable[..., Collector]) -> None:
    """503 is what makes an OTLP client keep its data and send it again."""
    small = ["processors::memory_limiter::limit_mib: 1", "processors::memory_limiter::spike_limit_mib: 0"]
    body = encode([each for each in Request(bytes(range(16))).spans() if each[0] == "backend"])
    with receiving() as receiver:
        gateway = collector(receiver, *small)

        def status() -> int:
            return requests.post(f"{gateway.url}/v1/traces", data=body, headers=PROTOBUF, timeout=30).status_code

        assert eventually(lambda: status() == 503, 30)


def test_a_collector_with_full_queues_makes_clients_wait_and_loses_no_acknowledged_data(
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


def test_a_full_collector_does_not_slow_the_application_and_gets_all_data_later(
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
        response = requests.get(f"{base}/api/activities/home", timeout=30)
        result.append((response.headers["traceresponse"].split("-")[1], time.perf_counter() - began))
    return result


def median(measured: list[tuple[str, float]]) -> float:
    return statistics.median(seconds for _, seconds in measured)
