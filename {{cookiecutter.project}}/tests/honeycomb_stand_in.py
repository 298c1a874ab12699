"""A strict stand-in for Honeycomb's API: refuses what its documentation says is refused, and forgets nothing.

Made from the documentation and from what Honeycomb publishes of its receiver, each rule beside the page it was
read from, and never compared with the live service. Where the pages leave a choice it takes the stricter one,
marked "stricter". The API in one piece: https://docs.honeycomb.io/api/
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Final
from urllib.parse import unquote

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

INGEST: Final = "hcaik_" + "01marked" * 7 + "ab"
CONFIGURATION: Final = "01marked01marked01mark"
CLASSIC: Final = "0123456789abcdef" * 2


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# https://docs.honeycomb.io/api/auth/list-authorizations names these
ACCESS: Final = words("events markers triggers boards queries columns createDatasets slos recipients privateBoards")

# https://docs.honeycomb.io/api/queries/create-a-query
OPS: Final = words(
    "COUNT CONCURRENCY SUM AVG COUNT_DISTINCT HEATMAP MAX MIN P001 P01 P05 P10 P20 P25 P50 P75 P80 P90 P95 P99 P999"
    " RATE_AVG RATE_SUM RATE_MAX"
)
FILTERS: Final = words(
    "= != > >= < <= starts-with does-not-start-with ends-with does-not-end-with exists does-not-exist contains"
    " does-not-contain in not-in"
)
QUERY_FIELDS: Final = {
    "breakdowns": list,
    "calculations": list,
    "filters": list,
    "filter_combination": str,
    "granularity": int,
    "orders": list,
    "limit": int,
    "start_time": int,
    "end_time": int,
    "time_range": int,
    "havings": list,
}


@dataclass
class Key:
    kind: str = "configuration"  # or ingest
    access: set[str] = field(default_factory=lambda: set(ACCESS))
    team: str = "acme"
    environment: str = "production"  # "" for a classic key


class Refused(Exception):
    """An answer other than success: a status, what is wrong, and for 422 which field."""

    def __init__(self, status: int, error: str, name: str = "") -> None:
        super().__init__(error)
        self.status, self.error, self.name = status, error, name

    def body(self) -> dict[str, Any]:
        """RFC 7807 problems, or the older form with `error` alone: https://docs.honeycomb.io/api/errors"""
        if self.status != 422:
            return {"error": self.error}
        return {
            "status": 422,
            "type": "https://api.honeycomb.io/problems/validation-failed",
            "title": "The provided input is invalid.",
            "error": "The provided input is invalid.",
            "type_detail": [{"field": self.name, "code": "invalid", "description": f"{self.name}: {self.error}"}],
        }


def expect(condition: object, error: str, name: str = "", status: int = 422) -> None:
    if not condition:
        raise Refused(status, error, name)


def text(body: dict[str, Any], name: str, longest: int, shortest: int = 0) -> None:
    value = body.get(name, "")
    expect(isinstance(value, str) and shortest <= len(value) <= longest, f"{shortest} to {longest} characters", name)


def only(body: dict[str, Any], *names: str) -> None:
    """No field that the page does not name (stricter)."""
    for name in body:
        expect(name in names, "is not a field", name)


