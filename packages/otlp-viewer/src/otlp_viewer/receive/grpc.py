"""Tells gRPC clients, and the user at the terminal, to send OTLP over HTTP.

gRPC clients use HTTP/2 and show only errors that arrive over HTTP/2, so every call gets UNIMPLEMENTED with PURPOSE.
https://www.rfc-editor.org/rfc/rfc9113, https://www.rfc-editor.org/rfc/rfc7541
"""

import logging

from waitress.channel import HTTPChannel  # type: ignore[import-untyped]

from otlp_viewer.receive.repair import varint

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PURPOSE = (
    "This port accepts OTLP over HTTP, not gRPC. Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf in the sending"
    " program, or use its OTLP/HTTP exporter."
)
HEADERS, SETTINGS, PING = 1, 4, 6
ACK, END_STREAM, END_HEADERS = 1, 1, 4
MAX_FRAME = 1 << 14  # HTTP/2's default limit
UNIMPLEMENTED = b"12"

logger = logging.getLogger(__name__)


def frame(kind: int, flags: int = 0, stream: bytes = bytes(4), payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream + payload


def header(name: bytes, value: bytes) -> bytes:
    """Return a header in HPACK, as a literal without indexing."""
    return b"\x00" + b"".join(
        (bytes([len(x)]) if len(x) < 127 else b"\x7f" + varint(len(x) - 127)) + x for x in (name, value)
    )


RESPONSE = b"\x88" + b"".join(  # 0x88 is ":status: 200"
    header(name, value)
    for name, value in (
        (b"content-type", b"application/grpc"),
        (b"grpc-status", UNIMPLEMENTED),
        (b"grpc-message", PURPOSE.encode()),
    )
)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection over HTTP/1.1 or from a gRPC client. Logs the first gRPC client."""

    reported = False
    frames: bytes | None = None
    """Unprocessed bytes of HTTP/2 frames; None for HTTP/1.1."""

    def received(self, data: bytes) -> bool:
        """Process received data; return whether there was any."""
        if self.frames is None:
            if self.request is not None or not data.startswith(PREFACE):
                return bool(super().received(data))
            if not Channel.reported:
                Channel.reported = True
                logger.warning("otlp-viewer: %s", PURPOSE)
            self.frames, data = b"", data.removeprefix(PREFACE)
            self.send(frame(SETTINGS))
        self.frames += data
        while len(self.frames) >= 9:
            length, kind, flags, stream = int.from_bytes(self.frames[:3], "big"), *self.frames[3:5], self.frames[5:9]
            if length > MAX_FRAME:
                self.will_close = True
                break
            if len(self.frames) < 9 + length:
                break
            payload, self.frames = self.frames[9 : 9 + length], self.frames[9 + length :]
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.send(frame(kind, ACK, stream, payload if kind == PING else b""))
            elif kind == HEADERS:
                self.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, RESPONSE))
        return True
