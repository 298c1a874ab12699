"""How telemetry leaves this process: exporters drop batches here, one thread per destination sends them.

An exporter must never wait for the network, or a slow collector would fill its queue and hold up a
stopping process. So `Outlet` takes each encoded batch from the exporter at once, and `Delivery` keeps it
until it is delivered: through outages, up to a bound, oldest out first, counting what is lost and saying
so in one log line when an outage begins and one when it ends.
"""

from __future__ import annotations

import collections
import dataclasses
import http
import logging
import os
import random
import signal
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests
import urllib3.exceptions
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

logger = logging.getLogger(__name__)

CAPACITY: Final = 2048  # items (spans, log records) kept per destination, as in the SDK's own queue
TOGETHER: Final = 512  # items in one request where more than one batch waits, as in the SDK's own batches
FIRST_PAUSE: Final = 0.5  # seconds before the first retry; doubled each time
LONGEST_PAUSE: Final = 5.0  # so that a new key or a collector that is back is noticed soon
LONGEST_RETRY_AFTER: Final = 60.0
QUIET: Final = 2.0  # seconds of trouble that are not worth a log line: a collector that is restarted

# Statuses after which the same batch may be sent again; with any other it must not be:
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
RETRYABLE: Final = frozenset({429, 502, 503, 504})

ADVICE: Final = {
    400: "the receiver does not understand this telemetry; compare its OTLP version with the exporter's",
    401: "the API key is not accepted; check that it is whole, still valid and from this region",
    403: "the API key may not send here; check its permissions",
    404: "there is no OTLP receiver at this address; give the base address, without /v1/traces",
    413: "the batches are too big for the receiver; lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    429: "the receiver asks for less; sample, or raise its limit",
}
A_WEB_PAGE: Final = "it answered with a web page; there is no OTLP receiver at this address"
REDIRECTED: Final = "telemetry does not follow redirects; give the final address (https instead of http?)"
REFUSED: Final = "the receiver refuses this telemetry"
IN_TROUBLE: Final = "the receiver has a fault of its own; telemetry is kept and sent again"


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a batch was not delivered, in words without secrets, and whether to send it again."""

    reason: str
    retryable: bool
    pause: float | None = None  # seconds the receiver asked for in Retry-After


NOWHERE: Final = Failure("there is nowhere to send it to", retryable=False)  # a setting, and no loss


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """One encoded export request: `count` spans, log records or metric batches of `outlet`'s signal."""

    outlet: Outlet
    url: str
    headers: dict[str, str] = dataclasses.field(repr=False)  # hold the key
    body: bytes = dataclasses.field(repr=False)
    count: int
    timeout: float  # seconds for one attempt
    parts: tuple[Batch, ...] = dataclasses.field(default=(), repr=False)  # the batches that were joined to this one

    def goes_with(self, other: Batch) -> bool:
        """Whether both can go in one request."""
        alike = self.outlet is other.outlet and self.url == other.url and self.headers == other.headers
        return alike and "content-encoding" not in map(str.lower, self.headers)

    def joined(self, others: Sequence[Batch]) -> Batch:
        """This one and `others` in one request: encoded messages, one after the other, are one with the items of all.

        https://protobuf.dev/programming-guides/encoding/#last-one-wins
        """
        parts = (self, *others)
        body, count = b"".join(each.body for each in parts), sum(each.count for each in parts)
        return dataclasses.replace(self, body=body, count=count, parts=parts)


Address = Callable[[Batch], tuple[str, dict[str, str]] | None]
"""Where a batch goes: its URL and headers, or None while there is nowhere to send it."""


def as_given(batch: Batch) -> tuple[str, dict[str, str]]:
    """The address that the exporter itself read from the standard OTEL_EXPORTER_OTLP_* variables."""
    return batch.url, batch.headers


