"""Decodes records into the columns of a table."""

import time
from collections.abc import Collection, Iterable

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otlp_viewer.receive import wire
from otlp_viewer.receive.records import Problems, Records
from otlp_viewer.receive.repair import repair
from otlp_viewer.store import arrow
from otlp_viewer.store.vocabulary import Pair, Vocabulary
from otlp_viewer.values import any_value, as_text, attributes

NULL_TRACE_ID, NULL_SPAN_ID = bytes(16), bytes(8)
MAX_TIME_NS = 2**63 - 1
SEVERITIES = {
    "TRACE": 1,
    "DEBUG": 5,
    "INFO": 9,
    "NOTICE": 10,
    "WARN": 13,
    "ERR": 17,
    "CRIT": 21,
    "FATAL": 21,
}
REPAIRED = "repaired: U+FFFD replaces invalid UTF-8, and values nested too deeply are left out"


class Columns:
    """The columns that spans and log records share."""

    message: type[Span] | type[LogRecord]

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.count = 0
        self.size = 0
        """Total size of the records in bytes."""
        self.origins: set[int] = set()
        self.batches: list[Records] = []
        """The batches that were added, to add them again if the database fails."""
        self._origin: list[int] = []
        self._time: list[int] = []
        self._trace_id: list[bytes] = []
        self._span_id: list[bytes] = []
        self._lengths: list[int] = []
        self._keys: list[int] = []
        self._values: list[bytes] = []
        self._record: list[bytes] = []

    @property
    def names(self) -> set[int]:
        """The numbers of the attribute names in the records."""
        return set(self._keys)

    def trace_ids(self, start: int) -> set[str]:
        """Return the trace IDs of the records from index `start` on."""
        return {trace_id.decode() for trace_id in set(self._trace_id[start:])}

    def add(self, records: Records, problems: Problems) -> int:
        """Add records and return the number of their origin.

        Repairs or rejects a record that cannot be decoded, and adds the reason to `problems`.
        """
        origin = self._vocabulary.origin(records.resource, records.scope).number
        self.origins.add(origin)
        self.batches.append(records)
        for record in records.records:
            try:
                rejection = self._add(record)
            except DecodeError:
                try:
                    record = repair(record, self.message.DESCRIPTOR)
                    rejection = self._add(record)
                    problems.note(REPAIRED)
                except (DecodeError, ValueError) as error:
                    rejection = f"cannot be read: {error}"
            if rejection:
                problems.reject(rejection)
                continue
            self._origin.append(origin)
            self._record.append(record)
            self.count += 1
            self.size += len(record)
        return origin

    def table(self, first: int) -> arrow.Table:
        """Return the columns as a table, with rows numbered from `first`."""
        return arrow.Table(self._columns(first))

    def _add(self, record: bytes) -> str:
        """Append a record to all columns. Return the reason if it is rejected, else "".

        Raises DecodeError, and then appends nothing.
        """
        raise NotImplementedError

    def _pairs(self, encoded: Iterable[bytes]) -> Collection[Pair]:
        cache = self._vocabulary.pairs
        try:
            pairs = [cache[attribute] for attribute in encoded]
        except KeyError:
            pairs = [self._vocabulary.pair(attribute) for attribute in encoded]
        present = [pair for pair in pairs if pair is not None]
        # The keys of a map are unique. The last value of a repeated attribute wins.
        unique = dict(present)
        return present if len(unique) == len(present) else unique.items()

    def _append(self, time_ns: int, trace_id: bytes, span_id: bytes, pairs: Collection[Pair]) -> None:
        self._time.append(min(time_ns, MAX_TIME_NS))
        self._trace_id.append(trace_id.hex().encode())
        self._span_id.append(span_id.hex().encode())
        self._lengths.append(len(pairs))
        for number, text in pairs:
            self._keys.append(number)
            self._values.append(text)

    def _columns(self, first: int) -> list[arrow.Column]:
        return [
            arrow.numbers("row", "q", range(first, first + self.count)),
            arrow.numbers("origin", "i", self._origin),
            arrow.numbers("time_ns", "q", self._time),
            arrow.strings("trace_id", self._trace_id),
            arrow.strings("span_id", self._span_id),
            arrow.maps("attributes", self._lengths, self._keys, self._values),
            arrow.blobs("record", self._record),
        ]


