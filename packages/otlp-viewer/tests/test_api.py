"""What the JSON API answers, and to whom."""

import pytest
from export import TRACE, attributes, export, json_span
from flask.testing import FlaskClient
from otlp_viewer.store import Store
from otlp_viewer.web.app import create_app


def test_traces_are_listed_newest_first_with_their_root(
    client: FlaskClient,
) -> None:
    other = "ab" * 16
    root = json_span(
        1,
        kind=2,
        name="GET /x",
        attributes=attributes(http__route="/x", http__response__status_code={"intValue": "503"}),
    )
    client.post("/v1/traces", json=export(json_span(7, trace=other, parent=6)))
    client.post("/v1/traces", json=export(json_span(2, parent=1, status={"code": 2}), service="profiles"))
    client.post("/v1/traces", json=export(root))
    listed = client.get("/api/traces").get_json()
    assert listed == [
        {
            "trace_id": other,
            "name": "span-7",
            "service": "backend",
            "services": ["backend"],
            "start": "2026-01-02T03:04:05.007000Z",
            "duration_ms": 2.5,
            "span_count": 1,
            "error": False,
            "complete": False,
        },
        {
            "trace_id": TRACE,
            "name": "GET /x",
            "service": "backend",
            "services": ["backend", "profiles"],
            "start": "2026-01-02T03:04:05.001000Z",
            "duration_ms": 2.5,
            "span_count": 2,
            "error": True,
            "complete": True,
            "route": "/x",
            "status": 503,
        },
    ]
    assert client.get("/api/traces?limit=1").get_json() == listed[:1]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1.5", "ten", "", "\uff11\uff10", "1_0", "9" * 5000])
def test_a_limit_out_of_range_is_rejected(client: FlaskClient, limit: str) -> None:
    response = client.get("/api/traces", query_string={"limit": limit})
    assert response.status_code == 400
    assert "1 to 1000" in response.get_json()["error"]


def test_a_trace_is_returned_in_tree_order(client: FlaskClient) -> None:
    spans = [json_span(4, 1), json_span(5, 2), json_span(3, 2), json_span(2, 1), json_span(1)]
    client.post("/v1/traces", json=export(*spans))
    found = client.get(f"/api/traces/{TRACE.upper()}").get_json()
    assert [span["name"] for span in found["spans"]] == [f"span-{n}" for n in (1, 2, 3, 5, 4)]
    assert (found["complete"], found["span_count"], found["logs"]) == (True, 5, [])


def test_a_trace_is_returned_as_text_on_request(client: FlaskClient) -> None:
    client.post("/v1/traces", json=export(json_span(1), json_span(2, 1)))
    response = client.get(f"/api/traces/{TRACE}", headers={"Accept": "text/plain"})
    assert response.mimetype == "text/plain"
    assert response.text.startswith("span-1  backend")
    assert "\n└─ span-2" in response.text
    assert client.get(f"/api/traces/{TRACE}", headers={"Accept": "*/*"}).is_json


def test_errors_are_json(client: FlaskClient) -> None:
    for path, code in (
        ("/api/traces/xyz", 400),
        ("/api/traces/" + "ab" * 16, 404),
        ("/api/nowhere", 404),
    ):
        response = client.get(path)
        assert (response.status_code, list(response.get_json())) == (code, ["error"])
    assert client.delete("/api/traces").get_json()["error"]
    assert client.get("/v1/traces").status_code == 405
    assert client.get("/v1/traces").get_json()["message"]


@pytest.mark.parametrize("path", ["/api/traces", "/api/health", "/nowhere"])
def test_other_host_names_are_rejected(client: FlaskClient, path: str) -> None:
    for host in ("evil.example", "localhost.evil.example", "evil.example:4318", "[::2]", "a b"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == 403, host
        assert "VIEWER_ALLOWED_HOSTS" in response.get_json()["error"]


def test_other_host_names_cannot_send_telemetry(client: FlaskClient, store: Store) -> None:
    response = client.post("/v1/traces", json=export(json_span(1)), headers={"Host": "evil.example"})
    assert response.status_code == 403
    assert "VIEWER_ALLOWED_HOSTS" in response.get_json()["message"]
    assert store.counts() == (0, 0)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:4318", "127.0.0.1:4318", "[::1]", "[::1]:4318", "viewer:4318"]
)
def test_local_host_names_are_accepted(client: FlaskClient, host: str) -> None:
    assert client.get("/api/health", headers={"Host": host}).status_code == 200


def test_more_hosts_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIEWER_ALLOWED_HOSTS", "My.Host, .gitpod.io,")
    client = create_app().test_client()
    for host, code in (
        ("my.host", 200),
        ("4318-x.ws.gitpod.io", 200),
        ("notgitpod.io", 403),
        ("", 400),
    ):
        assert client.get("/api/health", headers={"Host": host}).status_code == code, host


@pytest.mark.parametrize("accept", ["text/html", "application/json", "text/plain"])
@pytest.mark.parametrize(("problem", "status"), [("time", 400), ("memory", 503)])
def test_expensive_requests_are_rejected_with_a_reason_on_every_route(
    monkeypatch: pytest.MonkeyPatch, accept: str, problem: str, status: int
) -> None:
    store = Store()
    app = create_app(store)
    client = app.test_client()
    client.post("/v1/traces", json=export(json_span(1)))
    if problem == "time":
        monkeypatch.setattr("otlp_viewer.store.writer.MAX_QUERY_TIME", -1)
    else:

        def fail(*_: object) -> None:
            raise MemoryError

        monkeypatch.setattr(store, "_snapshot", fail)
    values = {"trace_id": TRACE, "key": "1", "column": "http.route", "filename": "page.js"}
    refused = set()
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()):
            path = rule.build({name: values[name] for name in rule.arguments})[1]  # type: ignore[index]
            response = client.get(path, headers={"Accept": accept}, follow_redirects=True)
            assert response.status_code in (200, status, 404), (path, response.status_code)
            assert response.data
            if response.status_code == status:
                refused.add(rule.rule)
                assert b"than" in response.data
    assert {"/api/traces", "/api/traces/<trace_id>", "/traces", "/traces/<trace_id>", "/logs"} <= refused
