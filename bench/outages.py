"""Requests at a steady rate, a collector that fails as it is told to, and what arrives of what was answered."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import math
import re
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from subjects import OURS, PLAIN, UNTRACED, Subject  # first, as it finds the modules of tests/

from receiver import Receiver, receiving  # isort: skip

KEYS: Final = {UNTRACED: "untraced", PLAIN: "plain", OURS: "ours"}
HOME: Final = "/api/activities/home"
SPANS: Final = 3  # of a home feed whose profiles are looked up in the same process


# What asks.


@dataclass(frozen=True)
class Answer:
    due: float  # seconds after the first request
    seconds: float  # from when it was due
    outcome: str  # answered; turned away, since nobody listened; or failed
    trace_id: str


class Traffic:
    """Requests to the home feed at a steady rate, whatever comes back, each on a connection of its own.

    What a request takes counts from when it was due, so that one that waits makes those behind it no quicker.
    """

    def __init__(self, base: str, subject: Subject, rate: float, seconds: float, clients: int = 16) -> None:
        self.answers: list[Answer] = []
        self.rate, self.count = rate, max(1, round(rate * seconds))
        self.began = math.inf
        self.ended = math.inf  # in seconds after it began; who asks later asks a server that is stopping
        self._address = urlsplit(base).netloc
        self._names_traces = subject is not OURS  # which lets no caller do that, and answers with their ids
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def start(self) -> None:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def wait_until(self, part: float) -> None:
        """Until this part of the requests was due."""
        time.sleep(max(0.0, self.began + part * self.count / self.rate - time.monotonic()))

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while (number := next(self._numbers)) < self.count:
            due = self.began + number / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            outcome, trace_id = self._one()
            self.answers.append(Answer(due - self.began, time.monotonic() - due, outcome, trace_id))

    def _one(self) -> tuple[str, str]:
        trace_id = secrets.token_hex(16)
        headers = {"Connection": "close"}
        if self._names_traces:
            headers["traceparent"] = f"00-{trace_id}-{secrets.token_hex(8)}-01"
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            connection.request("GET", HOME, headers=headers)
            answer = connection.getresponse()
            answer.read()
        except ConnectionRefusedError:
            return "turned away", trace_id
        except (OSError, http.client.HTTPException):
            return "failed", trace_id
        finally:
            connection.close()
        if told := answer.headers.get("traceresponse"):
            trace_id = told.split("-")[1]
        return ("answered" if answer.status == 200 else "failed"), trace_id

    def end(self) -> None:
        """The server has been told to stop."""
        self.ended = time.monotonic() - self.began

    def outcomes(self) -> Counter[str]:
        """How many were answered, and how many failed of those who asked in time."""
        return Counter(
            each.outcome for each in list(self.answers) if each.outcome == "answered" or each.due < self.ended
        )

    def answered(self) -> list[str]:
        """The traces of what was answered."""
        return [answer.trace_id for answer in list(self.answers) if answer.outcome == "answered"]


# What takes.


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a collector, from `after` seconds after `begin` on, for so long as it `lasts`."""

    name: str
    behave: Callable[[], tuple[int, dict[str, str]] | None] | None = None
    cut: bool = False
    closed: bool = False  # nothing listens
    after: float = 0.0
    lasts: float = math.inf
    mended: float = math.inf  # it is over so many seconds after the signal that ends the program

    @property
    def ends(self) -> bool:
        return min(self.lasts, self.mended) < math.inf

    @property
    def comes_and_goes(self) -> bool:
        return self.closed and self.ends


def healthy() -> tuple[int, dict[str, str]]:
    return 200, {}


def hanging() -> None:
    return None


def slowly() -> tuple[int, dict[str, str]]:
    time.sleep(2)
    return 200, {}


HEALTHY: Final = Trouble("healthy", healthy)


