"""What becomes of spans when processes end and collectors fail, beside the plain way.

Each cell starts a subject under gunicorn and an OTLP receiver that misbehaves as its row says, sends requests at a
steady rate, ends or replaces processes, and compares what was answered with what arrived.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import delivery_report
import psutil
from outages import (
    HEALTHY,
    KEYS,
    SPANS,
    Arrivals,
    Collector,
    Traffic,
    Trouble,
    became,
    collecting,
    fared,
    hanging,
    slowly,
)
from subjects import BENCH, OURS, PLAIN, UNTRACED, Server, Subject, project, serving

from conftest import environment, free_ports  # isort: skip
from processes import answers  # isort: skip
from receiver import eventually  # isort: skip

headline, report = delivery_report.headline, delivery_report.report

# The rows.

SIGNALS: Final = {
    "SIGTERM": signal.SIGTERM,
    "SIGINT": signal.SIGINT,
    "SIGHUP": signal.SIGHUP,
    "SIGKILL of a worker": signal.SIGKILL,
    "SIGKILL of the master": signal.SIGKILL,
    "recycling": None,
}
RECYCLED_AFTER: Final = 20  # requests
PATIENCE: Final = 60.0  # seconds for a program to stop
FOR_A_WHILE: Final = 10.0  # seconds of trouble
LATER: Final = FOR_A_WHILE + 7.0  # seconds from the last request to the signal, when the collector is well again
AWAY: Final = 60.0  # seconds

REFUSING: Final = Trouble("refusing", closed=True)
HANGING: Final = Trouble("hanging", hanging)
SLOW: Final = Trouble("slow (2 s)", slowly)
NEVER: Final = (
    REFUSING,
    HANGING,
    Trouble("401", lambda: (401, {})),
    Trouble("302", lambda: (302, {"Location": "/elsewhere"})),
    Trouble("429, Retry-After: 30", lambda: (429, {"Retry-After": "30"})),
    Trouble("503", lambda: (503, {})),
    Trouble("cut mid-request", cut=True),
)
FOR_NOW: Final = (
    Trouble("429, Retry-After: 2", lambda: (429, {"Retry-After": "2"}), lasts=FOR_A_WHILE),
    Trouble("503", lambda: (503, {}), lasts=FOR_A_WHILE),
    Trouble("cut mid-request", cut=True, lasts=FOR_A_WHILE),
    Trouble("cut mid-answer", lambda: (200, {"Content-Length": "64", "Connection": "close"}), lasts=FOR_A_WHILE),
)
BACK_AFTER_THE_SIGNAL: Final = Trouble("503 until 1 s after the signal", lambda: (503, {}), mended=1.0)


def away(seconds: float, before: float) -> Trouble:
    return Trouble(f"away for {seconds:.0f} s", closed=True, after=before, lasts=seconds)


@dataclass(frozen=True)
class Case:
    """A row: what happens to the processes while requests come in, and what is wrong with the collector."""

    ending: str
    trouble: Trouble = HEALTHY
    preload: bool = False
    rate: float = 100.0
    seconds: float = 3.0
    pause: float | None = None  # seconds from the last request to the signal; None: the signal comes under load
    requests_take: float = 0.0  # seconds, since they wait so long for profiles
    rounds: int = 1

    @property
    def long(self) -> bool:
        """Whether it takes so long that others go on beside it, at rates that disturb nobody."""
        return self.seconds >= AWAY

    @property
    def baseline(self) -> Case:
        """What the untraced subject does, to which a collector is nothing."""
        return replace(self, trouble=HEALTHY, pause=None if self.pause is None else 0.0)


def cases(quick: bool) -> list[Case]:
    """Not every product of endings and troubles: each ending with a healthy collector, preloaded or not, each trouble
    with SIGTERM and with recycling, and the pairs in which two things could wait for each other."""
    if quick:
        return [
            Case("SIGTERM", rate=50.0, seconds=1.0),
            Case("recycling", preload=True, rate=50.0, seconds=1.0),
            Case("SIGTERM", REFUSING, rate=50.0, seconds=1.0),
            Case("SIGTERM", away(2.0, before=1.0), rate=50.0, seconds=4.0, pause=3.0),
        ]
    found = [Case(ending, preload=preload, rounds=3) for ending in SIGNALS for preload in (False, True)]
    endings = ("SIGTERM", "SIGINT", "SIGKILL of the master")
    found += [Case(ending, rate=10.0, requests_take=0.5, rounds=3) for ending in endings]
    for trouble in NEVER:
        found += [Case("SIGTERM", trouble), Case("recycling", trouble, rate=50.0, seconds=2.0)]
    found += [
        Case("SIGINT", HANGING),
        Case("SIGHUP", HANGING),
        Case("SIGKILL of the master", HANGING),
        Case("recycling", HANGING, preload=True, rate=50.0, seconds=2.0),
        Case("SIGTERM", SLOW, rate=50.0, seconds=15.0),
        Case("recycling", SLOW, rate=50.0, seconds=2.0),
        *(Case("SIGTERM", trouble, pause=LATER) for trouble in FOR_NOW),
        Case("SIGTERM", BACK_AFTER_THE_SIGNAL),
    ]
    # A queue holds the spans of one of these outages, and not those of the other.
    found += [Case("SIGTERM", away(AWAY, before=5), rate=rate, seconds=AWAY + 15, pause=5) for rate in (20.0, 60.0)]
    return found


# One cell.

MACHINE: Final = threading.Lock()  # held while requests come in, and what ends soon ends: no other cell disturbs that
SOON: Final = 2.0  # seconds
STARTING: Final = threading.Lock()  # between finding a free port and using it


def cell(subject: Subject, case: Case) -> dict[str, Any]:
    """What became of the requests and the spans of `subject` in `case`."""
    flags = ["--preload"] if case.preload else []
    if case.ending == "recycling":
        flags += ["--max-requests", str(RECYCLED_AFTER)]
    with collecting(case.trouble) as collector, contextlib.ExitStack() as stack:
        arrivals = Arrivals(collector)
        series: list[tuple[int, int]] = []  # spans of what was answered, and spans that arrived, second by second
        with contextlib.nullcontext() if case.long else MACHINE:
            env = {"PROFILES_URL": stack.enter_context(slow_profiles(case.requests_take))} if case.requests_take else {}
            with STARTING:
                server = stack.enter_context(serving(subject, f"http://127.0.0.1:{collector.port}", *flags, **env))
            session = server.process.process.pid
            stack.callback(end, session)
            traffic = Traffic(server.base, subject, case.rate, case.seconds)
            collector.begin()
            traffic.start()
            watch = under_load(case, server, collector, traffic)
            while case.trouble.comes_and_goes and len(series) < case.seconds + (case.pause or 0):
                time.sleep(max(0.0, traffic.began + len(series) - time.monotonic()))
                series.append((traffic.outcomes()["answered"] * SPANS, arrivals.look()))
            traffic.join()
            if watch is None and not case.pause:
                watch = stop(server, collector, signal.SIGTERM)
            if watch:
                watch.join(SOON)
        if watch is None:
            time.sleep(max(0.0, traffic.began + case.seconds + (case.pause or 0) - time.monotonic()))
            watch = stop(server, collector, signal.SIGTERM)
        found = {**fared(traffic), "stop_seconds": watch.join()}
        if subject is not UNTRACED:
            found |= settled(traffic, arrivals, server, session)
            found |= {"series": series} if series else {}
        return found


@contextlib.contextmanager
def slow_profiles(seconds: float) -> Iterator[str]:
    """The address of a service that knows nobody, and takes its time to say so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(seconds)
            self.send_response_only(200)
            self.end_headers()
            self.wfile.write(b"{}")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def settled(traffic: Traffic, arrivals: Arrivals, server: Server, session: int) -> dict[str, Any]:
    """What became of the spans when nobody is left to send any, and what was sent has had time to come."""
    eventually(lambda: not members(session), 15)
    eventually(lambda: arrivals.look() >= len(traffic.answered()) * SPANS, 3)
    return became(traffic, arrivals, server.process.output())


