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
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests
import urllib3.exceptions
from opentelemetry.instrumentation.utils import suppress_instrumentation

logger = logging.getLogger(__name__)

CAPACITY: Final = 2048  # items (spans, log records) kept per destination, as in the SDK's own queue
FIRST_PAUSE: Final = 0.5  # seconds before the first retry; doubled each time
LONGEST_PAUSE: Final = 5.0  # so that a new key or a collector that is back is noticed soon
LONGEST_RETRY_AFTER: Final = 60.0
QUIET: Final = 2.0  # seconds of trouble that are not worth a log line: a collector that is restarted

# Statuses after which the same batch may be sent again. 429, 502, 503 and 504 are OTLP's own list:
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes. 408 and 500 pass as well in practice.
RETRYABLE: Final = frozenset({408, 429, 500, 502, 503, 504})

ADVICE: Final = {
    400: "the receiver does not understand this telemetry; compare its OTLP version with the exporter's",
    401: "the API key is not accepted; check that it is whole, still valid and from this region",
    403: "the API key may not send here; check its permissions",
    404: "there is no OTLP receiver at this address; give the base address, without /v1/traces",
    413: "the batches are too big for the receiver; lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    429: "the receiver asks for less; sample, or raise its limit",
}
REDIRECTED: Final = "telemetry does not follow redirects; give the final address (https instead of http?)"
IN_TROUBLE: Final = "the receiver has a fault of its own; telemetry is kept and sent again"


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a batch was not delivered, in words without secrets, and whether to send it again."""

    reason: str
    retryable: bool
    pause: float | None = None  # seconds the receiver asked for in Retry-After


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """One encoded export request: `count` spans, log records or metric batches of `outlet`'s signal."""

    outlet: Outlet
    url: str
    headers: dict[str, str] = dataclasses.field(repr=False)  # hold the key
    body: bytes = dataclasses.field(repr=False)
    count: int
    timeout: float  # seconds for one attempt


Address = Callable[[Batch], tuple[str, dict[str, str]] | None]
"""Where a batch goes: its URL and headers, or None while there is nowhere to send it."""


def as_given(batch: Batch) -> tuple[str, dict[str, str]]:
    """The address that the exporter itself read from the standard OTEL_EXPORTER_OTLP_* variables."""
    return batch.url, batch.headers