class Collector:
    """An OTLP receiver at one address, with one trouble after the other, each from `begin` on."""

    def __init__(self, troubles: tuple[Trouble, ...], host: str) -> None:
        self.receivers: list[Receiver] = []
        self._troubles, self._host = troubles, host
        self._began = self._signalled = math.inf
        self._over = threading.Event()
        self._open = contextlib.ExitStack()
        self._keeper = threading.Thread(target=self._go_and_come_back)
        self._hold = socket.socket()  # so that nobody else gets the port while nothing listens there
        self._hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._hold.bind((host, 0))
        self.port: int = self._hold.getsockname()[1]
        if not any(trouble.closed and trouble.after == 0 for trouble in troubles):
            self._listen()

    def _listen(self) -> None:
        behave = {"behave": self._behave, "cut": lambda: self._trouble().cut}
        self.receivers.append(self._open.enter_context(receiving(self.port, self._host, **behave)))

    def _behave(self) -> tuple[int, dict[str, str]] | None:
        return (self._trouble().behave or healthy)()

    def _trouble(self) -> Trouble:
        """That of the moment."""
        now = time.monotonic()
        for trouble in self._troubles:
            begins = self._began + trouble.after
            if begins <= now < min(begins + trouble.lasts, self._signalled + trouble.mended):
                return trouble
        return HEALTHY

    def begin(self) -> None:
        """With the first request."""
        self._began = time.monotonic()
        self._keeper.start()

    def _go_and_come_back(self) -> None:
        for trouble in self._troubles:
            if trouble.comes_and_goes:
                self._over.wait(self._began + trouble.after - time.monotonic())
                self._open.close()
                if self._over.wait(trouble.lasts):
                    return
                self._listen()

    def signalled(self) -> None:
        """The program was told to end."""
        self._signalled = time.monotonic()

    def close(self) -> None:
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self._open.close()
        self._hold.close()


@contextlib.contextmanager
def collecting(*troubles: Trouble, host: str = "127.0.0.1") -> Iterator[Collector]:
    collector = Collector(troubles, host)
    try:
        yield collector
    finally:
        collector.close()


class Arrivals:
    """Which spans have come to the receivers of a collector, and how often; `look` reads what is new."""

    def __init__(self, collector: Collector) -> None:
        self.spans: Counter[tuple[str, str]] = Counter()  # by trace and span id
        self._receivers = collector.receivers
        self._read: Counter[int] = Counter()

    def look(self) -> int:
        """How many spans are here, each counted once."""
        for number, receiver in enumerate(list(self._receivers)):
            new = receiver.requests[self._read[number] :]
            self._read[number] += len(new)
            self.spans.update((span["trace_id"], span["span_id"]) for span in Receiver(requests=new).spans())
        return len(self.spans)

    def by_trace(self) -> Counter[str]:
        return Counter(trace_id for trace_id, _ in self.spans)


# What is said.


def said(output: str, what: str) -> int:
    """How many spans the log says were `lost`, or `sent without an answer`."""
    return sum(int(count) for count in re.findall(rf"\b(\d+) spans?\b[^.,;\n]* {what}\b", output))


def lines_about_telemetry(output: str) -> int:
    """Lines of the log that are neither gunicorn's own nor the one that says where telemetry goes."""
    return sum(
        bool(line) and not line.startswith("[") and "Telemetry goes to" not in line for line in output.split("\n")
    )


def fared(traffic: Traffic) -> dict[str, Any]:
    """What became of the requests."""
    outcomes = traffic.outcomes()
    slowest = max((each.seconds for each in traffic.answers if each.outcome == "answered"), default=0.0)
    return {
        "asked": traffic.count,
        "answered": outcomes["answered"],
        "failed": outcomes["failed"],
        "slowest_ms": slowest * 1000,
    }


def became(traffic: Traffic, arrivals: Arrivals, output: str) -> dict[str, Any]:
    """What became of the spans of what was answered: arrived, said to be lost, or neither."""
    trace_ids, sizes = set(traffic.answered()), arrivals.by_trace()
    spans = sum(sizes[trace_id] for trace_id in trace_ids)
    lost, unanswered = said(output, "lost"), said(output, "sent without an answer")
    return {
        "complete": sum(sizes[trace_id] == SPANS for trace_id in trace_ids),
        "spans": spans,
        "duplicates": sum(arrivals.spans.values()) - len(arrivals.spans),
        "said_lost": lost,
        "said_unanswered": unanswered,
        "silent": max(0, len(trace_ids) * SPANS - spans - lost - unanswered),
        "lines": lines_about_telemetry(output),
    }
