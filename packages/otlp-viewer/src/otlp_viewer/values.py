"""Attribute values, as Python objects and as the text that queries compare."""

import base64
import json
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Value = Any
"""A string, bool, int, float, None, or a list or dict of values. Bytes are strings in base64."""
Type = Literal["integer", "float", "boolean", "string"]
TYPES: tuple[Type, ...] = ("integer", "float", "boolean", "string")


def any_value(value: AnyValue) -> Value:
    """Convert an AnyValue to a JSON value: bytes to base64, NaN and infinities to their names.

    The recursion is bounded: protobuf decodes at most 100 nested messages.
    """
    match value.WhichOneof("value"):
        case "array_value":
            return [any_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return attributes(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case None:
            return None
        case kind:
            return getattr(value, kind)


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: any_value(pair.value) for pair in pairs}


def as_text(value: Value) -> tuple[Type, str]:
    """Return the type and text of a value other than None.

    Equal numbers have the same text, regardless of type: 1 and 1.0, 0.0 and -0.0.
    """
    if isinstance(value, bool):
        return "boolean", "true" if value else "false"
    if isinstance(value, int):
        return "integer", str(value)
    if isinstance(value, float):
        return "float", str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)
    return "string", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_text(text: str | float | None, types: Iterable[str]) -> Any:
    """Convert text from a column back to a value. It stays text if `types`, those of the column, include strings."""
    if not isinstance(text, str) or not types or "string" in types or len(set(types) - {"integer", "float"}) > 1:
        return text
    return _parse(text) if text not in ("true", "false") or "boolean" in types else text


_parse = lru_cache(4096)(json.loads)
