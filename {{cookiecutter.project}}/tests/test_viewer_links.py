"""The viewer's links: to its own page of a trace, and to Honeycomb's once the backend has told of it."""

from __future__ import annotations

import io

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from viewer.app import create_app
from viewer.store import Store
from viewer.tree import Printer

TOLD = "https://ui.eu1.honeycomb.io/acme/environments/production/datasets/backend-flask/trace?trace_id="
TRACE_ID = "31" * 16


def send(store: Store, **headers: str) -> None:
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(
        name="GET /", trace_id=b"1" * 16, span_id=b"2" * 8, start_time_unix_nano=10**18, end_time_unix_nano=10**18 + 1
    )
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = (
        create_app(store)
        .test_client()
        .post("/v1/traces", data=message.SerializeToString(), content_type="application/x-protobuf", headers=given)
    )
    assert answer.status_code == 200


def page(store: Store) -> str:
    return create_app(store).test_client().get(f"/traces/{TRACE_ID}").text


def test_the_page_of_a_trace_leads_to_honeycomb_while_the_backend_has_a_key() -> None:
    store = Store()
    send(store)
    assert "Open in Honeycomb" not in page(store)
    send(store, x_honeycomb_trace_url=TOLD)
    assert f'href="{TOLD}{TRACE_ID}"' in page(store)
    send(store)
    assert "Open in Honeycomb" not in page(store)


@pytest.mark.parametrize(
    "told",
    [
        "https://evil.example/trace?trace_id=",
        "javascript:alert(1)//https://ui.honeycomb.io/a/trace?trace_id=",
        "https://ui.honeycomb.io.evil.example/a/trace?trace_id=",
        "https://ui.honeycomb.io@evil.example/a/trace?trace_id=",
        TOLD + '"><script>',
        TOLD.replace("http", "HTTP"),
        "https://ui.honeycomb.io/" + "a" * 1000 + "?trace_id=",
    ],
)
def test_a_link_to_somewhere_else_is_not_believed(told: str) -> None:
    store = Store()
    send(store, x_honeycomb_trace_url=told)
    assert store.in_honeycomb == ""


def test_a_tree_in_the_terminal_ends_with_the_link_to_its_trace() -> None:
    store, out = Store(), io.StringIO()
    send(store)
    trace = store.trace(TRACE_ID)
    assert trace is not None
    Printer(store.trees, out, page=lambda: "http://127.0.0.1:4318/traces/").print(trace)
    assert out.getvalue().splitlines()[-2:] == [f"http://127.0.0.1:4318/traces/{TRACE_ID}", ""]
