"""Bad input, to the backend and its profiles service under gunicorn: no fault, no hang, no leak, no hijacked trace."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import free_ports
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from processes import Running, answers, running
from receiver import Receiver, eventually, receiving

KEY = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
VALUE = "marked-value-of-the-environment"
SECRET = b"marked-secret-of-a-caller"  # in queries, credentials and cookies, none of which are recorded
PATIENCE = 30  # seconds after which this gives up on an answer: far above what any takes

HOME = b"/api/activities/home"
KNOWN = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "QUERY", "HTTP")
ROUTES = ("/api/activities/home", "/api/activities/@<handle>", "/api/profiles/<handles>", "/static/<path:filename>")
WORK = ("home-activities-mock-data", "user-activities-mock-data", "find-profiles-mock-data")
NAMES = {*KNOWN, *(f"{method} {route}" for method in KNOWN for route in ROUTES), *WORK}

# The same examples in every run; many enough to find again what was found with a hundred times as many.
FIXED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


# Talking to a server byte by byte.


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def trace(self) -> tuple[str, bool]:
        """The id of the trace that it belongs to, and whether that is kept."""
        _, trace_id, _, flags = self.headers["traceresponse"].split("-")
        return trace_id, bool(int(flags, 16) & 1)


def parsed(data: bytes, method: bytes = b"") -> list[Answer]:
    """The answers in `data`, which is all that came on a connection."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        first, *lines = head.decode("latin-1").split("\r\n")
        status = re.fullmatch(r"HTTP/1\.[01] ([1-5]\d\d) [ -~]+", first)
        assert status, first
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(": ")
            assert colon, line
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        length = int(headers.get("content-length", 0))
        if status[1] == "100" or (method == b"HEAD" and data[:5] in (b"", b"HTTP/")):
            length = 0  # what is refused before its method is known has a body all the same
        assert len(data) >= length, "an answer is cut off"
        found.append(Answer(int(status[1]), headers, data[:length]))
        data = data[length:]
    return found


def request(*lines: bytes, target: bytes = HOME, method: bytes = b"GET", body: bytes = b"") -> bytes:
    """A request, well formed where its parts are."""
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: localhost", *lines, b"", body])


@dataclass
class Service:
    """A server, and every answer that it gave."""

    name: str
    server: Running
    port: int
    answers: list[Answer] = field(default_factory=list)

    def connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(data)
        return connection

    def exchange(self, data: bytes) -> bytes:
        """All that comes back until the server closes the connection, on which nothing comes after `data`."""
        with self.connect() as connection:
            with suppress(OSError):  # it need not take all of it
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            parts = []
            with suppress(ConnectionError):
                while part := connection.recv(65536):
                    parts.append(part)
            return b"".join(parts)

    def ask(self, data: bytes) -> list[Answer]:
        found = parsed(self.exchange(data), data.partition(b" ")[0])
        self.answers += found
        return found

    def get(self, *lines: bytes, target: bytes = HOME) -> Answer:
        (answer,) = self.ask(request(b"Connection: close", *lines, target=target))
        return answer

    def log(self) -> list[str]:
        return self.server.output().splitlines()

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.server.process.pid).children()


@dataclass
class Site:
    """The backend, its profiles service, and where their telemetry goes."""

    backend: Service
    profiles: Service
    receiver: Receiver

    def spans(self) -> list[dict[str, Any]]:
        """Every span, once those of all answers are there."""
        answered = [answer for service in (self.backend, self.profiles) for answer in service.answers]
        kept = {answer.trace()[0] for answer in answered if "traceresponse" in answer.headers and answer.trace()[1]}
        # A request's own span is the last of its process to end.
        assert eventually(lambda: kept <= {span["trace_id"] for span in self.receiver.spans()}, PATIENCE)
        return self.receiver.spans()

    def traces(self, trace_ids: Iterable[str], count: int = 5) -> list[list[dict[str, Any]]]:
        """The spans of each of these traces, once there are `count` in each; the home feed's have five."""
        found: list[list[dict[str, Any]]] = []

        def there() -> bool:
            arrived = self.receiver.traces()
            found[:] = [arrived.get(each, []) for each in trace_ids]
            return all(len(spans) >= count for spans in found)

        assert eventually(there, PATIENCE), found
        return found


