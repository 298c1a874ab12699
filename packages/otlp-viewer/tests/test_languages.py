"""From the first page to a span and its attributes in a browser, for what the SDKs of other languages send.

And for what the OpenTelemetry project sends itself.
"""

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import test_java
from browser import chromium, page
from running import free_port, viewer
from test_collector import TRACE as COLLECTORS
from test_collector import generate, send_testdata, telemetrygen, testdata
from test_go import program
from test_java import java
from test_javascript import javascript
from test_rust import rust

__all__ = ["chromium", "java", "javascript", "page", "program", "rust", "telemetrygen", "testdata"]  # fixtures
pytestmark = pytest.mark.browser
TRACE = "8C1F00D5D0A94E0BA2B5D2E8F0E7A911"
SPAN = "A1B2C3D4E5F60718"


@pytest.fixture
def address() -> Iterator[str]:
    with viewer(free_port()) as address:
        yield address


def reached(page: Any, address: str, service: str, root: str, child: str) -> str:
    """Go from the first page to the service's trace, and to a span in it by its name; what the span's details say."""
    page.goto(address)
    page.locator(".services-list").get_by_role("link", name=service, exact=True).click()
    page.locator(".traces .cover", has_text=root).click()
    page.locator("#tree .row", has_text=child).click()
    page.locator("#span h2", has_text=re.compile(f"^{re.escape(child)}$")).wait_for()
    return str(page.locator("#span").inner_text())


def has(details: str, **fields: str) -> None:
    """Check that the details have these fields (`__` in a name is a dot), each with its value."""
    words = re.sub(r"\s+", " ", details)
    for name, value in fields.items():
        assert f"{name.replace('__', '.')} {value}" in words


def test_a_trace_of_the_go_sdk_is_read_in_the_browser(program: Any, page: Any, address: str) -> None:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": address}
    subprocess.run([program], env=environment, check=True, capture_output=True, timeout=60)
    child = reached(page, address, "warehouse", "pick", "lift")
    assert "*errors.errorString" in child
    assert "too heavy" in child
    assert "could not lift" in child
    root = reached(page, address, "warehouse", "pick", "pick")
    has(root, app__large=str(2**63 - 1), app__half="0.5", app__shelves='["a", "b"]', app__text="ü")


def test_a_trace_of_the_javascript_sdk_is_read_in_the_browser(javascript: Any, page: Any, address: str) -> None:
    command = ["node", "send.js", "@opentelemetry/exporter-trace-otlp-http", "gzip"]
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": address}
    subprocess.run(command, cwd=javascript, env=environment, check=True, capture_output=True, timeout=60)
    child = reached(page, address, "frontend", "load-page", "draw")
    has(child, painted="app.pixels 7", TypeError="no canvas")
    root = reached(page, address, "frontend", "load-page", "load-page")
    has(root, app__text="ü", app__whole="42", app__yes="true", app__list='["a", "b"]', version="1.2.3")


def test_a_trace_and_a_log_of_the_java_sdk_are_read_in_the_browser(java: Any, page: Any, address: str) -> None:
    trace_id = test_java.run(java, address)
    child = reached(page, address, "shipping", "ship order", "print label")
    has(child, paper="app.sheets 0")
    assert "java.lang.IllegalStateException" in child
    assert "The printer is empty" in child
    root = reached(page, address, "shipping", "ship order", "ship order")
    has(root, app__parcels="3", app__weight="2.5", app__sizes="[1, 2]", telemetry__sdk__language="java")
    page.goto(f"{address}/logs?severity=17")
    page.locator(".log summary", has_text="The printer is empty").click()
    page.get_by_role("link", name="Open trace").click()
    page.wait_for_url(f"**/traces/{trace_id}?span=*")