class Spans(Columns):
    message = Span

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._duration: list[float] = []
        self._parent_id: list[bytes] = []
        self._name: list[bytes] = []
        self._kind: list[int] = []
        self._status_code: list[int] = []
        self._status_message: list[bytes] = []
        self._event_times: list[list[int]] = []
        self._others: list[bytes] = []
        self._linked: list[bytes] = []
        self._statuses: dict[bytes, tuple[int, bytes]] = {b"": (0, b"")}

    def duplicates(self) -> list[int]:
        """Return the indexes of spans that occur again later."""
        identities = list(zip(self._trace_id, self._span_id, self._kind, self._time, self._origin, strict=True))
        last = {identity: index for index, identity in enumerate(identities)}
        if len(last) == len(identities):
            return []
        return sorted(set(range(self.count)) - set(last.values()))

    def _add(self, record: bytes) -> str:
        span = wire.Span.FromString(record)
        trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
        if not (
            len(trace_id) == 16 and trace_id != NULL_TRACE_ID and len(span_id) == 8 and span_id != NULL_SPAN_ID
        ) or len(parent_id) not in (0, 8):
            return "rejected for invalid IDs: a trace ID must have 16 bytes and a span ID 8, not all zero"
        pairs = self._pairs(span.attributes)
        status_code, status_message = self._status(span.status)
        times: list[int] = []
        others = linked = b""
        if span.events or span.links:
            times, others, linked = _events_and_links(span.events, span.links)
        start = span.start
        self._append(start, trace_id, span_id, pairs)
        self._duration.append(max(min(span.end, MAX_TIME_NS) - start, 0) / 1e6)
        self._parent_id.append(b"" if parent_id == NULL_SPAN_ID else parent_id.hex().encode())
        self._name.append(span.name.encode())
        self._kind.append(span.kind if 0 <= span.kind <= 5 else 0)
        self._status_code.append(status_code)
        self._status_message.append(status_message)
        self._event_times.append(times)
        self._others.append(others)
        self._linked.append(linked)
        return ""

    def _status(self, message: bytes) -> tuple[int, bytes]:
        if message not in self._statuses:
            status = Status.FromString(message)
            self._statuses[message] = status.code if status.code in (1, 2) else 0, status.message.encode()
        return self._statuses[message]

    def _columns(self, first: int) -> list[arrow.Column]:
        return [
            *super()._columns(first),
            arrow.numbers("duration_ms", "d", self._duration),
            arrow.strings("parent_id", self._parent_id),
            arrow.strings("name", self._name),
            arrow.numbers("kind", "B", self._kind),
            arrow.numbers("status_code", "B", self._status_code),
            arrow.strings("status_message", self._status_message),
            arrow.lists("event_times", self._event_times),
            arrow.strings("others", self._others),
            arrow.strings("linked", self._linked),
        ]


def _events_and_links(events: Iterable[bytes], links: Iterable[bytes]) -> tuple[list[int], bytes, bytes]:
    """Return the times of the events, the text of all events and links, and the linked trace IDs."""
    times, texts, linked_ids = [], [], []
    for event in map(Span.Event.FromString, events):
        times.append(min(event.time_unix_nano, MAX_TIME_NS))
        texts += [event.name, *_value_texts(event.attributes)]
    for link in map(Span.Link.FromString, links):
        linked_ids.append(link.trace_id.hex())
        texts += [linked_ids[-1], link.span_id.hex(), *_value_texts(link.attributes)]
    return times, "\n".join(texts).encode(), " ".join(linked_ids).encode()


def _value_texts(pairs: Iterable[KeyValue]) -> list[str]:
    return [as_text(value)[1] for value in attributes(pairs).values() if value is not None]


class Logs(Columns):
    message = LogRecord

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._body: list[bytes] = []
        self._severity_number: list[int] = []
        self._severity_text: list[bytes] = []
        self._event_name: list[bytes] = []

    def _add(self, record: bytes) -> str:
        if record[:1] == b"\x0a":  # field 1 is a number in log records, but not in spans and metrics
            return "rejected: not log records; send spans to /v1/traces and metrics to /v1/metrics"
        log = wire.Log.FromString(record)
        pairs = self._pairs(log.attributes)
        body = any_value(AnyValue.FromString(log.body))
        trace_id = log.trace_id if len(log.trace_id) == 16 and log.trace_id != NULL_TRACE_ID else b""
        span_id = log.span_id if trace_id and len(log.span_id) == 8 and log.span_id != NULL_SPAN_ID else b""
        self._append(log.time or log.observed or time.time_ns(), trace_id, span_id, pairs)
        self._body.append(b"" if body is None else as_text(body)[1].encode())
        self._severity_number.append(log.severity_number or severity_number(log.severity_text))
        self._severity_text.append(log.severity_text.encode())
        self._event_name.append(log.event_name.encode())
        return ""

    def _columns(self, first: int) -> list[arrow.Column]:
        return [
            *super()._columns(first),
            arrow.strings("body", self._body),
            arrow.numbers("severity_number", "i", self._severity_number),
            arrow.strings("severity_text", self._severity_text),
            arrow.strings("event_name", self._event_name),
        ]


def severity_number(text: str) -> int:
    """Return the severity number of a text such as "Warning", or 0 if the text is unknown."""
    upper = text.upper()
    return next((number for name, number in SEVERITIES.items() if upper.startswith(name)), 0)