def under_load(case: Case, server: Server, collector: Collector, traffic: Traffic) -> Watch | None:
    """Do what `case` says while requests come in; a watch when that ends the server."""
    sign = SIGNALS[case.ending]
    if case.pause is not None or sign is None:
        return None
    master = psutil.Process(server.process.process.pid)
    traffic.wait_until(0.3 if sign == signal.SIGHUP else 0.7)
    if case.ending == "SIGKILL of a worker":
        master.children()[0].kill()
    elif sign == signal.SIGHUP:
        master.send_signal(sign)
    else:
        traffic.end()
        return stop(server, collector, sign)
    return None


def stop(server: Server, collector: Collector, sign: int) -> Watch:
    """Send the signal. A master that is killed has ended only when its workers have."""
    master = psutil.Process(server.process.process.pid)
    watch = Watch(server, master.children() if sign == signal.SIGKILL else [])
    collector.signalled()
    master.send_signal(sign)
    return watch


class Watch:
    """Notes when the last of some processes has ended."""

    def __init__(self, server: Server, workers: list[psutil.Process]) -> None:
        self._began = time.monotonic()
        self._seconds = PATIENCE
        self._server, self._workers = server, workers
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.process.process.wait(PATIENCE)
            psutil.wait_procs(self._workers, timeout=PATIENCE)
        self._seconds = min(time.monotonic() - self._began, PATIENCE)

    def join(self, timeout: float | None = None) -> float:
        """How many seconds it took since the signal."""
        self._thread.join(timeout)
        return self._seconds


