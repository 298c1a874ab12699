"""Tests of requests that exceed what the receiver can process or store."""

import json
import threading
from typing import Any

import duckdb
import pytest
from flask.testing import FlaskClient
from otlp_viewer.receive import body
from otlp_viewer.store import AddResult, Store
from otlp_viewer.web.app import create_app


def test_a_busy_receiver_asks_the_sender_to_retry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    working, done = threading.Event(), threading.Event()
    add = store.add_spans

    def add_slowly(*arguments: Any) -> AddResult:
        working.set()
        done.wait(10)
        return add(*arguments)

    monkeypatch.setattr(store, "add_spans", add_slowly)
    backpressure = body.Backpressure(limit=1000, timeout=0.05)
    monkeypatch.setattr(body, "Backpressure", lambda: backpressure)
    app = create_app(store)
    large_export = json.dumps({"resourceSpans": [], "pad": "x" * 600})

    def send(body: str = large_export) -> Any:
        return app.test_client().post("/v1/traces", data=body, content_type="application/json")

    thread = threading.Thread(target=send)
    thread.start()
    assert working.wait(5)
    rejected = send()
    assert (rejected.status_code, rejected.headers["Retry-After"]) == (503, "1")
    assert "again" in rejected.get_json()["message"]
    done.set()
    thread.join()
    assert send().status_code == 200
    assert send('{"resourceSpans": []}').status_code == 200


def test_a_database_error_asks_the_sender_to_retry(
    client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise duckdb.IOException("No space left on device\nand more")

    monkeypatch.setattr(store, "add_logs", full)
    response = client.post("/v1/logs", json={})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "No space left on device" in response.get_json()["message"]
