"""Repairs records that cannot be parsed: replaces invalid parts and keeps the rest."""

from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]

MAX_DEPTH = 90  # levels of messages; protobuf itself reads 100


def repair(record: bytes, descriptor: Descriptor) -> bytes:
    """Return a message with U+FFFD in place of invalid UTF-8, and without fields nested too deeply.

    `descriptor` describes the message in OTLP. Raises ValueError if the record is not protobuf.
    """
    return _repaired(record, descriptor, 0)


def _repaired(data: bytes, descriptor: Descriptor, depth: int) -> bytes:
    output = bytearray()
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _, position = _varint(data, position)
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        elif wire_type == 2:
            value_start = position
            length, position = _varint(data, position)
            value = data[position : position + length]
            position += length
            field = descriptor.fields_by_number.get(number)
            if field is not None and field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
                if position > len(data):
                    raise ValueError("a field is longer than its message")
                if field.type == FieldDescriptor.TYPE_STRING:
                    value = value.decode("utf-8", "replace").encode()
                elif depth >= MAX_DEPTH:
                    continue
                else:
                    value = _repaired(value, field.message_type, depth + 1)
                output += data[start:value_start] + varint(len(value)) + value
                continue
        else:
            raise ValueError(f"field {number} has the unknown wire type {wire_type}")
        if position > len(data):
            raise ValueError("a field is longer than its message")
        output += data[start:position]
    return bytes(output)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    value = shift = 0
    while shift < 70:
        if position >= len(data):
            raise ValueError("a number is incomplete")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number is incomplete")


def varint(value: int) -> bytes:
    """Encode a number from 0 to 2**64 - 1."""
    output = bytearray()
    while value > 0x7F:
        output.append(value & 0x7F | 0x80)
        value >>= 7
    output.append(value)
    return bytes(output)
