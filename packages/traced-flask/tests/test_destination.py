"""One POST: bounded whatever the receiver does, and explained without showing a secret."""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from receivers import Answer, Receiver, answering, hang, needs, raw, socks5, then, tunnel, unused_port
from traced_flask.destination import Destination, Endpoint
from traced_flask.failure import Failure, retry_after

KEY = "hcaik_MARKED0KEY"
FLOOD = b"x" * 100_000


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy") or variable.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(variable)


def destination(url: str, headers: dict[str, str] | None = None, **options: Any) -> Destination:
    return Destination("it", {"traces": Endpoint(url=f"{url}/v1/traces", headers=lambda: headers or {}, **options)})


def send(url: str, body: bytes = b"spans", timeout: float = 10, **options: Any) -> Failure | None:
    return destination(url, **options).send("traces", body, timeout)


def reason(*args: Any, **options: Any) -> str:
    failure = send(*args, **options)
    assert failure is not None
    return failure.reason


def test_body_path_and_headers_arrive(receiver: Receiver) -> None:
    assert send(receiver.url, headers={"x-honeycomb-team": KEY}) is None
    assert send(receiver.url, compression="gzip") is None
    plain, compressed = receiver.received
    assert (plain.path, plain.body, plain.headers["x-honeycomb-team"]) == ("/v1/traces", b"spans", KEY)
    assert plain.headers["content-type"] == "application/x-protobuf"
    assert (gzip.decompress(compressed.body), compressed.headers["content-encoding"]) == (b"spans", "gzip")


def test_a_connection_is_reused_and_replaced_after_the_receiver_closes_it(receiver: Receiver) -> None:
    to = destination(receiver.url)
    assert [to.send("traces", b"", 10) for _ in range(3)] == [None] * 3
    assert receiver.connections == 1
    receiver.answer = then(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), raw(b""), answering(200))
    assert to.send("traces", b"", 10) is None  # and then closes, which http.client was not told
    time.sleep(0.1)
    assert to.send("traces", b"", 10) is not None  # a new one, closed without an answer
    assert to.send("traces", b"", 10) is None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: none\r\n\r\n",
    ],
)
def test_a_response_that_ends_with_the_connection_is_read_completely(receiver: Receiver, head: bytes) -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 1
    body = partial.SerializeToString()
    assert len(body) == 4

    def answer(handler: Any) -> None:
        handler.close_connection = True
        handler.wfile.write(head)
        time.sleep(0.1)  # so that it comes by itself
        handler.wfile.write(body)

    receiver.answer = answer
    failure = send(receiver.url)
    assert failure is not None
    assert failure.rejected == 1


HEADERS = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(hang, "no answer within 0.5 s", id="hangs"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n", b"x: 1\r\n"), "no answer within 0.5 s", id="drips headers"),
        pytest.param(raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no answer within 0.5 s", id="drips 100 Continue"),
        pytest.param(raw(HEADERS + b"\r\n", b"."), "no answer within 0.5 s", id="drips a body"),
        pytest.param(raw(HEADERS + b"\r\n", FLOOD, every=0), "more than 64 kB", id="floods"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n\r\n", FLOOD, every=0), "more than 64 kB", id="floods without end"),
        pytest.param(
            raw(HEADERS, b"x: " + FLOOD[:999] + b"\r\n", every=0), "more than 64 kB", id="floods with headers"
        ),
        pytest.param(raw(HEADERS + b"\r\nshort"), "before the response was complete", id="cuts its body"),
        pytest.param(raw(HEADERS), "before the response was complete", id="cuts its headers"),
        pytest.param(raw(b""), "before the response was complete", id="closes"),
        pytest.param(raw(b"HTTP/1.1 404 N\r\n\r\n", FLOOD, every=0), "(404)", id="floods with a page for its 404"),
        pytest.param(raw(b"HTTP/1.1 401 N\r\ncontent-length: 9\r\n\r\n"), "(401)", id="cuts the body of its 401"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "its answer is not HTTP", id="speaks another protocol"),
    ],
)
def test_a_misbehaving_receiver_blocks_nothing_and_is_explained(
    receiver: Receiver, answer: Answer, expected: str
) -> None:
    receiver.answer = answer
    began = time.monotonic()
    assert expected in reason(receiver.url, timeout=0.5)
    assert time.monotonic() - began < 10


def test_the_tls_handshake_and_the_proxys_answer_have_the_same_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert reason(f"https://{address}", timeout=0.3).startswith("no answer within 0.3 s")
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        assert "does not respond like a proxy" in reason("https://collector.invalid", timeout=0.3)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("status", "expected", "retryable"),
    [
        (302, "it redirects (302)", False),
        (400, "does not understand", False),
        (401, "the API key is not accepted (401). Check that it is complete", False),
        (403, "may not send here (403)", False),
        (404, "no OTLP receiver at this address (404)", False),
        (429, "rate-limiting requests (429)", True),
        (500, "rejects this telemetry (500)", False),
        (502, "unavailable (502)", True),
        (503, "unavailable (503)", True),
        (504, "unavailable (504)", True),
    ],
)
def test_a_status_is_explained(receiver: Receiver, status: int, expected: str, retryable: bool) -> None:
    receiver.answer = answering(status, headers={"Location": "/elsewhere", "Retry-After": "7"})
    failure = send(receiver.url)
    assert failure is not None
    assert expected in failure.reason
    assert (failure.retryable, failure.pause) == (retryable, 7 if retryable else None)
    assert len(receiver.received) == 1


