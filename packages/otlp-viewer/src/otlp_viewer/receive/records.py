"""Splits an export into records, grouped by resource and scope."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from otlp_viewer.receive import wire

Signal = Literal["traces", "logs"]
MAX_REASONS = 20


class NotOtlp(ValueError):
    """The body is not an OTLP export; the message says why."""


@dataclass(frozen=True, slots=True)
class Records:
    """Spans or log records of one scope, encoded as OTLP protobuf."""

    resource: bytes
    scope: bytes
    records: Sequence[bytes]


@dataclass(slots=True)
class Problems:
    """The records of one export that were rejected or changed, and why."""

    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def reject(self, reason: str, count: int = 1) -> None:
        self.rejected += count
        self.note(reason, count)

    def note(self, reason: str, count: int = 1) -> None:
        if len(self.reasons) >= MAX_REASONS and reason not in self.reasons:
            reason = "for other reasons"
        self.reasons[reason] = self.reasons.get(reason, 0) + count

    def sentence(self) -> str:
        """Return all reasons with their counts, or "" if there are none."""
        return "; ".join(f"{count} {reason}" for reason, count in self.reasons.items())


LIBRARY = "instrumentationLibrary fields belong to OTLP before 0.19: send scopeSpans or scopeLogs"


def from_protobuf(body: bytes) -> list[Records]:
    """Return the records of ExportTraceServiceRequest or ExportLogsServiceRequest; raises NotOtlp."""
    try:
        export = wire.Export.FromString(body)
    except DecodeError as error:
        raise NotOtlp(f"not an OTLP export in protobuf: {error}") from error
    if any(group.library for group in export.groups):
        raise NotOtlp(LIBRARY)
    return [Records(group.resource, scope.scope, scope.records) for group in export.groups for scope in group.scopes]
