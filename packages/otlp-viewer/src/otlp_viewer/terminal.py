"""Shows a trace as a tree of text, in the terminal once it is finished or when asked over HTTP."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any, TextIO

from otlp_viewer.model import Span, Trace
from otlp_viewer.tree import Node, walk

QUIET_SECONDS = 1.0
GIVE_UP_SECONDS = 5.0
MOST_WAITING = 10_000
MOST_AT_ONCE = 50
MOST_LINES = 200
MOST_ATTRIBUTES = 12
WIDEST_RAILS = 48
WIDEST_LABEL = 72

ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "✗": "x", "…": "..."})
STYLES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}

Piece = tuple[str, str]  # a text, and its style ("" for none)


def render(trace: Trace, color: bool = False) -> str:
    """Return a trace (as `Store.trace` has it) as lines of text, with ANSI colors if asked.

    Nothing in it can steer a terminal: what is not printable is shown as an escape. Long values are
    cut, and lines after the first MOST_LINES are only counted.
    """
    rows: list[tuple[list[Piece], str, list[Piece]]] = []
    rails: list[str] = []
    services: list[str] = []
    for node in islice(walk(trace.spans), MOST_LINES):
        del rails[node.depth :], services[node.depth :]
        service = node.span.service
        branch = ("└─ " if node.last else "├─ ") if node.depth else ""
        label = [(("".join(rails) + branch)[-WIDEST_RAILS:], "dim"), *_label(node)]
        if services[-1:] != [service]:
            label.append(("  " + visible(service, 40), "cyan"))
        rows.append((label, _duration(node.span.duration_ms), _remarks(node)))
        rails.append(("   " if node.last else "│  ") if node.depth else "")
        services.append(service)
    rows[0][2].insert(0, (f"  trace {trace.summary.trace_id}", "dim"))

    label_width = min(max(_width(label) for label, _, _ in rows), WIDEST_LABEL)
    duration_width = max(len(duration) for _, duration, _ in rows)
    text = []
    for label, duration, remarks in rows:
        gap = " " * (label_width - _width(label) + 2 + duration_width - len(duration))
        pieces = [*label, (gap or "  ", ""), (duration, ""), *remarks]
        text.append("".join(_paint(piece, style if color else "") for piece, style in pieces))
    if trace.summary.span_count > len(rows):
        more = trace.summary.span_count - len(rows)
        text.append(f"… {more} more span{'s' if more > 1 else ''}")
    return "\n".join(text) + "\n"


def visible(value: Any, longest: int) -> str:
    """Return a value as at most `longest` of its characters, unprintable ones as escapes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def wants_color(out: TextIO) -> bool:
    """NO_COLOR switches colors off, FORCE_COLOR on; otherwise a terminal has them."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or out.isatty()


class Printer:
    """Prints each trace once, when no more of its spans are expected.

    `find` returns those of some traces that are kept, by their ids. A trace is finished when nothing of it
    came for QUIET_SECONDS and its root and all parents are there, or else after GIVE_UP_SECONDS. Of more than
    MOST_AT_ONCE, which nobody could read, the older ones are only counted, in `left_out`. `page` answers the
    address of a trace's page, which then follows the tree.
    """

    def __init__(
        self,
        find: Callable[[Collection[str]], Mapping[str, Trace]],
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        page: Callable[[Trace], str] = lambda trace: "",
    ) -> None:
        self._find = find
        self._out = out or sys.stdout
        self._clock = clock
        self._page = page
        self.left_out = 0
        self._color = wants_color(self._out)
        self._lock = threading.Lock()
        # When the newest span of a trace came, and whether it was found incomplete since.
        self._waiting: dict[str, tuple[float, bool]] = {}
        self._printed: dict[str, None] = {}
        self._work = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace-printer", daemon=True)

    def received(self, trace_ids: Collection[str]) -> None:
        """Note that spans of these traces came just now."""
        with self._lock:
            now = self._clock()
            for trace_id in trace_ids:
                if trace_id not in self._printed:
                    # Taken out first, so that the traces stay in the order of their newest spans.
                    self._waiting.pop(trace_id, None)
                    self._waiting[trace_id] = now, False
            _drop_oldest(self._waiting)
        self._work.set()

    def finished(self) -> list[Trace]:
        """Return the traces that are finished now; each is returned once."""
        with self._lock:
            now = self._clock()
            quiet = [
                trace_id
                for trace_id, (came, incomplete) in self._waiting.items()
                if now - came >= (GIVE_UP_SECONDS if incomplete else QUIET_SECONDS)
            ]
            for trace_id in quiet[:-MOST_AT_ONCE]:
                del self._waiting[trace_id]
                self._printed[trace_id] = None
                self.left_out += 1
            asked = {trace_id: self._waiting[trace_id][0] for trace_id in quiet[-MOST_AT_ONCE:]}
        # Without the lock, which every request that brings spans waits for.
        found = self._find(list(asked)) if asked else {}
        traces = []
        with self._lock:
            for trace_id, came in asked.items():
                if trace_id not in self._waiting or self._waiting[trace_id][0] != came:
                    continue  # more of it came meanwhile
                trace = found.get(trace_id)
                if trace and not trace.summary.complete and now - came < GIVE_UP_SECONDS:
                    self._waiting[trace_id] = came, True
                    continue
                del self._waiting[trace_id]
                if trace:
                    self._printed[trace_id] = None
                    traces.append(trace)
            _drop_oldest(self._printed)
        return traces

    def print(self, trace: Trace) -> None:
        """Write a trace in one piece, in what the terminal's encoding can show."""
        text = render(trace, self._color)
        if page := self._page(trace):
            text += f"{page}\n"
        text += "\n"
        encoding = self._out.encoding or "utf-8"
        try:
            "├└│─✗…".encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(ASCII)
        self._out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._out.flush()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, so that it holds no lock on stdout while the interpreter exits."""
        self._stop.set()
        self._work.set()
        self._thread.join(1)

    def _run(self) -> None:
        while self._work.wait() and not self._stop.wait(0.25):
            try:
                for trace in self.finished():
                    self.print(trace)
                if self.left_out:
                    self._out.write(f"and {self.left_out} more traces that came at once\n\n")
                    self._out.flush()
                    self.left_out = 0
            except OSError:  # whoever read our output is gone; the pages still work
                return
            with self._lock:
                if not self._waiting:
                    self._work.clear()


def _label(node: Node[Span]) -> list[Piece]:
    span = node.span
    pieces = [(visible(span.name, 60), "red" if span.error else "" if node.depth else "bold")]
    attributes = span.attributes
    address = attributes.get("url.full") or ("" if "http.route" in attributes else attributes.get("url.path"))
    if address:
        pieces.append((" " + visible(address, 60), ""))
    status = attributes.get("http.response.status_code")
    if isinstance(status, int):
        style = "green" if status < 400 else "yellow" if status < 500 else "red"
        pieces.append((f"  {status}", style))
    return pieces


def _remarks(node: Node[Span]) -> list[Piece]:
    pieces: list[Piece] = []
    if node.span.error:
        pieces.append(("  ✗ " + visible(_error(node.span), 120), "red"))
    if node.note:
        pieces.append((f"  {node.note}", "yellow"))
    own = [name for name in node.span.attributes if name.startswith("app.")]
    for name in own[:MOST_ATTRIBUTES]:
        value = node.span.attributes[name]
        if isinstance(value, str) and (" " in value or not value):
            value = f'"{value}"'
        pieces += [(f"  {visible(name, 60)}=", "dim"), (visible(value, 60), "")]
    if len(own) > MOST_ATTRIBUTES:
        pieces.append((f"  … {len(own) - MOST_ATTRIBUTES} more", "dim"))
    return pieces


def _error(span: Span) -> str:
    """Return the type and message of the last exception, or else the status message."""
    for event in reversed(span.events):
        if event.name == "exception":
            found = (event.attributes.get(f"exception.{part}") for part in ("type", "message"))
            return ": ".join(str(part) for part in found if part)
    return span.status_message


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:,.1f} ms" if milliseconds >= 0.05 else "<0.1 ms"


def _width(pieces: list[Piece]) -> int:
    return sum(len(text) for text, _ in pieces)


def _paint(text: str, style: str) -> str:
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text else text


def _drop_oldest(entries: dict[str, Any]) -> None:
    for name in list(islice(entries, max(len(entries) - MOST_WAITING, 0))):
        del entries[name]
