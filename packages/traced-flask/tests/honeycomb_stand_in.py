"""A strict stand-in for Honeycomb's API: it rejects what the documentation says is rejected.

Made from the documentation and from the receiver that Honeycomb publishes; each rule names its page. Where the pages
leave a choice, it takes the stricter one. The API: https://docs.honeycomb.io/api/
"""

from __future__ import annotations

import copy
import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count
from typing import Any, Final
from urllib.parse import unquote

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

INGEST: Final = "hcaik_" + "01marked" * 7 + "ab"
CONFIGURATION: Final = "01marked01marked01mark"
CLASSIC: Final = "0123456789abcdef" * 2

# https://docs.honeycomb.io/api/auth/list-authorizations
ACCESS: Final = (
    "events",
    "markers",
    "triggers",
    "boards",
    "queries",
    "columns",
    "createDatasets",
    "slos",
    "recipients",
)

# https://docs.honeycomb.io/api/queries/create-a-query
OPS: Final = (
    "COUNT CONCURRENCY SUM AVG COUNT_DISTINCT HEATMAP MAX MIN P001 P01 P05 P10 P20 P25 P50 P75 P80 P90 P95 P99 P999"
    " RATE_AVG RATE_SUM RATE_MAX"
)
FILTERS: Final = (
    "= != > >= < <= starts-with does-not-start-with ends-with does-not-end-with exists does-not-exist contains"
    " does-not-contain in not-in"
)
QUERY_FIELDS: Final = {
    **dict.fromkeys(("breakdowns", "calculations", "filters", "orders"), list),
    **dict.fromkeys(("limit", "time_range"), int),
}


@dataclass
class Key:
    kind: str = "configuration"  # or ingest
    access: set[str] = field(default_factory=lambda: set(ACCESS))
    environment: str = "production"  # "" for a classic key


class Refused(Exception):
    """An error response: status, reason and, for 422, the field."""

    def __init__(self, status: int, error: str, name: str = "") -> None:
        super().__init__(error)
        self.status, self.error, self.name = status, error, name

    def body(self) -> dict[str, Any]:
        """https://docs.honeycomb.io/api/errors"""
        detail = {"field": self.name, "code": "invalid", "description": f"{self.name}: {self.error}"}
        return {"error": self.error, **({"type_detail": [detail]} if self.status == 422 else {})}


def expect(condition: object, error: str, name: str = "", status: int = 422) -> None:
    if not condition:
        raise Refused(status, error, name)


def text(body: dict[str, Any], name: str, longest: int, shortest: int = 0) -> None:
    value = body.get(name, "")
    expect(isinstance(value, str) and shortest <= len(value) <= longest, f"{shortest} to {longest} characters", name)


def only(body: dict[str, Any], *names: str) -> None:
    for name in body:
        expect(name in names, "is not a field", name)


