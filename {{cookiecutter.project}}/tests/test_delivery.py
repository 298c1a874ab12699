"""Delivery: batches reach their destination through outages, within bounds, without a secret in the log."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from backend import delivery as module
from backend.delivery import Address, Batch, Delivery, Outlet, as_given, explain, in_words, retry_after

if TYPE_CHECKING:
    from conftest import Server

PROJECT = Path(__file__).parents[1]
KEY = "hcaik_MARKED0KEY"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries at once, and log lines for the shortest outage, unless a test says otherwise."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(module, "QUIET", 0.0)


@pytest.fixture
def deliveries(server: Server, other_server: Server) -> Iterator[Callable[..., Delivery]]:
    """They send every batch by itself, unless a test says otherwise."""
    made: list[Delivery] = []

    def make(address: Address, **options: Any) -> Delivery:
        made.append(Delivery("the collector", address, **{"together": 1, **options}))
        return made[-1]

    yield make
    for delivery in made:
        delivery.close(time.monotonic())
    server.stopped.set()
    other_server.stopped.set()
    for delivery in made:
        for thread in delivery._threads:
            thread.join(20)  # or it would log into the next test


def to(server: Server) -> Address:
    return lambda batch: (f"{server.url}/v1/{batch.outlet.signal}", {})


def leave(outlet: Outlet, body: str, count: int = 1, timeout: float = 10) -> None:
    """What an exporter does with a batch."""
    outlet.count = count
    answer = outlet.request(
        method="POST", url="http://unused.invalid/v1/x", headers={}, data=body.encode(), timeout=timeout
    )
    assert answer.status_code == 200


def bodies(server: Server) -> list[str]:
    return [received.body.decode() for received in server.received]


def wait_until(happened: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "backend.delivery"]


def unused_url(scheme: str = "http") -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"


def then(*answers: Callable[[BaseHTTPRequestHandler], None]) -> Callable[[BaseHTTPRequestHandler], None]:
    """One answer after the other; the last for good."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


# What is delivered


