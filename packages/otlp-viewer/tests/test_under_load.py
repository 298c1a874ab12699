"""What comes from many at once, or amid a restart, is kept; what is large is read in portions."""

import json
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from by_hand import span
from flask.testing import FlaskClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_viewer.store import Store
from running import free_port, viewer
from sender import add, resource_spans


def body(first: int, count: int = 50) -> bytes:
    events = [span(number, number / 1000) for number in range(first, first + count)]
    return ExportTraceServiceRequest(resource_spans=resource_spans(events)).SerializeToString()


def send(address: str, data: bytes) -> int:
    request = urllib.request.Request(f"{address}/v1/traces", data, {"Content-Type": "application/x-protobuf"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.status)


def get(address: str, path: str) -> Any:
    return json.load(urllib.request.urlopen(address + path, timeout=60))


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


def test_what_was_answered_is_in_the_file_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    accepted = 0
    for round_ in range(3):
        with viewer(port, "--db", str(tmp_path / "kept.duckdb")) as address:
            assert get(address, "/api/health")["spans"] == accepted
            for number in range(5):
                assert send(address, body((round_ * 5 + number) * 50)) == 200
                accepted += 50
    with viewer(port, "--db", str(tmp_path / "kept.duckdb")) as address:
        assert get(address, "/api/health")["spans"] == accepted == 750


def test_a_large_trace_is_answered_in_portions(store: Store, client: FlaskClient) -> None:
    trace_id = "ab" * 16
    for first in range(0, 2000, 200):
        events = [
            span(n, n / 1e6, **{"trace.trace_id": trace_id, "app.text": f"{n} " * 500})
            for n in range(first, first + 200)
        ]
        add(store, events)
    answer = client.get(f"/api/traces/{trace_id}", buffered=False)
    portions = [len(portion) for portion in answer.iter_encoded()]
    assert max(portions) < 10_000 < sum(portions)
    found = json.loads(client.get(f"/api/traces/{trace_id}").data)
    assert [one["trace.span_id"] for one in found["spans"]] == [f"{n + 1:016x}" for n in range(2000)]


def test_the_module_starts_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "otlp_viewer", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "usage: otlp-viewer" in done.stdout


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:9", "null"])
def test_a_page_of_another_site_cannot_ask(client: FlaskClient, store: Store, origin: str) -> None:
    add(store, [span(0)])
    asked = {"calculations": [{"op": "COUNT"}]}
    assert client.post("/api/query", json=asked, headers={"Origin": origin}).status_code == 403
    assert client.post("/api/query", data=json.dumps(asked), content_type="text/plain").status_code == 415
    assert client.post("/api/query", json=asked, headers={"Origin": "http://localhost"}).status_code == 200
