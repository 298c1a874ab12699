"""The pages as the server sends them."""

import json
import re
import time
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from otlp_viewer.query.types import Box, FieldComparison, Share
from otlp_viewer.store import Store
from otlp_viewer.web.app import create_app
from otlp_viewer.web.questions import QUESTIONS
from sender import add, add_logs

NOON = 1_767_355_200  # 2026-01-02T12:00:00Z
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`;--\x00\x1b[31m\u202e{{ 7 * 7 }}"
PAGES = ["/", "/query", "/traces", f"/traces/{TRACE}", "/logs"]


def span(number: int, parent: int = 0, at: float = 0.0, **fields: Any) -> dict[str, Any]:
    made = {
        "time": datetime.fromtimestamp(NOON + at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "name": f"span-{number}",
        "duration_ms": 10.0,
        "trace.trace_id": TRACE,
        "trace.span_id": f"{number:016x}",
        "span.kind": "server",
        "service.name": "backend",
        "error": False,
        "events": [],
        "links": [],
    }
    if parent:
        made["trace.parent_id"] = f"{parent:016x}"
    return made | fields


class Page(HTMLParser):
    """What a page is made of; fails when its tags do not match."""

    alone = ("meta", "link", "input", "br", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.alone and tag != "option":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag != "option":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(client: FlaskClient, path: str, status: int = 200) -> Page:
    answer = client.get(path, headers=HTML)
    assert (answer.status_code, answer.mimetype) == (status, "text/html"), answer.text[:500]
    return Page(answer.text)


def asked(specification: dict[str, Any], **more: str) -> str:
    return "/query?" + urlencode({"query": json.dumps(specification)} | more)


# What a page says


@pytest.mark.parametrize("path", ["/", "/query", "/traces", "/logs"])
def test_an_empty_viewer_says_what_to_do(client: FlaskClient, path: str) -> None:
    text = page(client, path).text
    assert "Waiting for the first" in text
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost" in text


def test_the_start_page_shows_which_route_is_slow(client: FlaskClient, store: Store) -> None:
    for number in range(40):
        fields: dict[str, Any] = {"http.route": "/slow" if number % 4 == 0 else "/quick"}
        fields["duration_ms"] = 500.0 + number if number % 4 == 0 else 5.0
        fields["trace.trace_id"] = f"{number + 1:032x}"
        add(store, [span(number + 1, 0, number / 10, **fields), span(number + 100, number + 1, **fields)])
    start = page(client, "/")
    assert "Which routes are slow?" in start.text
    assert "/slow532 ms536 ms10" in start.text
    assert "/quick5.00 ms5.00 ms30" in start.text
    cells = [attrs["data-at"] for tag, attrs in start.tags if tag == "rect" and "data-at" in attrs]
    assert sum(int(str(cell).split(",")[2]) for cell in cells) == 40


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_question_can_be_asked_before_its_fields_exist(client: FlaskClient, store: Store, question: Any) -> None:
    add(store, [span(1, **{"http.route": "/a", "http.response.status_code": 200})])
    assert not [attrs for _, attrs in page(client, asked(question.query)).tags if attrs.get("role") == "alert"]
    assert page(client, "/").text.count(question.name) >= 1


def test_spans_without_a_route_are_told_apart_by_name(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, name="nightly-job")])
    assert "nightly-job" in page(client, "/").text


def test_what_is_wrong_with_a_query_is_shown_beside_its_form(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    for text in ("{", "[]", json.dumps({"breakdowns": ["nowhere"]}), json.dumps({"filters": "x"}), "[" * 10_000):
        found = page(client, "/query?" + urlencode({"query": text}))
        assert any(attrs.get("role") == "alert" for _, attrs in found.tags), text
        assert any(attrs.get("id") == "builder" for _, attrs in found.tags)


def test_the_builders_form_becomes_a_query_in_the_address(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, **{"http.route": "/a"})])
    answer = client.get(
        "/ask?"
        + urlencode(
            [
                *(("calculation", op) for op in ("P90", "COUNT", "")),
                *(("of", column) for column in ("duration_ms", "name", "")),
                *(("where", column) for column in ("http.route", "duration_ms", "name", "")),
                *(("is", op) for op in ("in", ">", "exists", "=")),
                *(("value", value) for value in ("/a, /b", "5", "", "")),
                ("any", "OR"),
                ("by", "name"),
                ("by", ""),
                ("order", "P90(duration_ms)"),
                ("way", "ascending"),
                ("limit", "7"),
                ("range", "600"),
            ]
        )
    )
    assert answer.status_code == 302
    specification = json.loads(parse_qs(urlsplit(answer.location).query)["query"][0])
    assert specification == {
        "calculations": [{"op": "P90", "column": "duration_ms"}, {"op": "COUNT"}],
        "breakdowns": ["name"],
        "filters": [
            {"column": "http.route", "op": "in", "value": ["/a", "/b"]},
            {"column": "duration_ms", "op": ">", "value": "5"},
            {"column": "name", "op": "exists"},
        ],
        "filter_combination": "OR",
        "orders": [{"op": "P90", "column": "duration_ms", "order": "ascending"}],
        "limit": 7,
        "time_range": 600,
    }
    assert client.get(answer.location, headers=HTML).status_code == 200
    assert client.get(client.get("/ask").location, headers=HTML).status_code == 200


def test_a_box_shows_what_sets_its_spans_apart(client: FlaskClient, store: Store) -> None:
    for number in range(100):
        slow = number % 10 == 0
        add(
            store,
            [
                span(
                    number + 1,
                    at=number / 10,
                    duration_ms=900.0 if slow else 5.0,
                    **{"app.plan": "free" if slow else "paid", "app.n": number, "app.id": f"id-{number}"},
                )
            ],
        )
    box = f"{NOON},{NOON + 10},500,1000,duration_ms"
    comparison = store.compare(
        store.parse({"start_time": NOON, "time_range": 10}), Box("duration_ms", NOON, NOON + 10, 500, 1000)
    )
    assert (comparison.inside, comparison.outside) == (10, 90)
    assert comparison.fields[0] == FieldComparison("app.plan", [Share("free", 1.0, 0.0), Share("paid", 0.0, 1.0)])
    assert "app.id" not in [field.name for field in comparison.fields]
    found = page(client, asked({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]}, box=box))
    assert "10 spans in it, 90 others" in found.text
    assert "app.plan" in found.text
    for wrong in ("x", "1,2,3", "nan,1,2,3,duration_ms", "1,2,3,4,name", "1,2,3,4,nowhere", "1e999,2,3,4,duration_ms"):
        assert client.get(asked({}, box=wrong), headers=HTML).status_code == 200


def test_a_cell_leads_to_its_slowest_trace(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, duration_ms=5.0), span(2, 1, 1, duration_ms=7.0), span(3, 1, 1, duration_ms=6.0)])
    query = {"query": json.dumps({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]})}
    answer = client.get("/query/slowest?" + urlencode(query | {"box": f"{NOON},{NOON + 2},5,8,duration_ms"}))
    assert (answer.status_code, answer.location) == (302, f"/traces/{TRACE}?span={2:016x}")
    nothing = client.get("/query/slowest?" + urlencode(query | {"box": f"{NOON},{NOON + 2},50,80,duration_ms"}))
    assert nothing.status_code == 404


def test_a_trace_shows_its_spans_and_all_of_the_chosen_one(client: FlaskClient, store: Store) -> None:
    raised = {
        "name": "exception",
        "time": "2026-01-02T12:00:00.001000Z",
        "attributes": {
            "exception.type": "ValueError",
            "exception.message": "no feed",
            "exception.stacktrace": "File 1",
        },
    }
    retried = {"name": "retry", "time": "2026-01-02T12:00:00.001000Z", "attributes": {"attempt": 2}}
    link = {"trace_id": "ab" * 16, "span_id": "cd" * 8, "attributes": {}}
    child = span(
        2, 1, error=True, events=[raised, retried], links=[link], **{"app.user": "mona", "service.name": "profiles"}
    )
    add(store, [span(1), child])
    add_logs(
        store,
        [
            {
                "time": "2026-01-02T12:00:00.002000Z",
                "severity_number": 17,
                "body": "it broke",
                "trace.trace_id": TRACE,
                "trace.span_id": f"{2:016x}",
                "service.name": "profiles",
            }
        ],
    )
    text = page(client, f"/traces/{TRACE.upper()}?span={2:016x}").text
    for part in (
        "span-1",
        "span-2",
        "ValueError",
        "no feed",
        "File 1",
        "retry",
        "attempt",
        "app.user",
        "mona",
        "it broke",
    ):
        assert part in text
    assert "ab" * 16 in text
    assert "Honeycomb" not in text


def test_a_trace_that_is_not_kept_is_a_page_that_says_so(client: FlaskClient) -> None:
    for trace_id in ("ab" * 16, "xyz", "%00", "ab" * 20):
        assert "No trace with this id" in page(client, f"/traces/{trace_id}", 404).text
    assert "error" in client.get("/traces/xyz").get_json()
    assert page(client, "/nowhere", 404)


def test_filters_in_the_address_narrow_the_list(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, name="first"), span(2, name="second", **{"trace.trace_id": "ab" * 16, "error": True})])
    assert "second" in page(client, "/traces?status=error").text
    assert "first" not in page(client, "/traces?status=error").text
    assert "No trace that is kept" in page(client, "/traces?text=nowhere").text
    for odd in ("min_duration=x", "limit=99999999999", "limit=-1", "status=%00", "min_duration=inf"):
        assert "first" in page(client, f"/traces?{odd}").text
    for odd in ("severity=x", "severity=99999999999999999999", "trace_id=%27"):
        page(client, f"/logs?{odd}")


def test_news_are_told_and_nothing_else(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    first = client.get("/traces", headers=HTML)
    asking = {"X-Live": "1", "If-None-Match": first.headers["ETag"], **HTML}
    assert client.get("/traces", headers=asking).status_code == 304
    add(store, [span(2, 1)])
    assert client.get("/traces", headers=asking).status_code == 200


# Hostile spans


def hostile() -> list[dict[str, Any]]:
    deep: Any = EVIL
    for _ in range(30):
        deep = [deep]
    return [
        span(1, name=EVIL, error=True, status_message=EVIL, **{EVIL: EVIL, "service.name": EVIL, "http.route": EVIL}),
        span(2, 1, duration_ms=1e13, events=[{"name": EVIL, "time": "", "attributes": {EVIL: EVIL}}] * 1000),
        span(3, 1, events=[{"name": "exception", "time": "", "attributes": {"exception.type": [EVIL]}}] * 3),
        span(4, 5, **{"http.response.status_code": EVIL, "url.full": EVIL, "url.path": [EVIL]}),
        span(5, 4, links=[{"trace_id": "", "span_id": "", "attributes": {EVIL: EVIL}}] * 100),
        span(6, 6, **{"app.text": "x" * 1_000_000, "app.deep": deep}),
        span(7, 8, **{f"app.n{n}": n for n in range(1000)}),
        span(8, 1, at=-1e6, duration_ms=0.0, **{"": "", " ": None, "http.response.status_code": 10**18}),
    ]


@pytest.mark.parametrize("path", [*PAGES, *(f"/traces/{TRACE}?span={n:016x}" for n in range(1, 9))])
def test_a_hostile_span_breaks_no_page(client: FlaskClient, store: Store, path: str) -> None:
    add(store, hostile())
    add_logs(
        store,
        [
            {"time": "2026-01-02T12:00:00.002000Z", "body": EVIL, "severity_text": EVIL, "trace.trace_id": TRACE},
            {"time": "2026-01-02T12:00:00.002000Z", "body": {EVIL: [EVIL]}, "severity_number": 2**31 - 1},
            {"time": "2026-01-02T12:00:00.002000Z", "body": "y" * 1_000_000, "service.name": EVIL},
        ],
    )
    started = time.monotonic()
    answer = client.get(path, headers=HTML)
    assert time.monotonic() - started < 5
    assert answer.status_code == 200
    found = Page(answer.text)
    scripts = [attrs for tag, attrs in found.tags if tag == "script"]
    assert [attrs.get("src") for attrs in scripts] == ["/static/viewer.js"]
    assert "img" not in {tag for tag, _ in found.tags}
    names = {name for _, attrs in found.tags for name in attrs}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert not set("\x00\x1b\u202e") & set(unescape(re.sub(r'value="[^"]*"', "", answer.text)))
    assert "49" not in re.findall(r"alert\(1\)>\"'`;--[^ ]* ?(\S+)", found.text)
    assert len(answer.data) < 1_500_000


