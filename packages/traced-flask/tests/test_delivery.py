"""Delivery: batches reach their destination through outages, within bounds, and the log says what it cost."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from signal import SIGINT
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from receivers import Receiver, answering, at_most, hang, needs, raw, then, wait_until
from traced_flask import delivery as module
from traced_flask.delivery import Delivery, reset_shutdown, shutdown_deadlines, start_shutdown
from traced_flask.destination import Destination, Endpoint

Make = Callable[..., Delivery]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries at once, unless a test says otherwise."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.02)


@pytest.fixture
def deliveries(receiver: Receiver) -> Iterator[Make]:
    """They send to the receiver, every batch by itself, unless a test says otherwise."""
    made: list[Delivery] = []

    def make(url: str = "", timeout: float = 10, headers: Any = dict, **options: Any) -> Delivery:
        endpoints = {
            signal: Endpoint(url=f"{url or receiver.url}/v1/{signal}", headers=headers, timeout=timeout)
            for signal in ("traces", "logs")
        }
        made.append(Delivery(Destination("http://it", endpoints), **{"batch_size": 1, **options}))
        return made[-1]

    yield make
    for delivery in made:
        delivery.close(time.monotonic())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "traced_flask.delivery"]


def spans(*names: str) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for name in names:
        scope.spans.add(name=name)
    return bytes(request.SerializeToString())


def seconds() -> float:
    return time.monotonic() + 20


# What is delivered


def test_batches_arrive_in_order_at_the_address_of_their_signal(receiver: Receiver, deliveries: Make) -> None:
    delivery = deliveries()
    for number in range(20):
        delivery.put("traces" if number % 2 else "logs", b"%d" % number, 1)
    assert delivery.flush(seconds())
    assert receiver.bodies() == [b"%d" % number for number in range(20)]
    assert [received.path for received in receiver.received] == ["/v1/logs", "/v1/traces"] * 10


@pytest.mark.parametrize("answer", [answering(503), raw(b"")])
def test_a_batch_is_retried_before_the_next_after_a_temporary_failure(
    receiver: Receiver, deliveries: Make, answer: Any
) -> None:
    receiver.answer = then(answer, answer, answering(200))
    delivery = deliveries()
    delivery.put("traces", b"first", 1)
    delivery.put("traces", b"second", 1)
    wait_until(lambda: len(receiver.received) == 4)
    assert receiver.bodies() == [b"first", b"first", b"first", b"second"]


@pytest.mark.parametrize("status", [302, 400, 401, 404, 501])
def test_a_batch_is_not_retried_after_a_permanent_failure(receiver: Receiver, deliveries: Make, status: int) -> None:
    receiver.answer = answering(status)
    delivery = deliveries()
    for body in (b"first", b"second", b"third"):
        delivery.put("traces", body, 1)
    wait_until(lambda: len(receiver.received) == 3)
    assert receiver.bodies() == [b"first", b"second", b"third"]


def test_a_receiver_that_sends_byte_by_byte_counts_as_an_outage(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = then(raw(b"HTTP/1.1 200 OK\r\n", b"x: 1\r\n"), answering(200))
    deliveries(timeout=0.3).put("traces", b"batch", 1)
    wait_until(lambda: len(lines(caplog)) == 2)
    assert "Telemetry is not reaching http://it: no answer within 0.3 s" in lines(caplog)[0]
    assert lines(caplog)[1].endswith("nothing was lost.")


def test_waiting_batches_are_sent_together_up_to_a_limit(receiver: Receiver, deliveries: Make) -> None:
    go = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        go.wait(20)
        answering(200)(handler)

    receiver.answer = answer
    delivery = deliveries(batch_size=4)
    delivery.put("traces", b"first", 1)
    wait_until(lambda: receiver.received)
    for number, signal in enumerate(["traces", "logs", "traces", "traces", "logs"]):
        delivery.put(signal, b"<%d>" % number, 2)
    go.set()
    assert delivery.flush(seconds())
    assert receiver.bodies() == [b"first", b"<0><2>", b"<1><4>", b"<3>"]


def test_a_batch_that_is_too_large_for_the_receiver_arrives_in_parts(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{number}".zfill(50) for number in range(40)]
    receiver.answer = at_most(500)
    delivery = deliveries(batch_size=512)
    delivery.put("traces", spans(*names[:30]), 30)
    delivery.put("traces", spans(*names[30:]), 10)
    assert delivery.flush(seconds())
    taken = [ExportTraceServiceRequest.FromString(body) for body in receiver.bodies() if len(body) <= 500]
    assert sorted(span.name for each in taken for span in each.resource_spans[0].scope_spans[0].spans) == names
    assert lines(caplog) == []


def test_only_a_span_that_is_too_large_is_lost(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = at_most(500)
    delivery = deliveries()
    delivery.put("traces", spans("first", "x" * 1000, "last"), 3)
    assert delivery.flush(seconds())
    taken = b"".join(body for body in receiver.bodies() if len(body) <= 500)
    assert b"first" in taken
    assert b"last" in taken
    assert lines(caplog)[0].startswith("1 span did not reach http://it: a single span or record is larger than it acce")


def test_a_missing_key_is_neither_a_loss_nor_an_outage(deliveries: Make, caplog: pytest.LogCaptureFixture) -> None:
    delivery = deliveries(headers=lambda: None)
    delivery.put("traces", b"batch", 1)
    assert delivery.flush(seconds())
    delivery.close(seconds())
    assert lines(caplog) == []


def test_a_logging_handler_that_raises_does_not_stop_delivery(
    receiver: Receiver, deliveries: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    receiver.answer = then(answering(400), answering(200))
    delivery = deliveries()
    with monkeypatch.context() as patched:
        patched.setattr(module.logger, "warning", raising)
        delivery.put("traces", b"first", 1)
        wait_until(lambda: delivery.in_outage and delivery._thread is None)
    delivery.put("traces", b"second", 1)
    wait_until(lambda: receiver.bodies() == [b"first", b"second"])


# Bounds and counts


def test_beyond_capacity_the_oldest_are_dropped_and_counted(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = then(answering(503, headers={"Retry-After": "30"}), answering(200))
    delivery = deliveries(capacity=4)
    delivery.put("traces", b"one", 1)
    wait_until(lambda: lines(caplog))  # the next attempt is half a minute away
    for signal, body, count in (("logs", b"two", 2), ("traces", b"three", 1), ("traces", b"four", 3)):
        delivery.put(signal, body, count)
    receiver.received.clear()
    delivery.close(seconds())
    assert receiver.bodies() == [b"three", b"four"]
    assert "1 span and 2 log records lost" in lines(caplog)[-1]


def test_memory_does_not_grow_while_the_receiver_hangs(
    receiver: Receiver, deliveries: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CAPACITY_BYTES", 1000)
    receiver.answer = hang
    monkeypatch.setattr(module, "SLOW", 0.1)
    delivery = deliveries(timeout=60)
    delivery.put("traces", b"under way", 1)
    wait_until(lambda: receiver.received)
    wait_until(lambda: delivery.in_outage)
    for _ in range(100):
        delivery.put("traces", bytes(100), 1)
    assert lines(caplog) == ["1 span did not reach http://it: there is more telemetry than it accepts. "
                             "Sample, or send less."]  # fmt: skip
    delivery.close(time.monotonic())
    assert "http://it (99 spans lost, 1 span sent without an answer): it did not answer in time." in lines(caplog)[-1]


# The log


def test_an_outage_logs_one_line_at_the_start_and_one_at_the_end(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = answering(503)
    delivery = deliveries()
    delivery.put("traces", b"batch", 3)
    wait_until(lambda: len(receiver.received) > 5)
    assert len(lines(caplog)) == 1
    assert lines(caplog)[0].startswith("Telemetry is not reaching http://it: it is unavailable (503). ")
    assert delivery.in_outage
    receiver.answer = answering(200)
    wait_until(lambda: len(lines(caplog)) == 2)
    assert lines(caplog)[1].startswith("Telemetry is reaching http://it again after ")
    assert lines(caplog)[1].endswith("nothing was lost.")
    delivery.put("traces", b"another", 1)
    assert delivery.flush(seconds())
    assert len(lines(caplog)) == 2


def test_retry_after_delays_the_next_attempt_and_not_the_line(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = answering(429, headers={"Retry-After": "3600"})
    deliveries().put("traces", b"batch", 1)
    wait_until(lambda: lines(caplog))
    time.sleep(0.3)  # thirty times the pause without the header
    assert len(receiver.received) == 1


def test_the_end_of_an_outage_counts_only_its_own_losses(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 5
    partial.partial_success.error_message = "too\nold"
    rejecting, refusing = answering(200, partial.SerializeToString()), answering(401)
    receiver.answer = then(rejecting, rejecting, refusing, refusing, answering(200))
    delivery = deliveries()
    for count in (9, 4, 2, 3, 4):
        delivery.put("traces", b"batch", count)
    wait_until(lambda: len(lines(caplog)) == 3)
    assert lines(caplog)[0] == r"5 spans did not reach http://it: it rejects them: too\nold."
    assert "Telemetry is not reaching http://it: the API key is not accepted (401)" in lines(caplog)[1]
    assert lines(caplog)[2].endswith(" s; 5 spans lost.")
    delivery.close(seconds())
    assert "4 spans lost" in lines(caplog)[3]  # what was rejected after the first line


def test_repeated_outages_do_not_flood_the_log(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = then(*[answering(400), answering(200)] * 10)
    delivery = deliveries()
    for _ in range(20):
        delivery.put("logs", b"batch", 1)
    wait_until(lambda: len(receiver.received) == 20)
    delivery.close(seconds())
    first, last, end = lines(caplog)
    assert "not reaching" in first
    assert last.endswith("1 log record lost.")
    assert "http://it (9 log records lost): it does not understand this telemetry (400). " in end


def test_a_rejected_signal_does_not_hide_an_outage_of_another(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A Jaeger takes traces and knows no logs."""
    traces = answering(200)
    receiver.answer = lambda handler: (answering(404) if handler.path == "/v1/logs" else traces)(handler)
    delivery = deliveries()
    for _ in range(5):
        delivery.put("logs", b"logs", 1)
        delivery.put("traces", b"traces", 1)
    wait_until(lambda: len(receiver.received) == 10)
    assert len(lines(caplog)) == 1
    traces = answering(503)
    delivery.put("traces", b"traces", 1)
    wait_until(lambda: len(lines(caplog)) == 2)
    assert "(404)" in lines(caplog)[0]
    assert "(503)" in lines(caplog)[1]


