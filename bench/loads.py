"""Giving subjects work, and asking what it cost them."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subjects import BENCH, BIN, Subject, project  # first, as it finds the modules of tests/

from conftest import environment  # isort: skip
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receiver import Receiver


@dataclass(frozen=True)
class Arrived:
    """What came to a receiver: how many spans and log records, and what they took on the wire."""

    spans: int = 0
    logs: int = 0
    attributes: int = 0  # of the spans, their own
    span_bytes: int = 0  # of the requests that brought them, headers included

    def __add__(self, other: Arrived) -> Arrived:
        return Arrived(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def arrived(receiver: Receiver, under: str = "") -> Arrived:
    """What `receiver` got under the address `/<under>` until now; it forgets it."""
    mine = [each for each in receiver.requests if each[0].startswith(f"{under}/v1/")]
    receiver.requests[:] = [each for each in receiver.requests if not each[0].startswith(f"{under}/v1/")]
    total = Arrived()
    for path, headers, body in mine:
        if path.endswith("/v1/traces"):
            spans = [
                span
                for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans
                for scope_spans in resource_spans.scope_spans
                for span in scope_spans.spans
            ]
            head = len(f"POST {path} HTTP/1.1\r\n\r\n") + sum(len(f"{k}: {v}\r\n") for k, v in headers.items())
            total += Arrived(
                len(spans), 0, sum(len(span.attributes) for span in spans), head + int(headers["content-length"])
            )
        elif path.endswith("/v1/logs"):
            records = [
                len(scope_logs.log_records)
                for resource_logs in ExportLogsServiceRequest.FromString(body).resource_logs
                for scope_logs in resource_logs.scope_logs
            ]
            total += Arrived(logs=sum(records))
    return total


class InProcess:
    """A subject that answers without a server, when it is told to."""

    def __init__(self, subject: Subject, process: subprocess.Popen[str], log: Path) -> None:
        self._subject = subject
        self._process = process
        self._log = log

    def do(self, what: str, **how: Any) -> dict[str, Any]:
        to, answers = self._process.stdin, self._process.stdout
        line = ""
        if to and answers:
            with contextlib.suppress(BrokenPipeError):
                to.write(json.dumps({"do": what, **how}) + "\n")
                to.flush()
            line = answers.readline()
        if not line:
            raise RuntimeError(f"{self._subject.name} has ended:\n{self._log.read_text(errors='replace')[-4000:]}")
        figures: dict[str, Any] = json.loads(line)
        return figures


@contextlib.contextmanager
def in_process(subject: Subject, endpoint: str, **env: str) -> Iterator[InProcess]:
    """`subject` in a process of its own, sending to `endpoint`, until the end of the block."""
    before = [str(BIN / subject.before[0]), *subject.before[1:]] if subject.before else []
    command = [*before, sys.executable, "-B", str(BENCH / "apps" / "in_process.py"), subject.app]
    log = project().parent / f"{subject.app}-in-process.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=project(),
            env=environment(**{**subject.environment(endpoint), **env}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    try:
        yield InProcess(subject, process, log)
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()


def needs_wrk() -> str:
    """The path of wrk; says how to get it where it is missing."""
    if found := shutil.which("wrk"):
        return found
    raise SystemExit("Requests are measured with wrk, which is missing here. To get it: apt-get install wrk")


def wrk(url: str, seconds: int, connections: int) -> dict[str, float]:
    """Ask for `url` as often as it answers, so many requests at a time; times are in microseconds.

    Each on a connection of its own: those that are kept stay with the worker that took them, which may be one for all.
    """
    script = str(BENCH / "apps" / "wrk.lua")
    command = [needs_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "-H", "Connection: close", "-s", script, url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(said.strip().splitlines()[-1])
    figures["rate"] = figures["requests"] / figures["duration"] * 1e6
    return figures


def cpu_seconds(pids: Iterable[int]) -> float:
    """What these processes have used of the CPU, to the nanosecond.

    The clock of another process, as clock_getcpuclockid(3) makes its number on Linux.
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)
