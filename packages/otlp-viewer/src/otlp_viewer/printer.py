"""Prints traces in the terminal, each when its root has arrived."""

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
"""A trace is printed when nothing of it came for this long."""
GIVE_UP_SECONDS = 30.0
"""A trace without its root is printed when nothing of it came for this long."""
MOST_TREES = 5
"""Trees that are printed within a second; more traces than that are counted in one line."""
MOST_WAITING = 10_000
ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "✗": "x", "…": "..."})


def wants_color(out: TextIO) -> bool:
    """NO_COLOR switches colors off, FORCE_COLOR on; otherwise a terminal has them."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or out.isatty()


@dataclass(slots=True)
class Waiting:
    """A trace of which something came that is not printed."""

    came: float
    """When its newest span came."""
    looked: bool = False
    """It was looked for and had no root."""


class Printer:
    """Prints a trace when its root is there and no more of it is expected, and again when more came.

    `find` returns those of some traces that are in memory, by their ids. A trace without a root is printed after
    GIVE_UP_SECONDS. Each time it is printed, the next time takes twice as long. More traces than MOST_TREES in a second
    are only counted, in one line. `page` answers the address of a trace's page, which then follows its tree; `listing`
    is the address of the list of traces.
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
        self._waiting: dict[str, Waiting] = {}
        self._printed: dict[str, tuple[int, int]] = {}  # how often, and with how many spans
        self._second = (clock(), 0)  # when the current second began, and how many trees it has had
        self._counted = 0
        self._work = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace-printer", daemon=True)

    def received(self, trace_ids: Collection[str]) -> None:
        """Note that spans of these traces came just now."""
        with self._lock:
            now = self._clock()
            for trace_id in trace_ids:
                # Taken out first, so that the traces stay in the order of their newest spans.
                self._waiting.pop(trace_id, None)
                self._waiting[trace_id] = Waiting(now)
            _drop_oldest(self._waiting)
        self._work.set()

    def print_due(self) -> None:
        """Print what is due now: trees, or a line about the traces of the last second."""
        now = self._clock()
        with self._lock:
            if now - self._second[0] >= 1:
                self._second = now, 0
                self._print_count()
            due = {
                trace_id: one.came for trace_id, one in self._waiting.items() if now - one.came >= self._wait(trace_id)
            }
            if len(due) > MOST_TREES - self._second[1]:
                for trace_id in due:
                    del self._waiting[trace_id]
                    self._counted += trace_id not in self._printed
                    self._remember(trace_id, 0)
                return
            self._second = self._second[0], self._second[1] + len(due)
        for trace_id, came in due.items():
            try:
                self._print_due(trace_id, came)
            except OSError:
                raise
            except Exception:  # it cannot be read now, and is only counted
                with self._lock:
                    self._waiting.pop(trace_id, None)
                    self._counted += 1

    def _print_due(self, trace_id: str, came: float) -> None:
        # Without the lock, which every request that brings spans waits for.
        trace = self._find([trace_id]).get(trace_id)
        with self._lock:
            waiting = self._waiting.get(trace_id)
            if waiting is None or waiting.came != came:
                return  # more of it came meanwhile
            if trace is not None and not trace.summary.roots and not waiting.looked:
                waiting.looked = True
                return
            del self._waiting[trace_id]
            known = self._printed.get(trace_id, (0, 0))[1]
            if trace is None or trace.summary.span_count <= known:
                return
            self._remember(trace_id, trace.summary.span_count)
        self.print(trace, trace.summary.span_count - known if known else 0)

    def print(self, trace: Trace, more: int = 0) -> None:
        """Write a trace in one piece; `more` is how many spans came since it was printed before."""
        page = self._page(trace.summary)
        text = f"{more:,} more span{'s' if more > 1 else ''}:\n" if more else ""
        text += render(trace, self._color, _columns(self._out), named=not page)
        self._write(text + (f"{page}\n\n" if page else "\n"))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, so that it holds no lock on stdout while the interpreter exits."""
        self._stop.set()
        self._work.set()
        self._thread.join(1)

    def _wait(self, trace_id: str) -> float:
        """Return how long nothing of a trace must have come before it is printed."""
        if self._waiting[trace_id].looked:
            return GIVE_UP_SECONDS
        return float(QUIET_SECONDS * 2 ** min(self._printed.get(trace_id, (0, 0))[0], 6))

    def _remember(self, trace_id: str, spans: int) -> None:
        times, before = self._printed.pop(trace_id, (0, 0))
        self._printed[trace_id] = times + 1, max(spans, before)
        _drop_oldest(self._printed)

    def _print_count(self) -> None:
        if self._counted:
            see = f": {self._listing}" if self._listing else ""
            self._write(f"{self._counted:,} more trace{'s' if self._counted > 1 else ''} in the last second{see}\n\n")
            self._counted = 0

    def _write(self, text: str) -> None:
        """Write text in what the terminal's encoding has."""
        encoding = self._out.encoding or "utf-8"
        try:
            "├└│─✗…".encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(ASCII)
        self._out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._out.flush()

    def _run(self) -> None:
        while self._work.wait() and not self._stop.wait(0.25):
            try:
                self.print_due()
            except OSError:  # whoever read our output is gone; the pages still work
                return
            with self._lock:
                if not self._waiting and not self._counted:
                    self._work.clear()


def _columns(out: TextIO) -> int:
    """Return how wide a terminal is, 0 where there is none."""
    try:
        return os.get_terminal_size(out.fileno()).columns if out.isatty() else 0
    except (OSError, ValueError):
        return 0


def _drop_oldest(entries: dict[str, Any]) -> None:
    for name in list(islice(entries, max(len(entries) - MOST_WAITING, 0))):
        del entries[name]
