"""Bad input to both services under gunicorn, byte by byte: answered or refused, in the same form, and nothing leaks."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

import psutil
import pytest
from conftest import free_ports
from containers import KEY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from processes import Running, answers, running
from receiver import Receiver, eventually, receiving

VALUE = "marked-value-of-the-environment"
SECRET = b"marked-secret-of-a-caller"  # in queries, credentials and cookies, none of which are recorded
PATIENCE = 30  # seconds after which this gives up on an answer: far above what any takes

HOME = b"/api/activities/home"
KNOWN = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "QUERY", "HTTP")
ROUTES = ("/api/activities/home", "/api/activities/@<handle>", "/api/profiles/<handles>", "/static/<path:filename>")
WORK = ("home-activities-mock-data", "user-activities-mock-data", "find-profiles-mock-data")
NAMES = {*KNOWN, *(f"{method} {route}" for method in KNOWN for route in ROUTES), *WORK}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


@dataclass
class Service:
    server: Running
    port: int
    receiver: Receiver

    def ask(self, data: bytes) -> Answer | None:
        """The first answer on a connection on which nothing comes after `data`; None if it is closed without one."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            with suppress(OSError):  # it need not take all of it
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            response = HTTPResponse(connection, method=data.partition(b" ")[0].decode("latin-1"))
            with suppress(ConnectionError):
                response.begin()
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Answer(response.status, headers, response.read())
        return None

    def workers(self) -> list[int]:
        return [each.pid for each in psutil.Process(self.server.process.pid).children()]


