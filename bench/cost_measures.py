"""What a request, a worker and a start cost: untraced, the plain way, with zero code, and as rendered."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from loads import Arrived, InProcess, arrived, cpu_seconds, in_process, wrk
from processes import Running, family, running
from receiver import Receiver, eventually, receiving
from report import NAMES
from subjects import BENCH, OURS, PLAIN, SUBJECTS, UNTRACED, ZERO_CODE, Server, Subject, project, server, serving

from conftest import free_ports  # isort: skip  # in tests/, which subjects adds to the path

Figures = dict[str, Any]

# In process: CPU per request.

KEY: Final = {UNTRACED: "untraced", PLAIN: "plain", ZERO_CODE: "zero-code", OURS: "ours"}


@dataclass(frozen=True)
class Variant:
    """A subject with settings."""

    subject: Subject
    env: Mapping[str, str] = field(default_factory=dict)


OFF: Final = {"OTEL_SDK_DISABLED": "true"}
METRICS: Final = {"OTEL_METRICS_EXPORTER": "otlp"}
GZIP: Final = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}


def one_in(rate: int) -> dict[str, str]:
    return {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(1 / rate)}


VARIANTS: Final = {
    "untraced": Variant(UNTRACED),
    "plain": Variant(PLAIN),
    "zero-code": Variant(ZERO_CODE),
    "ours": Variant(OURS),
    "plain, one in 10": Variant(PLAIN, one_in(10)),
    "ours, one in 10": Variant(OURS, {"SAMPLE_RATE": "10"}),
    "plain, one in 1000": Variant(PLAIN, one_in(1000)),
    "ours, one in 1000": Variant(OURS, {"SAMPLE_RATE": "1000"}),
    "plain, off": Variant(PLAIN, OFF),
    "ours, off": Variant(OURS, OFF),
    "plain, metrics": Variant(PLAIN, METRICS),
    "ours, metrics": Variant(OURS, METRICS),
    "plain, logs": Variant(PLAIN, {"OTEL_LOGS_EXPORTER": "otlp"}),
    "ours, no logs": Variant(OURS, {"OTEL_LOGS_EXPORTER": "none"}),
    "plain, gzip": Variant(PLAIN, GZIP),
    "ours, gzip": Variant(OURS, GZIP),
}
SETTINGS: Final = ("one in 10", "off", "metrics")


@dataclass(frozen=True)
class Handler:
    path: str
    name: str  # as tables call it
    spans: int  # that a traced request makes
    variants: tuple[str, ...]
    logs: int = 0
    threads: int = 1


FOUR: Final = tuple(KEY.values())
HANDLERS: Final = {
    "trivial": Handler(
        "/bench/trivial",
        "trivial",
        1,
        (*FOUR, *(f"{each}, {setting}" for setting in SETTINGS for each in ("plain", "ours"))),
    ),
    "home": Handler(
        "/api/activities/home",
        "home feed",
        3,
        tuple(each for each in VARIANTS if each != "plain, logs"),
    ),
    "20ms": Handler("/bench/20ms", "20 ms", 1, FOUR, threads=4),
    "log": Handler("/bench/log", "trivial, with a line of log", 1, (*FOUR, "plain, logs", "ours, no logs"), logs=1),
    "health": Handler("/api/health", "health check", 1, ("untraced", "plain", "ours")),
}
AT_ONCE: Final = 400  # spans, and then a pause in which they are sent: the queue holds 2048


def at_once(spans: int) -> int:
    return max(1, AT_ONCE // max(1, spans))


def arrives(variant: str, handler: str) -> tuple[int, int] | None:
    """How many spans and log records a request must send; None where chance decides."""
    subject, shape = VARIANTS[variant].subject, HANDLERS[handler]
    if "one in" in variant:
        return None
    if subject is UNTRACED or variant.endswith(", off") or (subject is OURS and handler == "health"):
        return 0, 0
    sends_logs = variant == "plain, logs" or (subject in (ZERO_CODE, OURS) and variant != "ours, no logs")
    return shape.spans, shape.logs if sends_logs else 0


def expect(receiver: Receiver, under: str, spans: int, logs: int, whose: str) -> Arrived:
    """Wait for what must arrive; no more, no less."""
    total = Arrived()

    def complete() -> bool:
        nonlocal total
        total += arrived(receiver, under)
        return total.spans >= spans and total.logs >= logs

    eventually(complete, 10)
    if (total.spans, total.logs) != (spans, logs):
        raise RuntimeError(f"{whose}: {total.spans} spans and {total.logs} log records arrived, not {spans} and {logs}")
    return total


def in_process_cost(quick: bool) -> Figures:
    """CPU of each variant in each handler, in short turns, in processes that stand side by side."""
    generations, rounds, count, warm_up = (1, 1, 40, 12) if quick else (3, 8, 240, 48)
    found: Figures = {
        name: {variant: collections.defaultdict(list) for variant in handler.variants}
        for name, handler in HANDLERS.items()
    }
    kept: dict[tuple[str, str], Arrived] = collections.defaultdict(Arrived)
    asked: collections.Counter[tuple[str, str]] = collections.Counter()
    with receiving() as receiver:
        for generation in range(generations):
            with contextlib.ExitStack() as stack:
                turns: dict[str, InProcess] = {}
                for number, (variant, shape) in enumerate(VARIANTS.items()):
                    endpoint = f"{receiver.url}/{number}"
                    turns[variant] = stack.enter_context(in_process(shape.subject, endpoint, **shape.env))
                for round_number in range(rounds):
                    progress(f"CPU per request: {generation * rounds + round_number + 1} of {generations * rounds}")
                    for key, handler in HANDLERS.items():
                        if key == "20ms" and round_number % 2:
                            continue  # it takes long
                        for variant in in_turn(handler.variants, round_number):
                            under = f"/{list(VARIANTS).index(variant)}"
                            figures = turns[variant].do(
                                "turn",
                                path=handler.path,
                                count=count,
                                warm_up=warm_up,
                                threads=handler.threads,
                                at_once=at_once(handler.spans),
                            )
                            for name, value in figures.items():
                                found[key][variant][name].append(value)
                            answered = warm_up + count
                            asked[key, variant] += answered
                            if (each := arrives(variant, key)) is None:
                                kept[key, variant] += arrived(receiver, under)
                            else:
                                spans, logs = each[0] * answered, each[1] * answered
                                kept[key, variant] += expect(receiver, under, spans, logs, f"{variant}, {key}")
    for (key, variant), total in kept.items():
        figures = found[key][variant]
        figures["spans"] = total.spans / asked[key, variant]
        figures["logs"] = total.logs / asked[key, variant]
        if total.spans:
            figures["attributes_per_span"] = total.attributes / total.spans
            figures["bytes_per_span"] = total.span_bytes / total.spans
    return found


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """Who begins changes from round to round."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# How it grows, in process.

