"""Renders a trace as a text tree."""

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from otlp_viewer.messages import Span
from otlp_viewer.model import SpanOutline, Trace
from otlp_viewer.tree import Node, walk

MAX_LINES = 60
MAX_ATTRIBUTES = 12
MIN_RUN = 3
"""At least this many adjacent leaves with the same name become one line."""
MAX_RAILS_WIDTH = 48
MAX_LABEL_WIDTH = 72
LABEL_SHARE = 0.6
"""Share of the terminal's width."""

STYLES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}

Piece = tuple[str, str]  # a text, and its style ("" for none)


@dataclass(frozen=True, slots=True)
class Details:
    """The printed parts of a span that its outline lacks, shortened."""

    label: list[Piece]
    error: str
    attributes: list[Piece]


def render(trace: Trace, color: bool = False, width: int = 0, named: bool = True) -> str:
    """Return a trace as lines of text, with ANSI colors if `color`.

    No line is wider than `width` columns (0: any width). The first line ends with the trace ID if `named`. Unprintable
    characters are escaped, so that a span cannot send control sequences to the terminal. Long values are cut, adjacent
    leaves with the same name share a line, and lines after the first MAX_LINES are only counted.
    """
    max_width = min(MAX_LABEL_WIDTH, max(int(width * LABEL_SHARE), 12)) if width else MAX_LABEL_WIDTH
    max_rails_width = min(MAX_RAILS_WIDTH, max_width // 2) if width else MAX_RAILS_WIDTH
    rows: list[tuple[list[Piece], str, list[Piece]]] = []
    rails: list[str] = []
    services: list[str] = []
    runs = _runs(list(walk(trace.spans)))
    printed = runs[:MAX_LINES]
    details = {span.row: _details(span) for span in trace.read([run[0].span.row for run in printed if len(run) == 1])}
    for run in printed:
        node = run[-1]
        del rails[node.depth :], services[node.depth :]
        branch = ("└─ " if node.last else "├─ ") if node.depth else ""
        label = [(("".join(rails) + branch)[-max_rails_width:], "dim"), *_label(run, details)]
        if services[-1:] != [node.span.service]:
            label.append(("  " + visible(node.span.service, 40), "cyan"))
        rows.append((label, _duration(sum(leaf.span.duration_ms for leaf in run)), _remarks(run, details)))
        rails.append(("   " if node.last else "│  ") if node.depth else "")
        services.append(node.span.service)
    if named:
        rows[0][2].insert(0, (f"  trace {trace.summary.trace_id}", "dim"))

    if width:
        rows = [(_cut(label, max_width), duration, remarks) for label, duration, remarks in rows]
    label_width = min(max(_width(label) for label, _, _ in rows), max_width)
    duration_width = max(len(duration) for _, duration, _ in rows)
    text = []
    for label, duration, remarks in rows:
        gap = " " * (label_width - _width(label) + 2 + duration_width - len(duration))
        pieces = [*label, (gap or "  ", ""), (duration, ""), *remarks]
        pieces = _cut(pieces, width) if width else pieces
        text.append("".join(_paint(piece, style if color else "") for piece, style in pieces).rstrip(" "))
    remaining = trace.summary.span_count - sum(map(len, printed))
    if remaining > 0:
        text.append(f"… {remaining:,} more span{'s' if remaining > 1 else ''}")
    return "\n".join(text) + "\n"


def _runs(nodes: list[Node[SpanOutline]]) -> list[list[Node[SpanOutline]]]:
    """Group the nodes by line: adjacent leaves with the same name and no errors share one."""
    runs: list[list[Node[SpanOutline]]] = []
    group: list[Node[SpanOutline]] = []

    def close() -> None:
        runs.extend([group.copy()] if len(group) >= MIN_RUN else [[leaf_node] for leaf_node in group])
        group.clear()

    for number, node in enumerate(nodes):
        is_leaf = number + 1 == len(nodes) or nodes[number + 1].depth <= node.depth
        if group and not (
            node.depth == group[0].depth
            and (node.span.name, node.span.service) == (group[0].span.name, group[0].span.service)
        ):
            close()
        if is_leaf and node.depth and not node.span.error and not node.note:
            group.append(node)
        else:
            close()
            runs.append([node])
    close()
    return runs


def visible(value: Any, max_length: int) -> str:
    """Return a value as text of at most `max_length` characters, with unprintable ones escaped."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > max_length:
        text = text[: max_length - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _label(run: list[Node[SpanOutline]], details: Mapping[int, Details]) -> list[Piece]:
    span, depth = run[0].span, run[0].depth
    pieces = [(visible(span.name, 60), "red" if span.error else "" if depth else "bold")]
    if len(run) > 1:
        return [*pieces, (f" x{len(run):,}", "dim")]
    return pieces + (details[span.row].label if span.row in details else [])


def _remarks(run: list[Node[SpanOutline]], details: Mapping[int, Details]) -> list[Piece]:
    if len(run) > 1:
        return [(f"  longest {_duration(max(leaf.span.duration_ms for leaf in run)).strip()}", "dim")]
    node = run[0]
    span_details = details.get(node.span.row, Details([], node.span.status_message, []))
    pieces: list[Piece] = []
    if node.span.error:
        pieces.append((f"  ✗ {visible(span_details.error, 120)}".rstrip(), "red"))
    if node.note:
        pieces.append((f"  {node.note}", "yellow"))
    return pieces + span_details.attributes


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
    names = [name for name in attributes if name.startswith("app.")]
    for name in names[:MAX_ATTRIBUTES]:
        value = attributes[name]
        if isinstance(value, str) and (" " in value or not value):
            value = f'"{value}"'
        pieces += [(f"  {visible(name, 60)}=", "dim"), (visible(value, 60), "")]
    if len(names) > MAX_ATTRIBUTES:
        pieces.append((f"  … {len(names) - MAX_ATTRIBUTES} more", "dim"))
    return Details(label, visible(_error(span), 120), pieces)


def _error(span: Span) -> str:
    """Return the type and message of the last exception, or the status message if there is none."""
    for event in reversed(span.events):
        if event.name == "exception":
            parts = (event.attributes.get(f"exception.{part}") for part in ("type", "message"))
            return ": ".join(str(part) for part in parts if part)
    return span.status_message


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:,.1f} ms" if milliseconds >= 0.05 else "<0.1 ms"


def _width(pieces: Iterable[Piece]) -> int:
    return sum(_cells(character) for text, _ in pieces for character in text)


def _cells(character: str) -> int:
    """Return the number of terminal columns of a character."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(pieces: list[Piece], width: int) -> list[Piece]:
    """Cut the pieces to `width` columns, ending with an ellipsis."""
    if _width(pieces) <= width:
        return pieces
    result: list[Piece] = []
    remaining = width - 1
    for text, style in pieces:
        fits = ""
        for character in text:
            remaining -= _cells(character)
            if remaining < 0:
                return [*result, (fits.rstrip(" ") + "…", style)]
            fits += character
        result.append((fits, style))
    return result


def _paint(text: str, style: str) -> str:
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text else text
