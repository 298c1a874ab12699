"""Prints each trace in the terminal after its root span has arrived."""

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

from otlp_viewer.model import Trace, TraceSummary
from otlp_viewer.terminal import render

QUIET_SECONDS = 1.0
"""A trace is printed after this long without new spans."""
GIVE_UP_SECONDS = 30.0
"""A trace without a root is printed after this long without new spans."""
MAX_TREES = 5
"""Trees printed per second. If more traces are due, one line counts them."""
MAX_PENDING = 10_000
ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "✗": "x", "…": "..."})


def wants_color(out: TextIO) -> bool:
    """Return whether to use colors: NO_COLOR turns them off, FORCE_COLOR on. The default is on for a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or out.isatty()


@dataclass(slots=True)
class Pending:
    """A trace with spans that have not been printed."""

    arrived: float
    """When its newest span arrived."""
    was_read: bool = False
    """Whether it was read and had no root."""


class Printer:
    """Prints a trace when it has a root and no new spans arrive, and again after more spans.

    `find` returns the stored traces with the given IDs, by ID. A trace without a root is printed after
    GIVE_UP_SECONDS. Each time a trace is printed, the wait for the next time doubles. More than MAX_TREES traces in a
    second are only counted, in one line. `page` returns the URL of a trace's page, which is printed below its tree;
    `listing` is the URL of the list of traces.
    """

    def __init__(
        self,
        find: Callable[[Collection[str]], Mapping[str, Trace]],
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        page: Callable[[TraceSummary], str] = lambda trace: "",
        listing: str = "",
    ) -> None:
        self._find = find
        self._out = out or sys.stdout
        self._clock = clock
        self._page = page
        self._listing = listing
        self._color = wants_color(self._out)
        self._lock = threading.Lock()
        self._pending: dict[str, Pending] = {}
        self._printed: dict[str, tuple[int, int]] = {}  # times printed, number of spans
        self._rate = (clock(), 0)  # start of the current second, trees printed in it
        self._skipped = 0
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace-printer", daemon=True)

    def received(self, trace_ids: Collection[str]) -> None:
        """Record that spans of these traces have just arrived."""
        with self._lock:
            now = self._clock()
            for trace_id in trace_ids:
                # Reinsert, to keep the traces in the order of their newest spans.
                self._pending.pop(trace_id, None)
                self._pending[trace_id] = Pending(now)
            _drop_oldest(self._pending)
        self._wake.set()

    def print_due(self) -> None:
        """Print the traces that are due, or one line that counts them."""
        now = self._clock()
        with self._lock:
            if now - self._rate[0] >= 1:
                self._rate = now, 0
                self._print_count()
            due = {
                trace_id: trace.arrived
                for trace_id, trace in self._pending.items()
                if now - trace.arrived >= self._wait(trace_id)
            }
            if len(due) > MAX_TREES - self._rate[1]:
                for trace_id in due:
                    del self._pending[trace_id]
                    self._skipped += trace_id not in self._printed
                    self._remember(trace_id, 0)
                return
            self._rate = self._rate[0], self._rate[1] + len(due)
        for trace_id, arrived in due.items():
            try:
                self._print_one(trace_id, arrived)
            except OSError:
                raise
            except Exception:  # it cannot be read now, so only count it
                with self._lock:
                    self._pending.pop(trace_id, None)
                    self._skipped += 1

    def _print_one(self, trace_id: str, arrived: float) -> None:
        # Without the lock, because every request with spans waits for it.
        trace = self._find([trace_id]).get(trace_id)
        with self._lock:
            pending = self._pending.get(trace_id)
            if pending is None or pending.arrived != arrived:
                return  # more spans have arrived
            if trace is not None and not trace.summary.roots and not pending.was_read:
                pending.was_read = True
                return
            del self._pending[trace_id]
            printed = self._printed.get(trace_id, (0, 0))[1]
            if trace is None or trace.summary.span_count <= printed:
                return
            self._remember(trace_id, trace.summary.span_count)
        self.print(trace, trace.summary.span_count - printed if printed else 0)

    def print(self, trace: Trace, more: int = 0) -> None:
        """Write a trace in one call. `more` is the number of spans since it was last printed."""
        page = self._page(trace.summary)
        text = f"{more:,} more span{'s' if more > 1 else ''}:\n" if more else ""
        text += render(trace, self._color, _columns(self._out), named=not page)
        self._write(text + (f"{page}\n\n" if page else "\n"))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, so that it holds no lock on stdout while the interpreter exits."""
        self._stop.set()
        self._wake.set()
        self._thread.join(1)

    def _wait(self, trace_id: str) -> float:
        """Return the seconds without new spans before a trace is printed."""
        if self._pending[trace_id].was_read:
            return GIVE_UP_SECONDS
        return float(QUIET_SECONDS * 2 ** min(self._printed.get(trace_id, (0, 0))[0], 6))

    def _remember(self, trace_id: str, spans: int) -> None:
        times, before = self._printed.pop(trace_id, (0, 0))
        self._printed[trace_id] = times + 1, max(spans, before)
        _drop_oldest(self._printed)

    def _print_count(self) -> None:
        if self._skipped:
            link = f": {self._listing}" if self._listing else ""
            self._write(f"{self._skipped:,} more trace{'s' if self._skipped > 1 else ''} in the last second{link}\n\n")
            self._skipped = 0

    def _write(self, text: str) -> None:
        """Write text, replacing characters that the terminal's encoding lacks."""
        encoding = self._out.encoding or "utf-8"
        try:
            "├└│─✗…".encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(ASCII)
        self._out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._out.flush()

    def _run(self) -> None:
        while self._wake.wait() and not self._stop.wait(0.25):
            try:
                self.print_due()
            except OSError:  # the output was closed; the pages still work
                return
            with self._lock:
                if not self._pending and not self._skipped:
                    self._wake.clear()


def _columns(out: TextIO) -> int:
    """Return the width of the terminal, or 0 if the output is not one."""
    try:
        return os.get_terminal_size(out.fileno()).columns if out.isatty() else 0
    except (OSError, ValueError):
        return 0


def _drop_oldest(entries: dict[str, Any]) -> None:
    for name in list(islice(entries, max(len(entries) - MAX_PENDING, 0))):
        del entries[name]