class Delivery:
    """Sends batches to one destination, in order, from one daemon thread that starts with the first batch.

    `name` is what log lines call the destination. Safe to use from any thread and across `os.fork`: a child
    starts empty, since what was waiting is its parent's to send.
    """

    def __init__(self, name: str, address: Address, capacity: int = CAPACITY) -> None:
        self.name = name
        self.address = address
        self.capacity = capacity
        self._begin_anew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._change = threading.Condition()
        self._waiting: collections.deque[Batch] = collections.deque()
        self._sending: Batch | None = None
        self._thread: threading.Thread | None = None
        self._stop_at: float | None = None  # on time.monotonic(); set once, when the process ends
        self._held_back = False
        self._lost: collections.Counter[str] = collections.Counter()
        self._failing_since: float | None = None
        self._failure: Failure | None = None
        self._said = False

    # The exporters' side: never waits.

    def put(self, batch: Batch) -> None:
        """Keep `batch` until it is delivered; over `capacity` items the oldest batches are lost."""
        with self._change:
            self._waiting.append(batch)
            self._make_room()
            if self._thread is None and self._stop_at is None:
                self._thread = threading.Thread(target=self._run, name="telemetry-delivery", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def _make_room(self) -> None:
        while len(self._waiting) > 1 and sum(b.count for b in self._waiting) > self.capacity:
            self._lose(self._waiting.popleft())

    def _lose(self, batch: Batch) -> None:
        self._lost[batch.outlet.signal] += batch.count

    # The thread's side.

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while (batch := self._next()) is not None:
            failure = self._send(batch, batch.timeout)
            self._settle(batch, failure)
            if failure is None:
                pause = FIRST_PAUSE
            else:
                self._rest(failure.pause or pause * random.uniform(0.8, 1))
                pause = min(pause * 2, LONGEST_PAUSE)

    def _next(self) -> Batch | None:
        """The oldest batch, as soon as there is one; None when the process ends."""
        with self._change:
            self._change.wait_for(lambda: self._stop_at is not None or (self._waiting and not self._held_back))
            if self._stop_at is not None:
                return None
            self._sending = self._waiting.popleft()
            return self._sending

    def _rest(self, seconds: float) -> None:
        with self._change:
            self._change.wait_for(lambda: self._stop_at is not None, seconds)

    def _send(self, batch: Batch, timeout: float) -> Failure | None:
        address = self.address(batch)
        if address is None:
            return None  # nowhere to send to is a setting, not a loss
        url, headers = address
        try:
            with suppress_instrumentation():
                response = batch.outlet.send_now(url, headers, batch.body, timeout)
        except requests.RequestException as error:
            return Failure(explain(error, timeout), retryable=True)
        except Exception as error:  # such as a header that cannot be sent: its text could show the key
            return Failure(f"{type(error).__name__} before anything was sent", retryable=False)
        if 200 <= response.status_code < 300:
            return None
        return Failure(
            answered(response.status_code),
            response.status_code in RETRYABLE,
            retry_after(response.headers.get("Retry-After")),
        )

    def _settle(self, batch: Batch, failure: Failure | None) -> None:
        """Account for an attempt, and say when an outage begins and when it is over."""
        now = time.monotonic()
        with self._change:
            self._sending = None
            self._change.notify_all()
            if failure is None:
                since, self._failing_since, said, self._said = self._failing_since, None, self._said, False
                lost = self._take_lost() if said else None
            else:
                if failure.retryable:
                    self._waiting.appendleft(batch)
                    self._make_room()
                else:
                    self._lose(batch)
                since = self._failing_since = self._failing_since or now
                self._failure = failure
                if self._said or (failure.retryable and now - since < QUIET):
                    return
                self._said = True
        if failure is not None:
            logger.warning("Telemetry is not reaching %s: %s.", self.name, failure.reason)
        elif said and since is not None:
            logger.warning(
                "Telemetry is reaching %s again after %.0f s; %s lost.", self.name, now - since, lost or "nothing was"
            )

    def _take_lost(self) -> str:
        lost, self._lost = self._lost, collections.Counter()
        return in_words(lost)

    # The end of the process.

    def close(self, until: float) -> None:
        """Send what is left, taking no longer than `until` (on time.monotonic()); say what was not sent."""
        with self._change:
            self._stop_at = until
            self._change.notify_all()
            thread = self._thread
        self._send_rest(until)  # beside the thread, which may be waiting for an answer
        if thread is not None:
            thread.join(max(0.0, until - time.monotonic()))
            self._send_rest(until)
        with self._change:
            for batch in (*filter(None, [self._sending]), *self._waiting):
                self._lose(batch)
            self._waiting.clear()
            lost, failure = self._take_lost(), self._failure
        if lost:
            why = failure.reason if failure else "it did not answer in time"
            logger.warning("Stopped before all telemetry had reached %s: %s lost; %s.", self.name, lost, why)

    def _send_rest(self, until: float) -> None:
        while self._waiting and (left := until - time.monotonic()) > 0:
            batch = self._waiting.popleft()
            failure = self._send(batch, min(batch.timeout, left))
            if failure is None:
                continue
            self._failure = failure
            if failure.retryable:
                self._waiting.appendleft(batch)
                return
            self._lose(batch)

    def hold_back(self) -> None:
        """Begin no new sending: what comes from now on waits for `hand_out`."""
        with self._change:
            self._held_back = True

    def hand_out(self, seconds: float) -> list[Batch]:
        """Give up what waits, after giving the batch under way up to `seconds` to be delivered."""
        with self._change:
            self._change.wait_for(lambda: self._sending is None, seconds)
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
    names = {"traces": "span", "logs": "log record", "metrics": "metric batch"}
    parts = [f"{n} {names.get(kind, kind)}{'s' * (n != 1)}" for kind, n in counts.items() if n]
    return " and ".join(parts)


def answered(status: int) -> str:
    """What an HTTP status means for telemetry, and what to do about it."""
    advice = ADVICE.get(status) or (REDIRECTED if 300 <= status < 400 else IN_TROUBLE)
    return f"it answered {status}; {advice}"


def explain(error: requests.RequestException, timeout: float) -> str:
    """Why no answer came, and what to do. Never the error's own text: it holds the address with its secrets."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not let it through; check HTTPS_PROXY and NO_PROXY"
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not accepted; OTEL_EXPORTER_OTLP_CERTIFICATE names your own CA's"
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
        except (TypeError, ValueError):
            return None
    return min(seconds, LONGEST_RETRY_AFTER) if seconds > 0 else None


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
            for delivery, waiting in batches:
                delivery.take_over(waiting)
            for delivery in deliveries:
                delivery.close(until)
        finally:
            os._exit(0)
