"""The measured viewers: otlp-viewer and, if OTEL_DESKTOP_VIEWER has its path, otel-desktop-viewer."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import psutil
from common import free_port


class Viewer:
    """A running viewer: `port` accepts OTLP, `pages` is its URL."""

    name: str
    drawn: str
    """In a browser: what is there when the page of a trace is drawn."""
    to_the_end: str
    """What moves that page to the trace's last span."""
    last: str
    """What is there then, with the number and the id of that span."""

    def __init__(self) -> None:
        self.port = free_port()
        self.pages = f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def kept(self) -> int:
        """Return the number of spans that can be queried."""
        raise NotImplementedError

    def trace(self, trace_id: str) -> bytes:
        """A trace by the API."""
        raise NotImplementedError

    def traces_of(self, service: str) -> bytes:
        """The list of the traces of a service, as its page asks for it."""
        raise NotImplementedError

    @contextlib.contextmanager
    def running(self) -> Iterator[psutil.Process]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("VIEWER_")}
        with tempfile.TemporaryFile("w+") as log:
            process = psutil.Popen(self.command(), env=environ, stdout=log, stderr=log)
            try:
                until = time.monotonic() + 30
                while not self._answers():
                    if process.poll() is not None or time.monotonic() > until:
                        log.seek(0)
                        raise RuntimeError(f"{self.name} does not start: {log.read()[-2000:]}")
                    time.sleep(0.1)
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait(10)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.send([b""], 1)
            return self.kept() == 0
        return False

    def send(self, bodies: Sequence[bytes], connections: int) -> list[float]:
        """Send the bodies over so many connections at once; the milliseconds that each request took."""

        def some(mine: Sequence[bytes]) -> list[float]:
            connection, took = HTTPConnection("127.0.0.1", self.port, timeout=60), []
            for body in mine:
                started, status = time.perf_counter(), 0
                while status != 200:  # 503: it is busy, so retry
                    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
                    with connection.getresponse() as answer:
                        status = answer.status
                        answer.read()
                took.append((time.perf_counter() - started) * 1000)
            return took

        with ThreadPoolExecutor(connections) as pool:
            return [
                one for took in pool.map(some, [bodies[n::connections] for n in range(connections)]) for one in took
            ]

    def ask(self, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/html, application/json"}
        request = urllib.request.Request(self.pages + path, data, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return bytes(answer.read())


class OtlpViewer(Viewer):
    name = "otlp-viewer"
    drawn = "#tree .row"
    to_the_end = (
        "document.getElementById('tree').dispatchEvent(new KeyboardEvent('keydown', {key: 'End', bubbles: true}))"
    )
    last = "#row-{number}"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "otlp_viewer", "--port", str(self.port)]

    def kept(self) -> int:
        return int(json.loads(self.ask("/api/health"))["spans"])

    def trace(self, trace_id: str) -> bytes:
        return self.ask(f"/api/traces/{trace_id}")

    def traces_of(self, service: str) -> bytes:
        return self.ask(f"/traces?service={service}")


class OtelDesktopViewer(Viewer):
    name = "otel-desktop-viewer"
    drawn = "tr.waterfall-row"
    to_the_end = """
      let list = document.querySelector("tr.waterfall-row");
      while (getComputedStyle(list).overflowY !== "scroll") list = list.parentElement;
      list.scrollTop = list.scrollHeight"""
    last = "tr[data-span-id='{id}']"

    def __init__(self) -> None:
        super().__init__()
        self.browser_port = free_port()
        self.pages = f"http://127.0.0.1:{self.browser_port}"

    def command(self) -> list[str]:
        ports = ["--http", str(self.port), "--grpc", str(free_port()), "--browser-port", str(self.browser_port)]
        return [os.environ["OTEL_DESKTOP_VIEWER"], "--host", "127.0.0.1", *ports, "--open-browser=false"]

    def call(self, method: str, *params: object) -> bytes:
        answer = self.ask("/rpc", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if b'"error"' in answer[:40]:
            raise RuntimeError(f"{method}: {answer!r}")
        return answer

    def kept(self) -> int:
        return int(json.loads(self.call("getStats"))["result"]["traces"]["spanCount"])

    def trace(self, trace_id: str) -> bytes:
        return self.call("searchSpans", trace_id)

    def traces_of(self, service: str) -> bytes:
        field = {"name": "service.name", "searchScope": "attribute", "attributeScope": "resource", "type": "string"}
        condition = {"field": field, "fieldOperator": "=", "value": service}
        return self.call("searchTraces", "0", str(2**63 - 1), {"id": "1", "type": "condition", "query": condition})


@functools.cache
def viewers() -> list[type[Viewer]]:
    binary = os.environ.get("OTEL_DESKTOP_VIEWER")
    if not binary:
        return [OtlpViewer]
    named = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    OtelDesktopViewer.name = named.strip().replace(" version", "")
    return [OtlpViewer, OtelDesktopViewer]