class Delivery:
    """Sends batches to one destination, in order, from one daemon thread that starts with the first batch.

    `name` is what log lines call the destination. Batches that wait go together, up to `together` items in a request.
    At the end, one that `insists` uses all of its time on a receiver in trouble, which may be well again before that;
    another asks once. Safe to use from any thread and across `os.fork`: a child starts empty, since what was waiting
    is its parent's to send.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        capacity: int = CAPACITY,
        together: int = TOGETHER,
        insists: bool = False,
    ) -> None:
        self.name = name
        self.address = address
        self.capacity = capacity
        self.together = together
        self.insists = insists
        self._begin_anew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._change = threading.Condition()
        self._waiting: collections.deque[Batch] = collections.deque()
        self._sending: list[Batch] = []
        self._threads: list[threading.Thread] = []
        self._stop_at: float | None = None  # on time.monotonic(); set once, when the process ends
        self._held_back = False
        self._lost: collections.Counter[str] = collections.Counter()
        self._lost_to: Failure | None = None
        self._failing: set[str] = set()  # signals; a receiver may take one and not another
        self._failing_since = 0.0
        self._failure: Failure | None = None
        self._said = False
        self._complained = float("-inf")

    # The exporters' side: never waits.

    def put(self, batch: Batch) -> None:
        """Keep `batch` until it is delivered; over `capacity` items the oldest batches are lost."""
        with self._change:
            self._waiting.append(batch)
            too_slow = self._make_room() and not self._failing
            if not self._threads and self._stop_at is None:
                self._start(self._run)
            self._change.notify_all()
        if too_slow:
            self._complain(
                "%s takes less telemetry than there is: the oldest is lost. Sample, or send less.", self.name
            )

    def _start(self, work: Callable[[], None]) -> bool:
        thread = threading.Thread(target=work, name="telemetry-delivery", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # since Python 3.12 a process that is ending starts none
            return False
        self._threads.append(thread)
        return True

    def _make_room(self) -> bool:
        """Lose the oldest batches that are too many; whether there were any."""
        full = False
        while len(self._waiting) > 1 and sum(b.count for b in self._waiting) > self.capacity:
            self._lose(self._waiting.popleft())
            full = True
        return full

    def _lose(self, batch: Batch, failure: Failure | None = None) -> None:
        self._lost[batch.outlet.signal] += batch.count
        self._lost_to = failure or self._lost_to

    # The thread's side.

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while self._stop_at is None:
            with self._change:
                self._change.wait_for(lambda: self._stop_at is not None or (self._waiting and not self._held_back))
            if self._stop_at is None and (batch := self._take()):
                failure = self._attempt(batch, batch.timeout)
                if failure is None:
                    pause = FIRST_PAUSE
                else:
                    self._rest(failure.pause or pause * random.uniform(0.8, 1))
                    pause = min(pause * 2, LONGEST_PAUSE)
        self._send_rest()

    def _take(self) -> Batch | None:
        """The oldest batch, and with it those that can go along: a slow receiver takes as long for one as for all."""
        with self._change:
            if not self._waiting or self._held_back:
                return None
            batch = self._waiting.popleft()
            others, rest, count = [], collections.deque[Batch](), batch.count
            for each in self._waiting:
                if batch.goes_with(each) and count + each.count <= self.together:
                    others.append(each)
                    count += each.count
                else:
                    rest.append(each)
            if others:
                batch, self._waiting = batch.joined(others), rest
            self._sending.append(batch)
            return batch

    def _rest(self, seconds: float) -> None:
        with self._change:
            self._change.wait_for(lambda: self._stop_at is not None, seconds)

    def _attempt(self, batch: Batch, timeout: float) -> Failure | None:
        began = time.monotonic()
        return self._settle(batch, began, self._send(batch, timeout))

    def _send(self, batch: Batch, timeout: float) -> Failure | None:
        try:
            address = self.address(batch)
            if address is None:
                return NOWHERE
            with suppress_instrumentation():
                response = batch.outlet.send_now(*address, batch.body, timeout)
        except requests.RequestException as error:
            return Failure(explain(error, timeout), retryable=True)
        except Exception as error:  # its text could show the key
            return Failure(f"{type(error).__name__} before anything was sent", retryable=False)
        if 200 <= response.status_code < 300:
            if response.headers.get("Content-Type", "").startswith("text/html"):
                return Failure(A_WEB_PAGE, retryable=False)
            self._note_refused(batch, response.content)
            return None
        return Failure(
            answered(response.status_code),
            response.status_code in RETRYABLE,
            retry_after(response.headers.get("Retry-After")),
        )

    def _note_refused(self, batch: Batch, answer: bytes) -> None:
        """Count what the receiver took the rest of the batch without, and say so once a minute at most.

        https://opentelemetry.io/docs/specs/otlp/#partial-success; the three signals' answers are alike.
        """
        try:
            partial = ExportTraceServiceResponse.FromString(answer).partial_success
        except DecodeError:
            return
        if not partial.rejected_spans:
            return
        refused = collections.Counter({batch.outlet.signal: partial.rejected_spans})
        with self._change:
            self._lost += refused
        self._complain("%s refused %s: %.200s", self.name, in_words(refused), partial.error_message)

    def _complain(self, text: str, *values: object) -> None:
        if (now := time.monotonic()) - self._complained > 60:
            self._complained = now
            logger.warning(text, *values)

    def _settle(self, batch: Batch, began: float, failure: Failure | None) -> Failure | None:
        """Account for an attempt, and say when an outage begins and when it is over. Returns the failure."""
        now, kind = time.monotonic(), batch.outlet.signal
        ended = lost = None
        with self._change:
            self._sending.remove(batch)
            self._change.notify_all()
            if failure is None or failure is NOWHERE:
                failing = bool(self._failing)
                self._failing.discard(kind)
                if failing and not self._failing:
                    self._failure = None
                    if self._said and failure is None:
                        ended, lost = now - self._failing_since, self._take_lost()
                    self._said = False
                failure = None
            else:
                if failure.retryable:
                    self._waiting.extendleft(reversed(batch.parts or (batch,)))
                    self._make_room()
                else:
                    self._lose(batch, failure)
                if not self._failing:
                    self._failing_since = began
                self._failing.add(kind)
                self._failure = failure
                quiet = failure.retryable and now - self._failing_since < QUIET
                if self._said or quiet or self._stop_at is not None:
                    return failure
                self._said = True
        if failure is not None:
            logger.warning("Telemetry is not reaching %s: %s.", self.name, failure.reason)
        elif ended is not None:
            logger.warning(
                "Telemetry is reaching %s again after %.0f s; %s lost.", self.name, ended, lost or "nothing was"
            )
        return failure

    def _take_lost(self) -> str:
        lost, self._lost, self._lost_to = self._lost, collections.Counter(), None
        return in_words(lost)

    # The end of the process.

    def last_call(self, until: float) -> None:
        """Begin to send what is left; it has until then (on time.monotonic())."""
        with self._change:
            if self._stop_at is not None:
                return
            self._stop_at = until
            self._held_back = False
            self._change.notify_all()
            idle = self._threads and not self._sending
        # An idle thread does it now; beside one that waits for an answer, another.
        if self._waiting and not idle and not self._start(self._send_rest):
            self._send_rest()

    def close(self, until: float) -> None:
        """Send what is left, taking no longer than `until` (on time.monotonic()); say what was not sent."""
        self.last_call(until)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._change:
            for batch in self._waiting:
                self._lose(batch)
            self._waiting.clear()
            unanswered = collections.Counter[str]()
            for batch in self._sending:
                unanswered[batch.outlet.signal] += batch.count
            failure = self._failure or self._lost_to
            parts = [(self._take_lost(), "lost"), (in_words(unanswered), "sent without an answer")]
        if said := ", ".join(f"{words} {what}" for words, what in parts if words):
            why = failure.reason if failure else "it did not answer in time"
            logger.warning("Stopped before all telemetry had reached %s: %s; %s.", self.name, said, why)

    def _send_rest(self) -> None:
        """Send what waits, until the first batch that might be sent again but has no time for it."""
        until = self._stop_at or 0.0
        while (left := until - time.monotonic()) > 0 and (batch := self._take()):
            failure = self._attempt(batch, min(batch.timeout, left))
            if failure is not None and failure.retryable:
                pause = failure.pause or FIRST_PAUSE * random.uniform(0.8, 1)
                if not self.insists or time.monotonic() + pause >= until:
                    return
                time.sleep(pause)

    def hold_back(self) -> None:
        """Begin no new sending: what comes from now on waits for `hand_out`."""
        with self._change:
            self._held_back = True

    def hand_out(self, seconds: float) -> list[Batch]:
        """Give up what waits, after giving the batch under way up to `seconds` to be delivered."""
        with self._change:
            self._change.wait_for(lambda: not self._sending, seconds)
            waiting = list(self._waiting)
            self._waiting.clear()
            return waiting

    def take_over(self, batches: Sequence[Batch]) -> None:
        """Keep what another process's `hand_out` gave up, without starting a thread."""
        self._waiting.extend(batches)


