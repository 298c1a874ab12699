"""The pages as the server sends them."""

import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from export import export, json_span
from flask.testing import FlaskClient
from hypothesis import given, settings
from otlp_viewer.model import TraceFilter
from otlp_viewer.store import Store
from otlp_viewer.web.app import create_app
from otlp_viewer.web.questions import QUESTIONS
from sender import add, add_logs
from test_pages_forms import queries

NOON = 1_767_355_200  # 2026-01-02T12:00:00Z
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER = "ab" * 16
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`;--\x00\x1b[31m\u202e{{ 7 * 7 }}"
PAGES = ["/", "/query", "/traces", f"/traces/{TRACE}", "/logs", "/clear"]


def iso(at: float) -> str:
    return datetime.fromtimestamp(NOON + at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def span(number: int, parent: int = 0, at: float = 0.0, **fields: Any) -> dict[str, Any]:
    made = {
        "time": iso(at),
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


def log(number: int, at: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {"time": iso(at), "severity_number": 9, "body": f"log-{number}", "service.name": "backend"} | fields


class Page(HTMLParser):
    """What a page is made of; fails when its tags do not match."""

    alone = ("meta", "link", "input", "br", "img", "col", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.fields: list[tuple[str, str]] = []
        self.named: dict[str, str] = {}
        self._select: tuple[str, list[tuple[str, bool]]] | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in self.alone and tag != "option":
            self.open.append(tag)
        if "builder" in str([dict(a).get("id") for t, a in self.tags if t == "form"][-1:]):
            if tag == "input" and "form" in self.open:
                self.fields.append((str(given["name"]), given.get("value") or ""))
            elif tag == "select":
                self._select = str(given["name"]), []
            elif tag == "option" and self._select and "select" in self.open:
                self._select[1].append((given.get("value") or "" if "value" in given else "\0", "selected" in given))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "option":
            return
        assert self.open.pop() == tag
        if tag == "select" and self._select:
            name, options = self._select
            self.fields.append((name, next((value for value, chosen in options if chosen), options[0][0]).strip("\0")))
            self._select = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "a" and data.strip():
            self.named[data.strip()] = self.links()[-1]
        if self._select and self._select[1] and self._select[1][-1][0] == "\0" and data.strip():
            self._select[1][-1] = data.strip(), self._select[1][-1][1]

    def links(self, beginning: str = "") -> list[str]:
        return [
            str(attrs["href"]) for tag, attrs in self.tags if tag == "a" and str(attrs["href"]).startswith(beginning)
        ]

    def alerts(self) -> int:
        return sum(attrs.get("role") == "alert" for _, attrs in self.tags)


def page(client: FlaskClient, path: str, status: int = 200) -> Page:
    answer = client.get(path, headers=HTML)
    assert (answer.status_code, answer.mimetype) == (status, "text/html"), answer.text[:500]
    return Page(answer.text)


def asked(specification: dict[str, Any], **more: str) -> str:
    return "/query?" + urlencode({"query": json.dumps(specification)} | more)


def rows(found: Page) -> int:
    """How many traces a list has."""
    return sum(attrs.get("class") == "what" for _, attrs in found.tags)


# The first page


@pytest.mark.parametrize("path", ["/", "/query", "/traces", "/logs"])
def test_an_empty_viewer_says_what_to_do(client: FlaskClient, path: str) -> None:
    text = page(client, path).text
    assert "Waiting for the first" in text
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost" in text


def test_the_first_page_shows_services_and_their_newest_slowest_and_failed_traces(
    client: FlaskClient, store: Store
) -> None:
    add(store, [span(1, name="GET /slow", duration_ms=900.0)])
    add(store, [span(2, name="GET /bad", error=True, **{"trace.trace_id": OTHER, "service.name": "billing"})])
    found = page(client, "/")
    for part in (
        "Services",
        "backend",
        "billing",
        "Slowest",
        "Errors",
        "GET /slow",
        "GET /bad",
        "Newest traces",
    ):
        assert part in found.text
    assert f"/traces/{TRACE}" in found.links("/traces/")
    assert "/traces?service=backend" in found.links()
    assert "2 spans, 0 logs in memory." in found.text


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"name": "GET", "url.path": "/err"}, "GET /err"),
        ({"name": "GET", "url.full": "http://127.0.0.1:8000/err?token=x#y"}, "GET /err"),
        ({"name": "GET", "url.full": "http://[", "error": True}, "GET"),
        ({"name": "GET", "url.path": 7}, "GET 7"),
        ({"name": "GET /err", "url.path": "/err"}, "GET /err"),
        ({"name": "GET /<thing>", "http.route": "/<thing>", "url.path": "/err"}, "GET /<thing>"),
        ({"name": "", "url.path": "/err"}, "(no name) /err"),
        ({"name": "GET", "url.path": "/err", "trace.parent_id": "7" * 16}, "GET /err"),
    ],
)
def test_a_request_without_a_route_is_named_by_its_path(
    client: FlaskClient, store: Store, fields: dict[str, Any], shown: str
) -> None:
    add(store, [span(1, **fields)])
    for path in ("/", "/traces"):
        answer = client.get(path, headers=HTML).text
        (name, *_) = re.findall(r'<a class="cover" href="/traces/[^>]*>(.*?)</a>', answer)
        assert unescape(re.sub("<[^>]*>", "", name)) == shown
    answer = client.get(f"/traces/{TRACE}", headers=HTML).text
    assert f"<title>{shown.removeprefix('(no name) ')} · OTLP viewer</title>" in unescape(answer)
    found = store.read_trace(TRACE)
    assert found
    assert found[0].path == store.traces(1)[0].path


def test_the_first_page_has_the_same_traces_as_the_list(store: Store) -> None:
    made = [
        span(n, at=n % 97, duration_ms=float(n * 31 % 211), error=n % 9 == 0, **{"trace.trace_id": f"{n:032x}"})
        for n in range(1, 201)
    ]
    add(store, made)
    newest, slowest, failed = store.highlights(15, 5)
    assert [one.start_ns for one in newest] == [one.start_ns for one in store.traces(15)]
    assert [one.duration_ms for one in slowest] == [one.duration_ms for one in store.traces(5, order="duration")]
    assert [one.start_ns for one in failed] == [one.start_ns for one in store.traces(5, TraceFilter(status="error"))]
    assert all(one.error for one in failed)


def test_many_services_expand_from_a_count(client: FlaskClient, store: Store) -> None:
    add(store, [span(n, **{"service.name": f"service-{n:02}", "trace.trace_id": f"{n:032x}"}) for n in range(1, 31)])
    found = page(client, "/")
    assert "+18 more" in found.text
    assert all(f"service-{n:02}" in found.text for n in range(1, 31))


# Queries


def test_each_result_row_links_to_its_traces(client: FlaskClient, store: Store) -> None:
    for number in range(1, 21):
        fields: dict[str, Any] = {"http.route": "/slow" if number % 4 == 0 else "/quick"}
        fields |= {"duration_ms": 500.0 if number % 4 == 0 else 5.0, "trace.trace_id": f"{number:032x}"}
        add(store, [span(number, 0, number / 10, **fields), span(number + 100, number, number / 10, **fields)])
    found = page(client, "/query")
    assert "Which routes are slow?" in found.text
    slow = next(link for link in found.links("/traces?") if "%2Fslow" in link)
    listed = page(client, slow)
    assert rows(listed) == 5
    assert "http.route = /slow" in listed.text
    spans = [link for link in listed.links("/traces/") if "span=" in link]
    assert len(spans) == 5
    assert "500 ms" in page(client, spans[0]).text


def test_rows_of_an_or_query_link_only_to_their_traces(client: FlaskClient, store: Store) -> None:
    for number, (name, service) in enumerate([("a", "x"), ("b", "x"), ("c", "x"), ("a", "y"), ("c", "y")], 1):
        add(store, [span(number, name=name, **{"service.name": service, "trace.trace_id": f"{number:032x}"})])
    either = [{"column": "name", "op": "=", "value": value} for value in "ab"]
    asking = {"filters": either, "filter_combination": "OR", "breakdowns": ["service.name"]}
    found = page(client, asked(asking))
    listed = {name: page(client, found.named[name]) for name in "xy"}
    assert {name: rows(one) for name, one in listed.items()} == {"x": 2, "y": 1}
    assert "(name = a or name = b) and service.name = x" in listed["x"].text
    assert "filter to this" not in found.text
    box = page(client, asked({**asking, "breakdowns": []}, box="0,9999999999,0,11,duration_ms"))
    assert box.alerts() == 0


def test_rows_of_a_logs_query_link_to_their_logs(client: FlaskClient, store: Store) -> None:
    for number, (level, service) in enumerate([(9, "x"), (17, "x"), (17, "y"), (5, "x")], 1):
        add_logs(store, [log(number, severity_number=level, **{"service.name": service})])
    levels = [{"column": "severity_number", "op": "=", "value": value} for value in (9, 17)]
    for combination, texts in (("OR", {"log-1", "log-2"}), ("AND", set())):
        asking = {"filters": levels, "filter_combination": combination, "breakdowns": ["service.name"]}
        found = page(client, asked(asking, signal="logs"))
        assert found.links("/traces?") == []
        if texts:
            listed = page(client, found.named["x"]).text
            assert {f"log-{n}" for n in range(1, 5) if f"log-{n}" in listed} == texts
            assert "(severity_number = 9 or severity_number = 17) and service.name = x" in listed
    one = page(client, asked({"filters": levels[1:], "breakdowns": ["service.name"]}, signal="logs"))
    only = next(link for link in one.links("/query?") if "signal=logs" in link)
    assert page(client, only).named["y" if "%22y%22" in only else "x"].startswith("/logs?")
    assert page(client, one.named["View all matching logs"]).text.count("log-") >= 2


def test_the_legend_of_many_lines_opens(client: FlaskClient, store: Store) -> None:
    add(store, [span(n, name=f"name-{n % 20}", at=n / 10) for n in range(1, 81)])
    answer = client.get(asked({"breakdowns": ["name"]}), headers=HTML).text
    summary = re.search(r'<details class="others more-lines"><summary>\+12 more</summary>(.*?)</details>', answer, re.S)
    assert summary
    assert summary[1].count("name-") == 12
    assert len(re.findall(r'<path class="line [^"]*extra"', answer)) == 12


def test_sparse_lines_use_longer_steps_or_points(client: FlaskClient, store: Store) -> None:
    p90 = {"calculations": [{"op": "P90", "column": "duration_ms"}]}
    add(store, [span(n, at=11.0 * n) for n in range(1, 50)])
    often = client.get(asked(p90), headers=HTML).text
    assert "10 s per point" in often
    assert "Points mark isolated values" not in often
    assert 'class="point' not in often
    as_asked = asked(p90 | {"start_time": NOON, "end_time": NOON + 600, "granularity": 5})
    assert "5 s per point" in page(client, as_asked).text
    store.clear()
    add(store, [span(n, at=200.0 * n) for n in range(1, 4)])
    rarely = client.get(asked(p90), headers=HTML).text
    assert "Points mark isolated values. Gaps mean no data." in rarely
    assert rarely.count('class="point shape0') == 3


def test_an_axis_marks_omitted_idle_time(client: FlaskClient, store: Store) -> None:
    add_logs(store, [log(n, at=float(n)) for n in range(1, 20)])
    assert "Idle time is left out" not in page(client, "/logs").text
    add_logs(store, [log(n, at=10_800.0 + n) for n in range(1, 20)])
    assert page(client, "/logs").text.count("Idle time is left out") == 1


def test_the_axis_of_a_count_has_integer_labels(client: FlaskClient, store: Store) -> None:
    add(store, [span(1), span(2, at=3.0)])
    answer = client.get(asked({}), headers=HTML).text
    marks = re.findall(r'text-anchor="end">([^<]*)<', answer)
    assert marks == ["0", "1"]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_preset_question_works_before_its_fields_exist(client: FlaskClient, store: Store, question: Any) -> None:
    add(store, [span(1, **{"http.route": "/a", "http.response.status_code": 200})])
    assert page(client, asked(question.query)).alerts() == 0
    assert page(client, "/").text.count(question.name) >= 1


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_preset_question_leads_to_a_span_in_two_clicks(client: FlaskClient, store: Store, question: Any) -> None:
    fields = {"http.route": "/a", "http.response.status_code": 500, "server.address": "b"}
    add(store, [span(1, error=True, **fields), span(2, 1, **{"span.kind": "client"}, **fields)])
    result = page(client, asked(question.query))
    for first in (link for link in result.links("/traces") if link not in ("/traces",)):
        if first.startswith("/traces/"):
            assert "span-1" in page(client, first).text
        else:
            (span_link,) = page(client, first).links(f"/traces/{TRACE}")
            assert "span-" in page(client, span_link).text
            assert "query=" not in first or f"span={0:015x}" in span_link


def test_spans_without_a_route_are_distinguished_by_name(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, name="nightly-job")])
    assert "nightly-job" in page(client, "/query").text


def test_a_trace_id_in_a_result_is_a_link(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    found = page(client, asked({"breakdowns": ["name", "trace.trace_id"]}))
    assert f"/traces/{TRACE}" in found.links()


def test_a_query_error_is_shown_next_to_the_form(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    wrong = ("{", "[]", '{"breakdowns": ["nowhere"]}', '{"filters": "x"}', "[" * 10_000, '{"breakdowns": 7}',
             '{"time_range": "x"}', '{"breakdowns": ["\\ud800"]}', '{"limit": 1' + "0" * 5000 + "}",
             '{"filters": [{"column": "name", "op": "=", "value": "\\ud800"}], "nowhere": 1}')  # fmt: skip
    for text in wrong:
        found = page(client, "/query?" + urlencode({"query": text}))
        assert found.alerts() == 1, text
        assert any(attrs.get("id") == "builder" for _, attrs in found.tags)
        for path in ("/query/slowest", "/traces", "/ask"):
            assert client.get(f"{path}?" + urlencode({"query": text}), headers=HTML).status_code < 500, text


def test_the_page_of_a_query_submits_the_same_query(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])

    @settings(max_examples=60, deadline=None)
    @given(queries)
    def submits_the_same(query: dict[str, Any]) -> None:
        found = page(client, asked(query))
        answer = client.get("/ask?" + urlencode(found.fields))
        assert json.loads(parse_qs(urlsplit(answer.location).query)["query"][0]) == query

    submits_the_same()


def test_properties_without_form_fields_are_listed(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    query = {"calculations": [{"op": "COUNT"}], "granularity": 60, "start_time": NOON, "end_time": NOON + 600}
    text = page(client, asked(query)).text
    assert "granularity 60" in text
    assert "start_time 2026-01-02 12:00:00.000 UTC end_time 2026-01-02 12:10:00.000 UTC" in text


def test_the_builders_form_becomes_a_query_in_the_url(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, **{"http.route": "/a"})])
    fields = [
        *(("calculation", op) for op in ("P90", "COUNT", "")),
        *(("of", column) for column in ("duration_ms", "", "")),
        *(("where", column) for column in ("http.route", "duration_ms", "name", "")),
        *(("is", op) for op in ("in", ">", "exists", "=")),
        *(("value", value) for value in ("/a, /b", "5", "", "")),
        ("any", "OR"), ("by", "name"), ("by", ""), ("order", "P90(duration_ms)"), ("way", "ascending"), ("limit", "7"),
        ("range", "600"),
    ]  # fmt: skip
    answer = client.get("/ask?" + urlencode(fields))
    assert answer.status_code == 302
    assert json.loads(parse_qs(urlsplit(answer.location).query)["query"][0]) == {
        "calculations": [{"op": "P90", "column": "duration_ms"}, {"op": "COUNT"}],
        "filters": [
            {"column": "http.route", "op": "in", "value": ["/a", "/b"]},
            {"column": "duration_ms", "op": ">", "value": 5},
            {"column": "name", "op": "exists"},
        ],
        "breakdowns": ["name"],
        "orders": [{"op": "P90", "column": "duration_ms", "order": "ascending"}],
        "filter_combination": "OR",
        "limit": 7,
        "time_range": 600,
    }
    assert client.get(answer.location, headers=HTML).status_code == 200
    assert client.get(client.get("/ask").location, headers=HTML).status_code == 200


def test_a_box_shows_how_its_spans_differ_and_links_to_their_traces(client: FlaskClient, store: Store) -> None:
    for number in range(100):
        slow = number % 10 == 0
        fields = {"app.plan": "free" if slow else "paid", "app.size": number // 2 + 500 * slow}
        fields["trace.trace_id"] = f"{number + 1:032x}"
        add(store, [span(number + 1, at=number / 10, duration_ms=900.0 if slow else 5.0, **fields)])
    box = f"{NOON},{NOON + 10},500,1000,duration_ms"
    found = page(client, asked({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]}, box=box))
    assert "10 spans inside, 90 others" in found.text
    assert "app.plan" in found.text
    inside = next(link for link in found.links("/traces?") if "box=" in link)
    assert rows(page(client, inside)) == 10
    listed = {link: rows(page(client, link)) for link in found.links("/traces?")}
    assert sum("%22app.size%22%2C%22op%22%3A%22%3E%3D%22" in link for link in listed) == 5
    assert all(listed.values())
    for wrong in ("x", "1,2,3", "nan,1,2,3,duration_ms", "1,2,3,4,name", "1,2,3,4,nowhere", "1e999,2,3,4,duration_ms"):
        assert client.get(asked({}, box=wrong), headers=HTML).status_code == 200
        assert client.get("/traces?" + urlencode({"box": wrong}), headers=HTML).status_code == 200


def test_links_of_values_lead_to_what_has_them(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, **{"attributes.name": "posing", "app.free": True})])
    sent = {"key": "name", "value": {"stringValue": "nm"}}, {"key": "error", "value": {"boolValue": True}}
    client.post("/v1/traces", json=export(json_span(7, trace=OTHER, attributes=[*sent])))
    details = page(client, f"/traces/{OTHER}/spans/{7:016x}")
    assert [rows(page(client, link)) for link in details.links("/traces?query=") if "attributes." in link] == [1, 1]
    record = {"body": {"stringValue": "x"}, "attributes": [{"key": "flag", "value": {"boolValue": True}}]}
    client.post("/v1/logs", json={"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    (link,) = page(client, "/logs").links("/logs?attribute=")
    assert "No logs match" not in page(client, link).text


def test_a_time_that_is_not_one_is_no_filter(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    for path in ("/traces?start=abc", "/logs?end=abc"):
        assert "1970" not in page(client, path).text


def test_a_cell_links_to_its_slowest_span(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, duration_ms=5.0), span(2, 1, 1, duration_ms=7.0), span(3, 1, 1, duration_ms=6.0)])
    query = {"query": json.dumps({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]})}
    answer = client.get("/query/slowest?" + urlencode(query | {"box": f"{NOON},{NOON + 2},5,8,duration_ms"}))
    assert (answer.status_code, answer.location) == (302, f"/traces/{TRACE}?span={2:016x}")
    nothing = client.get("/query/slowest?" + urlencode(query | {"box": f"{NOON},{NOON + 2},50,80,duration_ms"}))
    assert nothing.status_code == 404


def test_one_span_from_1970_does_not_squeeze_the_heatmap(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, at=-NOON, **{"trace.trace_id": OTHER})])
    add(store, [span(number, at=number, **{"trace.trace_id": f"{number:032x}"}) for number in range(2, 62)])
    found = page(client, asked({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]}))
    (drawn,) = [attrs for _, attrs in found.tags if attrs.get("class") == "heatmap"]
    cells = json.loads(str(drawn["data-cells"]))
    assert sum(count for _, _, count in cells) == 61
    assert len({column for column, _, _ in cells}) > 50


# The list of traces


def test_filters_in_the_address_narrow_the_list(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, name="first"), span(2, name="second", **{"trace.trace_id": OTHER, "error": True})])
    assert "second" in page(client, "/traces?status=error").text
    assert "first" not in page(client, "/traces?status=error").text
    assert "No traces match these filters." in page(client, "/traces?text=nowhere").text
    for odd in ("from=x", "from=-1", "sort=x", "order=x", "status=%00", "range=x", "start=nan", "end=x", "start=1e300"):
        page(client, f"/traces?{odd}")
    for odd in ("severity=x", "severity=99999999999999999999", "trace_id=%27", "attribute=x", "start=x", "end=1e300"):
        page(client, f"/logs?{odd}")
    assert "first" in page(client, "/traces/").text


def test_a_typed_duration_is_not_reformatted(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, duration_ms=2000.0), span(2, duration_ms=20.0, **{"trace.trace_id": OTHER})])
    for text in ("1500", "1,500", "1.5 s", "1500 ms"):
        found = page(client, "/traces?" + urlencode({"min_duration": text}))
        assert rows(found) == 1
        (field,) = [attrs for _, attrs in found.tags if attrs.get("name") == "min_duration"]
        assert field["value"] == text
    assert rows(page(client, "/traces?max_duration=1s")) == 1
    assert "“soon” is not a duration." in page(client, "/traces?min_duration=soon").text


def test_an_active_filter_is_in_its_field_however_many_services_there_are(client: FlaskClient, store: Store) -> None:
    add(store, [span(n, **{"service.name": f"s{n:03}", "trace.trace_id": f"{n:032x}"}) for n in range(1, 151)])
    for service in ("s001", "s149", "gone"):
        found = page(client, f"/traces?service={service}")
        (field,) = [attrs for tag, attrs in found.tags if tag == "input" and attrs.get("name") == "service"]
        assert field["value"] == service
        assert rows(found) == (service != "gone")


def test_every_trace_can_be_reached_page_by_page_and_sorted(client: FlaskClient, store: Store) -> None:
    total = 1203
    made = [
        span(n, at=n, duration_ms=float(n * 7 % 1009), **{"trace.trace_id": f"{n:032x}"}) for n in range(1, total + 1)
    ]
    add(store, made)
    seen: list[str] = []
    path: str | None = "/traces?sort=duration"
    while path:
        found = page(client, path)
        seen += found.links("/traces/")
        path = found.named.get("Next")
    assert len(seen) == len(set(seen)) == total
    durations = {f"/traces/{n:032x}": float(n * 7 % 1009) for n in range(1, total + 1)}
    assert [durations[link] for link in seen] == sorted(durations.values(), reverse=True)


def test_two_roots_are_listed_with_the_time_of_both(client: FlaskClient, store: Store) -> None:
    add(store, [span(1, duration_ms=20.0), span(2, at=0.05, duration_ms=100.0)])
    assert "150 ms" in page(client, "/traces").text
    assert "2 roots" in page(client, f"/traces/{TRACE}").text


@pytest.mark.parametrize("parents", [{2: 2}, {2: 3, 3: 2}, {2: 3, 3: 4, 4: 2}, {2: 3, 3: 4, 4: 5, 5: 3, 6: 1}])
def test_a_root_next_to_a_cycle_is_incomplete(client: FlaskClient, store: Store, parents: dict[int, int]) -> None:
    add(store, [span(1), *(span(number, parent) for number, parent in parents.items())])
    assert "incomplete" in page(client, "/traces").text
    found = page(client, f"/traces/{TRACE}").text
    assert "Incomplete" in found
    assert "its parents form a cycle" in found


def test_work_after_the_root_is_marked_in_the_list_and_on_the_page(client: FlaskClient, store: Store) -> None:
    add(store, [span(1), span(2, 1, 0.008, duration_ms=3032.0)])
    assert re.search(r"10\.0 ms\s+of 3\.04 s", page(client, "/traces").text)
    assert re.search(r"10\.0 ms\s+root, 3\.04 s in total", page(client, f"/traces/{TRACE}").text)


def test_a_relative_range_moves_with_the_clock(
    client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOON + 30.0)
    add(store, [span(1)])
    for path in ("/traces?range=60", asked({"time_range": 60})):
        monkeypatch.setattr(time, "time", lambda: NOON + 30.0)
        first = client.get(path, headers=HTML)
        assert "No traces match" not in first.text
        monkeypatch.setattr(time, "time", lambda: NOON + 95.0)
        asking = {"X-Live": "1", "If-None-Match": first.headers["ETag"], **HTML}
        later = client.get(path, headers=asking)
        assert later.status_code == 200
        assert "match" in later.text


def test_live_updates_contain_only_news(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    first = client.get("/traces", headers=HTML)
    asking = {"X-Live": "1", "If-None-Match": first.headers["ETag"], **HTML}
    assert client.get("/traces", headers=asking).status_code == 304
    add(store, [span(2, 1)])
    assert client.get("/traces", headers=asking).status_code == 200


def test_a_live_page_learns_that_the_viewer_was_cleared_or_started_again(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    before = {"X-Live": "1", "If-None-Match": client.get("/traces", headers=HTML).headers["ETag"], **HTML}
    store.clear()
    assert client.get("/traces", headers=before).status_code == 200
    started_again = Store()
    add(started_again, [span(1)])
    assert create_app(started_again).test_client().get("/traces", headers=before).status_code == 200


# A trace


def test_a_trace_shows_its_spans_and_the_selected_ones_details(client: FlaskClient, store: Store) -> None:
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
    link = {"trace_id": OTHER, "span_id": "cd" * 8, "attributes": {"why": "batch"}}
    child = span(
        2, 1, error=True, events=[raised, retried], links=[link], **{"app.user": "mona", "service.name": "profiles"}
    )
    add(store, [span(1), child])
    add_logs(
        store, [log(1, severity_number=17, body="it broke", **{"trace.trace_id": TRACE, "trace.span_id": f"{2:016x}"})]
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
    assert OTHER in text
    assert "Honeycomb" not in text
    fragment = client.get(f"/traces/{TRACE}/spans/{2:016x}", headers=HTML).text
    assert "ValueError" in fragment
    assert "<html" not in fragment


def test_span_links_work_in_both_directions_by_name(client: FlaskClient, store: Store) -> None:
    link = {"trace_id": TRACE, "span_id": f"{1:016x}", "attributes": {}}
    add(store, [span(1, name="send order")])
    add(store, [span(2, name="process order", links=[link], **{"trace.trace_id": OTHER, "service.name": "email"})])
    forth = page(client, f"/traces/{OTHER}")
    assert re.search(r"to\s+send order\s+backend", forth.text)
    back = page(client, f"/traces/{TRACE}")
    assert re.search(r"from\s+process order\s+email", back.text)
    assert f"/traces/{OTHER}?span={2:016x}" in back.links()
    add(store, [span(3, name="retry order", links=[link], **{"trace.trace_id": "cd" * 16})])
    assert "retry order" in page(client, f"/traces/{TRACE}").text


def test_the_logs_of_a_span_are_shown_however_many_its_trace_has(client: FlaskClient, store: Store) -> None:
    ids = {"trace.trace_id": TRACE, "trace.span_id": f"{1:016x}"}
    add(store, [span(1), span(2, 1)])
    add_logs(store, [log(n, n / 1000, **ids) for n in range(500)])
    own = ids | {"trace.span_id": f"{2:016x}"}
    add_logs(store, [log(n, n / 10_000, severity_number=17 if n == 905 else 9, **own) for n in range(900, 910)])
    found = page(client, f"/traces/{TRACE}?span={2:016x}")
    for number in range(900, 910):
        assert f"log-{number}" in found.text
    outline = json.loads(re.findall(r'id="outline">(.*?)</script>', client.get(f"/traces/{TRACE}").text)[0])
    assert outline["logs"] == {"0": [500, 9], "1": [10, 17]}
    assert "log-905" in page(client, f"/logs?trace_id={TRACE}&severity=17").text


def test_span_details_include_data_that_arrived_later(client: FlaskClient, store: Store) -> None:
    add(store, [span(1), span(2, 1)])
    address = f"/traces/{TRACE}"
    for _ in range(2):
        assert page(client, address).text.count("log-") == 0
        assert "follow up" not in page(client, f"{address}/spans/{2:016x}").text
    add_logs(store, [log(7, **{"trace.trace_id": TRACE, "trace.span_id": f"{2:016x}"})])
    assert "log-7" in page(client, f"{address}/spans/{2:016x}").text
    page(client, address)
    assert "log-7" in page(client, f"{address}/spans/{2:016x}").text
    assert "log-7" not in page(client, f"{address}/spans/{1:016x}").text
    link = {"trace_id": TRACE, "span_id": f"{2:016x}", "attributes": {}}
    add(store, [span(3, name="follow up", links=[link], **{"trace.trace_id": "ef" * 16})])
    assert "follow up" in page(client, f"{address}/spans/{2:016x}").text
    assert "follow up" not in page(client, f"{address}/spans/{1:016x}").text


def test_the_page_of_an_unknown_trace_says_so(client: FlaskClient, store: Store) -> None:
    for trace_id in (OTHER, "xyz", "%00", "ab" * 20):
        assert "No trace with this ID" in page(client, f"/traces/{trace_id}", 404).text
    assert "error" in client.get("/traces/xyz").get_json()
    assert page(client, "/nowhere", 404)
    add(store, [span(1)])
    assert "span-1" in page(client, f"/traces/{TRACE}/").text
    for odd in ("span=x", "span=%27", "from=-5", "from=99999999999", "clocks=x", "span=" + "9" * 16 + "." + "9" * 30):
        page(client, f"/traces/{TRACE}?{odd}")
    assert client.get(f"/traces/{TRACE}/spans/x").status_code == 404


def test_a_trace_is_found_by_its_id_even_inside_other_text(client: FlaskClient) -> None:
    for text in (TRACE, f" {TRACE.upper()} ", f"00-{TRACE}-{5:016x}-01", f"http://x/traces/{TRACE}?a=b"):
        assert client.get("/find?" + urlencode({"id": text})).location.startswith(f"/traces/{TRACE}")
    assert client.get("/find?id=checkout").location == "/traces?text=checkout"


def test_a_large_trace_can_be_read_completely_without_javascript(client: FlaskClient, store: Store) -> None:
    add(store, [span(n, int(n > 1), at=n / 1e6) for n in range(1, 1001)])
    seen: set[str] = set()
    path: str | None = f"/traces/{TRACE}"
    while path:
        found = page(client, path)
        seen |= {
            str(parse_qs(urlsplit(link).query)["span"][0])
            for link in found.links(f"/traces/{TRACE}?")
            if "span=" in link
        }
        path = found.named.get("Next")
    assert len(seen) == 1000


@pytest.mark.parametrize("parent_of", [lambda n: n - 1, lambda n: int(n > 1)], ids=["deep", "wide"])
def test_a_huge_trace_page_is_complete_and_fast(client: FlaskClient, store: Store, parent_of: Any) -> None:
    add(store, [span(n, parent_of(n), at=n / 1e6) for n in range(1, 30_001)])
    started = time.process_time()
    answer = client.get(f"/traces/{TRACE}", headers=HTML)
    assert answer.status_code == 200
    assert time.process_time() - started < 10
    outline = json.loads(re.findall(r'id="outline">(.*?)</script>', answer.text)[0])
    assert len(set(outline["key"])) == 30_000
    assert len(answer.data) < 4_000_000


def test_each_service_links_to_its_own_honeycomb_environment(client: FlaskClient, store: Store) -> None:
    pages = {name: f"https://ui.honeycomb.io/team/environments/{name}/trace?trace_id=" for name in ("test", "prod")}
    from sender import records, resource_spans

    store.add_spans(records(resource_spans([span(1, **{"service.name": "a"})])), honeycomb_page=pages["test"])
    store.add_spans(records(resource_spans([span(2, 1, **{"service.name": "b"})])), honeycomb_page=pages["prod"])
    found = page(client, f"/traces/{TRACE}?span={2:016x}")
    assert pages["test"] + TRACE in found.links()
    assert pages["prod"] + TRACE in found.links()
    assert "Open in Honeycomb (a)" in found.text
    details = Page("<main>" + client.get(f"/traces/{TRACE}/spans/{2:016x}").text + "</main>")
    assert details.links("https://") == [pages["prod"] + TRACE]


# Logs


def test_logs_open_to_their_attributes_scope_and_trace(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    own = {"trace.trace_id": TRACE, "trace.span_id": f"{1:016x}", "app.order": 4711, "event.name": "order.placed"}
    add_logs(store, [log(1, **own), log(2, **{"app.order": 4712})])
    found = page(client, "/logs")
    for part in ("log-1", "app.order", "4711", "order.placed"):
        assert part in found.text
    assert f"/traces/{TRACE}?span={1:016x}" in found.links()
    narrowed = page(client, "/logs?attribute=app.order%3D4712").text
    assert "log-2" in narrowed
    assert "log-1" not in narrowed
    assert "Write an attribute as name=value." in page(client, "/logs?attribute=x").text


def test_logs_are_charted_by_severity_and_can_be_queried(client: FlaskClient, store: Store) -> None:
    add_logs(store, [log(n, n, severity_number=17 if n % 5 == 0 else 9, severity_text="INFO") for n in range(60)])
    found = page(client, "/logs")
    (drawn,) = [attrs for _, attrs in found.tags if attrs.get("class") == "heatmap"]
    assert json.loads(str(drawn["data-names"]))[0] == "INFO"
    assert sum(count for _, _, count in json.loads(str(drawn["data-cells"]))) == 60
    (query,) = [link for link in found.links("/query?") if "signal=logs" in link]
    assert "60" in page(client, query).text


@pytest.mark.parametrize("narrow", ["text=needle", "attribute=app.kind%3Dodd", "text=needle&service=backend"])
def test_the_logs_chart_shows_the_logs_of_the_list(client: FlaskClient, store: Store, narrow: str) -> None:
    odd = {"app.kind": "odd", "body": "a needle"}
    add_logs(store, [log(n, n, **(odd if n % 3 == 0 else {})) for n in range(30)])
    found = page(client, f"/logs?{narrow}")
    (drawn,) = [attrs for _, attrs in found.tags if attrs.get("class") == "heatmap"]
    assert sum(count for _, _, count in json.loads(str(drawn["data-cells"]))) == 10


def test_older_logs_can_be_reached(client: FlaskClient, store: Store) -> None:
    add_logs(store, [log(n, n) for n in range(250)])
    path, seen = "/logs", ""
    for _ in range(3):
        found = page(client, path)
        seen += found.text
        path = found.named.get("Older", path)
    assert all(f"log-{n}" in seen for n in range(250))


# Clearing


def test_only_the_viewers_own_page_can_clear_it_after_confirmation(client: FlaskClient, store: Store) -> None:
    add(store, [span(1)])
    assert "This deletes 1 span and 0 logs" in page(client, "/clear").text
    assert client.post("/clear", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/clear", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert store.counts()[0] == 1
    assert client.post("/clear", headers={"Origin": "http://localhost"}).status_code == 302
    assert store.counts()[0] == 0


def test_every_page_reports_dropped_data(client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, [span(1)])
    went = replace(store.health(), dropped_spans=1200, dropped_logs=1)
    monkeypatch.setattr(store, "health", lambda: went)
    for path in PAGES:
        assert "Older ones were dropped to make room: 1,200 spans, 1 log." in page(client, path).text


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
def test_a_malicious_span_breaks_no_page(client: FlaskClient, store: Store, path: str) -> None:
    add(store, hostile())
    add_logs(
        store,
        [
            log(1, body=EVIL, severity_text=EVIL, **{"trace.trace_id": TRACE, EVIL: EVIL}),
            log(2, body={EVIL: [EVIL]}, severity_number=2**31 - 1),
            log(3, body="y" * 1_000_000, **{"service.name": EVIL}),
        ],
    )
    started = time.process_time()
    answer = client.get(path, headers=HTML)
    assert time.process_time() - started < 5
    assert answer.status_code == 200
    found = Page(answer.text)
    scripts = [attrs for tag, attrs in found.tags if tag == "script"]
    assert {attrs.get("src") or attrs.get("type") for attrs in scripts} <= {
        "/static/page.js", "/static/trace.js", "/static/charts.js", "application/json",
    }  # fmt: skip
    assert "img" not in {tag for tag, _ in found.tags}
    names = {name for _, attrs in found.tags for name in attrs}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert not set("\x00\x1b\u202e") & set(unescape(re.sub(r'value="[^"]*"', "", answer.text)))
    assert "49" not in re.findall(r"alert\(1\)>\"'`;--[^ ]* ?(\S+)", found.text)
    assert len(answer.data) < 1_500_000


def test_malicious_names_can_be_queried(client: FlaskClient, store: Store) -> None:
    add(store, hostile())
    specification = {"breakdowns": [EVIL], "filters": [{"column": EVIL, "op": "contains", "value": EVIL}]}
    assert "<script>alert" in page(client, asked(specification)).text
    assert client.get("/traces?" + urlencode({"text": EVIL, "service": EVIL}), headers=HTML).status_code == 200


def test_an_editor_may_show_a_forwarded_viewer_in_its_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIEWER_ALLOWED_HOSTS", "4318-me.example.com")
    answer = create_app(Store()).test_client().get("/", headers=HTML)
    assert answer.headers["Content-Security-Policy"].endswith("; frame-ancestors https: vscode-webview:")


@pytest.mark.parametrize("path", [*PAGES, "/api/traces", "/nowhere", "/static/page.js"])
def test_only_the_viewers_own_scripts_may_run(client: FlaskClient, store: Store, path: str) -> None:
    add(store, [span(1)])
    answer = client.get(path, headers=HTML)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"https?://(?!localhost|127\.0\.0\.1|www\.w3\.org)", answer.text)