def members(session: int) -> list[psutil.Process]:
    """What runs in a session: a server, its workers, and what they left behind."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(session: int) -> None:
    """Kill what is left of it."""
    for process in members(session):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


# All of them.

TIMED: Final = ("slowest_ms", "stop_seconds", "seconds_without_answer")


def measure(quick: bool) -> dict[str, Any]:
    project()  # rendered once, before anything needs it
    found = cases(quick)
    jobs = [(UNTRACED, case) for case in dict.fromkeys(case.baseline for case in found)]
    jobs += [(subject, case) for case in found for subject in (PLAIN, OURS)]
    taken: dict[tuple[Subject, Case], list[dict[str, Any]]] = {job: [] for job in jobs}
    # One asks while those before it stop or wait; at the end those that take long, all at once.
    for long in (False, True):
        chosen = [job for turn in range(3) for job in jobs if turn < job[1].rounds and job[1].long == long]
        with ThreadPoolExecutor(max(1, len(chosen)) if long else 6) as pool:
            for job, figures in zip(chosen, pool.map(lambda job: cell(*job), chosen), strict=True):
                taken[job].append(figures)
    cells = {job: together(rounds) for job, rounds in taken.items()}
    rows = [
        {
            "ending": case.ending,
            "preload": case.preload,
            "requests_take": case.requests_take,
            "collector": case.trouble.name,
            "takes": takes(case.trouble),
            "rate": case.rate,
            "away": [case.trouble.after, case.trouble.lasts] if case.trouble.comes_and_goes else None,
            "untraced": cells[UNTRACED, case.baseline],
            "plain": cells[PLAIN, case],
            "ours": cells[OURS, case],
        }
        for case in found
    ]
    return {
        "recycled_after": RECYCLED_AFTER,
        "patience": PATIENCE,
        "rounds": max(case.rounds for case in found),
        "for_now": {"load": Case.seconds, "trouble": FOR_A_WHILE, "pause": LATER},
        "rows": rows,
        "docker": [] if quick else in_docker(),
    }


def together(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several rounds: the sum of what is counted, and the median of what is timed."""
    if len(rounds) == 1:
        return rounds[0]
    return {
        name: (statistics.median if name in TIMED else sum)([figures[name] for figures in rounds]) for name in rounds[0]
    }


def takes(trouble: Trouble) -> str:
    """Whether spans can arrive."""
    if trouble is HEALTHY:
        return "always"
    return "in the end" if trouble.ends or trouble is SLOW else "never"


# In containers.

DOCKERFILE: Final = """\
FROM python:{version}-slim-trixie
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --ignore-installed --require-hashes -r requirements.txt
COPY . .
CMD ["gunicorn", "--config", "gunicorn_conf.py", "--bind", "0.0.0.0:4567", "{app}:app"]
"""  # --ignore-installed, since Debian's pip in a stand-in for the base image brings packages that pip cannot replace
COMPOSE: Final = """\
services:
  backend:
    image: "${COMPOSE_PROJECT_NAME}"
    build: .
    environment:
      GUNICORN_CMD_ARGS:
      OTEL_EXPORTER_OTLP_ENDPOINT:
      OTEL_SERVICE_NAME: backend-flask
      PORT: 4567
    ports:
      - "127.0.0.1:${PORT}:4567"
    extra_hosts:
      - "host.docker.internal:host-gateway"
"""
OVERRIDE: Final = """\
services:
  backend:
    environment:
      GUNICORN_CMD_ARGS:
      PROFILES_URL: ""
"""


@dataclass(frozen=True)
class Contained:
    """A row in containers: what happens to the container, and what is wrong with the collector."""

    ending: str
    trouble: Trouble = HEALTHY
    flags: str = ""
    rate: float = 50.0
    seconds: float = 4.0
    rounds: int = 1


REDEPLOY: Final = Contained("Compose redeploy under load", rate=25.0, seconds=12.0, rounds=3)
CONTAINED: Final = (
    Contained("docker stop"),
    Contained("docker stop", HANGING),
    Contained("docker stop, workers recycled", SLOW, f"--max-requests {RECYCLED_AFTER}"),
    REDEPLOY,
)