def test_batches_arrive_in_the_order_in_which_they_were_left(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    outlet = Outlet("traces", [deliveries(to(server))])
    for number in range(20):
        leave(outlet, f"batch {number}")
    wait_until(lambda: len(server.received) == 20)
    assert bodies(server) == [f"batch {number}" for number in range(20)]


def test_each_destination_gets_every_batch_at_its_own_address(
    server: Server, other_server: Server, deliveries: Callable[..., Delivery]
) -> None:
    first = deliveries(lambda batch: (f"{server.url}/first", {"x-honeycomb-team": KEY}))
    second = deliveries(lambda batch: (f"{other_server.url}/second", {"x-other": "1"}))
    leave(Outlet("logs", [first, second]), "batch")
    wait_until(lambda: server.received and other_server.received)
    one, other = server.received[0], other_server.received[0]
    assert (one.path, one.body, one.headers["x-honeycomb-team"]) == ("/first", b"batch", KEY)
    assert (other.path, other.body, other.headers["x-other"]) == ("/second", b"batch", "1")
    assert "x-honeycomb-team" not in other.headers


def test_as_given_keeps_the_exporters_own_address_and_headers(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    outlet = Outlet("traces", [deliveries(as_given)])
    outlet.request(method="POST", url=f"{server.url}/own", headers={"x-own": "1"}, data=b"batch", timeout=10)
    wait_until(lambda: server.received)
    assert (server.received[0].path, server.received[0].headers["x-own"]) == ("/own", "1")


def test_a_destination_that_hangs_holds_up_neither_the_exporter_nor_another_destination(
    server: Server, other_server: Server, deliveries: Callable[..., Delivery]
) -> None:
    server.answer = server.hang
    outlet = Outlet("traces", [deliveries(to(server)), deliveries(to(other_server))])
    began = time.monotonic()
    for number in range(50):
        leave(outlet, f"batch {number}", timeout=60)
    assert time.monotonic() - began < 5
    wait_until(lambda: len(other_server.received) == 50)
    assert bodies(server) == ["batch 0"]


@pytest.mark.parametrize("status", sorted(module.RETRYABLE))
def test_a_batch_is_sent_again_before_the_next_after_a_status_that_allows_it(
    server: Server, deliveries: Callable[..., Delivery], status: int
) -> None:
    server.answer = then(server.answering(status), server.answering(status), server.answering(200))
    outlet = Outlet("traces", [deliveries(to(server))])
    leave(outlet, "first")
    leave(outlet, "second")
    wait_until(lambda: len(server.received) == 4)
    assert bodies(server) == ["first", "first", "first", "second"]


@pytest.mark.parametrize("status", [302, 307, 400, 401, 403, 404, 413, 501])
def test_a_batch_is_not_sent_again_after_a_status_that_forbids_it(
    server: Server, deliveries: Callable[..., Delivery], status: int
) -> None:
    server.answer = server.answering(status, headers={"Location": "/elsewhere"})
    outlet = Outlet("traces", [deliveries(to(server))])
    for body in ("first", "second", "third"):
        leave(outlet, body)
    wait_until(lambda: len(server.received) == 3)
    assert bodies(server) == ["first", "second", "third"]
    assert {received.path for received in server.received} == {"/v1/traces"}


def test_a_batch_is_sent_again_after_the_connection_broke(server: Server, deliveries: Callable[..., Delivery]) -> None:
    server.answer = then(lambda handler: None, server.answering(200))
    leave(Outlet("traces", [deliveries(to(server))]), "batch")
    wait_until(lambda: len(server.received) == 2)
    assert bodies(server) == ["batch", "batch"]


def test_a_batch_waits_for_a_collector_that_is_not_there_yet(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    refused = unused_url()
    asked: list[str] = []

    def address(batch: Batch) -> tuple[str, dict[str, str]]:
        asked.append(batch.outlet.signal)
        return (refused if len(asked) < 4 else server.url), {}

    leave(Outlet("traces", [deliveries(address)]), "batch")
    wait_until(lambda: server.received)
    assert len(asked) == 4


def test_a_batch_that_hangs_is_given_up_after_its_timeout_and_sent_again(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    server.answer = then(server.hang, server.answering(200))
    leave(Outlet("traces", [deliveries(to(server))]), "batch", timeout=0.1)
    wait_until(lambda: len(server.received) == 2)


def test_nowhere_to_send_is_no_loss_and_no_trouble(
    deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Batch] = []
    delivery = deliveries(lambda batch: asked.append(batch))
    leave(Outlet("traces", [delivery]), "batch")
    wait_until(lambda: asked)
    delivery.close(time.monotonic() + 10)
    assert lines(caplog) == []


# Pauses


def test_retry_after_is_waited_for(server: Server, deliveries: Callable[..., Delivery]) -> None:
    server.answer = server.answering(429, headers={"Retry-After": "30"})
    leave(Outlet("traces", [deliveries(to(server))]), "batch")
    wait_until(lambda: server.received)
    time.sleep(0.3)  # thirty times the pause without the header
    assert len(server.received) == 1


def test_retry_after_can_shorten_the_pause(
    server: Server, deliveries: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 60.0)
    server.answer = then(server.answering(503, headers={"Retry-After": "0.01"}), server.answering(200))
    leave(Outlet("traces", [deliveries(to(server))]), "batch")
    wait_until(lambda: len(server.received) == 2)


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success(
    server: Server, deliveries: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.004)
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)
    pauses: list[float] = []
    monkeypatch.setattr(Delivery, "_rest", lambda self, seconds: pauses.append(seconds))
    trouble, well = server.answering(503), server.answering(200)
    server.answer = then(*[trouble] * 4, well, trouble, well)
    outlet = Outlet("traces", [deliveries(to(server))])
    leave(outlet, "first")
    leave(outlet, "second")
    wait_until(lambda: len(server.received) == 7)
    assert pauses == [0.001, 0.002, 0.004, 0.004, 0.001]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), (" 2 ", 2.0), ("0.5", 0.5), ("100000", 60.0), ("inf", 60.0)]
    + [(value, None) for value in (None, "", "0", "-5", "nan", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "1,2")],
)
def test_retry_after_is_a_bounded_number_of_seconds(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    found = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True))
    assert found is not None
    assert 20 < found <= 40
    assert retry_after(format_datetime(datetime.now(UTC) + timedelta(days=40), usegmt=True)) == 60