@pytest.fixture(scope="module", params=["backend", "profiles"])
def service(
    request: pytest.FixtureRequest, installed_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with ExitStack() as exits:
        receiver = exits.enter_context(receiving())
        app = "backend.app" if request.param == "backend" else "example.profiles.app"
        (port,) = free_ports(1)
        command = [str(installed_project / ".venv/bin/gunicorn"), f"{app}:create_app()"]
        env = {"PORT": str(port), "A_VALUE": VALUE, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        env["OTEL_EXPORTER_OTLP_HEADERS"] = f"x-honeycomb-team={KEY}"
        log = tmp_path_factory.mktemp("logs") / "output"
        server = exits.enter_context(running(command, installed_project, log, **env))
        assert eventually(lambda: answers(f"http://127.0.0.1:{port}/api/health"), PATIENCE), server.output()
        service = Service(server, port, receiver)
        assert eventually(lambda: len(service.workers()) == 2, PATIENCE)  # the default of WEB_CONCURRENCY
        yield service


# Requests of all kinds, most of them bad ones.

CREDENTIALS = (
    b"Authorization: Bearer " + SECRET,
    b"Cookie: session=" + SECRET,
    b"Proxy-Authorization: Basic " + SECRET,
    b"Referer: http://localhost/?token=" + SECRET,
)
METHODS = [method.encode() for method in KNOWN[:-1]] + [b"GET"] * 20 + [b"MARKED", b"M-SEARCH"]
HOSTS = [b"Host: localhost"] * 8 + [b"Host: a b", b"Host: \xc3\xa9:x", b"Host: //x/?", b"Host:", b"X: no host"]
WORDS = (
    b"api activities home profiles health static @andrew @ andrew,worf , .. . %2e%2e %2F %5c %00 %0d%0a %ff%fe %c0%ae "
    b"%zz % %3F %23 ; \\ ' @%F0%9F%98%80 {{7*7}} <script> .env backend app.py"
)
PATHS = some.sampled_from([HOME, b"/api/activities/@andrew", b"/api/profiles/andrew", b"/api/health"]) | some.builds(
    lambda parts: b"/" + b"/".join(parts), some.lists(some.sampled_from([*WORDS.split(), b"", b"a" * 999]), max_size=6)
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
ANY = some.binary(max_size=40)
VISIBLE = some.builds(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value), ANY)  # what a header may hold
NAMED = some.sampled_from(
    b"traceparent tracestate baggage Accept Accept-Encoding Forwarded If-None-Match Origin Range TE Upgrade User-Agent "
    b"Via X-Forwarded-For X-Forwarded-Host X-Forwarded-Prefix X-HTTP-Method-Override PATH_INFO".split()
)
ODD = some.sampled_from(
    [b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00", b"ot=th:8", b"a=b," * 900, b"k=%ff;p=%", b"http://[", b"a" * 8000]
)
HARMLESS = some.builds(lambda name, value: name + b": " + value, NAMED, VISIBLE | ODD)
HOSTILE = ANY | some.sampled_from(
    [
        *CREDENTIALS,
        b"Authorization Bearer " + SECRET,  # its colon is missing
        SECRET * 9000,
        b" folded " + SECRET,
        b"X: " + SECRET + b"\0",
        b"X: " + SECRET + b"\r" + SECRET,
        b": " + SECRET,
        b"\r\n".join([b"X: " + SECRET] * 101),
        b"Host: other",
        b"Expect: 100-continue",
        b"Expect: " + SECRET,
        b"SCRIPT_NAME: /" + SECRET,
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        *(b"Content-Length: " + each for each in (b"5,5", b"+5", b"-5", b"0x5", b"\xb2", b"9" * 5000, b"")),
        *(b"Transfer-Encoding: " + each for each in (b"chunked", b"chunked, chunked", b"identity", SECRET)),
    ]
)
NO_HTTP = some.sampled_from(
    [b"", b"\r\n", b"GET", b"GET /?" + SECRET, b"\x16\x03\x01\x02\x00\x01" + b"\xaa" * 99, b"\0" * 99_999]
)
BROKEN: dict[str, some.SearchStrategy[bytes]] = {  # what to put in the place of a part of a request
    "method": some.sampled_from([b"get", b"G@T", b"A" * 99, b""]) | ANY,
    "target": some.sampled_from([b"*", b"localhost:80", b"", b"/" * 8000, b"http://[/?" + SECRET, b"/\xff?" + SECRET]),
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
    if answer.body and answer.status >= 400 and "traceresponse" in answer.headers:  # else gunicorn refused it
        assert answer.headers["content-type"] == "application/json", answer
        error = json.loads(answer.body)
        assert set(error) == {"error", "trace_id"}
        assert error["error"]
        assert error["trace_id"] == answer.headers["traceresponse"].split("-")[1]
    hidden = (KEY.encode(), VALUE.encode(), b"Traceback", str(project).encode(), b"site-packages")
    for each in (*hidden, SECRET) if answer.status in (200, 404, 405) else hidden:  # a redirect repeats the query
        assert each not in answer.body
        assert each.decode() not in str(answer.headers)


def test_any_request_gets_a_response_or_is_rejected(service: Service, installed_project: Path) -> None:
    allowed = {200, 308, 400, 404, 405, 414, 417, 431}
    workers, lines = service.workers(), len(service.server.output().splitlines())

    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=300,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(data=requests_of_all_kinds() | NO_HTTP)
    def send(data: bytes) -> None:
        if answer := service.ask(data):
            # An unknown transfer coding is refused with 501: RFC 9112, section 6.1
            assert answer.status in (allowed | {501} if b"ransfer-" in data else allowed), answer
            check_form(answer, installed_project)

    send()
    honest = service.ask(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert honest
    assert honest.status == 200
    assert service.workers() == workers  # none has ended
    service.server.stop()
    # OpenTelemetry's line about a trusted caller's baggage quotes a part of it.
    output = [line for line in service.server.output().splitlines()[lines:] if "opentelemetry.baggage" not in line]
    assert [line for line in output if "ERROR" in line or "Traceback" in line or len(line) > 200] == []
    assert {span["name"] for span in service.receiver.spans()} <= NAMES
    texts = ["\n".join(output).encode(), *(body for _, _, body in service.receiver.requests)]
    for each in (SECRET, KEY.encode(), VALUE.encode()):
        assert not any(each in text for text in texts)
    assert KEY not in service.server.output()
