"""Takes an export apart into records, each with the resource and scope that it belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from otlp_viewer.receive import wire

Signal = Literal["traces", "logs"]
MOST_REASONS = 20


class NotOtlp(ValueError):
    """An export that nothing can be taken from, with the reason."""


@dataclass(frozen=True, slots=True)
class Records:
    """Spans, or log records, of one scope; everything is OTLP's protobuf."""

    resource: bytes
    scope: bytes
    records: Sequence[bytes]


@dataclass(slots=True)
class Problems:
    """What was refused, and what was changed, of one export."""

    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def reject(self, reason: str, count: int = 1) -> None:
        self.rejected += count
        self.note(reason, count)

    def note(self, reason: str, count: int = 1) -> None:
        if len(self.reasons) >= MOST_REASONS and reason not in self.reasons:
            reason = "for other reasons"
        self.reasons[reason] = self.reasons.get(reason, 0) + count

    def sentence(self) -> str:
        """Return every reason with how often it was met; "" where there is none."""
        return "; ".join(f"{count} {reason}" for reason, count in self.reasons.items())


LIBRARY = "instrumentationLibrary fields are of OTLP before 0.19: send scopeSpans or scopeLogs"


def from_protobuf(body: bytes) -> list[Records]:
    """Return the records of ExportTraceServiceRequest or ExportLogsServiceRequest; raises NotOtlp."""
    try:
        export = wire.Export.FromString(body)
    except DecodeError as error:
        raise NotOtlp(f"not an OTLP export in protobuf: {error}") from error
    if any(group.library for group in export.groups):
        raise NotOtlp(LIBRARY)
    return [Records(group.resource, scope.scope, scope.records) for group in export.groups for scope in group.scopes]