class Outlet(requests.Session):
    """The `requests.Session` of the exporter of one signal: takes its batches and leaves them with `deliveries`."""

    def __init__(self, signal: str, deliveries: Sequence[Delivery]) -> None:
        super().__init__()
        self.signal = signal  # traces, logs or metrics
        self.deliveries = deliveries
        self.count = 1  # spans or records in the batch that is being exported
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        """Leave open connections to the parent. Closing them could wait for a lock that is held there."""
        self._parents = self.adapters
        self.adapters = collections.OrderedDict()
        self.mount("https://", requests.adapters.HTTPAdapter())
        self.mount("http://", requests.adapters.HTTPAdapter())

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Stand in for the exporter's POST: accepted here, delivered later."""
        url, headers, body = kwargs["url"], kwargs["headers"], kwargs["data"]
        for delivery in self.deliveries:
            delivery.put(Batch(self, url, headers, body, self.count, kwargs["timeout"]))
        response = requests.Response()
        response.status_code = http.HTTPStatus.OK
        return response

    def send_now(self, url: str, headers: dict[str, str], body: bytes, timeout: float) -> requests.Response:
        """POST for real. `timeout` is in seconds, to connect and again between two bytes of the answer."""
        return super().request("POST", url, headers=headers, data=body, timeout=timeout, allow_redirects=False)


