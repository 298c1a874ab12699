"""Shows a trace as a tree of text: in the terminal when its root has arrived, or when asked over HTTP."""

import json
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

from otlp_viewer.model import Span, SpanOutline, Trace, TraceSummary
from otlp_viewer.tree import Node, walk

QUIET_SECONDS = 1.0
"""A trace is printed when nothing of it came for this long."""
GIVE_UP_SECONDS = 30.0
"""A trace without its root is printed when nothing of it came for this long."""
MOST_TREES = 5
"""Trees that are printed within a second; more traces than that are counted in one line."""
MOST_WAITING = 10_000
MOST_LINES = 60
MOST_ATTRIBUTES = 12
RUN = 3
"""This many leaves side by side that have one name become one line."""
WIDEST_RAILS = 48
WIDEST_LABEL = 72
LABEL_SHARE = 0.6
"""Of a terminal's width."""

ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "✗": "x", "…": "..."})
STYLES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}

Piece = tuple[str, str]  # a text, and its style ("" for none)


def render(trace: Trace, color: bool = False, width: int = 0, named: bool = True) -> str:
    """Return a trace as lines of text, with ANSI colors if asked.

    No line is wider than `width` columns (0: any width). The first line ends in the trace's id, if `named`. Nothing in
    a span can steer a terminal: what is not printable becomes an escape. Long values are cut, leaves of one name are
    drawn together, and lines after the first MOST_LINES are only counted.
    """
    rows: list[tuple[list[Piece], str, list[Piece]]] = []
    rails: list[str] = []
    services: list[str] = []
    runs = _runs(list(walk(trace.spans)))
    drawn = runs[:MOST_LINES]
    details = {span.row: span for span in trace.read([run[0].span.row for run in drawn if len(run) == 1])}
    for run in drawn:
        node = run[-1]
        del rails[node.depth :], services[node.depth :]
        branch = ("└─ " if node.last else "├─ ") if node.depth else ""
        label = [(("".join(rails) + branch)[-WIDEST_RAILS:], "dim"), *_label(run, details)]
        if services[-1:] != [node.span.service]:
            label.append(("  " + visible(node.span.service, 40), "cyan"))
        rows.append((label, _duration(sum(one.span.duration_ms for one in run)), _remarks(run, details)))
        rails.append(("   " if node.last else "│  ") if node.depth else "")
        services.append(node.span.service)
    if named:
        rows[0][2].insert(0, (f"  trace {trace.summary.trace_id}", "dim"))

    widest = min(WIDEST_LABEL, max(int(width * LABEL_SHARE), 12)) if width else WIDEST_LABEL
    if width:
        rows = [(_cut(label, widest), duration, remarks) for label, duration, remarks in rows]
    label_width = min(max(_width(label) for label, _, _ in rows), widest)
    duration_width = max(len(duration) for _, duration, _ in rows)
    text = []
    for label, duration, remarks in rows:
        gap = " " * (label_width - _width(label) + 2 + duration_width - len(duration))
        pieces = [*label, (gap or "  ", ""), (duration, ""), *remarks]
        pieces = _cut(pieces, width) if width else pieces
        text.append("".join(_paint(piece, style if color else "") for piece, style in pieces).rstrip(" "))
    left = trace.summary.span_count - sum(map(len, drawn))
    if left > 0:
        text.append(f"… {left:,} more span{'s' if left > 1 else ''}")
    return "\n".join(text) + "\n"


def _runs(nodes: list[Node[SpanOutline]]) -> list[list[Node[SpanOutline]]]:
    """Return the nodes line by line: each alone, or leaves side by side with one name and no errors together."""
    runs: list[list[Node[SpanOutline]]] = []
    together: list[Node[SpanOutline]] = []

    def close() -> None:
        runs.extend([together.copy()] if len(together) >= RUN else [[one] for one in together])
        together.clear()

    for number, node in enumerate(nodes):
        leaf = number + 1 == len(nodes) or nodes[number + 1].depth <= node.depth
        if together and not (
            node.depth == together[0].depth
            and (node.span.name, node.span.service) == (together[0].span.name, together[0].span.service)
        ):
            close()
        if leaf and node.depth and not node.span.error and not node.note:
            together.append(node)
        else:
            close()
            runs.append([node])
    close()
    return runs


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
        # Without the lock, which every request that brings spans waits for.
        found = self._find(list(due)) if due else {}
        for trace_id, came in due.items():
            trace = found.get(trace_id)
            with self._lock:
                waiting = self._waiting.get(trace_id)
                if waiting is None or waiting.came != came:
                    continue  # more of it came meanwhile
                rooted = trace is None or trace.summary.roots > 0
                if not rooted and not waiting.looked:
                    waiting.looked = True
                    continue
                del self._waiting[trace_id]
                known = self._printed.get(trace_id, (0, 0))[1]
                if trace is None or trace.summary.span_count <= known:
                    continue
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


def _label(run: list[Node[SpanOutline]], details: Mapping[int, Span]) -> list[Piece]:
    span, depth = run[0].span, run[0].depth
    pieces = [(visible(span.name, 60), "red" if span.error else "" if depth else "bold")]
    if len(run) > 1:
        return [*pieces, (f" x{len(run):,}", "dim")]
    attributes = details[span.row].attributes if span.row in details else {}
    address = attributes.get("url.full") or ("" if "http.route" in attributes else attributes.get("url.path"))
    if address:
        pieces.append((" " + visible(address, 60), ""))
    status = attributes.get("http.response.status_code")
    if isinstance(status, int):
        style = "green" if status < 400 else "yellow" if status < 500 else "red"
        pieces.append((f"  {status}", style))
    return pieces


def _remarks(run: list[Node[SpanOutline]], details: Mapping[int, Span]) -> list[Piece]:
    if len(run) > 1:
        return [(f"  longest {_duration(max(one.span.duration_ms for one in run)).strip()}", "dim")]
    node = run[0]
    pieces: list[Piece] = []
    span = details.get(node.span.row)
    if node.span.error:
        pieces.append(("  ✗ " + visible(_error(span) if span else node.span.status_message, 120), "red"))
    if node.note:
        pieces.append((f"  {node.note}", "yellow"))
    attributes = span.attributes if span else {}
    own = [name for name in attributes if name.startswith("app.")]
    for name in own[:MOST_ATTRIBUTES]:
        value = attributes[name]
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


def _width(pieces: Iterable[Piece]) -> int:
    return sum(_cells(character) for text, _ in pieces for character in text)


def _cells(character: str) -> int:
    """Return how many columns of a terminal a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(pieces: list[Piece], width: int) -> list[Piece]:
    """Return the pieces in at most `width` columns, with an ellipsis where something was cut."""
    if _width(pieces) <= width:
        return pieces
    found: list[Piece] = []
    left = width - 1
    for text, style in pieces:
        fitting = ""
        for character in text:
            left -= _cells(character)
            if left < 0:
                return [*found, (fitting.rstrip(" ") + "…", style)]
            fitting += character
        found.append((fitting, style))
    return found


def _paint(text: str, style: str) -> str:
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text else text


def _drop_oldest(entries: dict[str, Any]) -> None:
    for name in list(islice(entries, max(len(entries) - MOST_WAITING, 0))):
        del entries[name]
