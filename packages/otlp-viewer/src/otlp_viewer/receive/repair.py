"""Makes a record readable that is not: what is wrong in it is replaced, and the rest stays."""

from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]

DEEPEST = 90  # levels of messages; protobuf itself reads 100


def repair(record: bytes, descriptor: Descriptor) -> bytes:
    """Return a message with U+FFFD for text that is not UTF-8, and without what is nested too deeply.

    `descriptor` is of the message as OTLP declares it. Raises ValueError where the record is no protobuf.
    """
    return _repaired(record, descriptor, 0)


def _repaired(data: bytes, descriptor: Descriptor, depth: int) -> bytes:
    made = bytearray()
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _, at = _varint(data, at)
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        elif wire_type == 2:
            head = at
            length, at = _varint(data, at)
            value = data[at : at + length]
            at += length
            field = descriptor.fields_by_number.get(number)
            if field is not None and field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
                if at > len(data):
                    raise ValueError("a field ends after its message")
                if field.type == FieldDescriptor.TYPE_STRING:
                    value = value.decode("utf-8", "replace").encode()
                elif depth >= DEEPEST:
                    continue
                else:
                    value = _repaired(value, field.message_type, depth + 1)
                made += data[start:head] + varint(len(value)) + value
                continue
        else:
            raise ValueError(f"field {number} has the unknown wire type {wire_type}")
        if at > len(data):
            raise ValueError("a field ends after its message")
        made += data[start:at]
    return bytes(made)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise ValueError("a number has no end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number has no end")


def varint(value: int) -> bytes:
    """Return a number from 0 to 2**64 - 1 as protobuf writes it."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
