"""Shows a trace as a tree of text."""

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from otlp_viewer.messages import Span
from otlp_viewer.model import SpanOutline, Trace
from otlp_viewer.tree import Node, walk

MOST_LINES = 60
MOST_ATTRIBUTES = 12
RUN = 3
"""This many leaves side by side that have one name become one line."""
WIDEST_RAILS = 48
WIDEST_LABEL = 72
LABEL_SHARE = 0.6
"""Of a terminal's width."""

STYLES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}

Piece = tuple[str, str]  # a text, and its style ("" for none)


@dataclass(frozen=True, slots=True)
class Details:
    """What is printed of a span besides what an outline has; short, however large the span is."""

    label: list[Piece]
    error: str
    attributes: list[Piece]


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
    details = {span.row: _details(span) for span in trace.read([run[0].span.row for run in drawn if len(run) == 1])}
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


def _label(run: list[Node[SpanOutline]], details: Mapping[int, Details]) -> list[Piece]:
    span, depth = run[0].span, run[0].depth
    pieces = [(visible(span.name, 60), "red" if span.error else "" if depth else "bold")]
    if len(run) > 1:
        return [*pieces, (f" x{len(run):,}", "dim")]
    return pieces + (details[span.row].label if span.row in details else [])


def _remarks(run: list[Node[SpanOutline]], details: Mapping[int, Details]) -> list[Piece]:
    if len(run) > 1:
        return [(f"  longest {_duration(max(one.span.duration_ms for one in run)).strip()}", "dim")]
    node = run[0]
    about = details.get(node.span.row, Details([], node.span.status_message, []))
    pieces: list[Piece] = []
    if node.span.error:
        pieces.append((f"  ✗ {visible(about.error, 120)}".rstrip(), "red"))
    if node.note:
        pieces.append((f"  {node.note}", "yellow"))
    return pieces + about.attributes


def _details(span: Span) -> Details:
    attributes = span.attributes
    label: list[Piece] = []
    address = attributes.get("url.full") or ("" if "http.route" in attributes else attributes.get("url.path"))
    if address:
        label.append((" " + visible(address, 60), ""))
    status = attributes.get("http.response.status_code")
    if isinstance(status, int):
        style = "green" if status < 400 else "yellow" if status < 500 else "red"
        label.append((f"  {status}", style))
    pieces: list[Piece] = []
    own = [name for name in attributes if name.startswith("app.")]
    for name in own[:MOST_ATTRIBUTES]:
        value = attributes[name]
        if isinstance(value, str) and (" " in value or not value):
            value = f'"{value}"'
        pieces += [(f"  {visible(name, 60)}=", "dim"), (visible(value, 60), "")]
    if len(own) > MOST_ATTRIBUTES:
        pieces.append((f"  … {len(own) - MOST_ATTRIBUTES} more", "dim"))
    return Details(label, visible(_error(span), 120), pieces)


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
