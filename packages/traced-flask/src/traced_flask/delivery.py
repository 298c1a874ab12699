"""The queue between an exporter and a destination: bounded, kept during an outage, emptied at shutdown.

An exporter must never wait for the network, or a slow receiver would fill the SDK's queue and delay the exit of a
process. So each destination has a queue of encoded batches and a thread that sends them, oldest first. One log line
reports the start of an outage, and one reports its end and what was lost.
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

from traced_flask.batch import Batch, in_words, join, split
from traced_flask.destination import Destination
from traced_flask.failure import UNCONFIGURED, Failure
from traced_flask.greenlets import hide_failures_of_inherited_threads

logger = logging.getLogger(__name__)

CAPACITY: Final = 2048  # items (spans, log records), as in the SDK's own queue
CAPACITY_BYTES: Final = 32 * 1024 * 1024  # a limit for unusually large items
BATCH_SIZE: Final = 512  # items per request when several batches wait, as in the SDK
BATCH_BYTES: Final = 4 * 1024 * 1024  # bytes per request when several batches wait
FIRST_PAUSE: Final = 0.5  # s before the second attempt; doubles each time
MAX_PAUSE: Final = 5.0  # s; short, to detect a new key or a recovered receiver soon
SHUTDOWN_TIMEOUT: Final = 3.0  # s
SLOW: Final = 1.0  # s without a response, after which a receiver counts as being in an outage
INTERVAL: Final = 60.0  # s in which repeated outages are logged once
LONG_OUTAGE: Final = 10.0  # s after which an outage is logged in any case


@dataclasses.dataclass(slots=True)
class Outage:
    """A period in which attempts fail."""

    since: float  # on time.monotonic()
    signals: set[str] = dataclasses.field(default_factory=set)  # the ones that fail, maybe not all
    logged: dict[str, str] = dataclasses.field(default_factory=dict)  # signal: reason
    lost: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    reason: str = ""


class Delivery:
    """Sends batches to `destination`, oldest first, from a daemon thread that starts with the first batch.

    The queue holds at most `capacity` items and 32 MiB; beyond that, the oldest batches are dropped and counted.
    Waiting batches of a signal are sent together, up to `batch_size` items per request. Safe to use from any thread.
    A forked child starts with an empty queue: its parent sends what was waiting.
    """

    def __init__(self, destination: Destination, capacity: int = CAPACITY, batch_size: int = BATCH_SIZE) -> None:
        self.destination = destination
        self.capacity = capacity
        self.batch_size = batch_size
        self._max_joined_size = BATCH_BYTES  # of joined batches; lower after a 413 response
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
        """Clear all state. A thread that waits for a response ends when it gets one."""
        self._queue: collections.deque[Batch] = collections.deque()
        self._count = self._bytes = 0  # in the queue
        self._sending: Batch | None = None
        self._sending_since = 0.0  # on time.monotonic()
        self._thread: threading.Thread | None = None
        self._until: float | None = None  # on time.monotonic(), while `close` runs
        self._until_in_outage: float | None = None
        self._outage: Outage | None = None
        self._lost: collections.Counter[str] = collections.Counter()  # outside of outages, and not logged yet

    @property
    def in_outage(self) -> bool:
        """Whether the last attempt of a signal failed, or the current one has had no response for a second."""
        is_waiting = self._sending is not None and time.monotonic() - self._sending_since > SLOW
        return self._outage is not None or is_waiting

    def put(self, signal: str, body: bytes, count: int) -> None:
        """Queue `body`, an encoded export request with `count` items. Never waits."""
        with self._changed:
            self._queue.append(Batch(signal, body, count))
            self._grow(count, len(body))
            lost = self._make_room()
            self._changed.notify_all()
        self._start_thread()
        if lost and self._outage is None:
            self._report_losses("there is more telemetry than it accepts. Sample, or send less")

    def flush(self, until: float) -> bool:
        """Wait until everything is delivered, at most until `until` (on time.monotonic()) and not during an outage."""
        if not self._start_thread():
            self.close(until)
        with self._changed:
            timeout = max(0.0, until - time.monotonic())
            self._changed.wait_for(lambda: self._is_empty() or self._outage is not None, timeout)
            return self._is_empty()

    def start_closing(self, until: float, in_outage: float | None = None) -> None:
        """Start sending the rest without pauses. `until` and `in_outage` are as in `close`."""
        with self._changed:
            self._until, self._until_in_outage = until, until if in_outage is None else in_outage
            self._changed.notify_all()

    def close(self, until: float, in_outage: float | None = None) -> None:
        """Send the rest until `until`, or until `in_outage` in an outage, and log what was lost.

        Both are on time.monotonic(). Batches that are put later are sent as usual, so this can be called again.
        """
        self.start_closing(until, in_outage)
        if not self._start_thread():
            self._thread = threading.current_thread()
            self._run()
        with self._changed:
            while self._thread is not None and (remaining := self._remaining()) > 0:
                self._changed.wait(min(remaining, 0.1))  # an outage may start in the meantime
            unsent = self._queue or self._sending
            reason = "it did not answer in time" if unsent else self._loss_reason
            reason = self._outage.reason if self._outage else reason
            lost = self._lost + (self._outage.lost if self._outage else collections.Counter())
            for batch in self._queue:
                lost[batch.signal] += batch.count
            unanswered = collections.Counter({self._sending.signal: self._sending.count} if self._sending else {})
            self._reset()
            self._changed.notify_all()
        self.destination.close()
        parts = [(in_words(lost), "lost"), (in_words(unanswered), "sent without an answer")]
        if summary := ", ".join(f"{words} {what}" for words, what in parts if words):
            logger.warning(
                "Stopped before all telemetry had reached %s (%s): %s.", self.destination.name, summary, reason
            )

    def _remaining(self) -> float:
        """Return the seconds that remain for `close`."""
        until = self._until_in_outage if self.in_outage else self._until
        return (until or 0.0) - time.monotonic()

    def _is_empty(self) -> bool:
        return not self._queue and self._sending is None

    def _grow(self, count: int, size: int) -> None:
        self._count += count
        self._bytes += size

    def _start_thread(self) -> bool:
        """Start a thread if one is needed. Return False if it cannot be started.

        Does not hold the lock at the start: a gevent "thread" runs immediately and may need the lock.
        """
        with self._changed:
            if self._thread is not None or not self._queue:
                return True
            thread = self._thread = threading.Thread(target=self._run, name="telemetry-delivery", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # since Python 3.12, no thread starts during shutdown
            self._thread = None
            return False
        return True

    def _make_room(self) -> bool:
        """Drop the oldest batches that do not fit. Return whether there were any."""
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
        finally:  # also after an exception in a logging handler; the next batch starts a new thread
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
            failure = self._record_result(batch, started, self.destination.send(batch.signal, batch.body, timeout))
            if failure is None:
                pause = FIRST_PAUSE
            elif until is None or failure.retryable:  # at shutdown, do not wait after a rejected batch
                if not self._pause(failure.pause or pause * random.uniform(0.8, 1)):
                    return
                pause = min(pause * 2, MAX_PAUSE)

    def _next(self) -> Batch | None:
        """Return the oldest batch, joined with others of its signal; None if the thread must end."""
        this_thread = threading.current_thread()
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._until is not None or self._thread is not this_thread)
            if self._thread is not this_thread:
                return None
            if not self._queue or (self._until is not None and self._remaining() <= 0):
                self._end_thread()
                return None
            first = self._pop()
            parts, count, size = [first], first.count, len(first.body)
            rest = []
            while self._queue:
                batch = self._pop()
                fits = count + batch.count <= self.batch_size and size + len(batch.body) <= self._max_joined_size
                if batch.signal == first.signal and fits:
                    parts.append(batch)
                    count, size = count + batch.count, size + len(batch.body)
                else:
                    rest.append(batch)
            for batch in rest:
                self._queue.append(batch)
                self._grow(batch.count, len(batch.body))
            self._sending, self._sending_since = join(tuple(parts)), time.monotonic()
            return self._sending

    def _end_thread(self) -> None:
        self._thread = None
        self._changed.notify_all()

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt, or until `close` is called. Return False if no time remains."""
        with self._changed:
            if self._until is None:
                self._changed.wait_for(lambda: self._until is not None, seconds)
            elif seconds < self._remaining():
                self._changed.wait_for(lambda: False, seconds)
            else:
                self._end_thread()
                return False
        return True

    def _record_result(self, batch: Batch, started: float, failure: Failure | None) -> Failure | None:
        """Record the result of an attempt. Return the failure if a pause must follow."""
        now, line, losses = time.monotonic(), None, None
        with self._changed:
            if self._sending is not batch:  # `close` has given up on it
                return None
            self._sending = None
            if failure is None or failure is UNCONFIGURED or failure.rejected is not None:
                line = self._recovered(batch.signal, now, silent=failure is UNCONFIGURED)
                if failure is not None and failure.rejected is not None:
                    self._lose(batch.signal, min(failure.rejected, batch.count))
                    losses = f"it rejects them: {failure.reason}"
                failure = None
            elif failure.too_large and batch.count > 1 and (pieces := split(batch)):
                self._max_joined_size = min(self._max_joined_size, len(batch.body) // 2)
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
        """Record a failed attempt. Return a line to log, if any."""
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
        """Record that `signal` was delivered. Return a line to log, if any."""
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
        summary = in_words(outage.lost) or "nothing was"
        return f"Telemetry is reaching {self.destination.name} again after {now - outage.since:.0f} s; {summary} lost."

    def _report_losses(self, reason: str) -> None:
        """Log what was lost outside of outages, at most once a minute."""
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
    """Limit the shutdown of all telemetry to `seconds` from now, or to `in_outage` for destinations in an outage.

    Only the first call has an effect, until the next exporter is created.
    """
    global _deadlines
    if _deadlines is None:
        now = time.monotonic()
        _deadlines = (now + seconds, now + (seconds if in_outage is None else in_outage))
        hide_failures_of_inherited_threads()


def shutdown_deadlines() -> tuple[float, float]:
    """Return the deadlines of delivery, without and with an outage, on time.monotonic()."""
    start_shutdown()
    return _deadlines or (0.0, 0.0)


def is_shutting_down() -> bool:
    """Return whether the shutdown has started and its time is not over."""
    return _deadlines is not None and time.monotonic() < _deadlines[0]


def reset_shutdown() -> None:
    """Reset the deadlines, for a new exporter or in a forked child."""
    global _deadlines
    _deadlines = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_shutdown)