@contextmanager
def under_gunicorn(project: Path, log: Path, package: str, *flags: str, **env: str) -> Iterator[Service]:
    (port,) = free_ports(1)
    command = [str(project / ".venv/bin/gunicorn"), "-c", "gunicorn.conf.py", *flags, f"{package}.app:create_app()"]
    with running(command, project, log, PORT=str(port), **env) as server:
        assert eventually(lambda: answers(f"http://127.0.0.1:{port}/api/health"), PATIENCE), server.output()
        yield Service(package, server, port)


@contextmanager
def both(project: Path, logs: Path, *flags: str, **env: str) -> Iterator[Site]:
    with receiving() as receiver:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-honeycomb-team={KEY}",
            "CORS_ORIGINS": "",
            "TRUST_TRACEPARENT": "",
            "A_VALUE": VALUE,
            **env,
        }
        with under_gunicorn(project, logs / "profiles", "profiles", *flags, **env) as profiles:
            env["PROFILES_URL"] = f"http://127.0.0.1:{profiles.port}"
            with under_gunicorn(project, logs / "backend", "backend", *flags, **env) as backend:
                yield Site(backend, profiles, receiver)


@pytest.fixture(scope="module")
def site(installed_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """As production runs them, with every setting at its default."""
    with both(installed_project, tmp_path_factory.mktemp("logs")) as site:
        yield site


# Requests of all kinds, most of them bad ones.

CREDENTIALS = (
    b"Authorization: Bearer " + SECRET,
    b"Cookie: session=" + SECRET,
    b"Proxy-Authorization: Basic " + SECRET,
    b"Referer: http://localhost/?token=" + SECRET,
)
METHODS = [method.encode() for method in KNOWN[:-1]] + [b"GET"] * 20 + [b"MARKED", b"M-SEARCH", b"BASELINE-CONTROL"]
HOSTS = [b"Host: localhost"] * 9 + [
    b"Host: a b",
    b"Host: \xc3\xa9:x",
    b"Host: //x/api/health?",
    b"Host:",
    b"X: no host",
]
WORDS = (
    b"api activities home profiles health static @andrew @ andrew,worf , .. . %2e%2e %2F %5c %00 %0d%0a %ff%fe %c0%ae "
    b"%zz % %3F %23 ; \\ ' @%F0%9F%98%80 {{7*7}} <script> .env backend app.py"
)
SEGMENTS = some.sampled_from([*WORDS.split(), b"", b"a" * 1000])
PATHS = some.sampled_from([HOME, b"/api/activities/@andrew", b"/api/profiles/andrew", b"/api/health"]) | some.builds(
    lambda parts: b"/" + b"/".join(parts), some.lists(SEGMENTS, max_size=6)
)
PREFIXES = some.sampled_from([b""] * 6 + [b"http://a:" + SECRET + b"@localhost", b"https://x:1", b"x://"])
ENDS = some.sampled_from([b"", b"?token=" + SECRET, b"?" + SECRET + b"&" * 99 + b"=%ff", b"#" + SECRET])
TARGETS = some.builds(lambda prefix, path, end: prefix + path + end, PREFIXES, PATHS, ENDS)
BODIES = some.sampled_from(
    [
        (b"X: no body", b""),
        (b"Content-Length: 5", b"aaaaa"),
        (b"Content-Length: 100000", b"a" * 100_000),
        (b"Transfer-Encoding: chunked", b"5;a=b\r\naaaaa\r\n0\r\nX: y\r\n\r\n"),
        (b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
    ]
)
TRACEPARENTS = some.sampled_from(
    [
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00",
        b"cc-" + b"a" * 32 + b"-" + b"b" * 16 + b"-ff-more",
        b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"A" * 32 + b"-" + b"b" * 16 + b"-01",
        b"-".join([b"a"] * 999),
    ]
)
STATES = some.sampled_from(
    [b"ot=th:8", b"ot=th:ffffffffffffff", b"=", b"a=b," * 900, b"a=1,a=2", b"\xe9=\xe9", b"a" * 600]
)
BAGGAGE = some.sampled_from([b"k=v", b"=", b"k", b"\xff=\xfe", b"k=%ff;p=%", b"k=v," * 1500, b"k=" + b"v" * 5000])
ANY = some.binary(max_size=40)
VISIBLE = some.builds(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value), ANY)  # what a header may hold
HARMLESS = some.one_of(
    some.builds(b"traceparent: ".__add__, TRACEPARENTS | VISIBLE),
    some.builds(b"tracestate: ".__add__, STATES | VISIBLE),
    some.builds(b"baggage: ".__add__, BAGGAGE | VISIBLE),
    some.builds(
        lambda name, value: name + b": " + value,
        some.sampled_from(
            b"Accept Accept-Encoding Accept-Language Cookie Forwarded If-None-Match Origin Range TE "
            b"Upgrade User-Agent Via X-Forwarded-For X-Forwarded-Host X-Forwarded-Prefix X-HTTP-Method-Override "
            b"X-Original-URL X_Forwarded_For PATH_INFO".split()
        ),
        VISIBLE | some.sampled_from([b"http://[", b"null", b"h2c", b"bytes=-1", b"a" * 8000, b"utf-8\xff", b"DELETE"]),
    ),
)
HOSTILE = some.one_of(
    some.sampled_from(
        [
            *CREDENTIALS,
            b"Authorization Bearer " + SECRET,  # its colon is missing
            b"Cookie " + SECRET + b": 1",
            SECRET * 9000,
            b"X: " + SECRET * 400,
            b" folded " + SECRET,
            b"X: " + SECRET + b"\0",
            b"X: " + SECRET + b"\r" + SECRET,
            b"X: " + SECRET + b"\nY: " + SECRET,
            b"X : " + SECRET,
            b": " + SECRET,
            b"\r\n".join([b"X: " + SECRET] * 101),
            b"Host: other",
            b"Content-Type: a/b",
            b"Content-Type: c",
            b"Expect: 100-continue",
            b"Expect: " + SECRET,
            b"SCRIPT_NAME: /" + SECRET,
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Ssl: off",
            b"Connection: keep-alive",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        ]
    ),
    some.builds(
        b"Content-Length: ".__add__,
        some.sampled_from([b"0", b"5", b"5,5", b"+5", b"-5", b"0x5", b"5_0", b"\xb2", b"9" * 400, b"9" * 5000, b""])
        | ANY,
    ),
    some.builds(
        b"Transfer-Encoding: ".__add__,
        some.sampled_from([b"chunked", b"gzip, chunked", b"chunked, chunked", b"identity", SECRET]) | ANY,
    ),
    ANY,
)
NO_HTTP = some.sampled_from(
    [
        b"",
        b"\r\n",
        b"GET",
        b"GET /?" + SECRET,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 99,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request(b"Connection: close"),
        b"\0" * 99_999,
    ]
)


# What to put in the place of a part of a request.
BROKEN: dict[str, some.SearchStrategy[bytes]] = {
    "method": some.sampled_from([b"get", b"G@T", b"A" * 99, b""]) | ANY,
    "target": some.sampled_from([b"*", b"localhost:80", b"", b"/" * 8000, b"http://[/?" + SECRET, b"/\xff?" + SECRET])
    | some.builds(lambda value: b"/" + value + b"?" + SECRET, ANY),
    "version": some.sampled_from([b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 ", SECRET, b""]) | ANY,
    "line": HOSTILE,
    "line end": some.just(b"\n"),
    "body": some.sampled_from([b"5\r\naaaaaXX", b"f" * 40 + b"\r\n", b"5" * 20_000, SECRET]) | ANY,
}


@some.composite
def requests_of_all_kinds(draw: some.DrawFn) -> bytes:
    """One that is well formed, however strange, or one of which one or two parts are not."""
    framing, body = draw(BODIES)
    parts = {
        "method": draw(some.sampled_from(METHODS)),
        "target": draw(TARGETS),
        "version": b"HTTP/1.1",
        "line": b"Connection: close",
        "line end": b"\r\n",
        "body": body,
    }
    for part in draw(some.lists(some.sampled_from(sorted(BROKEN)), max_size=2)):
        parts[part] = draw(BROKEN[part])
    first = b" ".join([parts["method"], parts["target"], parts["version"]])
    lines = [draw(some.sampled_from(HOSTS)), *CREDENTIALS, *draw(some.lists(HARMLESS, max_size=4)), framing]
    line_end: bytes = parts["line end"]
    return line_end.join([first, *lines, parts["line"], b"", parts["body"]])


def check_form(answer: Answer, project: Path) -> None:
    """What every answer keeps to, whatever was asked."""
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/json", answer
        if answer.body or answer.headers["content-length"] == "0":
            said = json.loads(answer.body)
            assert set(said) == {"error", "trace_id"}
            assert isinstance(said["error"], str)
            assert said["error"]
            assert said["trace_id"] == (answer.trace()[0] if "traceresponse" in answer.headers else None)
    for kept in (KEY.encode(), VALUE.encode(), b"Traceback", str(project).encode(), b"site-packages"):
        assert kept not in answer.body
        assert kept.decode() not in str(answer.headers)
    if answer.status != 308:  # it says where to go, with the query
        assert SECRET not in answer.body
        assert SECRET.decode() not in str(answer.headers)


def usage(service: Service) -> dict[int, tuple[int, int, int]]:
    """Bytes of memory, threads and open files of each worker, once no connection is open."""

    def open_files(worker: psutil.Process) -> int:
        return worker.num_fds() - len([each for each in worker.net_connections() if each.status != "LISTEN"])

    return {each.pid: (each.memory_info().rss, each.num_threads(), open_files(each)) for each in service.workers()}


@pytest.mark.parametrize("package", ["backend", "profiles"])
def test_whatever_is_sent_is_answered_or_refused(site: Site, installed_project: Path, package: str) -> None:
    service: Service = getattr(site, package)
    honest = HOME if package == "backend" else b"/api/profiles/andrew"
    allowed = {100, 200, 308, 400, 404, 405, 414, 417, 431}
    for _ in range(50):
        service.get(target=honest)
    before, lines, sent = usage(service), len(service.log()), 0

    @FIXED
    @given(data=requests_of_all_kinds() | NO_HTTP)
    def send(data: bytes) -> None:
        nonlocal sent
        sent += 1
        for answer in service.ask(data):
            # An unknown transfer coding is refused with 501: RFC 9112, section 6.1
            assert answer.status in (allowed | {501} if b"ransfer-" in data else allowed), answer
            check_form(answer, installed_project)
        if sent % 25 == 0:
            assert service.get(target=honest).status == 200

    send()
    said = service.log()[lines:]
    assert len(said) <= sent
    assert max(map(len, said), default=0) < 200
    assert [line for line in said if "ERROR" in line or "Traceback" in line] == []
    after = usage(service)
    assert list(after) == list(before)  # no worker has ended
    for pid, (memory, threads, files) in after.items():
        assert memory <= before[pid][0] + 40e6
        assert threads <= 12
        assert files <= before[pid][2] + 10
    names = {span["name"] for span in site.spans()}
    assert names <= NAMES
    shown = [service.server.output().encode(), *(body for _, _, body in site.receiver.requests)]
    for kept in (SECRET, KEY.encode(), VALUE.encode()):
        assert not any(kept in text for text in shown)


def test_headers_change_no_answer_and_leave_no_line_in_the_log(site: Site) -> None:
    expected = [(each["handle"], each["profile"]) for each in json.loads(site.backend.get().body)]
    assert all(profile for _, profile in expected)
    lines = len(site.backend.log()), len(site.profiles.log())

    @FIXED
    @given(headers=some.lists(HARMLESS, max_size=5))
    def send(headers: list[bytes]) -> None:
        answer = site.backend.get(*headers)
        assert answer.status == 200
        assert [(each["handle"], each["profile"]) for each in json.loads(answer.body)] == expected

    send()
    assert (len(site.backend.log()), len(site.profiles.log())) == lines


# Requests inside of requests.

INSIDE = request(b"Connection: close", target=b"/api/activities/@smuggled")
ENCODED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(INSIDE), INSIDE)
CODINGS = [
    b"Transfer-Encoding: " + value
    for value in [
        b"chunked",
        b"Chunked",
        b"chunked ",
        b"\x0bchunked",
        b"\xa0chunked",
        b'"chunked"',
        b"chunked, identity",
        b"identity, chunked",
        b"chunked, chunked",
        b"xchunked",
        b"chunked;q=1",
        b",chunked",
        b"\r\n chunked",
        b"x\r\nTransfer-Encoding: chunked",
    ]
] + [
    b"Transfer-Encoding : chunked",
    b" Transfer-Encoding: chunked",
    b"Transfer-Encoding\t: chunked",
    b"Transfer_Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"\0Transfer-Encoding: chunked",
]
LENGTHS = [
    b"Content-Length: " + value for value in (b"0", b"5", b"+5", b"-1", b"05", b"5, 5", b"5\r\n 0", b"\x0b5", b"0x5")
] + [
    b"Content-Length : 5",
    b"Content_Length: 5",
    b"X: y\nContent-Length: 5",
]
# Each is no end of a body, but could be taken for one.
NO_ENDS = [
    b"0\n\n",
    b"0\n\r\n",
    b"0\r\n\n",
    b"0\r\r\n\r\n",
    b"0x0\r\n\r\n",
    b"+0\r\n\r\n",
    b"-0\r\n\r\n",
    b" 0\r\n\r\n",
    b"0 \r\n\r\n",
    b"\xb2\r\n\r\n",
    b"0;\r\n\r\n",
    b"0;a\n\r\n\r\n",
    b"0;a\rb\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"0\r\nX: y\n\r\n\r\n",
    b"0\r\n X: y\r\n\r\n",
    b"0\r\nContent-Length: 0\r\n\r\n",
    b"1\r\nAB\r\n0\r\n\r\n",
    b"1\r\nA0\r\n\r\n",
    b'1;a="\n"\r\nA\r\n0\n\r\n',
    b"0" * 9000 + b"\n\n",
]


def with_length(*more: bytes, body: bytes) -> bytes:
    return request(b"Content-Length: %d" % len(body), *more, method=b"POST", body=body)


SMUGGLING = [
    # As a length says it, all of it is one body; as a coding says it, the body has ended.
    *(with_length(coding, body=b"0\r\n\r\n" + INSIDE) for coding in CODINGS),
    *(
        request(coding, b"Content-Length: %d" % (5 + len(INSIDE)), method=b"POST", body=b"0\r\n\r\n" + INSIDE)
        for coding in CODINGS
    ),
    # The other way round, and with two lengths.
    *(request(b"Transfer-Encoding: chunked", length, method=b"POST", body=ENCODED) for length in LENGTHS),
    *(request(length, b"Transfer-Encoding: chunked", method=b"POST", body=ENCODED) for length in LENGTHS),
    *(with_length(length, body=b"aaaaa" + INSIDE) for length in LENGTHS),
    # As one thing only says it, but not well.
    *(request(b"Transfer-Encoding: chunked", method=b"POST", body=end + INSIDE) for end in NO_ENDS),
    # Well.
    with_length(body=INSIDE),
    request(b"Transfer-Encoding: chunked", method=b"POST", body=ENCODED),
    request(b"Upgrade: h2c", b"Connection: Upgrade", b"Content-Length: %d" % len(INSIDE), body=INSIDE),
    request(method=b"CONNECT", target=b"localhost:80", body=INSIDE),
]


def test_a_request_inside_of_another_is_never_answered_nor_traced(site: Site) -> None:
    for data in SMUGGLING:
        found = site.backend.ask(data)
        assert len(found) == 1, data
        assert b"smuggled" not in found[0].body, data
    assert site.backend.get().status == 200
    assert not any("smuggled" in str(span) for span in site.spans())


def test_two_requests_on_a_connection_are_two(site: Site) -> None:
    """So that the test before can fail."""
    first, second = site.backend.ask(request(method=b"POST") + INSIDE.replace(b"smuggled", b"second"))
    assert (first.status, second.status) == (405, 404)
    assert b"second" in second.body
    assert any("@second" in str(span) for span in site.spans())


# Traces that strangers would like to decide on.

PAGE = b"Origin: https://app.example.com"
THRESHOLD = (1 << 56) - round((1 << 56) / 10)  # of the last bits of a trace's id, for one trace in ten
IDS = some.binary(min_size=16, max_size=16).map(bytes.hex).filter(lambda each: int(each, 16) > 0)
SPAN_IDS = some.binary(min_size=8, max_size=8).map(bytes.hex).filter(lambda each: int(each, 16) > 0)
FLAGS = some.sampled_from(["00", "01", "02", "03", "ff"])
RATES = some.sampled_from(
    [b"", b"tracestate: ot=th:8", b"tracestate: ot=th:fffff", b"tracestate: ot=th:0;rv:1,vendor=1"]
)


def callers(trace_id: str, span_id: str, flags: str, rate: bytes) -> list[bytes]:
    """The headers of somebody who has a trace already."""
    lines = [f"traceparent: 00-{trace_id}-{span_id}-{flags}".encode(), b"baggage: plan=marked-baggage"]
    return [*lines, rate] if rate else lines


CALLERS = some.builds(lambda *parts: (*parts[:3], callers(*parts)), IDS, SPAN_IDS, FLAGS, RATES)
LESS = settings(FIXED, max_examples=60)


def links(receiver: Receiver) -> dict[str, list[tuple[str, str]]]:
    """By a span's id, the traces and spans to which it is linked."""
    return {
        span.span_id.hex(): [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        for message in receiver.messages("/v1/traces")
        for resource_spans in message.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    }


def kept_in_ten(trace_id: str) -> bool:
    return int(trace_id, 16) % (1 << 56) >= THRESHOLD


def test_a_strangers_headers_decide_nothing(site: Site) -> None:
    seen: dict[str, tuple[str, str]] = {}

    @LESS
    @given(caller=CALLERS, origin=some.sampled_from([[], [PAGE], [b"Origin: null"]]))
    def send(caller: tuple[str, str, str, list[bytes]], origin: list[bytes]) -> None:
        trace_id, span_id, _, headers = caller
        answer = site.backend.get(*headers, *origin)
        assert answer.trace()[0] not in {trace_id, *seen}
        assert answer.trace()[1]
        seen[answer.trace()[0]] = trace_id, span_id

    send()
    traces, linked = site.traces(seen), links(site.receiver)
    for spans in traces:
        (first,) = [span for span in spans if not span["parent_id"]]
        assert first["name"] == "GET /api/activities/home"
        assert linked[first["span_id"]] == [seen[first["trace_id"]]]
        assert {span["service"] for span in spans} == {"backend-flask", "profiles"}  # one trace in both
        assert all("SampleRate" not in span for span in spans)
    assert not any(b"marked-baggage" in body for _, _, body in site.receiver.requests)


def test_the_profiles_service_continues_what_the_backend_began(site: Site) -> None:
    (trace,) = site.traces([site.backend.get().trace()[0]])
    spans = {span["span_id"]: span for span in trace}
    (entry,) = [span for span in trace if span["name"] == "GET /api/profiles/<handles>"]
    asking = spans[entry["parent_id"]]
    assert (asking["service"], asking["kind"]) == ("backend-flask", 3)
    answer = site.profiles.get(*callers("7" * 32, "b" * 16, "01", b"tracestate: ot=th:8"), target=b"/api/profiles/worf")
    assert answer.trace() == ("7" * 32, True)
    assert {span["SampleRate"] for span in site.traces(["7" * 32], 2)[0]} == {2}


def test_with_sampling_strangers_and_pages_are_counted_at_the_services_own_rate(
    installed_project: Path, tmp_path: Path
) -> None:
    env = {"SAMPLE_RATE": "10", "CORS_ORIGINS": "https://app.example.com"}
    with both(installed_project, tmp_path, "-w", "1", **env) as site:
        kept = set()

        @settings(FIXED, max_examples=100)
        @given(caller=CALLERS, page=some.booleans())
        def send(caller: tuple[str, str, str, list[bytes]], page: bool) -> None:
            trace_id, _, _, headers = caller
            answer = site.backend.get(*headers, PAGE if page else PAGE + b".evil")
            own_id, is_kept = answer.trace()
            assert (own_id == trace_id) == page
            assert is_kept == kept_in_ten(own_id)  # whatever the caller's flags say
            if is_kept:
                kept.add(own_id)

        send()
        while len(kept) < 5:  # of each ten that strangers begin, one
            send()
        traces = site.traces(kept)
        assert {span["SampleRate"] for spans in traces for span in spans} == {10}
        assert {span["service"] for spans in traces for span in spans} == {"backend-flask", "profiles"}
        assert set(site.receiver.traces()) == kept


def test_a_page_of_a_named_origin_is_the_parent_and_no_stranger_is(installed_project: Path, tmp_path: Path) -> None:
    with both(installed_project, tmp_path, "-w", "1", CORS_ORIGINS="https://app.example.com") as site:
        headers = callers("c" * 32, "d" * 16, "00", b"tracestate: ot=th:8")
        assert site.backend.get(*headers, PAGE).trace() == ("c" * 32, True)
        (spans,) = site.traces(["c" * 32])
        assert [span["name"] for span in spans if span["parent_id"] == "d" * 16] == ["GET /api/activities/home"]
        assert all("SampleRate" not in span for span in spans)
        for origin in ([], [PAGE + b".evil"], [PAGE + b"/"], [PAGE, PAGE]):
            assert site.backend.get(*headers, *origin).trace()[0] != "c" * 32


@dataclass
class Asked:
    """A service that has no profiles, and keeps what it is asked."""

    url: str
    heads: list[bytes] = field(default_factory=list)


@pytest.fixture
def no_profiles() -> Iterator[Asked]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = Asked(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            with suppress(OSError):  # the end
                while True:
                    with listener.accept()[0] as connection:
                        asked.heads.append(connection.recv(65536).lower())
                        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")

        threading.Thread(target=serve, daemon=True).start()
        yield asked
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("trusted", [True, False])
def test_baggage_is_passed_on_for_trusted_callers_alone(
    installed_project: Path, tmp_path: Path, no_profiles: Asked, trusted: bool
) -> None:
    with receiving() as receiver:
        env = {"PROFILES_URL": no_profiles.url, "TRUST_TRACEPARENT": str(trusted).lower()}
        env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CORS_ORIGINS": ""}
        with under_gunicorn(installed_project, tmp_path / "log", "backend", "-w", "1", **env) as backend:
            answer = backend.get(*callers("e" * 32, "f" * 16, "01", b"tracestate: ot=th:8,vendor=marked-state"))
            (asked,) = no_profiles.heads
            assert b"traceparent: 00-" + answer.trace()[0].encode() in asked
            assert (b"marked-baggage" in asked) == trusted
            assert (b"marked-state" in asked) == trusted
            assert (answer.trace()[0] == "e" * 32) == trusted
            hidden = backend.get(*callers("9" * 32, "f" * 16, "00", b""))
            assert hidden.trace() == (("9" * 32, False) if trusted else (hidden.trace()[0], True))
            backend.server.stop()
        rates = {span.get("SampleRate") for span in receiver.spans() if span["trace_id"] == answer.trace()[0]}
        assert rates == {2 if trusted else None}
        assert (hidden.trace()[0] in receiver.traces()) != trusted


def test_trust_that_is_neither_true_nor_false_is_an_error_at_the_start(installed_project: Path, tmp_path: Path) -> None:
    command = [str(installed_project / ".venv/bin/gunicorn"), "-c", "gunicorn.conf.py", "backend.app:create_app()"]
    env = {"PORT": str(free_ports(1)[0]), "OTEL_SDK_DISABLED": "true", "TRUST_TRACEPARENT": "maybe"}
    with running(command, installed_project, tmp_path / "log", **env) as server:
        assert server.process.wait(PATIENCE) != 0
    assert "ValueError: TRUST_TRACEPARENT: 'maybe' is neither true nor false" in server.output()
