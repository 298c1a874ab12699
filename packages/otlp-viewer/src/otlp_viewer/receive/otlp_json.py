"""Converts OTLP/JSON exports into the same records as protobuf exports.

Programs without an SDK often write this JSON, so parsing is lenient: hex IDs in either case, names in camelCase or
snake_case, enums as names or numbers, 64-bit numbers as strings or numbers. An out-of-range number becomes the nearest
valid one, and a lone surrogate becomes U+FFFD. Unreadable attributes are left out.
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

import base64
import binascii
import json
import math
import re
import struct
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otlp_viewer.receive.records import LIBRARY, NotOtlp, Problems, Records, Signal
from otlp_viewer.receive.repair import MAX_DEPTH, varint

IDS = ("trace_id", "span_id", "parent_span_id")
NAMES = {"traces": ("resourceSpans", "scopeSpans", "spans"), "logs": ("resourceLogs", "scopeLogs", "logRecords")}
MAX_JSON_DEPTH = 300  # objects and lists
LEFT_OUT = "left out"
TOO_DEEP = "left out: values nested too deeply"
REPAIRED = "repaired: U+FFFD replaces a lone surrogate"
CLAMPED = "changed: an out-of-range number became the nearest valid one"
DESCRIPTORS: dict[str, Descriptor] = {"traces": Span.DESCRIPTOR, "logs": LogRecord.DESCRIPTOR}
RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_BOOL: (0, 1),
}


def from_json(body: bytes, signal: Signal, problems: Problems) -> list[Records]:
    """Return the records of an export. Add what cannot be read to `problems`. Raises NotOtlp."""
    export = _parse(body.decode("utf-8-sig", "replace"), problems)
    groups_name, scopes_name, records_name = NAMES[signal]
    if not isinstance(export, dict):
        raise NotOtlp("the body must be a JSON object")
    groups = _get(export, groups_name)
    if groups is None and not _has(export, groups_name) and export:
        for other, path in (("resourceSpans", "traces"), ("resourceLogs", "logs"), ("resourceMetrics", "metrics")):
            if _get(export, other) is not None:
                raise NotOtlp(f"send {other} to /v1/{path}, not to /v1/{signal}")
        raise NotOtlp(f"not an OTLP {signal} export: it has no {groups_name}, only {_names(export)}")
    results = []
    for group in _objects(groups, groups_name):
        if any(name.lower().startswith("instrumentationlibrary") for name in group):
            raise NotOtlp(LIBRARY)
        resource = _shared(_get(group, "resource"), Resource.DESCRIPTOR, "resource", problems)
        for scope in _objects(_get(group, scopes_name), scopes_name):
            records = []
            for number, record in enumerate(_list(_get(scope, records_name), records_name)):
                try:
                    records.append(encode(record, DESCRIPTORS[signal], f"{records_name}[{number}]", problems))
                except NotOtlp as error:
                    problems.reject(f"cannot be read: {error}")
            scope_bytes = _shared(_get(scope, "scope"), InstrumentationScope.DESCRIPTOR, "scope", problems)
            results.append(Records(resource, scope_bytes, records))
    return results


def _parse(text: str, problems: Problems) -> Any:
    """Parse JSON. Values nested too deeply for the interpreter become null."""
    try:
        try:
            return json.loads(text, parse_int=_integer)
        except RecursionError:
            problems.note(TOO_DEEP)
            return json.loads(_shallow(text), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise NotOtlp(f"not JSON: {error}") from None


def _shallow(text: str) -> str:
    """Replace values nested deeper than MAX_JSON_DEPTH with null."""
    output = []
    depth = start = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*+"|[][{}]', text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            if depth == MAX_JSON_DEPTH:
                output.append(text[start : token.start()])
        elif token[0] in "]}":
            depth -= 1
            if depth == MAX_JSON_DEPTH - 1:
                output.append("null")
                start = token.end()
    return "".join([*output, text[start:]])


def _shared(fields: Any, descriptor: Descriptor, where: str, problems: Problems) -> bytes:
    """Encode a resource or a scope. An unreadable one becomes empty."""
    try:
        return encode({} if fields is None else fields, descriptor, where, problems)
    except NotOtlp as error:
        problems.note(f"{LEFT_OUT}: {error}")
        return b""


def _integer(digits: str) -> int | float:
    """Parse a JSON integer of any length; Python rejects those with thousands of digits."""
    return int(digits) if len(digits) < 400 else float(digits)


def _names(export: dict[str, Any]) -> str:
    return ", ".join(json.dumps(name)[:60] for name in list(export)[:5])


def _get(fields: dict[str, Any], name: str) -> Any:
    """Return a field by its camelCase name or the same name in snake_case."""
    return fields.get(name, fields.get(_snake(name)))


def _has(fields: dict[str, Any], name: str) -> bool:
    return name in fields or _snake(name) in fields


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _list(value: Any, name: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise NotOtlp(f"{name} must be a list")
    return value or []


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    results = _list(value, name)
    if not all(isinstance(item, dict) for item in results):
        raise NotOtlp(f"{name} must be a list of objects")
    return results


def encode(fields: Any, descriptor: Descriptor, where: str, problems: Problems, depth: int = 0) -> bytes:
    """Encode an object as a protobuf message of this type. Raises NotOtlp, which names the invalid field."""
    if not isinstance(fields, dict):
        raise NotOtlp(f"{where} must be an object")
    output = bytearray()
    known = _fields(descriptor)
    for name, value in fields.items():
        field = known.get(name)
        if field is None or value is None:
            continue
        if not field.is_repeated:
            output += _field(value, field, f"{where}.{name}", problems, depth)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                try:
                    output += _field(item, field, f"{where}.{name}[{number}]", problems, depth)
                except NotOtlp as error:
                    if field.name != "attributes":
                        raise
                    problems.note(f"{LEFT_OUT}: {error}")
        else:
            raise NotOtlp(f"{where}.{name} must be a list")
    return bytes(output)


@cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Return the fields of a message by both names."""
    return {**descriptor.fields_by_name, **descriptor.fields_by_camelcase_name}


