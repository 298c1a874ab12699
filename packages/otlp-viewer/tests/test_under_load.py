"""What comes from many at once, or amid a restart, is stored; what is large is read in portions."""

import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest
from by_hand import NOON, span
from flask.testing import FlaskClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_viewer.store import Store
from running import free_port, get, viewer
from sender import add, resource_spans


def body(first: int, count: int = 50) -> bytes:
    return encoded([span(number, number / 1000) for number in range(first, first + count)])


def encoded(events: list[dict[str, Any]]) -> bytes:
    return ExportTraceServiceRequest(resource_spans=resource_spans(events)).SerializeToString()


def send(address: str, data: bytes) -> int:
    request = urllib.request.Request(f"{address}/v1/traces", data, {"Content-Type": "application/x-protobuf"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return int(response.status)


def test_eight_senders_lose_nothing_while_pages_are_read(viewer_address: str) -> None:
    before = get(viewer_address, "/api/health")["spans"]
    done = threading.Event()

    def read() -> int:
        pages = 0
        while not done.is_set():
            for path in ("/api/traces", "/api/columns", "/api/health"):
                get(viewer_address, path)
                pages += 1
        return pages

    bodies = [body(10_000_000 + number * 50) for number in range(160)]
    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read)
        statuses = list(pool.map(lambda data: send(viewer_address, data), bodies))
        done.set()
        assert reader.result() > 0
    assert set(statuses) == {200}
    assert get(viewer_address, "/api/health")["spans"] == before + 8_000


def status(address: str, path: str, **query: Any) -> tuple[int, bytes]:
    """What a page answers, or for `body` the API to a query."""
    data = json.dumps(query["body"]).encode() if query else None
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_concurrent_expensive_queries_stay_within_memory_limits() -> None:
    port = free_port()
    with viewer(port) as address:
        (process,) = (one for one in psutil.Process().children() if one.is_running() and str(port) in one.cmdline())
        for first in range(0, 6_000, 200):
            many = [
                span(n, n / 1000, duration_ms=n % 97, **{f"app.n{name}": n % (name + 2) for name in range(240)})
                for n in range(first, first + 200)
            ]
            assert send(address, encoded(many)) == 200
        query = {"calculations": [{"op": "HEATMAP", "column": "duration_ms"}], "start_time": NOON, "time_range": 60}
        boxes = [
            "/query?" + urlencode({"query": json.dumps(query), "box": f"{NOON},{NOON + 10},{low},97,duration_ms"})
            for low in range(50, 56)
        ]
        filters = [
            {"column": f"app.n{n}", "op": "in", "value": list(range(1000, 1100))}
            if n % 2
            else {"column": "name", "op": "in", "value": [f"{n}-{value}" for value in range(100)]}
            for n in range(100)
        ]
        wide = {**query, "filters": filters, "filter_combination": "OR"}
        with ThreadPoolExecutor(12) as pool:
            pages = [pool.submit(status, address, box) for box in boxes]
            answers = [pool.submit(status, address, "/api/query", body=wide) for _ in range(6)]
            found = [one.result() for one in (*pages, *answers)]
        for code, text in found:
            assert code == 200 or (code in (400, 503) and re.search(b"again|shorter", text)), (code, text[-500:])
        assert any(b"app.n" in text for _, text in found[: len(boxes)])
        assert process.memory_info().rss < 900 * 1024 * 1024
        assert get(address, "/api/health")["spans"] == 6_000


def test_acknowledged_spans_are_in_the_file_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    accepted = 0
    for round_ in range(3):
        with viewer(port, "--db", str(tmp_path / "stored.duckdb")) as address:
            assert get(address, "/api/health")["spans"] == accepted
            for number in range(5):
                assert send(address, body((round_ * 5 + number) * 50)) == 200
                accepted += 50
    with viewer(port, "--db", str(tmp_path / "stored.duckdb")) as address:
        assert get(address, "/api/health")["spans"] == accepted == 750


def test_a_large_trace_is_returned_in_pages(store: Store, client: FlaskClient) -> None:
    trace_id = "ab" * 16
    for first in range(0, 2000, 200):
        events = [
            span(n, n / 1e6, **{"trace.trace_id": trace_id, "app.text": f"{n} " * 500})
            for n in range(first, first + 200)
        ]
        add(store, events)
    response = client.get(f"/api/traces/{trace_id}", buffered=False)
    portions = [len(portion) for portion in response.iter_encoded()]
    assert max(portions) < 300_000 < sum(portions)
    found = json.loads(client.get(f"/api/traces/{trace_id}").data)
    assert [one["trace.span_id"] for one in found["spans"]] == [f"{n + 1:016x}" for n in range(2000)]


def test_the_module_runs_like_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "otlp_viewer", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "usage: otlp-viewer" in done.stdout


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:9", "null"])
def test_pages_of_other_sites_cannot_query(client: FlaskClient, store: Store, origin: str) -> None:
    add(store, [span(0)])
    asked = {"calculations": [{"op": "COUNT"}]}
    assert client.post("/api/query", json=asked, headers={"Origin": origin}).status_code == 403
    assert client.post("/api/query", data=json.dumps(asked), content_type="text/plain").status_code == 415
    assert client.post("/api/query", json=asked, headers={"Origin": "http://localhost"}).status_code == 200