def in_words(counts: collections.Counter[str]) -> str:
    """`{"traces": 3, "logs": 1}` as "3 spans and 1 log record"; "" when there is none."""
    one = {"traces": "span", "logs": "log record", "metrics": "metric batch"}
    many = {"traces": "spans", "logs": "log records", "metrics": "metric batches"}
    parts = [f"{n} {(one if n == 1 else many)[kind]}" for kind, n in counts.items() if n]
    return " and ".join(parts)


def answered(status: int) -> str:
    """What an HTTP status means for telemetry, and what to do about it."""
    otherwise = REDIRECTED if 300 <= status < 400 else IN_TROUBLE if status in RETRYABLE else REFUSED
    return f"it answered {status}; {ADVICE.get(status, otherwise)}"


def explain(error: requests.RequestException, timeout: float) -> str:
    """Why no answer came, and what to do. Never the error's own text: it holds the address with its secrets."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not let it through; check HTTPS_PROXY and NO_PROXY"
    if isinstance(error, requests.exceptions.SSLError):
        if isinstance(cause, urllib3.exceptions.SSLError) and isinstance(cause.args[0], ssl.SSLCertVerificationError):
            return "its TLS certificate is not accepted; OTEL_EXPORTER_OTLP_CERTIFICATE names your own CA's"
        return "it does not speak TLS as it should; is the address one of http://, not https://?"
    if isinstance(error, requests.exceptions.InvalidHeader):
        return "one of its headers cannot be sent; check OTEL_EXPORTER_OTLP_HEADERS and the API key"
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return "its name cannot be resolved; check the address and the network"
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer within {timeout:.2g} s; check that it runs and can be reached"
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return "nothing accepts connections there; check the address and that it runs"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "the connection broke; check that it runs and speaks OTLP over HTTP"
    return "the address is not one for OTLP over HTTP; it looks like http://localhost:4318"


def retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header (a number of seconds or an HTTP date); None without a usable one."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (IndexError, OverflowError, TypeError, ValueError):
            return None
    return min(seconds, LONGEST_RETRY_AFTER) if seconds > 0 else None


def close_all(deliveries: Sequence[Delivery], until: float) -> None:
    """Close every delivery by `until` (on time.monotonic()), none at the expense of another."""
    for delivery in deliveries:
        delivery.last_call(until)
    for delivery in deliveries:
        delivery.close(until)


def hand_over(deliveries: Sequence[Delivery], seconds: float) -> None:
    """Leave what is held back to a child process, so that a worker that is being replaced can go at once.

    A replaced gunicorn worker is not succeeded until it is gone: waiting for a slow collector here would
    be an outage. The child sends for at most `seconds`; what has no answer by then is lost and counted. A
    batch that is under way stays with this process, which does not wait for its answer much longer.
    """
    until = time.monotonic() + seconds
    batches = [(delivery, delivery.hand_out(seconds=0.1)) for delivery in deliveries]
    if any(waiting for _, waiting in batches) and os.fork() == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(seconds) + 2)  # whatever happens, it ends
            for delivery, waiting in batches:
                delivery.take_over(waiting)
            close_all(deliveries, until)
        finally:
            os._exit(0)