def test_a_web_page_is_not_a_success(receiver: Receiver) -> None:
    receiver.answer = answering(200, b"<html>", {"Content-Type": "text/html; charset=utf-8"})
    assert "it answered with a web page" in reason(receiver.url)


def test_a_rejection_before_the_body_is_read_is_understood() -> None:
    def refuse(listener: socket.socket) -> None:
        with listener.accept()[0] as client:
            client.recv(1000)
            client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse, args=[listener], daemon=True).start()
        failure = send(f"http://127.0.0.1:{listener.getsockname()[1]}", bytes(5_000_000))
    assert failure is not None
    assert failure.too_large


def test_the_text_of_a_partial_success_is_escaped_cut_and_without_the_key(receiver: Receiver) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 3
    answer.partial_success.error_message = f"no\x1b[2J\nline\u202e of {KEY}" + "x" * 500
    receiver.answer = answering(200, answer.SerializeToString())
    failure = send(receiver.url, headers={"authorization": f"Bearer {KEY}"})
    assert failure is not None
    assert failure.rejected == 3
    assert failure.reason.startswith(r"no\x1b[2J\nline\u202e of REDACTEDxxx")
    assert len(failure.reason) == 200


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), (" 2 ", 2.0), ("0.5", 0.5), ("100000", 60.0), ("inf", 60.0), ("1 Jan 2999 0:0:0 +0000", 60.0)]
    + [(value, None) for value in (None, "", "0", "-5", "nan", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "1,2")]
    + [("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None), ("1 Jan 2030 0:0:0 +9999999999999", None)],
)
def test_retry_after_is_a_bounded_number_of_seconds(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


# The way there


def test_a_refused_connection_is_explained() -> None:
    assert reason(f"http://127.0.0.1:{unused_port()}").startswith("nothing accepts connections there")


@pytest.mark.parametrize("url", ["collector:4318", "grpc://collector:4317", "", "http://", "http://[::1", "http://a:x"])
def test_an_invalid_address_is_explained_with_a_valid_example(url: str) -> None:
    assert reason(url).endswith("An example: http://localhost:4318")


def test_a_name_that_does_not_exist_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def unresolved(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    assert reason("http://collector.invalid").startswith("its name cannot be resolved")


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_requests_to_this_machine_use_no_proxy(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{unused_port()}")
    assert send(receiver.url) is None
    assert send(receiver.url.replace("127.0.0.1", "localhost")) is None


def test_a_proxy_forwards_http_and_no_proxy_is_followed(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", receiver.url.replace("//", "//me:secret@"))
    assert send("http://collector.invalid:4318") is None
    (received,) = receiver.received
    assert (received.path, received.headers["host"]) == (
        "http://collector.invalid:4318/v1/traces",
        "collector.invalid:4318",
    )
    assert received.headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    receiver.answer = answering(404)
    assert f"Telemetry goes through the proxy {receiver.url}; NO_PROXY" in reason("http://collector.invalid")
    monkeypatch.setenv("NO_PROXY", "collector.invalid")
    assert "proxy" not in reason("http://collector.invalid")


def test_an_unavailable_proxy_is_named_without_its_password(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = unused_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{KEY}@127.0.0.1:{port}")
    away = reason("https://collector.invalid")
    assert away.startswith(f"the proxy http://127.0.0.1:{port} does not accept connections")
    receiver.answer = answering(403)
    monkeypatch.setenv("HTTPS_PROXY", receiver.url)
    assert f"the proxy {receiver.url} does not let it through (403)" in reason("https://collector.invalid")
    for unusable in (receiver.url.replace("http:", "https:"), "http://[::1", "http://", f"http://proxy:{KEY}"):
        monkeypatch.setenv("HTTPS_PROXY", unusable)
        assert reason("https://collector.invalid").startswith("the proxy's address is not supported")


def test_a_socks_proxy_is_used_and_needs_pysocks(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("socks")
    names: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve = threading.Thread(target=lambda: names.append(socks5(listener.accept()[0], receiver.port)), daemon=True)
        serve.start()
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{listener.getsockname()[1]}")
        to = destination("http://collector.invalid")
        assert to.send("traces", b"spans", 10) is None
        assert receiver.bodies() == [b"spans"]
        to.close()
        serve.join(10)
    assert names == [b"collector.invalid"]
    monkeypatch.setitem(sys.modules, "socks", None)
    assert "uses SOCKS, which needs the package PySocks" in reason("http://collector.invalid")


# Certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, other.pem (another CA), client.pem; server.pem for 127.0.0.1 and collector.invalid."""
    trustme = needs("trustme")
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    ca.issue_cert("127.0.0.1", "collector.invalid").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    ca.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    (folder / "nonsense.pem").write_text("nonsense")
    return folder


@pytest.fixture
def secure(certificates: Path) -> Iterator[Receiver]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem")
    with Receiver(tls=context) as receiver:
        yield receiver


def test_a_custom_ca_overrides_that_of_requests(
    secure: Receiver, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "other.pem"))
    monkeypatch.setenv("CURL_CA_BUNDLE", "/nowhere")
    assert send(secure.url, certificate=str(certificates / "ca.pem")) is None
    assert "is not accepted" in reason(secure.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "ca.pem"))
    assert send(secure.url) is None
    (connections,) = {secure.connections}
    assert connections == 3


def test_a_certificate_that_is_not_trusted_is_explained_in_both_cases(secure: Receiver, certificates: Path) -> None:
    other = reason(secure.url, certificate=str(certificates / "other.pem"))
    assert other.startswith("its TLS certificate is not from the CA in OTEL_EXPORTER_OTLP_CERTIFICATE (")
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE names your own CA's file" in reason(secure.url)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"certificate": "none.pem"}, "none.pem cannot be read (No such file or directory). Check OTEL_EXPORTER_OTLP_"),
        (
            {"certificate": "nonsense.pem"},
            "not in PEM form, or they do not match. Check OTEL_EXPORTER_OTLP_CERTIFICATE",
        ),
        ({"client_certificate": "none.pem"}, "Check OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
    ],
)
def test_an_unusable_certificate_file_is_named_and_retried(
    secure: Receiver, certificates: Path, files: dict[str, str], expected: str
) -> None:
    paths: dict[str, Any] = {option: str(certificates / name) for option, name in files.items()}
    failure = send(secure.url, **paths)
    assert failure is not None
    assert expected in failure.reason
    assert failure.retryable


def test_a_client_certificate_is_sent_on_request(certificates: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the refusal always arrives before the connection breaks
    ca, client = str(certificates / "ca.pem"), str(certificates / "client.pem")
    with Receiver(tls=context) as receiver:
        assert send(receiver.url, certificate=ca, client_certificate=client) is None
        assert "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" in reason(receiver.url, certificate=ca)


def test_tls_goes_through_a_proxy(secure: Receiver, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver(tunnel(secure.port)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        to = destination("https://collector.invalid", certificate=str(certificates / "ca.pem"))
        assert to.send("traces", b"spans", 10) is None
        to.close()
        assert [received.path for received in proxy.received] == ["collector.invalid:443"]
    assert secure.bodies() == [b"spans"]


def test_tls_to_a_receiver_without_tls_is_explained(receiver: Receiver) -> None:
    assert reason(receiver.url.replace("http:", "https:")).startswith("it does not speak TLS")


# Secrets


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1:9", {"x-honeycomb-team": f"{KEY}\nx"}),
        ("http://127.0.0.1:9", {"x-honeycomb-team": f"{KEY}é€"}),
        ("http://127.0.0.1:9", {f"{KEY}\n": "x"}),
        (f"http://me:{KEY}@127.0.0.1:9/{KEY}?{KEY}", {}),
        (f"http://[{KEY}", {}),
        (f"nonsense://{KEY}", {}),
        (KEY, {}),
        (f"http://127.0.0.1:9/{KEY}\n", {}),
    ],
)
def test_no_reason_shows_a_key(url: str, headers: dict[str, str]) -> None:
    failure = send(url, headers=headers, timeout=5)
    assert KEY.lower() not in repr(failure).lower()
    if headers:
        assert "one of its headers cannot be sent" in reason(url, headers=headers)