@dataclass
class Honeycomb:
    """What a team has there. `instead` answers in place of the API; `asked` is the method and path of each request."""

    url: str = ""
    keys: dict[str, Key] = field(default_factory=dict)
    datasets: dict[str, set[str]] = field(default_factory=dict)  # slugs, and the columns of each
    events: list[dict[str, Any]] = field(default_factory=list)
    queries: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)  # by id, with the dataset
    annotations: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    boards: dict[str, dict[str, Any]] = field(default_factory=dict)
    markers: list[dict[str, Any]] = field(default_factory=list)
    triggers: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    instead: Callable[[Request], Response] | None = None
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    def counted(self) -> int:
        """Return the weighted number of events: each counts as `SampleRate`."""
        return sum(event["SampleRate"] for event in self.events)

    def new_id(self) -> str:
        return f"id{next(self._ids):09d}"

    def handle(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.path}")
        if self.instead:
            return self.instead(request)
        body: Any
        try:
            if request.method == "POST" and request.path in ("/v1/traces", "/v1/logs", "/v1/metrics"):
                self.receive(request)
                return Response(b"", content_type="application/x-protobuf")
            status, body = self.answer(request)
        except Refused as refused:
            status, body = refused.status, refused.body()
        return Response(json.dumps(body), status, content_type="application/json")

    def answer(self, request: Request) -> tuple[int, Any]:
        raw = request.get_data()
        if request.method != "GET":  # https://docs.honeycomb.io/api/errors
            expect(request.mimetype == "application/json", "the Content-Type must be application/json", status=415)
            expect(len(raw) <= 100_000, "the body is larger than 100,000 bytes", status=413)
        key = self.keys.get(request.headers.get("X-Honeycomb-Team", ""))
        if key is None:  # https://docs.honeycomb.io/api/authentication
            raise Refused(401, "unknown API key - check your credentials")
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            raise Refused(400, "the request body could not be parsed") from None
        expect(isinstance(body, dict), "the request body must be an object", status=400)
        path = [unquote(part) for part in request.path.strip("/").split("/")]
        if path == ["1", "auth"]:
            return 200, self.auth(key)
        needed = "queries" if path[1:2] == ["query_annotations"] else path[1]
        expect(key.kind == "configuration", "This API key cannot do that: a configuration key is needed", status=403)
        expect(needed in key.access, "The API key does not have permission for this operation", status=403)
        if len(path) > 2 and path[1] != "boards":
            expect(path[2] in self.datasets or path[2] == "__all__", "dataset not found", status=404)
        match [request.method, *path[1:]]:
            case ["GET", "columns", slug]:
                return 200, [{"id": self.new_id(), "key_name": name} for name in sorted(self.datasets[slug])]
            case ["POST", "queries", slug]:
                made = {**self.checked_query(slug, body), "id": self.new_id()}
                self.queries[made["id"]] = slug, made
                return 200, made
            case ["GET", "queries", slug, query_id]:
                return 200, self.query(slug, query_id)
            case ["POST", "query_annotations", slug]:
                return 201, self.create_annotation(slug, body)
            case ["GET", "query_annotations", slug]:
                return 200, [made for where, made in self.annotations.values() if where == slug]
            case ["GET", "boards"]:
                return 200, [self.answered_board(each, key) for each in self.boards]
            case ["POST", "boards"]:
                board_id = self.new_id()
                self.boards[board_id] = self.checked_board(body)
                return 201, self.answered_board(board_id, key)
            case ["PUT", "boards", board_id] if board_id in self.boards:
                self.boards[board_id] = self.checked_board(body)
                return 200, self.answered_board(board_id, key)
            case ["POST", "markers", slug]:
                only(body, "start_time", "end_time", "message", "type", "url")  # /api/markers/create-a-marker
                self.markers.append({**body, "id": self.new_id(), "dataset": slug})
                return 201, self.markers[-1]
            case ["GET", "triggers", slug]:
                return 200, [{**body, "id": id_} for id_, (where, body) in self.triggers.items() if where == slug]
            case ["POST", "triggers", slug]:
                trigger_id = self.new_id()
                self.triggers[trigger_id] = slug, self.checked_trigger(slug, body)
                return 201, {**body, "id": trigger_id}
            case ["PUT", "triggers", slug, trigger_id] if self.triggers.get(trigger_id, ("",))[0] == slug:
                self.triggers[trigger_id] = slug, self.checked_trigger(slug, body)
                return 200, {**body, "id": trigger_id}
        raise Refused(404, "not found")

    def auth(self, key: Key) -> dict[str, Any]:
        """https://docs.honeycomb.io/api/auth/list-authorizations; https://docs.honeycomb.io/api/tag/Auth/"""
        return {
            "id": "hcaik_01" if key.kind == "ingest" else "FL_xMM5LapLC",
            "type": key.kind,
            "api_key_access": {name: name in key.access for name in ACCESS},
            "environment": {"name": key.environment.title(), "slug": key.environment},
            "team": {"name": "Acme", "slug": "acme"},
        }

    def query(self, slug: str, query_id: object) -> dict[str, Any]:
        found = self.queries.get(str(query_id))
        if found is None or found[0] != slug:
            raise Refused(404, "query not found")
        return found[1]

    def checked_query(self, slug: str, query: dict[str, Any]) -> dict[str, Any]:
        """https://docs.honeycomb.io/reference/query-specification"""
        only(query, *QUERY_FIELDS)
        for name, value in query.items():
            expect(type(value) is QUERY_FIELDS[name], f"must be {QUERY_FIELDS[name].__name__}", name)

        def column(name: object, where: str) -> None:
            expect(isinstance(name, str) and name in self.datasets[slug], f"unknown column {name!r}", where)

        for each in query.get("breakdowns", []):
            column(each, "breakdowns")
        made = []
        for each in query.get("calculations", [{"op": "COUNT"}]):
            only(each, "op", "column")
            expect(each.get("op") in OPS.split(), "unknown op", "calculations")
            if each["op"] in ("COUNT", "CONCURRENCY"):
                expect("column" not in each, f"{each['op']} takes no column", "calculations")
            else:
                column(each.get("column"), "calculations")
            made.append((each["op"], each.get("column")))
        for each in query.get("filters", []):
            only(each, "column", "op", "value")
            column(each.get("column"), "filters")
            expect(each.get("op") in FILTERS.split(), "unknown op", "filters")
            expect(
                (each["op"] in ("exists", "does-not-exist")) != ("value" in each), "takes a value or none", "filters"
            )
            expect(not each["op"].endswith("in") or isinstance(each["value"], list), "a list of values", "filters")
        for each in query.get("orders", []):
            only(each, "op", "column", "order")
            expect(each.get("order", "ascending") in ("ascending", "descending"), "unknown order", "orders")
            term = (each.get("op"), each.get("column"))
            listed = term in made if each.get("op") else each.get("column") in query.get("breakdowns", [])
            expect(listed and each.get("op") != "HEATMAP", "neither a breakdown nor a calculation", "orders")
        expect(1 <= query.get("limit", 100) <= 1000, "from 1 to 1000", "limit")
        expect(query.get("time_range", 7200) >= 1, "at least a second", "time_range")
        return query

    def create_annotation(self, slug: str, body: dict[str, Any]) -> dict[str, Any]:
        """https://docs.honeycomb.io/api/tag/Query-Annotations/"""
        only(body, "name", "description", "query_id")
        text(body, "name", 80, shortest=1)
        text(body, "description", 280)
        self.query(slug, body.get("query_id"))
        made = {**body, "id": self.new_id(), "created_at": "2022-10-26T21:36:04Z", "updated_at": "2022-12-04T08:14:26Z"}
        self.annotations[made["id"]] = slug, made
        return made

    def checked_board(self, body: dict[str, Any]) -> dict[str, Any]:
        """https://docs.honeycomb.io/api/boards/create-a-board"""
        only(body, "name", "description", "type", "panels", "layout_generation", "tags", "preset_filters")
        expect(body.get("type") == "flexible", "must be a valid value", "type")
        text(body, "name", 255, shortest=1)
        text(body, "description", 1024)
        expect(body.get("layout_generation", "manual") in ("auto", "manual"), "auto or manual", "layout_generation")
        for panel in body.get("panels", []):
            expect(panel.get("type") in ("query", "slo", "text"), "query, slo or text", "panels")
            only(panel, "type", "position", f"{panel['type']}_panel")
            only(panel.get("position", {}), "x_coordinate", "y_coordinate", "height", "width")
            for value in panel.get("position", {}).values():
                expect(type(value) is int and value >= 0, "a whole number from 0", "position")
            inner = panel.get(f"{panel['type']}_panel")
            expect(isinstance(inner, dict), "is required", f"{panel['type']}_panel")
            if panel["type"] == "query":
                only(inner, "query_id", "query_annotation_id", "query_style", "visualization_settings")
                annotation = self.annotations.get(inner.get("query_annotation_id", ""))
                expect(inner.get("query_id") in self.queries, "there is no such query", "query_id")
                applies = annotation and annotation[1]["query_id"] == inner["query_id"]
                expect(applies, "must apply to the query_id", "query_annotation_id")
                expect(inner.get("query_style", "graph") in ("graph", "table", "combo"), "unknown", "query_style")
        return body

    def answered_board(self, board_id: str, key: Key) -> dict[str, Any]:
        """A board with its id and links and each query's dataset, and without layout_generation."""
        board = copy.deepcopy(self.boards[board_id])
        board.pop("layout_generation", None)
        for panel in board.get("panels", []):
            if inner := panel.get("query_panel"):
                inner["dataset"] = self.queries[inner["query_id"]][0]
        where = f"environments/{key.environment}/" if key.environment else ""
        return {
            **board,
            "id": board_id,
            "links": {"board_url": f"https://ui.honeycomb.io/acme/{where}board/{board_id}"},
        }

    def checked_trigger(self, slug: str, body: dict[str, Any]) -> dict[str, Any]:
        """https://docs.honeycomb.io/api/triggers/list-all-triggers has the fields and their bounds."""
        only(body, "name", "description", "threshold", "frequency", "alert_type", "disabled", "recipients", "query")
        text(body, "name", 120, shortest=1)
        text(body, "description", 1023)
        threshold: dict[str, Any] = body.get("threshold", {})
        expect(set(threshold) == {"op", "value"}, "op and value", "threshold")
        expect(threshold["op"] in (">", ">=", "<", "<="), "unknown op", "threshold")
        expect(type(threshold["value"]) in (int, float), "must be a number", "threshold")
        frequency = body.get("frequency", 900)
        expect(type(frequency) is int and 60 <= frequency <= 86400 and frequency % 60 == 0, "60 to 86400", "frequency")
        for recipient in body.get("recipients", []):
            expect(isinstance(recipient.get("id"), str), "first create it, then give its id", "recipients")
        query = self.checked_query(slug, body["query"])
        for name in ("orders", "limit"):
            expect(name not in query, "is not supported in a trigger", name)
        made = query.get("calculations", [])
        expect(len(made) == 1 and made[0]["op"] not in ("HEATMAP", "CONCURRENCY"), "one that compares", "calculations")
        length = query.get("time_range", 0)
        expect(frequency <= length <= min(4 * frequency, 86400), "from frequency to 4 times that", "time_range")
        return body

    def receive(self, request: Request) -> None:
        """https://github.com/honeycombio/husky (otlp/common.go, otlp/traces.go) and
        https://docs.honeycomb.io/send-data/opentelemetry/
        """
        expect(request.mimetype in ("application/protobuf", "application/x-protobuf"), "content-type", status=415)
        team = request.headers.get("X-Honeycomb-Team", "")
        named = request.headers.get("X-Honeycomb-Dataset", "")
        classic = re.fullmatch(r"[0-9a-f]{32}|hc[a-z]ic_[0-9a-z]{58}", team) is not None
        expect(not classic or named or request.path == "/v1/logs", "missing 'x-honeycomb-dataset' header", status=401)
        key = self.keys.get(team, Key(access=set()))
        expect("events" in key.access, "unknown API key - check your credentials", status=401)
        encoding = request.headers.get("Content-Encoding", "")
        expect(encoding in ("", "gzip"), "failed to parse OTLP request body", status=400)
        if request.path != "/v1/traces":
            return
        try:
            raw = gzip.decompress(request.get_data()) if encoding else request.get_data()
            message = ExportTraceServiceRequest.FromString(raw)
        except (DecodeError, OSError):
            raise Refused(400, "failed to parse OTLP request body") from None
        for group in message.resource_spans:
            resource = attributes(group.resource.attributes)
            service = str(resource.get("service.name") or "unknown_service").strip()
            slug = re.sub(r"[^a-z0-9_.~]+", "-", (named if classic else service).lower())
            expect(slug in self.datasets or "createDatasets" in key.access, "cannot create datasets", status=401)
            for span in (each for scope in group.scope_spans for each in scope.spans):
                event = {
                    "trace.trace_id": span.trace_id.hex(),
                    "trace.span_id": span.span_id.hex(),
                    "name": span.name,
                    "duration_ms": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
                    "span.kind": ("unspecified", "internal", "server", "client", "producer", "consumer")[span.kind],
                    **({"trace.parent_id": span.parent_span_id.hex()} if span.parent_span_id else {}),
                    **resource,
                    **attributes(span.attributes),
                }
                event["SampleRate"] = min(int(event.pop("SampleRate", 1)), (1 << 31) - 1) or 1
                self.datasets.setdefault(slug, set()).update(event.keys() - {"SampleRate"})
                self.events.append({**event, "dataset": slug, "time": span.start_time_unix_nano / 1e9})


def attributes(pairs: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in pairs}


def rate_limited(request: Request) -> Response:
    """https://docs.honeycomb.io/api/rate-limit: an HTTP date in Retry-After"""
    again = formatdate(time.time() + 42, usegmt=True)
    body = {"status": 429, "error": "You have exceeded your rate limit.", "detail": f"Please try again after {again}."}
    return Response(json.dumps(body), 429, {"Retry-After": again}, content_type="application/json")


def on(server: HTTPServer) -> Honeycomb:
    """The stand-in on `server`; it knows INGEST, CONFIGURATION and CLASSIC."""
    keys = {INGEST: Key("ingest", {"events", "createDatasets"}), CONFIGURATION: Key(), CLASSIC: Key(environment="")}
    service = Honeycomb(f"http://127.0.0.1:{server.port}", keys)
    server.expect_request(re.compile("")).respond_with_handler(service.handle)
    return service


@contextmanager
def honeycomb() -> Iterator[Honeycomb]:
    """The stand-in on a free port of this machine."""
    with HTTPServer(host="127.0.0.1") as server:
        yield on(server)