def run(*command: str, folder: Path | None = None, **env: str) -> str:
    """What the command prints; when it fails, what it says is the error's text."""
    done = subprocess.run(command, cwd=folder, env=environment(**env), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip() or done.stderr.strip()


def host_address() -> str:
    """Where a container finds this machine. Docker Desktop, whose bridge is elsewhere, leads it to 127.0.0.1."""
    gateway: str = json.loads(run("docker", "network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"]
    with socket.socket() as probe:
        try:
            probe.bind((gateway, 0))
        except OSError:
            return "127.0.0.1"
    return gateway


class Stack:
    """A subject's image and its Compose project, under a name that nothing else has."""

    def __init__(self, subject: Subject, scratch: Path) -> None:
        self.name = f"bench-{subject.app}-{uuid.uuid4().hex[:8]}"
        (port,) = free_ports(1)
        self.base = f"http://127.0.0.1:{port}"
        if subject is OURS:
            self.folder, files = project(), f"compose.prod.yaml:{scratch / 'override.yaml'}"
            (scratch / "override.yaml").write_text(OVERRIDE)
        else:
            self.folder, files = plain_image(subject, scratch), "compose.yaml"
        self.env = {"COMPOSE_PROJECT_NAME": self.name, "COMPOSE_FILE": files, "PORT": str(port)}

    def compose(self, *arguments: str, **env: str) -> str:
        return run("docker", "compose", *arguments, folder=self.folder, **self.env, **env)

    def up(self, **env: str) -> None:
        """In the place of the container that may be there."""
        self.compose("up", "--detach", "--no-deps", "--wait", "--force-recreate", "backend", **env)
        if not eventually(lambda: answers(f"{self.base}/api/health"), 60):
            raise RuntimeError(f"{self.name} does not answer:\n{self.compose('logs', '--no-color')}")

    def remove(self) -> None:
        self.compose("down", "--remove-orphans", "--timeout", "5")
        run("docker", "image", "rm", "--force", self.name)


def plain_image(subject: Subject, scratch: Path) -> Path:
    """A folder of which `pip install` and `COPY` make an image of `subject`."""
    context = scratch / subject.app
    shutil.copytree(BENCH / "apps", context)
    for name in ("backend", "profiles"):
        shutil.copytree(project() / name, context / name)
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(project() / name, context)
    (version,) = re.findall(r'^ARG PYTHON="(.+)"', (project() / "Dockerfile").read_text(), re.MULTILINE)
    (context / "Dockerfile").write_text(DOCKERFILE.format(version=version, app=subject.app))
    (context / "compose.yaml").write_text(COMPOSE)
    return context


def in_docker() -> list[dict[str, Any]] | None:
    """The rows in containers; None where there is no Docker."""
    try:
        run("docker", "compose", "version")
        host = host_address()
    except (OSError, RuntimeError):
        return None
    found: dict[Contained, dict[str, Any]] = {case: {} for case in CONTAINED}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for subject, key in KEYS.items():
            stack = Stack(subject, Path(scratch))
            try:
                stack.compose("build", "backend")
                for case in CONTAINED:
                    if subject is not UNTRACED or case.trouble is HEALTHY:
                        found[case][key] = together([contained(subject, stack, case, host) for _ in range(case.rounds)])
            finally:
                stack.remove()
    return [{"ending": case.ending, "collector": case.trouble.name, **by_key} for case, by_key in found.items()]


def contained(subject: Subject, stack: Stack, case: Contained, host: str) -> dict[str, Any]:
    """What became of the requests and the spans of `subject` in a container."""
    with collecting(case.trouble, host=host) as collector:
        endpoint = f"http://host.docker.internal:{collector.port}"
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "GUNICORN_CMD_ARGS": case.flags}
        stack.up(**env)
        traffic = Traffic(stack.base, subject, case.rate, case.seconds)
        collector.begin()
        traffic.start()
        if case is REDEPLOY:
            traffic.wait_until(0.2)
            stack.up(**env)
        traffic.join()
        container = stack.compose("ps", "--quiet", "backend")
        began = time.monotonic()
        run("docker", "stop", container)
        found = {**fared(traffic), "stop_seconds": time.monotonic() - began, "seconds_without_answer": gap(traffic)}
        if subject is not UNTRACED:
            arrivals = Arrivals(collector)
            eventually(lambda: arrivals.look() >= len(traffic.answered()) * SPANS, 3)
            found |= became(traffic, arrivals, run("docker", "logs", container))
        return found


def gap(traffic: Traffic) -> float:
    """The longest time between two requests that were answered and came one after the other."""
    due = sorted(answer.due for answer in list(traffic.answers) if answer.outcome == "answered")
    return max((later - earlier for earlier, later in itertools.pairwise(due)), default=0.0)
