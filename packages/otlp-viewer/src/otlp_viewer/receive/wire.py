"""OTLP's messages, declared so that each record is read by itself, and only as far as it must be.

On the wire a message in a field looks like bytes. Here spans, log records, resources, scopes and attributes are
bytes: one that cannot be read is left out alone, equal attributes are decoded once, and a record can be stored as it
came.
Field numbers are those of https://github.com/open-telemetry/opentelemetry-proto (1.9). Traces and logs have one shape.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

BYTES, STRING, MESSAGE = (
    FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_MESSAGE,
)
INT32, UINT32, FIXED64 = (
    FieldDescriptorProto.TYPE_INT32,
    FieldDescriptorProto.TYPE_UINT32,
    FieldDescriptorProto.TYPE_FIXED64,
)
MANY = {"groups", "scopes", "records", "attributes", "events", "links"}

MESSAGES: dict[str, dict[str, tuple[int, Any]]] = {
    "Export": {"groups": (1, "Group")},
    "Group": {"resource": (1, BYTES), "scopes": (2, "Scope"), "library": (1000, BYTES)},
    "Scope": {"scope": (1, BYTES), "records": (2, BYTES)},
    "Span": {
        "trace_id": (1, BYTES),
        "span_id": (2, BYTES),
        "trace_state": (3, STRING),
        "parent_span_id": (4, BYTES),
        "name": (5, STRING),
        "kind": (6, INT32),
        "start": (7, FIXED64),
        "end": (8, FIXED64),
        "attributes": (9, BYTES),
        "dropped_attributes": (10, UINT32),
        "events": (11, BYTES),
        "dropped_events": (12, UINT32),
        "links": (13, BYTES),
        "dropped_links": (14, UINT32),
        "status": (15, BYTES),
    },
    "Log": {
        "time": (1, FIXED64),
        "severity_number": (2, INT32),
        "severity_text": (3, STRING),
        "body": (5, BYTES),
        "attributes": (6, BYTES),
        "dropped_attributes": (7, UINT32),
        "trace_id": (9, BYTES),
        "span_id": (10, BYTES),
        "observed": (11, FIXED64),
        "event_name": (12, STRING),
    },
}


def _declared() -> dict[str, Any]:
    file = FileDescriptorProto(name="otlp_viewer/wire.proto", package="otlp_viewer.wire", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            many = FieldDescriptorProto.LABEL_REPEATED if field in MANY else FieldDescriptorProto.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=many)
            if isinstance(kind, str):
                made.type, made.type_name = MESSAGE, f".otlp_viewer.wire.{kind}"
            else:
                made.type = kind
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"otlp_viewer.wire.{name}")) for name in MESSAGES}


_CLASSES = _declared()
Export = _CLASSES["Export"]
Span = _CLASSES["Span"]
Log = _CLASSES["Log"]
