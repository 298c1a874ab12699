"""What happens when the database itself fails."""

import base64
import logging
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from by_hand import NOON, span
from otlp_viewer.store import Store
from otlp_viewer.web.app import create_app
from sender import add, add_logs, ask

MEGABYTE = 1024 * 1024


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def large(number: int) -> dict[str, object]:
    noise = base64.b64encode(random.Random(number).randbytes(300_000)).decode()
    return span(number, number, **{"app.text": noise})


def test_spans_sent_while_the_disk_was_full_are_stored_later(tmp_path: Path) -> None:
    path = str(tmp_path / "stored.duckdb")
    store = Store(path)
    client = create_app(store).test_client()
    accepted = refused = 0
    with full_disk(6 * MEGABYTE):
        for number in range(40):
            try:
                add(store, [large(number)])
                accepted += 1
            except duckdb.FatalException:
                refused += 1
            if number % 8 == 0:
                assert client.get("/api/traces").status_code == 200
    assert 0 < accepted < 40 == accepted + refused
    time.sleep(1.1)
    assert store.counts() == (accepted, 0)
    rows = ask(store, {"start_time": NOON})["data"]["results"]
    assert rows == [{"data": {"COUNT": accepted}}]
    store.close()
    again = Store(path)
    assert again.counts() == (accepted, 0)
    again.close()


def test_pending_spans_are_written_at_exit_or_reported_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(str(tmp_path / "stored.duckdb"))
    add(store, [large(number) for number in range(3)])
    with full_disk(100_000), caplog.at_level(logging.ERROR):
        store.close()
    assert "The last 3 spans and logs are lost: " in caplog.text


def test_a_failed_in_memory_database_restarts_and_reports_the_loss(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    client = create_app(store).test_client()
    add(store, [span(number) for number in range(5)])
    add_logs(store, [{"time": "2026-01-02T12:00:00Z", "body": "b"}])
    assert store.counts() == (5, 1)
    version = store.version
    add(store, [span(7)])

    def broken(*_: object) -> None:
        raise duckdb.FatalException("the database has been invalidated\nand more")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr("otlp_viewer.store.snapshot.Snapshot.rows", broken)
        response = client.get("/api/traces")
        assert (response.status_code, response.is_json) == (503, True)
        assert "has failed" in response.get_json()["error"]
    add(store, [span(8)])
    with caplog.at_level(logging.ERROR):
        add(store, [span(9)])
        health = client.get("/api/health").get_json()
    assert "6 spans and 1 logs are lost: the database has been invalidated" in caplog.text
    assert (health["spans"], health["logs"], health["dropped_spans"]) == (2, 0, 6)
    assert store.version > version
    store.close()
