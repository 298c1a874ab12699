"""Links to Honeycomb: where an exporter that has the key says its service's traces are."""

import pytest
from flask.testing import FlaskClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_viewer.store import Store
from sender import resource_spans

PAGE = "https://ui.eu1.honeycomb.io/acme/environments/{}/datasets/{}/trace?trace_id="


def send(client: FlaskClient, number: int, service: str, address: str | None = None) -> str:
    """Send a span of a trace of its own; return the trace's id."""
    event = {
        "time": "2026-01-02T12:00:00Z",
        "name": "GET /",
        "duration_ms": 1.0,
        "trace.trace_id": f"{number:032x}",
        "trace.span_id": f"{number:016x}",
        "service.name": service,
    }
    body = ExportTraceServiceRequest(resource_spans=resource_spans([event])).SerializeToString()
    headers = {"Content-Type": "application/x-protobuf"} | ({"x-honeycomb-trace-url": address} if address else {})
    assert client.post("/v1/traces", data=body, headers=headers).status_code == 200
    return f"{number:032x}"


def test_a_trace_page_links_to_the_senders_honeycomb_environment(client: FlaskClient) -> None:
    shop, mail = PAGE.format("production", "shop"), PAGE.format("test", "mail")
    traces = [(send(client, 1, "shop", shop), shop), (send(client, 2, "mail", mail), mail)]
    for trace_id, address in traces:
        assert f'href="{address}{trace_id}"' in client.get(f"/traces/{trace_id}").text
    without = send(client, 3, "stock")
    assert "ui.eu1.honeycomb.io" not in client.get(f"/traces/{without}").text


def test_a_service_without_a_key_loses_its_link(client: FlaskClient) -> None:
    send(client, 1, "shop", PAGE.format("production", "shop"))
    trace_id = send(client, 2, "shop")
    assert "honeycomb.io" not in client.get(f"/traces/{trace_id}").text


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/trace?trace_id=",
        "javascript:alert(1)//https://ui.honeycomb.io/a/trace?trace_id=",
        "https://ui.honeycomb.io.evil.example/a/trace?trace_id=",
        "https://ui.honeycomb.io@evil.example/a/trace?trace_id=",
        PAGE + '"><script>',
        PAGE.replace("http", "HTTP"),
        "https://ui.honeycomb.io/" + "a" * 1000 + "?trace_id=",
    ],
)
def test_a_link_to_another_site_is_ignored(client: FlaskClient, store: Store, address: str) -> None:
    send(client, 1, "shop", address)
    assert store.honeycomb_page("shop") == ""