# The end


@pytest.mark.parametrize("after", [0, 0.1])
def test_shutdown_waits_for_a_responsive_receiver(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture, after: float
) -> None:
    receiver.answer = answering(200, after=after)
    delivery = deliveries()
    for number in range(6):
        delivery.put("traces", b"%d" % number, 1)
    delivery.close(seconds())
    assert len(receiver.received) == 6
    assert lines(caplog) == []


@pytest.mark.parametrize("answer", [hang, raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b".")])
def test_shutdown_does_not_exceed_its_limit(
    receiver: Receiver, deliveries: Make, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    receiver.answer = answer
    delivery = deliveries(timeout=60)
    delivery.put("traces", b"under way", 3)
    wait_until(lambda: receiver.received)
    delivery.put("traces", b"waiting", 4)
    began = time.monotonic()
    assert not delivery.flush(began)
    delivery.close(began + 0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert lines(caplog) == [
        "Stopped before all telemetry had reached http://it (4 spans lost, 3 spans sent without an answer): "
        "it did not answer in time."
    ]


def test_shutdown_retries_at_once_while_time_remains(receiver: Receiver, deliveries: Make) -> None:
    later = answering(503, headers={"Retry-After": "60"})
    receiver.answer = then(later, answering(503), answering(503), answering(200))
    delivery = deliveries()
    delivery.put("traces", b"batch", 1)
    wait_until(lambda: delivery.in_outage)
    began = time.monotonic()
    delivery.close(seconds())
    assert time.monotonic() - began < 15
    assert receiver.bodies() == [b"batch"] * 4


def test_shutdown_drops_rejected_batches_and_sends_the_rest(
    receiver: Receiver, deliveries: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 60.0)
    receiver.answer = then(hang, answering(400), answering(400), answering(200))
    delivery = deliveries(timeout=0.3)
    for _ in range(3):
        delivery.put("traces", b"batch", 2)
    wait_until(lambda: delivery.in_outage)
    delivery.close(seconds())
    assert len(receiver.received) == 4
    assert lines(caplog)[-1].endswith("; 4 spans lost.")


def test_batches_after_a_shutdown_are_sent_as_usual(receiver: Receiver, deliveries: Make) -> None:
    delivery = deliveries()
    delivery.put("traces", b"before", 1)
    delivery.close(seconds())
    delivery.put("traces", b"after", 1)
    delivery.close(seconds())
    assert receiver.bodies() == [b"before", b"after"]


def test_the_first_batch_is_sent_even_if_no_thread_can_start(
    receiver: Receiver, deliveries: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since Python 3.12 a process that is ending starts no thread, and a short one's first batch comes then."""

    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

    delivery = deliveries()
    threads = threading.Thread
    monkeypatch.setattr(
        threading, "Thread", lambda name=None, **rest: (Refused if name else threads)(name=name, **rest)
    )
    delivery.put("traces", b"batch", 1)
    delivery.close(seconds())
    assert receiver.bodies() == [b"batch"]


@pytest.mark.parametrize("answer", [answering(503), hang])
def test_shutdown_is_shorter_in_an_outage_even_one_that_starts_then(
    receiver: Receiver, deliveries: Make, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(module, "SLOW", 0.2)
    receiver.answer = answer
    delivery = deliveries(timeout=60)
    delivery.put("traces", b"batch", 1)
    began = time.monotonic()
    delivery.close(began + 60, began + 0.1)
    assert time.monotonic() - began < 20


def test_the_shutdown_deadline_starts_with_the_first_call() -> None:
    reset_shutdown()
    start_shutdown(100, in_outage=50)
    start_shutdown(1)
    until, in_outage = shutdown_deadlines()
    assert (until - in_outage, until - time.monotonic() > 60) == (50, True)
    reset_shutdown()


# Processes

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def program(script: str, gevent: bool) -> list[str]:
    """The command that runs `script`, which finds a delivery to its first argument."""
    began = """
        import os, signal, sys, threading, time, logging
        from traced_flask.delivery import Delivery
        from traced_flask.destination import Destination, Endpoint
        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        delivery = Delivery(Destination("it", {"traces": Endpoint(url=sys.argv[1], headers=dict)}))
    """
    patch = "from gevent import monkey; monkey.patch_all()\n" if gevent and needs("gevent") else ""
    return [sys.executable, "-c", patch + textwrap.dedent(began) + textwrap.dedent(script)]


def start(command: list[str]) -> subprocess.Popen[str]:
    output: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, **output)


gevent_or_not = pytest.mark.parametrize("gevent", [False, True])


@forks
@gevent_or_not
def test_a_forked_child_starts_with_an_empty_queue(receiver: Receiver, gevent: bool) -> None:
    receiver.answer = answering(503, headers={"Retry-After": "60"})
    script = """
        delivery.put("traces", b"the parent's", 1)
        while not delivery.in_outage:
            time.sleep(0.01)
        held = threading.Event()
        def hold():
            with delivery._changed:
                held.set()
                time.sleep(1)
        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            delivery.close(time.monotonic())
        else:
            vars(delivery.destination.endpoints["traces"])["url"] = sys.argv[2]
            delivery.put("traces", b"the child's", 1)
            delivery.close(time.monotonic() + 30)
            os._exit(0)
    """
    with Receiver() as other, start([*program(script, gevent), receiver.url, other.url]) as process:
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, printed
        assert other.bodies() == [b"the child's"]
    assert b"the child's" not in receiver.bodies()
    assert printed.count("1 span lost") == 1
    assert "Traceback" not in printed


@gevent_or_not
def test_an_interrupt_during_a_request_is_not_wrapped(receiver: Receiver, gevent: bool) -> None:
    receiver.answer = hang
    script = """
        import atexit
        atexit.register(lambda: delivery.close(time.monotonic() + 0.3))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        delivery.put("traces", b"batch", 1)
        time.sleep(60)
    """
    with start([*program(script, gevent), receiver.url]) as process:
        wait_until(lambda: receiver.received)
        process.send_signal(SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in printed
    assert "AttributeError" not in printed
    assert "1 span sent without an answer" in printed