def _field(value: Any, field: FieldDescriptor, where: str, problems: Problems, depth: int) -> bytes:
    """Encode one field with its tag."""
    kind = field.type
    if kind == FieldDescriptor.TYPE_MESSAGE:
        if depth >= MAX_DEPTH:
            return b""
        data = encode({} if value is None else value, field.message_type, where, problems, depth + 1)
    elif kind == FieldDescriptor.TYPE_STRING:
        data = _text(value, where, problems).encode()
    elif kind == FieldDescriptor.TYPE_BYTES:
        data = _bytes(value, field.name, where)
    elif kind == FieldDescriptor.TYPE_DOUBLE:
        return varint(field.number << 3 | 1) + struct.pack("<d", _double(value, where))
    else:
        number = _clamped_integer(value, field, where, problems)
        if kind in (FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_FIXED32):
            is_64 = kind == FieldDescriptor.TYPE_FIXED64
            return varint(field.number << 3 | (1 if is_64 else 5)) + struct.pack("<Q" if is_64 else "<I", number)
        return varint(field.number << 3) + varint(number % (1 << 64))
    return varint(field.number << 3 | 2) + varint(len(data)) + data


def _text(value: Any, where: str, problems: Problems) -> str:
    """Decode surrogate pairs, and replace lone surrogates with U+FFFD."""
    if not isinstance(value, str):
        raise NotOtlp(f"{where} must be a string")
    utf16 = value.encode("utf-16-le", "surrogatepass")
    try:
        return utf16.decode("utf-16-le")
    except UnicodeDecodeError:
        problems.note(REPAIRED)
        return utf16.decode("utf-16-le", "replace")


def _bytes(value: Any, name: str, where: str) -> bytes:
    if not isinstance(value, str):
        raise NotOtlp(f"{where} must be a string")
    try:
        if name in IDS:
            return bytes.fromhex(value)
        return base64.b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4))
    except (ValueError, binascii.Error):
        raise NotOtlp(f"{where} must be {'hexadecimal' if name in IDS else 'base64'}") from None


def _double(value: Any, where: str) -> float:
    try:
        return float(value) if isinstance(value, str | int | float) else float("x")
    except OverflowError:
        return math.copysign(math.inf, value)
    except ValueError:
        raise NotOtlp(f"{where} must be a number") from None


def _clamped_integer(value: Any, field: FieldDescriptor, where: str, problems: Problems) -> int:
    """Return an integer, clamped to the range of the field."""
    lowest, highest = RANGES[field.type]
    if field.type == FieldDescriptor.TYPE_ENUM and isinstance(value, str):
        enum_value = field.enum_type.values_by_name.get(value)
        if enum_value is not None:
            return int(enum_value.number)
    if isinstance(value, str) and field.type != FieldDescriptor.TYPE_BOOL and len(value) <= 400:
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                value = None
    if isinstance(value, float):
        value = None if math.isnan(value) else round(min(max(value, -1e20), 1e20))
    if not isinstance(value, int) or (isinstance(value, bool) != (field.type == FieldDescriptor.TYPE_BOOL)):
        expected = "true or false" if field.type == FieldDescriptor.TYPE_BOOL else "an integer"
        raise NotOtlp(f"{where} must be {expected}")
    if not lowest <= value <= highest:
        problems.note(CLAMPED)
    return min(max(value, lowest), highest)