def test_a_trace_of_the_rust_sdk_is_read_in_the_browser(rust: Any, page: Any, address: str) -> None:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": address}
    subprocess.run([rust], env=environment, check=True, capture_output=True, timeout=60)
    child = reached(page, address, "depot", "receive", "weigh")
    has(child, scale="app.kilograms 3", version="4.2.0")
    assert "too heavy" in child
    root = reached(page, address, "depot", "receive", "receive")
    has(root, app__large=str(2**63 - 1), app__half="0.5", app__text="ü", telemetry__sdk__language="rust")


def test_a_trace_of_the_collectors_generator_is_read_in_the_browser(telemetrygen: Any, page: Any, address: str) -> None:
    generate(telemetrygen, address, "traces", "--traces", "1", "--child-spans", "2", "--otlp-attributes", "shop=true")
    child = reached(page, address, "telemetrygen", "lets-go", "okey-dokey-1")
    has(child, shop="true", network__peer__address="1.2.3.4")
    ids = re.search("([0-9a-f]{32})", page.url)
    assert ids
    generate(telemetrygen, address, "logs", "--logs", "1", "--trace-id", ids[1], "--body", "Off we went")
    page.goto(f"{address}/logs")
    page.locator(".log summary", has_text="Off we went").click()
    page.get_by_role("link", name="Open trace").click()
    page.wait_for_url(f"**/traces/{ids[1]}*")


def test_the_data_of_the_collectors_tests_is_read_in_the_browser(testdata: Any, page: Any, address: str) -> None:
    send_testdata(testdata, address, "application/json")
    page.goto(f"{address}/traces/{COLLECTORS}")
    page.locator("#tree .row", has_text="operationA").click()
    page.locator("#span h2", has_text="operationA").wait_for()
    details = page.locator("#span").inner_text()
    fields = {
        "resource-attr": "resource-attr-val-1",
        "span-event-attr": "span-event-attr-val",
        "trace state": "ot=th:0",
    }
    has(details, **fields)
    assert "status-cancelled" in details
    assert "Dropped by the SDK: 1 attribute, 1 event, 0 links." in details


def test_telemetry_like_opentelemetrys_examples_is_shown_in_the_browser(page: Any, address: str) -> None:
    """JSON by hand: ids in capitals, times as numbers and of years ago, a parent that is elsewhere, no status."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "till"}}]}
    scope = {
        "name": "till.library",
        "version": "1.0.0",
        "attributes": [{"key": "scope.kind", "value": {"stringValue": "mine"}}],
    }
    ids = {"traceId": TRACE, "spanId": SPAN}
    span = ids | {
        "parentSpanId": "A1B2C3D4E5F60717",
        "name": "ring up",
        "kind": 2,
        "startTimeUnixNano": 1_544_712_660_000_000_000,
        "endTimeUnixNano": 1_544_712_661_000_000_000,
        "attributes": [{"key": "till.number", "value": {"stringValue": "seven"}}],
    }
    basket = {"kvlistValue": {"values": [{"key": "tea", "value": {"intValue": 2}}]}}
    log = ids | {
        "timeUnixNano": 1_544_712_660_300_000_000,
        "severityText": "Information",
        "body": {"stringValue": "A basket was paid"},
        "attributes": [
            {"key": "basket", "value": basket},
            {"key": "sums", "value": {"arrayValue": {"values": [{"doubleValue": 3.5}]}}},
        ],
    }
    for path, body in (
        ("traces", {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [span]}]}]}),
        ("logs", {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": [log]}]}]}),
    ):
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{address}/v1/{path}", json.dumps(body).encode(), headers))
    details = reached(page, address, "till", "ring up", "ring up")
    has(details, till__number="seven", scope__kind="mine", parent="a1b2c3d4e5f60717, not received")
    assert "A basket was paid" in details
    assert "parent not received" in page.locator("#tree").inner_text()
    page.goto(f"{address}/logs")
    page.locator(".log summary", has_text="A basket was paid").click()
    has(page.locator(".log").inner_text(), basket='{"tea": 2}', sums="[3.5]", scope__kind="mine")
    assert "2018-12-13" in page.locator(".log .when").inner_text()
