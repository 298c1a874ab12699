"""OTLP's messages, declared so that each record is parsed separately, and no deeper than needed.

On the wire, a nested message looks like bytes. Here spans, log records, resources, scopes and attributes are bytes
fields: an unreadable one does not affect others, equal attributes are decoded once, and records are stored unchanged.
Field numbers: https://github.com/open-telemetry/opentelemetry-proto (1.9). Traces and logs have the same structure.
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
REPEATED = {"groups", "scopes", "records", "attributes", "events", "links"}

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


def _build_classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="otlp_viewer/wire.proto", package="otlp_viewer.wire", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = FieldDescriptorProto.LABEL_REPEATED if field in REPEATED else FieldDescriptorProto.LABEL_OPTIONAL
            descriptor = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                descriptor.type, descriptor.type_name = MESSAGE, f".otlp_viewer.wire.{kind}"
            else:
                descriptor.type = kind
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"otlp_viewer.wire.{name}")) for name in MESSAGES}


_CLASSES = _build_classes()
Export = _CLASSES["Export"]
Span = _CLASSES["Span"]
Log = _CLASSES["Log"]
