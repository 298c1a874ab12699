"""Attribute values: as Python has them, and as the text that queries compare."""

import base64
import json
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Value = Any
"""An attribute's value: text, bool, int, float, None, a list of values, or a dict of them. Bytes are base64 text."""
Type = Literal["integer", "float", "boolean", "string"]
TYPES: tuple[Type, ...] = ("integer", "float", "boolean", "string")


def any_value(value: AnyValue) -> Value:
    """Return an AnyValue as JSON has it: bytes as base64, NaN and infinities as their names.

    The recursion is bounded: protobuf reads at most 100 nested messages.
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
    """Return a value that is not None as text, and its type.

    Numbers that are equal have one text, whatever their type: 1 and 1.0, 0.0 and -0.0.
    """
    if isinstance(value, bool):
        return "boolean", "true" if value else "false"
    if isinstance(value, int):
        return "integer", str(value)
    if isinstance(value, float):
        return "float", str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)
    return "string", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_text(text: str | float | None, types: Iterable[str]) -> Any:
    """Return what the text of a column was, in which these types were seen; it stays text where some of it was."""
    if not isinstance(text, str) or not types or "string" in types or len(set(types) - {"integer", "float"}) > 1:
        return text
    return _read(text) if text not in ("true", "false") or "boolean" in types else text


_read = lru_cache(4096)(json.loads)
