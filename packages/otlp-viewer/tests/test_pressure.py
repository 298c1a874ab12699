"""What happens when more comes than can be worked on, or stored."""

import json
import threading
from typing import Any

import duckdb
import pytest
from flask.testing import FlaskClient
from otlp_viewer.receive import body
from otlp_viewer.store import Added, Store
from otlp_viewer.web.app import create_app


def test_beyond_its_measure_the_receiver_asks_to_be_sent_it_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    working, done = threading.Event(), threading.Event()
    add = store.add_spans

    def slowly(*given: Any) -> Added:
        working.set()
        done.wait(10)
        return add(*given)

    monkeypatch.setattr(store, "add_spans", slowly)
    pressure = body.Pressure(most=1000, patience=0.05)
    monkeypatch.setattr(body, "Pressure", lambda: pressure)
    app = create_app(store)
    export_ = json.dumps({"resourceSpans": [], "pad": "x" * 600})

    def send(body: str = export_) -> Any:
        return app.test_client().post("/v1/traces", data=body, content_type="application/json")

    thread = threading.Thread(target=send)
    thread.start()
    assert working.wait(5)
    refused = send()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "again" in refused.get_json()["message"]
    done.set()
    thread.join()
    assert send().status_code == 200
    assert send('{"resourceSpans": []}').status_code == 200


def test_what_the_database_cannot_keep_is_to_be_sent_again(
    client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise duckdb.IOException("No space left on device\nand more")

    monkeypatch.setattr(store, "add_logs", full)
    answer = client.post("/v1/logs", json={})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "No space left on device" in answer.get_json()["message"]
