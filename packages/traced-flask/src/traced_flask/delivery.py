"""The queue between an exporter and a destination: bounded, kept during an outage, emptied at shutdown.

An exporter must never wait for the network, or a slow receiver would fill the SDK's queue and delay the end of a
process. So each destination has a queue of encoded batches and a thread that sends them, oldest first. One log line
says that an outage has started, and one that it is over and what was lost.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import random
import threading
import time
import weakref
from typing import Final

from traced_flask.batch import Batch, in_words, joined, split
from traced_flask.destination import Destination
from traced_flask.failure import UNCONFIGURED, Failure
from traced_flask.greenlets import hide_failures_of_inherited_threads

logger = logging.getLogger(__name__)

CAPACITY: Final = 2048  # items (spans, log records), as in the SDK's own queue
CAPACITY_BYTES: Final = 32 * 1024 * 1024  # for items that are unusually large
BATCH_SIZE: Final = 512  # items in one request where several batches wait, as in the SDK's own batches
BATCH_BYTES: Final = 4 * 1024 * 1024  # in one request where several batches wait
FIRST_PAUSE: Final = 0.5  # s, before the second attempt; doubled each time
MAX_PAUSE: Final = 5.0  # s, so that a new key or a receiver that is back is noticed soon
SHUTDOWN_TIMEOUT: Final = 3.0  # s
SLOW: Final = 1.0  # s without an answer, after which a receiver counts as one in an outage
INTERVAL: Final = 60.0  # s, in which outages that come and go are logged once
LONG_OUTAGE: Final = 10.0  # s, after which an outage is logged even so


@dataclasses.dataclass(slots=True)
class Outage:
    """A time in which attempts fail."""

    since: float  # on time.monotonic()
    signals: set[str] = dataclasses.field(default_factory=set)  # that fail; a receiver may accept one and not another
    logged: dict[str, str] = dataclasses.field(default_factory=dict)  # signal: reason
    lost: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    reason: str = ""


class Delivery:
    """Sends batches to `destination`, oldest first, from a daemon thread that starts with the first batch.

    At most `capacity` items and 32 MiB wait; beyond that the oldest batches are lost and counted. Batches of a signal
    that wait are sent together, up to `batch_size` items in a request. Safe to use from any thread. A forked child
    starts empty: what was waiting is its parent's to send.
    """

    def __init__(self, destination: Destination, capacity: int = CAPACITY, batch_size: int = BATCH_SIZE) -> None:
        self.destination = destination
        self.capacity = capacity
        self.batch_size = batch_size
        self._largest = BATCH_BYTES  # joined batches; less once the receiver has refused a request as too large
        self._logged_at = self._recovered_at = float("-inf")
        self._loss_reason = ""
        self._start_empty()
        if hasattr(os, "register_at_fork"):
            restart = weakref.WeakMethod(self._start_empty)
            os.register_at_fork(after_in_child=lambda: (method := restart()) and method())

    def _start_empty(self) -> None:
        self._changed = threading.Condition()
        self._reset()

    def _reset(self) -> None:
        """Forget everything. A thread that waits for an answer ends when it has one."""
        self._queue: collections.deque[Batch] = collections.deque()
        self._count = self._bytes = 0  # in the queue
        self._sending: Batch | None = None
        self._sending_since = 0.0  # on time.monotonic()
        self._thread: threading.Thread | None = None
        self._until: float | None = None  # on time.monotonic(), while `close` runs
        self._until_in_outage: float | None = None
        self._outage: Outage | None = None
        self._lost: collections.Counter[str] = collections.Counter()  # outside of outages, and in no log line yet

    @property
    def in_outage(self) -> bool:
        """Whether the last attempt of a signal failed, or the present one has had no answer for a second."""
        hangs = self._sending is not None and time.monotonic() - self._sending_since > SLOW
        return self._outage is not None or hangs

    def put(self, signal: str, body: bytes, count: int) -> None:
        """Keep `body`, an encoded export request with `count` items, until it is delivered. Never waits."""
        with self._changed:
            self._queue.append(Batch(signal, body, count))
            self._grow(count, len(body))
            lost = self._make_room()
            self._changed.notify_all()
        self._start_thread()
        if lost and self._outage is None:
            self._report_losses("there is more telemetry than it accepts. Sample, or send less")

    def flush(self, until: float) -> bool:
        """Wait until everything is delivered, but not longer than `until` (on time.monotonic()) nor for an outage."""
        if not self._start_thread():
            self.close(until)
        with self._changed:
            timeout = max(0.0, until - time.monotonic())
            self._changed.wait_for(lambda: self._is_empty() or self._outage is not None, timeout)
            return self._is_empty()

    def start_closing(self, until: float, in_outage: float | None = None) -> None:
        """Send what is left at once. `until` and `in_outage` are those of `close`."""
        with self._changed:
            self._until, self._until_in_outage = until, until if in_outage is None else in_outage
            self._changed.notify_all()

    def close(self, until: float, in_outage: float | None = None) -> None:
        """Send what is left, not taking longer than `until`, or `in_outage` in an outage, and log what was lost.

        Both are on time.monotonic(). What is put later is sent as before, so this can be called once more.
        """
        self.start_closing(until, in_outage)
        if not self._start_thread():
            self._thread = threading.current_thread()
            self._run()
        with self._changed:
            while self._thread is not None and (left := self._left()) > 0:
                self._changed.wait(min(left, 0.1))  # an outage may start in between
            late = self._queue or self._sending
            reason = "it did not answer in time" if late else self._loss_reason
            reason = self._outage.reason if self._outage else reason
            lost = self._lost + (self._outage.lost if self._outage else collections.Counter())
            for batch in self._queue:
                lost[batch.signal] += batch.count
            unanswered = collections.Counter({self._sending.signal: self._sending.count} if self._sending else {})
            self._reset()
            self._changed.notify_all()
        self.destination.close()
        parts = [(in_words(lost), "lost"), (in_words(unanswered), "sent without an answer")]
        if costs := ", ".join(f"{words} {what}" for words, what in parts if words):
            logger.warning(
                "Stopped before all telemetry had reached %s (%s): %s.", self.destination.name, costs, reason
            )

    def _left(self) -> float:
        """Seconds that `close` may still take."""
        until = self._until_in_outage if self.in_outage else self._until
        return (until or 0.0) - time.monotonic()

    def _is_empty(self) -> bool:
        return not self._queue and self._sending is None

    def _grow(self, count: int, size: int) -> None:
        self._count += count
        self._bytes += size

    def _start_thread(self) -> bool:
        """Whether there is a thread, or no need for one, or one could be started.

        Not with the lock held: a gevent "thread" starts in the middle of this, and may find the lock open.
        """
        with self._changed:
            if self._thread is not None or not self._queue:
                return True
            thread = self._thread = threading.Thread(target=self._run, name="telemetry-delivery", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # since Python 3.12 a process that is ending starts none
            self._thread = None
            return False
        return True

    def _make_room(self) -> bool:
        """Drop the oldest batches that do not fit; return whether there were any."""
        full = False
        while len(self._queue) > 1 and (self._count > self.capacity or self._bytes > CAPACITY_BYTES):
            batch = self._pop()
            self._lose(batch.signal, batch.count)
            full = True
        return full

    def _pop(self) -> Batch:
        batch = self._queue.popleft()
        self._grow(-batch.count, -len(batch.body))
        return batch

    def _put_back(self, batches: tuple[Batch, ...]) -> None:
        for batch in reversed(batches):
            self._queue.appendleft(batch)
            self._grow(batch.count, len(batch.body))
        self._make_room()

    def _lose(self, signal: str, count: int) -> None:
        (self._outage.lost if self._outage else self._lost)[signal] += count

    def _run(self) -> None:
        try:
            self._send_all()
        finally:  # also after an exception of a logging handler: the next batch starts another thread
            with self._changed:
                if self._thread is threading.current_thread():
                    self._end_thread()

    def _send_all(self) -> None:
        pause = FIRST_PAUSE
        while (batch := self._next()) is not None:
            started = time.monotonic()
            until, timeout = self._until, self.destination.endpoints[batch.signal].timeout
            if until is not None:
                timeout = min(timeout, until - started)
            failure = self._account_for(batch, started, self.destination.send(batch.signal, batch.body, timeout))
            if failure is None:
                pause = FIRST_PAUSE
            elif until is None or failure.retryable:  # at shutdown, a refused batch delays nothing
                if not self._pause(failure.pause or pause * random.uniform(0.8, 1)):
                    return
                pause = min(pause * 2, MAX_PAUSE)

    def _next(self) -> Batch | None:
        """The oldest batch, joined with others of its signal; None when the thread is to end."""
        mine = threading.current_thread()
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._until is not None or self._thread is not mine)
            if self._thread is not mine:
                return None
            if not self._queue or (self._until is not None and self._left() <= 0):
                self._end_thread()
                return None
            first = self._pop()
            parts, count, size = [first], first.count, len(first.body)
            rest = []
            while self._queue:
                batch = self._pop()
                fits = count + batch.count <= self.batch_size and size + len(batch.body) <= self._largest
                if batch.signal == first.signal and fits:
                    parts.append(batch)
                    count, size = count + batch.count, size + len(batch.body)
                else:
                    rest.append(batch)
            for batch in rest:
                self._queue.append(batch)
                self._grow(batch.count, len(batch.body))
            self._sending, self._sending_since = joined(tuple(parts)), time.monotonic()
            return self._sending

    def _end_thread(self) -> None:
        self._thread = None
        self._changed.notify_all()

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt, which starts at once when `close` is called; False if there is no time."""
        with self._changed:
            if self._until is None:
                self._changed.wait_for(lambda: self._until is not None, seconds)
            elif seconds < self._left():
                self._changed.wait_for(lambda: False, seconds)
            else:
                self._end_thread()
                return False
        return True

    def _account_for(self, batch: Batch, started: float, failure: Failure | None) -> Failure | None:
        """Account for an attempt. Returns the failure if a pause must follow."""
        now, line, losses = time.monotonic(), None, None
        with self._changed:
            if self._sending is not batch:  # `close` has given it up
                return None
            self._sending = None
            if failure is None or failure is UNCONFIGURED or failure.rejected is not None:
                line = self._recovered(batch.signal, now, silent=failure is UNCONFIGURED)
                if failure is not None and failure.rejected is not None:
                    self._lose(batch.signal, min(failure.rejected, batch.count))
                    losses = f"it rejects them: {failure.reason}"
                failure = None
            elif failure.too_large and batch.count > 1 and (pieces := split(batch)):
                self._largest = min(self._largest, len(batch.body) // 2)
                self._put_back(pieces)
                failure = None
            elif failure.too_large:
                self._lose(batch.signal, batch.count)
                losses = failure.reason
            else:
                line = self._failed(batch, started, now, failure)
            self._changed.notify_all()
        if line:
            logger.warning("%s", line)
        if losses:
            self._report_losses(losses)
        return failure

    def _failed(self, batch: Batch, started: float, now: float, failure: Failure) -> str | None:
        """Record a failed attempt. Returns the log line to write, if any."""
        outage = self._outage = self._outage or Outage(since=started)
        outage.signals.add(batch.signal)
        outage.reason = failure.reason
        if failure.retryable:
            self._put_back(batch.parts or (batch,))
        else:
            self._lose(batch.signal, batch.count)
        is_flapping = outage.since - self._recovered_at < INTERVAL and now - outage.since < LONG_OUTAGE
        if batch.signal in outage.logged or is_flapping or self._until is not None:
            return None
        known = failure.reason in outage.logged.values()
        outage.logged[batch.signal] = failure.reason
        return None if known else f"Telemetry is not reaching {self.destination.name}: {failure.reason}."

    def _recovered(self, signal: str, now: float, silent: bool) -> str | None:
        """Record that `signal` arrives. Returns the log line to write, if any."""
        outage = self._outage
        if outage is None:
            return None
        outage.signals.discard(signal)
        if outage.signals:
            return None
        self._outage = None
        if silent or not outage.logged:
            self._lost += outage.lost
            self._loss_reason = outage.reason
            return None
        self._recovered_at = now
        costs = in_words(outage.lost) or "nothing was"
        return f"Telemetry is reaching {self.destination.name} again after {now - outage.since:.0f} s; {costs} lost."

    def _report_losses(self, reason: str) -> None:
        """Log what was lost outside of outages, once a minute at most."""
        with self._changed:
            now, self._loss_reason = time.monotonic(), reason
            if now - self._logged_at < INTERVAL:
                return
            self._logged_at = now
            lost, self._lost = self._lost, collections.Counter()
        if words := in_words(lost):
            logger.warning("%s did not reach %s: %s.", words, self.destination.name, reason)


_deadlines: tuple[float, float] | None = None  # what `shutdown_deadlines` returns


def start_shutdown(seconds: float = SHUTDOWN_TIMEOUT, in_outage: float | None = None) -> None:
    """Give all telemetry together `seconds` from now, or `in_outage` for a destination in an outage.

    Only the first call counts, until the next exporter is created.
    """
    global _deadlines
    if _deadlines is None:
        now = time.monotonic()
        _deadlines = (now + seconds, now + (seconds if in_outage is None else in_outage))
        hide_failures_of_inherited_threads()


def shutdown_deadlines() -> tuple[float, float]:
    """Until when telemetry is delivered, and until when in an outage, on time.monotonic()."""
    start_shutdown()
    return _deadlines or (0.0, 0.0)


def is_shutting_down() -> bool:
    """Whether the shutdown has started and its time is not over."""
    return _deadlines is not None and time.monotonic() < _deadlines[0]


def reset_shutdown() -> None:
    """Start anew: an exporter is created, or this is a forked child."""
    global _deadlines
    _deadlines = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_shutdown)