@pytest.mark.parametrize("value", ["Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "1 Jan 2030 0:0:0 +9999999999999"])
def test_a_date_out_of_all_bounds_in_retry_after_is_none(value: str) -> None:
    """An exception here would end the thread that delivers."""
    assert retry_after(value) is None


# Together


def hold_up(server: Server, outlet: Outlet, status: int = 200) -> threading.Event:
    """Leave a batch that is under way until the event is set, and is answered with `status` then."""
    go = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        go.wait(20)
        server.answering(status)(handler)

    server.answer = then(answer, server.answering(200))
    leave(outlet, "first")
    wait_until(lambda: server.received)
    return go


def test_what_waits_for_a_slow_collector_goes_together_up_to_a_bound(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    delivery = deliveries(to(server), together=4)
    traces, logs = Outlet("traces", [delivery]), Outlet("logs", [delivery])
    go = hold_up(server, traces)
    for number, outlet in enumerate([traces, logs, traces, traces, logs]):
        leave(outlet, f"<{number}>", count=2)
    go.set()
    wait_until(lambda: len(server.received) == 4)
    assert bodies(server) == ["first", "<0><2>", "<1><4>", "<3>"]


def test_batches_that_went_together_and_must_be_sent_again_are_lost_one_by_one(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    delivery = deliveries(to(server), capacity=4, together=10)
    outlet = Outlet("traces", [delivery])
    delivery.hold_back()
    for number in range(4):
        leave(outlet, f"<{number}>")
    server.answer = then(server.answering(503, headers={"Retry-After": "30"}), server.answering(200))
    delivery._held_back = False
    leave(outlet, "<4>")
    wait_until(lambda: server.received and not delivery._sending)
    assert [batch.body for batch in delivery.hand_out(seconds=0)] == [b"<1>", b"<2>", b"<3>", b"<4>"]


def test_compressed_batches_go_one_by_one(server: Server, deliveries: Callable[..., Delivery]) -> None:
    delivery = deliveries(to(server), together=10)
    outlet = Outlet("traces", [delivery])
    go = hold_up(server, outlet)
    headers = {"Content-Encoding": "gzip"}
    for number in range(2):
        delivery.put(Batch(outlet, "http://unused.invalid", headers, f"<{number}>".encode(), 1, 10))
    go.set()
    wait_until(lambda: len(server.received) == 3)
    assert bodies(server) == ["first", "<0>", "<1>"]


# Bounds and counts


def test_over_its_capacity_the_oldest_go_and_are_counted(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = then(server.answering(503, headers={"Retry-After": "30"}), server.answering(200))
    delivery = deliveries(to(server), capacity=4)
    traces, logs = Outlet("traces", [delivery]), Outlet("logs", [delivery])
    leave(traces, "one", count=1)
    wait_until(lambda: lines(caplog))  # the first attempt is over; the next is half a minute away
    leave(logs, "two", count=2)
    leave(traces, "three", count=1)
    leave(traces, "four", count=3)
    server.received.clear()
    delivery.close(time.monotonic() + 10)
    assert bodies(server) == ["three", "four"]
    assert "1 span and 2 log records lost" in lines(caplog)[-1]


def test_a_batch_larger_than_the_capacity_is_kept_all_the_same(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    leave(Outlet("traces", [deliveries(to(server), capacity=1)]), "large", count=512)
    wait_until(lambda: bodies(server) == ["large"])


def test_memory_does_not_grow_while_the_collector_is_away(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = server.hang
    delivery = deliveries(to(server), capacity=10)
    outlet = Outlet("traces", [delivery])
    leave(outlet, "under way", timeout=60)
    wait_until(lambda: server.received)
    for number in range(500):
        leave(outlet, f"batch {number}", timeout=60)
    assert sum(batch.count for batch in delivery.hand_out(seconds=0)) == 10
    delivery.close(time.monotonic())
    assert "490 spans lost, 1 span sent without an answer" in lines(caplog)[-1]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, ""),
        ({"traces": 0}, ""),
        ({"traces": 1}, "1 span"),
        ({"traces": 3, "logs": 1}, "3 spans and 1 log record"),
        ({"metrics": 2}, "2 metric batches"),
        ({"metrics": 1}, "1 metric batch"),
    ],
)
def test_losses_are_counted_in_words(counts: dict[str, int], words: str) -> None:
    assert in_words(module.collections.Counter(counts)) == words


# The log


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = server.answering(503)
    outlet = Outlet("traces", [deliveries(to(server))])
    leave(outlet, "batch", count=3)
    wait_until(lambda: len(server.received) > 5)
    assert len(lines(caplog)) == 1
    assert lines(caplog)[0].startswith("Telemetry is not reaching the collector: it answered 503; ")
    server.answer = server.answering(200)
    wait_until(lambda: len(lines(caplog)) == 2)
    assert lines(caplog)[1].startswith("Telemetry is reaching the collector again after ")
    assert lines(caplog)[1].endswith("nothing was lost.")
    leave(outlet, "another")
    received = len(server.received)
    wait_until(lambda: len(server.received) > received)
    assert len(lines(caplog)) == 2
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_the_end_of_an_outage_says_what_it_cost(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = then(server.answering(401), server.answering(401), server.answering(200))
    outlet = Outlet("traces", [deliveries(to(server))])
    for count in (2, 3, 4):
        leave(outlet, "batch", count=count)
    wait_until(lambda: len(lines(caplog)) == 2)
    assert "it answered 401; the API key is not accepted" in lines(caplog)[0]
    assert lines(caplog)[1].endswith("5 spans lost.")


def test_a_second_outage_is_said_and_counted_on_its_own(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    refusing, well = server.answering(400), server.answering(200)
    server.answer = then(refusing, well, refusing, well)
    outlet = Outlet("logs", [deliveries(to(server))])
    for count in (2, 1, 5, 1):
        leave(outlet, "batch", count=count)
    wait_until(lambda: len(lines(caplog)) == 4)
    assert [line.split(";")[-1] for line in lines(caplog)[1::2]] == [" 2 log records lost.", " 5 log records lost."]


def test_trouble_that_is_over_soon_is_not_worth_a_line(
    server: Server,
    deliveries: Callable[..., Delivery],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUIET", 60.0)
    server.answer = then(*[server.answering(503)] * 5, server.answering(200))
    delivery = deliveries(to(server))
    leave(Outlet("traces", [delivery]), "batch")
    wait_until(lambda: len(server.received) == 6)
    delivery.close(time.monotonic() + 10)
    assert lines(caplog) == []


def test_what_waiting_cannot_mend_is_said_at_once(
    server: Server,
    deliveries: Callable[..., Delivery],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUIET", 60.0)
    server.answer = server.answering(302, headers={"Location": "https://elsewhere.example"})
    leave(Outlet("traces", [deliveries(to(server))]), "batch")
    wait_until(lambda: lines(caplog))
    assert "it answered 302; telemetry does not follow redirects" in lines(caplog)[0]


def test_a_signal_that_is_refused_does_not_flood_the_log_while_another_arrives(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    """A Jaeger takes traces and knows no logs."""
    missing, well = server.answering(404), server.answering(200)
    server.answer = lambda handler: (missing if handler.path == "/v1/logs" else well)(handler)
    delivery = deliveries(to(server))
    logs, traces = Outlet("logs", [delivery]), Outlet("traces", [delivery])
    for _ in range(5):
        leave(logs, "logs")
        leave(traces, "traces")
    wait_until(lambda: len(server.received) == 10)
    delivery.close(time.monotonic() + 10)
    said = lines(caplog)
    assert len([line for line in said if "is not reaching" in line]) == 1, said
    assert not [line for line in said if "again" in line], said


def test_a_key_that_is_taken_away_is_not_taken_for_a_recovery(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = server.answering(401)
    nowhere = threading.Event()
    asked: list[Batch] = []

    def address(batch: Batch) -> tuple[str, dict[str, str]] | None:
        asked.append(batch)
        return None if nowhere.is_set() else (server.url, {})

    delivery = deliveries(address)
    outlet = Outlet("traces", [delivery])
    leave(outlet, "refused")
    wait_until(lambda: lines(caplog))
    nowhere.set()
    leave(outlet, "nowhere to go")
    wait_until(lambda: len(asked) == 2)
    delivery.close(time.monotonic() + 10)
    assert not [line for line in lines(caplog) if "again" in line]


def test_the_end_does_not_blame_an_outage_that_was_over(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = then(server.answering(503), server.answering(200), server.hang)
    delivery = deliveries(to(server))
    outlet = Outlet("traces", [delivery])
    leave(outlet, "kept through the outage")
    wait_until(lambda: len(lines(caplog)) == 2)
    leave(outlet, "unanswered", timeout=60)
    wait_until(lambda: len(server.received) == 3)
    delivery.close(time.monotonic() + 0.2)
    assert "1 span sent without an answer" in lines(caplog)[-1]
    assert "503" not in lines(caplog)[-1]


# The end


def test_the_end_waits_for_a_healthy_collector(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    delivery = deliveries(to(server))
    outlet = Outlet("traces", [delivery])
    for number in range(30):
        leave(outlet, f"batch {number}")
    delivery.close(time.monotonic() + 30)
    assert sorted(bodies(server)) == sorted(f"batch {number}" for number in range(30))
    assert lines(caplog) == []


def test_the_end_waits_for_a_slow_collector(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = server.answering(200, after=0.1)
    delivery = deliveries(to(server))
    outlet = Outlet("traces", [delivery])
    for number in range(6):
        leave(outlet, f"batch {number}")
    wait_until(lambda: server.received)
    delivery.close(time.monotonic() + 30)
    assert sorted(bodies(server)) == [f"batch {number}" for number in range(6)]
    assert lines(caplog) == []


def test_the_end_does_not_wait_longer_than_told_for_a_collector_that_hangs(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = server.hang
    delivery = deliveries(to(server))
    outlet = Outlet("traces", [delivery])
    leave(outlet, "under way", count=3, timeout=60)
    wait_until(lambda: server.received)
    leave(outlet, "waiting", count=4, timeout=60)
    began = time.monotonic()
    delivery.close(began + 0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert len(lines(caplog)) == 1
    assert (
        "Stopped before all telemetry had reached the collector: 7 spans sent without an answer; " in lines(caplog)[0]
    )
    assert "answer" in lines(caplog)[0]


def test_the_end_does_not_wait_longer_than_told_for_an_answer_that_drips(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not server.stopped.wait(0.05) and time.monotonic() < until:
            handler.wfile.write(b".")

    until = time.monotonic() + 6
    server.answer = drip
    delivery = deliveries(to(server))
    delivery.hold_back()
    leave(Outlet("traces", [delivery]), "batch", timeout=60)
    began = time.monotonic()
    delivery.close(began + 0.3)
    assert time.monotonic() - began < 4


def test_the_end_comes_at_once_when_the_collector_refuses(
    deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    url = unused_url()
    delivery = deliveries(lambda batch: (url, {}))
    delivery.hold_back()
    leave(Outlet("logs", [delivery]), "batch", count=2)
    began = time.monotonic()
    delivery.close(began + 60)
    assert time.monotonic() - began < 20
    assert "2 log records lost; nothing accepts connections there" in lines(caplog)[-1]


@pytest.mark.parametrize(("insists", "times"), [(True, 3), (False, 1)])
def test_the_end_of_one_that_insists_asks_again_while_there_is_time(
    server: Server, deliveries: Callable[..., Delivery], insists: bool, times: int
) -> None:
    server.answer = then(server.answering(503), server.answering(503), server.answering(200))
    delivery = deliveries(to(server), insists=insists)
    delivery.hold_back()
    leave(Outlet("traces", [delivery]), "batch")
    delivery.close(time.monotonic() + 20)
    assert bodies(server) == ["batch"] * times


def test_the_end_of_one_that_insists_does_not_wait_for_what_comes_too_late(
    server: Server, deliveries: Callable[..., Delivery]
) -> None:
    server.answer = server.answering(503, headers={"Retry-After": "30"})
    delivery = deliveries(to(server), insists=True)
    delivery.hold_back()
    leave(Outlet("traces", [delivery]), "batch")
    began = time.monotonic()
    delivery.close(began + 25)
    assert time.monotonic() - began < 20
    assert bodies(server) == ["batch"]


def test_the_end_wakes_a_delivery_that_rests(server: Server, deliveries: Callable[..., Delivery]) -> None:
    server.answer = then(server.answering(503, headers={"Retry-After": "60"}), server.answering(200))
    delivery = deliveries(to(server))
    leave(Outlet("traces", [delivery]), "batch")
    wait_until(lambda: server.received)
    began = time.monotonic()
    delivery.close(began + 30)
    assert time.monotonic() - began < 20
    assert bodies(server) == ["batch", "batch"]


def test_the_end_gives_up_what_is_refused_and_sends_the_rest(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = then(server.answering(400), server.answering(200))
    delivery = deliveries(to(server))
    delivery.hold_back()
    outlet = Outlet("traces", [delivery])
    leave(outlet, "refused", count=2)
    leave(outlet, "taken")
    delivery.close(time.monotonic() + 10)
    assert bodies(server) == ["refused", "taken"]
    assert len(lines(caplog)) == 1
    assert "2 spans lost; it answered 400" in lines(caplog)[0]


def test_the_end_of_an_unused_delivery_is_silent(
    server: Server, deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    deliveries(to(server)).close(time.monotonic() + 60)
    assert (lines(caplog), server.received) == ([], [])


def test_the_first_batch_may_come_when_no_thread_can_be_started_any_more(
    server: Server, deliveries: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since Python 3.12 a process that is ending starts no thread, and a short one's first batch comes then."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    delivery = deliveries(to(server))
    with monkeypatch.context() as ending:
        ending.setattr(module.threading.Thread, "start", refuse)
        leave(Outlet("traces", [delivery]), "batch")  # raises nothing: the exporter would log an error
    delivery.close(time.monotonic() + 10)
    assert bodies(server) == ["batch"]


# Processes


def run(script: str, *arguments: str, ok: bool = True) -> str:
    """What a script prints, in a process of its own with a clean environment."""
    keep = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    began = textwrap.dedent("""
        import os, sys, time, logging
        from backend import delivery as module
        from backend.delivery import Delivery, Outlet, hand_over
        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        def to(url):
            return lambda batch: (url, {})
        def leave(outlet, body, count=1):
            outlet.count = count
            outlet.request(method="POST", url="", headers={}, data=body.encode(), timeout=30)
    """)
    done = subprocess.run(
        [sys.executable, "-c", began + textwrap.dedent(script), *arguments],
        cwd=PROJECT,
        env={**keep, "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "*"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert not ok or done.returncode == 0, done.stdout
    return done.stdout


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@forks
def test_a_fork_starts_empty_and_delivers_its_own(server: Server, other_server: Server) -> None:
    server.answer = server.answering(503, headers={"Retry-After": "60"})
    printed = run(
        """
        target = sys.argv[1]
        delivery = Delivery("the collector", lambda batch: (target, {}))
        outlet = Outlet("traces", [delivery])
        leave(outlet, "the parent's")
        while not delivery._failure:
            time.sleep(0.01)
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            delivery.close(time.monotonic())
        else:
            target = sys.argv[2]
            leave(outlet, "the child's")
            delivery.close(time.monotonic() + 30)
            os._exit(0)
        """,
        server.url,
        other_server.url,
    )
    assert bodies(server) == ["the parent's"]
    assert bodies(other_server) == ["the child's"]
    assert printed.count("1 span lost") == 1


@forks
def test_a_fork_while_the_lock_is_held_does_not_block_the_child(server: Server) -> None:
    run(
        """
        import threading
        delivery = Delivery("the collector", to(sys.argv[1]))
        held = threading.Event()
        def hold():
            with delivery._change:
                held.set()
                time.sleep(60)
        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            os._exit(0)
        leave(Outlet("traces", [delivery]), "the child's")
        delivery.close(time.monotonic() + 30)
        os._exit(0)
        """,
        server.url,
    )
    assert bodies(server) == ["the child's"]


@forks
def test_what_is_handed_over_is_sent_by_a_child_while_this_process_goes(server: Server) -> None:
    release = threading.Event()
    well = server.answering(200)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        release.wait(30)
        well(handler)

    server.answer = answer
    # The child holds the pipe that a script prints to: what it prints is not waited for.
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
            import sys, time
            from backend.delivery import Delivery, Outlet, hand_over
            delivery = Delivery("the collector", lambda batch: (sys.argv[1], {}), together=1)
            outlet = Outlet("traces", [delivery])
            delivery.hold_back()
            for number in range(3):
                outlet.request(method="POST", url="", headers={}, data=b"batch %d" % number, timeout=30)
            hand_over([delivery], 30)
            delivery.close(time.monotonic())
            """),
            server.url,
        ],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "*"},
    )
    try:
        assert process.wait(timeout=30) == 0
        assert len(server.received) < 2
    finally:
        release.set()
        process.kill()
    wait_until(lambda: len(server.received) == 3)
    assert bodies(server) == ["batch 0", "batch 1", "batch 2"]


@forks
def test_what_is_handed_over_and_not_taken_is_counted(server: Server) -> None:
    server.answer = server.hang
    printed = run(
        """
        delivery = Delivery("the collector", to(sys.argv[1]))
        outlet = Outlet("traces", [delivery])
        delivery.hold_back()
        leave(outlet, "batch", count=7)
        hand_over([delivery], 0.5)
        delivery.close(time.monotonic())
        """,
        server.url,
    )
    assert "7 spans sent without an answer; " in printed
    assert printed.count("Stopped") == 1


@forks
def test_a_destination_that_hangs_does_not_take_the_time_of_another_that_is_handed_over(
    server: Server, other_server: Server
) -> None:
    server.answer = server.hang
    run(
        """
        both = [Delivery("one", to(sys.argv[1])), Delivery("other", to(sys.argv[2]))]
        for delivery in both:
            delivery.hold_back()
        leave(Outlet("traces", both), "batch")
        hand_over(both, 1)
        """,
        server.url,
        other_server.url,
    )
    assert bodies(other_server) == ["batch"]


@forks
def test_nothing_to_hand_over_needs_no_child(server: Server) -> None:
    printed = run(
        """
        os.fork = lambda: sys.exit("forked")
        delivery = Delivery("the collector", to(sys.argv[1]))
        leave(Outlet("traces", [delivery]), "batch")
        while delivery._waiting or delivery._sending:
            time.sleep(0.01)
        delivery.hold_back()
        hand_over([delivery], 30)
        delivery.close(time.monotonic() + 30)
        """,
        server.url,
    )
    assert printed == ""
    assert bodies(server) == ["batch"]


def test_what_is_held_back_is_not_sent(server: Server, deliveries: Callable[..., Delivery]) -> None:
    delivery = deliveries(to(server))
    delivery.hold_back()
    leave(Outlet("traces", [delivery]), "batch")
    time.sleep(0.1)
    assert server.received == []
    assert [batch.body for batch in delivery.hand_out(seconds=0)] == [b"batch"]
    assert delivery.hand_out(seconds=0) == []


# Secrets


@pytest.mark.parametrize(
    "address",
    [
        ("http://127.0.0.1:9", {"x-honeycomb-team": f"{KEY}\nx"}),
        ("http://127.0.0.1:9", {"x-honeycomb-team": f"{KEY}é€"}),
        ("http://127.0.0.1:9", {f"{KEY}\n": "x"}),
        (f"http://me:{KEY}@127.0.0.1:9/{KEY}?{KEY}", {}),
        (f"http://[{KEY}", {}),
        (f"nonsense://{KEY}", {}),
        (f"{KEY}", {}),
        (f"http://{KEY}.invalid/", {}),
    ],
)
def test_no_log_line_shows_a_key_whatever_goes_wrong(
    deliveries: Callable[..., Delivery],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    address: tuple[str, dict[str, str]],
) -> None:
    def unresolved(host: str, *args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"no such host: {host}")

    if "invalid" in address[0]:
        monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    caplog.set_level(logging.DEBUG, "backend")
    delivery = deliveries(lambda batch: address)
    leave(Outlet("traces", [delivery]), "batch", timeout=5)
    wait_until(lambda: lines(caplog))
    delivery.close(time.monotonic() + 5)
    assert "lost" in lines(caplog)[-1]
    printed = "".join(capfd.readouterr())
    shown = [record.getMessage() + (record.exc_text or "") for record in caplog.records if record.name != "urllib3"]
    assert KEY not in "".join(shown)
    assert KEY.lower() not in "".join(shown).lower()
    assert KEY not in printed


def test_no_log_line_shows_the_text_of_an_exception_that_nobody_expected(
    deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError(f"it holds {KEY}")

    monkeypatch.setattr(Outlet, "send_now", fail)
    leave(Outlet("traces", [deliveries(lambda batch: ("http://127.0.0.1:9", {}))]), "batch")
    wait_until(lambda: lines(caplog))
    assert "RuntimeError" in lines(caplog)[0]
    assert KEY not in caplog.text


def test_a_header_that_cannot_be_sent_is_not_called_a_bad_address(
    deliveries: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    leave(Outlet("traces", [deliveries(lambda batch: ("http://127.0.0.1:9", {"x-key": f"{KEY}\nx"}))]), "batch")
    wait_until(lambda: lines(caplog))
    assert "the address is not one" not in lines(caplog)[0]


def test_a_batch_shows_neither_its_headers_nor_its_body() -> None:
    batch = Batch(Outlet("traces", []), "http://x", {"x-honeycomb-team": KEY}, KEY.encode(), 1, 10)
    assert KEY not in repr(batch)


# Reasons


def failure(url: str, timeout: float = 5, **options: Any) -> str:
    with pytest.raises(requests.RequestException) as raised:
        requests.post(url, b"", timeout=timeout, **options)
    return explain(raised.value, timeout)


def test_a_refused_connection_is_explained() -> None:
    assert failure(unused_url()).startswith("nothing accepts connections there")


def test_a_collector_that_hangs_is_explained(server: Server) -> None:
    server.answer = server.hang
    assert failure(server.url, timeout=0.1).startswith("no answer within 0.1 s")


def test_a_connection_that_takes_too_long_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(self: socket.socket, address: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", late)
    assert failure("http://127.0.0.1:9", timeout=0.5).startswith("no answer within 0.5 s")


def test_a_name_that_does_not_exist_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def unresolved(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    assert failure("http://collector.invalid").startswith("its name cannot be resolved")


def test_a_connection_that_is_closed_without_an_answer_is_explained(server: Server) -> None:
    server.answer = lambda handler: None
    assert failure(server.url).startswith("the connection broke")


def test_tls_against_a_server_without_is_not_called_a_bad_certificate(server: Server) -> None:
    reason = failure(server.url.replace("http://", "https://"))
    assert "certificate" not in reason
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" not in reason


def test_a_certificate_that_is_not_trusted_is_explained(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    import ssl

    def distrust(*args: object, **kwargs: object) -> None:
        raise ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", distrust)
    reason = failure(server.url.replace("http://", "https://"))
    assert reason.startswith("its TLS certificate is not accepted; OTEL_EXPORTER_OTLP_CERTIFICATE")


@pytest.mark.parametrize("url", ["collector:4318", "grpc://collector:4317", "", "http://", "http://[::1"])
def test_a_bad_address_is_explained_by_a_good_one(url: str) -> None:
    assert failure(url).endswith("it looks like http://localhost:4318")


def test_a_proxy_that_is_away_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    reason = failure("http://collector.invalid", proxies={"http": unused_url()})
    assert "proxy" in reason


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "API key"),
        (302, "redirects"),
        (404, "base address"),
        (429, "asks for less"),
        (500, "refuses"),
        (503, "a fault of its own"),
    ],
)
def test_a_status_is_explained_with_what_to_do(status: int, advice: str) -> None:
    reason = module.answered(status)
    assert f"it answered {status}; " in reason
    assert advice in reason
