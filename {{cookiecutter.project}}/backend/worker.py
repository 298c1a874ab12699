"""gunicorn's threaded worker, refusing what is no request as the application refuses a request."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

REFUSALS: Final = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
}
FAULTS: Final = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)  # of the app, not of the client


class Worker(ThreadWorker):  # type: ignore[misc]
    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Refuse what cannot be read, and log of which kind it is.

        gunicorn's own refusal is a page that shows what was sent, as its log does, secrets and all, however long.
        """
        if isinstance(exc, FAULTS) or not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        status, reason = REFUSALS.get(type(exc), (400, "Bad Request"))
        self.log.warning("Refused a request of %s with %d: %s", addr[0] if addr else "?", status, type(exc).__name__)
        body = json.dumps({"error": reason, "trace_id": None}) + "\n"
        head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        with suppress(OSError):  # the client has gone
            util.write_nonblock(client, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Whether `conn` can serve another request: not after a body that is none.

        The request is answered already. A second answer would be taken for that to the next one.
        """
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except errors.ParseException:
            return False