def test_hostile_names_can_be_asked_about(client: FlaskClient, store: Store) -> None:
    add(store, hostile())
    specification = {"breakdowns": [EVIL], "filters": [{"column": EVIL, "op": "contains", "value": EVIL}]}
    assert "<script>alert" in page(client, asked(specification)).text
    assert client.get("/traces?" + urlencode({"text": EVIL, "service": EVIL}), headers=HTML).status_code == 200


def test_an_editor_may_show_a_forwarded_viewer_in_its_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIEWER_ALLOWED_HOSTS", "4318-me.example.com")
    answer = create_app(Store()).test_client().get("/", headers=HTML)
    assert answer.headers["Content-Security-Policy"].endswith("; frame-ancestors https: vscode-webview:")


@pytest.mark.parametrize("path", [*PAGES, "/api/traces", "/nowhere", "/static/viewer.js"])
def test_nothing_but_our_own_files_may_run(client: FlaskClient, store: Store, path: str) -> None:
    add(store, [span(1)])
    answer = client.get(path, headers=HTML)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"https?://(?!localhost|127\.0\.0\.1|www\.w3\.org)", answer.text)


@pytest.mark.parametrize("parent_of", [lambda n: n - 1, lambda n: int(n > 1)], ids=["deep", "wide"])
def test_a_huge_trace_is_shown_in_part_and_soon(client: FlaskClient, store: Store, parent_of: Any) -> None:
    add(store, [span(n, parent_of(n), at=n / 1e6) for n in range(1, 30_001)])
    started = time.monotonic()
    answer = client.get(f"/traces/{TRACE}", headers=HTML)
    assert answer.status_code == 200
    assert time.monotonic() - started < 5
    assert "The first 1,000 of 30,000 spans" in answer.text
    assert len(answer.data) < 3_000_000
    Page(answer.text)