SPANS: Final = (0, 1, 3, 10, 30)  # below the request's own
ATTRIBUTES: Final = (0, 5, 20, 50)  # of each of CHILDREN spans
CHILDREN: Final = 3
THREE: Final = {"untraced": UNTRACED, "plain": PLAIN, "ours": OURS}


def growth(quick: bool) -> Figures:
    """CPU per request against spans per request, and against attributes per span."""
    generations, rounds, spans_in_turn, warm_up = (1, 1, 60, 2) if quick else (2, 4, 1000, 10)
    paths = {("spans", number): (number, 5) for number in SPANS}
    paths |= {("attributes", number): (CHILDREN, number) for number in ATTRIBUTES}
    found: Figures = {kind: {} for kind, _ in paths}
    with receiving() as receiver:
        for generation in range(generations):
            with contextlib.ExitStack() as stack:
                turns = {
                    name: stack.enter_context(in_process(subject, f"{receiver.url}/{name}"))
                    for name, subject in THREE.items()
                }
                for round_number in range(rounds):
                    progress(f"How it grows: {generation * rounds + round_number + 1} of {generations * rounds}")
                    for (kind, number), (spans, attributes) in paths.items():
                        count = max(5, spans_in_turn // (spans + 1))
                        for name in in_turn(list(THREE), round_number):
                            figures = turns[name].do(
                                "turn",
                                path=f"/bench/spans/{spans}/{attributes}",
                                count=count,
                                warm_up=warm_up,
                                threads=1,
                                at_once=at_once(spans + 1),
                            )
                            each = 0 if name == "untraced" else spans + 1
                            expect(receiver, f"/{name}", each * (warm_up + count), 0, f"{name}, {spans} spans")
                            found[kind].setdefault(str(number), {}).setdefault(name, []).append(figures["cpu"])
    return found


# Where the time goes.

APPLICATION: Final = "the application"
SERVER: Final = "Flask and Werkzeug"
INSTRUMENTATION: Final = "instrumentation of Flask"
API: Final = "API: context, propagation"
SDK: Final = "SDK: beginning and ending spans"
SAMPLER: Final = "sampler"
OWN: Final = "this template's own"
ENCODING: Final = "encoding"
BATCHING: Final = "batching"
SENDING: Final = "sending"
BESIDE: Final = "other threads: sending"
IN_ORDER: Final = (
    APPLICATION, SERVER, INSTRUMENTATION, API, SDK, SAMPLER, OWN, ENCODING, BATCHING, SENDING, BESIDE,
)  # fmt: skip
GROUPS: Final = (  # by the first that the path of a file has in it
    ("/bench/apps/", APPLICATION),
    ("/opentelemetry/instrumentation/", INSTRUMENTATION),
    ("/opentelemetry/exporter/", ENCODING),
    ("/opentelemetry/proto/", ENCODING),
    ("/google/protobuf/", ENCODING),
    ("/opentelemetry/sdk/_shared_internal/", BATCHING),
    ("/opentelemetry/sdk/trace/export/", BATCHING),
    ("/opentelemetry/sdk/", SDK),
    ("/opentelemetry/", API),
    *((f"/backend/{name}.py", APPLICATION) for name in ("activities", "app", "errors", "examples", "profile_lookup")),
    ("/backend/delivery.py", SENDING),
    ("/backend/span_encoder.py", ENCODING),
    ("/backend/", OWN),
    ("/profiles/", APPLICATION),
    ("/requests/", SENDING),
    ("/urllib3/", SENDING),
    *((f"/{name}/", SERVER) for name in ("flask", "flask_cors", "werkzeug", "blinker")),
)


def group_of(stack: Iterable[tuple[str, str]]) -> str:
    """Whose work it is: of the innermost function that is not of the standard library."""
    for file, function in stack:
        for part, group in GROUPS:
            if part in file:
                return SAMPLER if function.endswith(".should_sample") else group
    return APPLICATION


def short(file: str, function: str) -> str:
    path = Path(file)
    parts = path.parts
    shown = "/".join(parts[parts.index("site-packages") + 1 :] if "site-packages" in parts else parts[-2:])
    return f"`{shown}` {function}"


def profile(quick: bool) -> Figures:
    """Microseconds of a request to the home feed by whose work they are.

    Exports are made in the main thread, where they can be seen: the processors' own threads do not begin any.
    """
    turns, count = (1, 200) if quick else (3, 2500)
    found: Figures = {}
    for number in range(turns):
        for name, subject in THREE.items():
            progress(f"Profile {number + 1} of {turns}: {NAMES[name]}")
            with receiving() as receiver, in_process(subject, receiver.url, OTEL_BSP_SCHEDULE_DELAY="3600000") as turn:
                figures = turn.do("profile", path=HANDLERS["home"].path, count=count, at_once=100)
            groups: collections.Counter[str] = collections.Counter()
            functions: collections.Counter[str] = collections.Counter()
            for spent, stack in figures["stacks"]:
                groups[group_of(stack)] += spent
                functions[short(*stack[0])] += spent
            if (beside := figures["cpu"] - figures["main"]) > 0.5:
                groups[BESIDE] += beside
            mine = found.setdefault(name, {"cpu": [], "groups": [], "functions": []})
            mine["cpu"].append(figures["cpu"])
            mine["groups"].append(dict(groups))
            mine["functions"].append(dict(functions.most_common(40)))
    return found


# Under gunicorn.

# Requests at a time; of 20 ms no more than a worker has threads, so that none waits for one.
CONNECTIONS: Final = {"trivial": 8, "home": 8, "20ms": 4}
ROUNDS: Final = {"trivial": (4, 3), "home": (4, 3), "20ms": (6, 4)}  # and seconds: few are asked, and p99 is of those


def processes_of(server: Server, workers: int = 2) -> set[int]:
    """gunicorn's first process and its workers, once all are there and have nothing more to do."""
    first = server.process.process.pid
    if not eventually(lambda: len(family(first)) == workers + 1, 30):
        raise RuntimeError(f"{len(family(first)) - 1} workers, not {workers}:\n{server.process.output()}")
    found, before = family(first), -1.0
    while (now := cpu_seconds(found)) - before > 0.01:
        before = now
        time.sleep(0.1)
    return found


def in_rounds(
    receiver: Receiver, servers: Mapping[str, Server], handler: str, rounds: int, seconds: int, workers: int = 2
) -> Figures:
    """What wrk measures of each server, in turn.

    CPU is that of all rounds together and of some seconds after them, since the plain way sends every 5 s. So is what
    arrived of the spans that must.
    """
    rest = 0.5 if rounds == 1 else 5.5
    pids = {name: processes_of(server, workers) for name, server in servers.items()}
    urls = {name: server.base + HANDLERS[handler].path for name, server in servers.items()}
    if rounds > 1:
        for url in urls.values():
            wrk(url, 1, CONNECTIONS[handler])  # to warm up
        time.sleep(rest)
    receiver.requests.clear()
    before = {name: cpu_seconds(pids[name]) for name in servers}
    found: Figures = {name: collections.defaultdict(list) for name in servers}
    for number in range(rounds):
        for name in in_turn(list(servers), number):
            for what, value in wrk(urls[name], seconds, CONNECTIONS[handler]).items():
                found[name][what].append(value)
    time.sleep(rest)
    for name, figures in found.items():
        answered = sum(figures["requests"])
        figures["cpu"] = (cpu_seconds(pids[name]) - before[name]) / answered * 1e6
        if name != "untraced":  # wrk does not count what is answered after its time is up
            figures["arrived"] = min(1.0, arrived(receiver, f"/{name}").spans / answered / HANDLERS[handler].spans)
    return found


def served(quick: bool) -> Figures:
    """What wrk measures on loopback, the servers standing side by side."""
    found: Figures = {}
    with receiving() as receiver, contextlib.ExitStack() as stack:
        servers = {
            KEY[subject]: stack.enter_context(serving(subject, f"{receiver.url}/{KEY[subject]}"))
            for subject in SUBJECTS
        }
        for key in CONNECTIONS:
            progress(f"Under gunicorn: {HANDLERS[key].name}")
            found[key] = in_rounds(receiver, servers, key, *((1, 1) if quick else ROUNDS[key]))
    return found


def workers(quick: bool) -> Figures:
    """The same of the home feed against the number of workers."""
    found: Figures = {}
    for count in (1,) if quick else (1, 2, 4):
        progress(f"Under gunicorn: {count} workers")
        with receiving() as receiver, contextlib.ExitStack() as stack:
            servers = {
                name: stack.enter_context(serving(subject, f"{receiver.url}/{name}", WEB_CONCURRENCY=str(count)))
                for name, subject in THREE.items()
            }
            found[str(count)] = in_rounds(receiver, servers, "home", *((1, 1) if quick else (3, 2)), workers=count)
    return found


def rates(quick: bool) -> Figures:
    """CPU and latency of the home feed at steady rates; all servers have them at the same time."""
    lead, seconds = (1, 1) if quick else (5, 15)  # the plain way sends every 5 s: as many batches for each
    found: Figures = {}
    with receiving() as receiver, contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving(subject, receiver.url)) for name, subject in THREE.items()}
        pids = {name: processes_of(server) for name, server in servers.items()}
        for rate in (50,) if quick else (10, 50, 200):
            progress(f"{rate} requests in a second")
            clients = {
                name: subprocess.Popen(
                    [
                        sys.executable,
                        str(BENCH / "apps" / "at_rate.py"),
                        server.base + HANDLERS["home"].path,
                        *map(str, (rate, lead, seconds)),
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for name, server in servers.items()
            }
            before = {}
            for name, client in clients.items():
                client.stdout.readline()  # type: ignore[union-attr]
                before[name] = cpu_seconds(pids[name])
            for name, client in clients.items():
                figures = json.loads(client.communicate()[0])
                figures["cpu"] = (cpu_seconds(pids[name]) - before[name]) / figures["answered"] * 1e6
                found.setdefault(str(rate), {})[name] = figures
            receiver.requests.clear()
    return found


# Memory and the start.


def memory(quick: bool) -> Figures:
    """Megabytes of a worker: when it has just started, under load, and under load with no collector there."""
    seconds = 1 if quick else 6
    found: Figures = {}
    for outage in (False, True):
        for subject in SUBJECTS[1:] if outage else SUBJECTS:
            name = KEY[subject]
            progress(f"Memory: {NAMES[name]}{' in an outage' if outage else ''}")
            with receiving() as receiver:
                nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
                with serving(subject, nowhere if outage else receiver.url) as server:
                    pids = processes_of(server) - {server.process.process.pid}
                    if not outage:
                        found[name] = {"idle": sizes(pids)}
                    wrk(server.base + HANDLERS["home"].path, seconds, 8)
                    found[name]["outage" if outage else "load"] = sizes(pids)
    return found


def sizes(pids: Iterable[int]) -> dict[str, list[float]]:
    each = [psutil.Process(pid).memory_full_info() for pid in pids]
    return {kind: [getattr(info, kind) / 1e6 for info in each] for kind in ("rss", "pss", "uss")}


def start_up(quick: bool) -> Figures:
    """Seconds from starting gunicorn until it listens, and until it has answered once."""
    rounds = 1 if quick else 6
    found: Figures = {name: {"listening": [], "answering": []} for name in FOUR}
    with receiving() as receiver:
        for number in range(rounds):
            progress(f"Start: {number + 1} of {rounds}")
            for name in in_turn(FOUR, number):
                subject = next(each for each, key in KEY.items() if key == name)
                (port,) = free_ports(1)
                command, environ = server(subject, receiver.url, port)
                log = project().parent / f"{subject.app}-start.log"
                began = time.monotonic()
                with running(command, project(), log, **environ) as process:
                    found[name]["listening"].append(when(began, process, functools.partial(listens, port)))
                    found[name]["answering"].append(when(began, process, functools.partial(healthy, port)))
    return found


def when(began: float, process: Running, happens: Callable[[], bool]) -> float:
    """Seconds since `began` until it happens."""
    while not happens():
        if time.monotonic() - began > 60 or process.process.poll() is not None:
            raise RuntimeError(f"it does not start:\n{process.output()}")
        time.sleep(0.002)
    return time.monotonic() - began


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def healthy(port: int) -> bool:
    """Whether /api/health answers 200; waits for the answer."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(100).startswith(b"HTTP/1.1 200 ")
    return False


PIECES: Final[dict[str, Callable[[bool], Figures]]] = {
    "in_process": in_process_cost,
    "growth": growth,
    "profile": profile,
    "served": served,
    "workers": workers,
    "rates": rates,
    "memory": memory,
    "start_up": start_up,
}


def measure(quick: bool, pieces: Sequence[str] = ()) -> Figures:
    return {name: piece(quick) for name, piece in PIECES.items() if not pieces or name in pieces}