@dataclass
class Honeycomb:
    """What a team has there, and what was asked of it."""

    url: str = ""
    ui: str = "https://ui.honeycomb.io"
    keys: dict[str, Key] = field(default_factory=dict)
    datasets: dict[str, set[str]] = field(default_factory=dict)  # slugs, and the columns of each
    events: list[dict[str, Any]] = field(default_factory=list)
    queries: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)  # by id, with the dataset
    annotations: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    boards: dict[str, dict[str, Any]] = field(default_factory=dict)
    markers: list[dict[str, Any]] = field(default_factory=list)
    triggers: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # method and path of each request
    limited: bool = False
    date: Callable[[], str] = lambda: formatdate(usegmt=True)
    misbehave: Callable[[BaseHTTPRequestHandler], bool] | None = None  # answers in place of all this, if it says so
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    def counted(self) -> int:
        """How many events Honeycomb makes of what it got: each stands for `SampleRate`."""
        return sum(event["SampleRate"] for event in self.events)

    def new_id(self) -> str:
        return f"id{next(self._ids):09d}"

    # Who may do what

    def key(self, headers: dict[str, str]) -> Key:
        """https://docs.honeycomb.io/api/authentication: the key in X-Honeycomb-Team, or 401"""
        found = self.keys.get(headers.get("x-honeycomb-team", ""))
        if found is None:
            raise Refused(401, "unknown API key - check your credentials")
        return found

    def configuring(self, headers: dict[str, str], access: str) -> Key:
        """A configuration key with a permission, or 403: https://docs.honeycomb.io/api/errors"""
        key = self.key(headers)
        expect(key.kind == "configuration", "This API key cannot do that: a configuration key is needed", status=403)
        expect(access in key.access, "The API key does not have permission for this operation", status=403)
        return key

    def dataset(self, slug: str, or_all: bool = True) -> str:
        """A dataset's slug, or `__all__`, or 404: the `datasetSlug` of every page"""
        expect(slug in self.datasets or (or_all and slug == "__all__"), "dataset not found", status=404)
        return slug

    def columns(self, slug: str) -> set[str]:
        return set().union(*self.datasets.values()) if slug == "__all__" else self.datasets[slug]

    # https://docs.honeycomb.io/api/auth/list-authorizations

    def auth(self, headers: dict[str, str]) -> tuple[int, Any]:
        key = self.key(headers)
        slug = key.environment  # empty for classic keys, says https://docs.honeycomb.io/api/tag/Auth/
        return 200, {
            "id": "hcaik_01" if key.kind == "ingest" else "FL_xMM5LapLC",
            "type": key.kind,
            "api_key_access": {name: name in key.access for name in ACCESS},
            "environment": {"name": slug.title(), "slug": slug},
            "team": {"name": key.team.title(), "slug": key.team},
        }

    # https://docs.honeycomb.io/api/columns

    def list_columns(self, slug: str) -> tuple[int, Any]:
        return 200, [
            {"id": self.new_id(), "key_name": name, "type": "string", "hidden": False, "description": ""}
            for name in sorted(self.datasets[self.dataset(slug, or_all=False)])
        ]

    # https://docs.honeycomb.io/api/queries/create-a-query and
    # https://docs.honeycomb.io/reference/query-specification

    def checked_query(self, slug: str, query: dict[str, Any]) -> dict[str, Any]:
        only(query, *QUERY_FIELDS)
        for name, type_ in QUERY_FIELDS.items():
            if name in query:
                value = query[name]
                expect(isinstance(value, type_) and not isinstance(value, bool), f"must be {type_.__name__}", name)
                expect(not isinstance(value, list) or len(value) <= 100, "at most 100", name)
        known = self.columns(slug)

        def column(name: object, where: str) -> None:
            expect(isinstance(name, str) and name in known, f"unknown column {name!r}", where)

        for each in query.get("breakdowns", []):
            column(each, "breakdowns")
        made = []
        for each in query.get("calculations", [{"op": "COUNT"}]):
            only(each, "op", "column")
            expect(each.get("op") in OPS, "unknown op", "calculations")
            if each["op"] in ("COUNT", "CONCURRENCY"):
                expect("column" not in each, f"{each['op']} takes no column", "calculations")
            else:
                column(each.get("column"), "calculations")
            made.append((each["op"], each.get("column")))
        for each in query.get("filters", []):
            only(each, "column", "op", "value")
            column(each.get("column"), "filters")
            expect(each.get("op") in FILTERS, "unknown op", "filters")
            takes = each["op"] not in ("exists", "does-not-exist")
            expect(takes == ("value" in each), "takes a value, or must not have one", "filters")
            expect(not each["op"].endswith("in") or isinstance(each["value"], list), "a list of values", "filters")
        for each in query.get("orders", []):
            only(each, "op", "column", "order")
            expect(each.get("order", "ascending") in ("ascending", "descending"), "unknown order", "orders")
            term = (each.get("op"), each.get("column"))
            listed = term in made if each.get("op") else each.get("column") in query.get("breakdowns", [])
            expect(listed and each.get("op") != "HEATMAP", "neither a breakdown nor a calculation", "orders")
        expect(query.get("filter_combination", "AND") in ("AND", "OR"), "AND or OR", "filter_combination")
        expect(1 <= query.get("limit", 100) <= 1000, "from 1 to 1000", "limit")
        times = [name for name in ("time_range", "start_time", "end_time") if name in query]
        expect(len(times) < 3, "cannot be combined with both start_time and end_time", "time_range")
        length = query.get("time_range", 7200)
        expect(length >= 1, "at least a second", "time_range")
        if "granularity" in query:
            expect(length / 1000 <= query["granularity"] <= length, "from T/1000 to T", "granularity")
        return query

    def create_query(self, slug: str, query: dict[str, Any]) -> tuple[int, Any]:
        self.checked_query(self.dataset(slug), query)
        made = {**query, "id": self.new_id()}
        self.queries[made["id"]] = slug, made
        return 200, made

    def get_query(self, slug: str, query_id: str) -> tuple[int, Any]:
        found = self.queries.get(query_id)
        if found is None or found[0] != self.dataset(slug):
            raise Refused(404, "query not found")
        return 200, found[1]

    # https://docs.honeycomb.io/api/tag/Query-Annotations/

    def create_annotation(self, slug: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.dataset(slug)
        only(body, "name", "description", "query_id")
        text(body, "name", 80, shortest=1)
        text(body, "description", 280)
        self.get_query(slug, body.get("query_id", ""))
        made = {**body, "id": self.new_id(), "created_at": "2022-10-26T21:36:04Z", "updated_at": "2022-12-04T08:14:26Z"}
        self.annotations[made["id"]] = slug, made
        return 201, made

    def list_annotations(self, slug: str) -> tuple[int, Any]:
        self.dataset(slug)
        return 200, [made for where, made in self.annotations.values() if where == slug]

    # https://docs.honeycomb.io/api/boards/create-a-board

    def checked_board(self, body: dict[str, Any]) -> dict[str, Any]:
        only(body, "name", "description", "type", "panels", "layout_generation", "tags", "preset_filters")
        expect(body.get("type") == "flexible", "must be a valid value", "type")
        text(body, "name", 255, shortest=1)
        text(body, "description", 1024)
        expect(body.get("layout_generation", "manual") in ("auto", "manual"), "auto or manual", "layout_generation")
        expect(isinstance(body.get("panels", []), list), "a list", "panels")
        for panel in body.get("panels", []):
            expect(panel.get("type") in ("query", "slo", "text"), "query, slo or text", "panels")
            only(panel, "type", "position", f"{panel['type']}_panel")
            position = panel.get("position", {})
            only(position, "x_coordinate", "y_coordinate", "height", "width")
            for value in position.values():
                expect(type(value) is int and value >= 0, "a whole number from 0", "position")
            inner = panel.get(f"{panel['type']}_panel")
            expect(isinstance(inner, dict), "is required", f"{panel['type']}_panel")
            if panel["type"] == "query":
                only(inner, "query_id", "query_annotation_id", "query_style", "visualization_settings")
                query = self.queries.get(inner.get("query_id", ""))
                annotation = self.annotations.get(inner.get("query_annotation_id", ""))
                expect(query, "there is no such query", "query_id")
                applies = annotation and annotation[1]["query_id"] == inner["query_id"]
                expect(applies, "must apply to the query_id", "query_annotation_id")
                expect(inner.get("query_style", "graph") in ("graph", "table", "combo"), "unknown", "query_style")
            elif panel["type"] == "text":
                text(inner, "content", 10_000)
        return body

    def shown_board(self, board_id: str, key: Key) -> dict[str, Any]:
        """A board as it is answered: with its id and links, a query's dataset, and without layout_generation."""
        board = json.loads(json.dumps(self.boards[board_id]))
        board.pop("layout_generation", None)
        for panel in board.get("panels", []):
            if inner := panel.get("query_panel"):
                inner["dataset"] = self.queries[inner["query_id"]][0]
        where = f"environments/{key.environment}/" if key.environment else ""
        return {**board, "id": board_id, "links": {"board_url": f"{self.ui}/{key.team}/{where}board/{board_id}"}}

    def create_board(self, body: dict[str, Any], key: Key) -> tuple[int, Any]:
        board_id = self.new_id()
        self.boards[board_id] = self.checked_board(body)
        return 201, self.shown_board(board_id, key)

    def update_board(self, board_id: str, body: dict[str, Any], key: Key) -> tuple[int, Any]:
        expect(board_id in self.boards, "board not found", status=404)
        self.boards[board_id] = self.checked_board(body)
        return 200, self.shown_board(board_id, key)

    # https://docs.honeycomb.io/api/markers/create-a-marker

    def create_marker(self, slug: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.dataset(slug)
        only(body, "start_time", "end_time", "message", "type", "url")
        for name in ("message", "type", "url"):
            expect(isinstance(body.get(name, ""), str), "must be a string", name)
        made = {**body, "id": self.new_id(), "dataset": slug}
        self.markers.append(made)
        return 201, made

    # https://docs.honeycomb.io/api/triggers/list-all-triggers has the fields and their bounds

    def checked_trigger(self, slug: str, body: dict[str, Any]) -> dict[str, Any]:
        only(
            body,
            *("name", "description", "threshold", "frequency", "alert_type", "disabled", "recipients", "query"),
            *("query_id", "tags", "evaluation_schedule_type", "evaluation_schedule"),
        )
        text(body, "name", 120, shortest=1)
        text(body, "description", 1023)
        expect(("query" in body) != ("query_id" in body), "one of query and query_id", "query")
        threshold = body.get("threshold")
        expect(isinstance(threshold, dict) and {"op", "value"} <= set(threshold), "op and value", "threshold")
        expect(threshold["op"] in (">", ">=", "<", "<="), "unknown op", "threshold")
        expect(type(threshold["value"]) in (int, float), "must be a number", "threshold")
        frequency = body.get("frequency", 900)
        expect(type(frequency) is int and 60 <= frequency <= 86400 and frequency % 60 == 0, "60 to 86400", "frequency")
        for recipient in body.get("recipients", []):
            expect(isinstance(recipient.get("id"), str), "first create it, then give its id", "recipients")
        query = body["query"] if "query" in body else self.get_query(slug, body["query_id"])[1]
        for name in ("orders", "limit", "start_time", "end_time", "usage_mode", "granularity"):
            expect(name not in query, "is not supported in a trigger", name)
        self.checked_query(slug, {name: value for name, value in query.items() if name != "id"})
        made = query.get("calculations", [])
        expect(len(made) == 1, "one calculation", "calculations")
        expect(made[0]["op"] not in ("HEATMAP", "CONCURRENCY"), "cannot be compared", "calculations")
        length = query.get("time_range", 0)
        expect(frequency <= length <= min(4 * frequency, 86400), "from frequency to 4 times that", "time_range")
        return body

    def create_trigger(self, slug: str, body: dict[str, Any]) -> tuple[int, Any]:
        trigger_id = self.new_id()
        self.dataset(slug)
        self.triggers[trigger_id] = slug, self.checked_trigger(slug, body)
        return 201, {**body, "id": trigger_id, "dataset_slug": slug}

    def update_trigger(self, slug: str, trigger_id: str, body: dict[str, Any]) -> tuple[int, Any]:
        expect(self.triggers.get(trigger_id, ("",))[0] == slug, "trigger not found", status=404)
        self.triggers[trigger_id] = slug, self.checked_trigger(slug, body)
        return 200, {**body, "id": trigger_id, "dataset_slug": slug}

    def list_triggers(self, slug: str) -> tuple[int, Any]:
        found = self.triggers.items()
        self.dataset(slug)
        return 200, [{**body, "id": id_, "dataset_slug": slug} for id_, (where, body) in found if where == slug]

    def answer(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> tuple[int, Any]:
        """The answer of the API proper."""
        if method != "GET":
            # https://docs.honeycomb.io/api/errors
            type_ = headers.get("content-type", "").partition(";")[0]
            expect(type_ == "application/json", "the Content-Type must be application/json", status=415)
            expect(len(raw) <= 100_000, "the body is larger than 100,000 bytes", status=413)
        self.key(headers)
        body: Any = None
        if raw:
            try:
                body = json.loads(raw)
            except ValueError:
                raise Refused(400, "the request body could not be parsed") from None
            expect(isinstance(body, dict), "the request body must be an object", status=400)
        match [method, *map(unquote, path.strip("/").split("/"))]:
            case ["GET", "1", "auth"]:
                return self.auth(headers)
            case ["GET", "1", "columns", slug]:
                self.configuring(headers, "columns")
                return self.list_columns(slug)
            case ["POST", "1", "queries", slug]:
                self.configuring(headers, "queries")
                return self.create_query(slug, body)
            case ["GET", "1", "queries", slug, query_id]:
                self.configuring(headers, "queries")
                return self.get_query(slug, query_id)
            case ["POST", "1", "query_annotations", slug]:
                self.configuring(headers, "queries")
                return self.create_annotation(slug, body)
            case ["GET", "1", "query_annotations", slug]:
                self.configuring(headers, "queries")
                return self.list_annotations(slug)
            case ["GET", "1", "boards"]:
                key = self.configuring(headers, "boards")
                return 200, [self.shown_board(each, key) for each in self.boards]
            case ["POST", "1", "boards"]:
                return self.create_board(body, self.configuring(headers, "boards"))
            case ["PUT", "1", "boards", board_id]:
                return self.update_board(board_id, body, self.configuring(headers, "boards"))
            case ["POST", "1", "markers", slug]:
                self.configuring(headers, "markers")
                return self.create_marker(slug, body)
            case ["GET", "1", "triggers", slug]:
                self.configuring(headers, "triggers")
                return self.list_triggers(slug)
            case ["POST", "1", "triggers", slug]:
                self.configuring(headers, "triggers")
                return self.create_trigger(slug, body)
            case ["PUT", "1", "triggers", slug, trigger_id]:
                self.configuring(headers, "triggers")
                return self.update_trigger(slug, trigger_id, body)
        raise Refused(404, "not found")

    # OTLP, as the receiver that Honeycomb publishes takes it: https://github.com/honeycombio/husky
    # (otlp/common.go, otlp/errors.go, otlp/traces.go) and https://docs.honeycomb.io/send-data/opentelemetry/

    def take(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        type_ = headers.get("content-type", "")
        known = ("application/protobuf", "application/x-protobuf", "application/json")
        expect(type_ in known, f"unsupported content-type, valid types are: {', '.join(known)}", status=415)
        team = headers.get("x-honeycomb-team", "")
        expect(team, "missing 'x-honeycomb-team' header", status=401)
        named = headers.get("x-honeycomb-dataset", "")
        classic = re.fullmatch(r"[0-9a-f]{32}|hc[a-z]ic_[0-9a-z]{58}", team) is not None
        expect(not classic or path == "/v1/logs" or named, "missing 'x-honeycomb-dataset' header", status=401)
        key = self.key(headers)
        expect("events" in key.access, "unknown API key - check your credentials", status=401)
        encoding = headers.get("content-encoding", "")
        expect(encoding in ("", "gzip"), "failed to parse OTLP request body", status=400)  # and zstd, not here
        message = {
            "/v1/traces": ExportTraceServiceRequest,
            "/v1/logs": ExportLogsServiceRequest,
            "/v1/metrics": ExportMetricsServiceRequest,
        }[path]()
        try:
            raw = gzip.decompress(raw) if encoding else raw
            if type_ == "application/json":
                Parse(_ids_as_base64(raw.decode()), message)
            else:
                message.ParseFromString(raw)
        except (DecodeError, ParseError, OSError, ValueError):
            raise Refused(400, "failed to parse OTLP request body") from None
        if path != "/v1/traces":
            return
        for group in message.resource_spans:
            resource = {each.key: _value(each.value) for each in group.resource.attributes}
            service = str(resource.get("service.name") or "unknown_service").strip()
            slug = re.sub(r"[^a-z0-9_.~]+", "-", (named if classic else service).lower())
            expect(slug in self.datasets or "createDatasets" in key.access, "cannot create datasets", status=401)
            for scope in group.scope_spans:
                for span in scope.spans:
                    event = {
                        "trace.trace_id": span.trace_id.hex(),
                        "trace.span_id": span.span_id.hex(),
                        "type": "span",
                        "span.kind": ("unspecified", "internal", "server", "client", "producer", "consumer")[span.kind],
                        "name": span.name,
                        "duration_ms": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
                        "status_code": span.status.code,
                        **({"trace.parent_id": span.parent_span_id.hex()} if span.parent_span_id else {}),
                        **({"error": True} if span.status.code == 2 else {}),
                        **resource,
                        **{each.key: _value(each.value) for each in span.attributes},
                    }
                    # SampleRate is taken out of the event, and 1 where there is none or 0.
                    event["SampleRate"] = min(int(event.pop("SampleRate", 1)), (1 << 31) - 1) or 1
                    self.datasets.setdefault(slug, set()).update(name for name in event if name != "SampleRate")
                    self.events.append({**event, "dataset": slug, "time": span.start_time_unix_nano / 1e9})


def _ids_as_base64(body: str) -> str:
    """OTLP's JSON has ids in hex, where protobuf's own JSON has base64."""

    def encode(found: re.Match[str]) -> str:
        return f'"{found[1]}":"{base64.b64encode(bytes.fromhex(found[2])).decode()}"'

    return re.sub(r'"(traceId|spanId|parentSpanId)"\s*:\s*"([0-9a-fA-F]+)"', encode, body)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in ("string_value", "bool_value", "int_value", "double_value") else str(value)


@contextmanager
def honeycomb(**keys: Key) -> Iterator[Honeycomb]:
    """The stand-in on a free port of this machine; it knows INGEST, CONFIGURATION and CLASSIC."""
    known = {
        INGEST: Key("ingest", {"events", "createDatasets"}),
        CONFIGURATION: Key(),
        CLASSIC: Key(environment=""),
    }
    service = Honeycomb(keys={**known, **keys})
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.partition("?")[0]
            service.asked.append(f"{self.command} {self.path}")
            if service.misbehave and service.misbehave(self):
                return
            more: dict[str, str] = {}
            status, body = 404, {"error": "not found"}  # type: int, Any
            try:
                with lock:
                    if service.limited:
                        status, body, more = _rate_limited(path)
                    elif self.command == "POST" and re.fullmatch("/v1/(traces|logs|metrics)", path):
                        service.take(path, headers, raw)
                        status, body = 200, {}
                    else:
                        status, body = service.answer(self.command, path, headers, raw)
            except Refused as refused:
                status, body = refused.status, refused.body()
                if path.startswith("/v1/"):
                    body = {"message": refused.error}
            self.reply(status, b"" if path.startswith("/v1/") and status == 200 else json.dumps(body).encode(), more)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def reply(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response_only(status)
            type_ = self.headers.get("Content-Type", "application/json") if not data else "application/json"
            every = {"Date": service.date(), "Content-Type": type_, "Content-Length": str(len(data))}
            for name, value in {**every, **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def _rate_limited(path: str) -> tuple[int, Any, dict[str, str]]:
    """https://docs.honeycomb.io/api/rate-limit: an HTTP date in Retry-After"""
    again = formatdate(time.time() + 42, usegmt=True)
    body = {
        "status": 429,
        "type": "https://api.honeycomb.io/problems/rate-limited",
        "title": "You have exceeded your rate limit.",
        "error": "You have exceeded your rate limit.",
        "detail": f"Please try again after {again}.",
    }
    return 429, body, {"Retry-After": again, "RateLimit": "limit=100, remaining=0, reset=42"}
