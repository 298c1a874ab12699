"""Answers requests without a server, in a process of its own, and says what they cost in CPU.

    python in_process.py APP      reads what to do as lines of JSON, answers each with one

Everything that this process does for the requests counts, what it encodes and sends beside them too.
"""

from __future__ import annotations

import collections
import importlib
import io
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PAUSE = 0.01
IDLE = 0.0003  # seconds of CPU in such a pause, or less

App = Callable[..., Iterable[bytes]]


def environ(path: str) -> dict[str, Any]:
    """What gunicorn gives for `curl http://127.0.0.1:4567<path>`."""
    return {
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn/27.0.1",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": path,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:4567",
        "HTTP_USER_AGENT": "curl/8.5.0",
        "HTTP_ACCEPT": "*/*",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "4567",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
    }


def asking(app: App, path: str) -> Callable[[], None]:
    """A function that asks `app` for `path` once, and reads and closes the answer as a server does."""
    given = environ(path)
    statuses: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        statuses.append(status)

    def ask() -> None:
        body = app(dict(given), start_response)
        for _ in body:
            pass
        if close := getattr(body, "close", None):
            close()
        if statuses.pop() != "200 OK":
            raise RuntimeError(f"{path} did not answer 200")

    return ask


def wait_until_idle() -> None:
    """Until this process does nothing any more, in whichever thread, for two pauses."""
    idle, before = 0, time.process_time()
    while idle < 2:
        time.sleep(PAUSE)
        now = time.process_time()
        idle = idle + 1 if now - before < IDLE else 0
        before = now


def flush() -> None:
    for provider in providers():
        if flush := getattr(provider, "force_flush", None):
            flush()


def settle() -> None:
    """Send what there is, and wait until that is done."""
    flush()
    wait_until_idle()


def providers() -> list[Any]:
    from opentelemetry import _logs, trace

    return [trace.get_tracer_provider(), _logs.get_logger_provider()]


def shut_down() -> None:
    """As at the end of the process."""
    if stop := getattr(sys.modules["backend.telemetry"], "shutdown", None):
        stop()
        return
    for provider in providers():
        if end := getattr(provider, "shutdown", None):
            end()


class Profile:
    """Where the main thread spends its CPU time: its stack, up to two thousand times a second.

    A sample counts for as much as the thread itself has run since the one before, so that neither waiting nor what
    other threads do weighs on wherever it stands.
    """

    EVERY = 0.0005

    def __init__(self) -> None:
        self.stacks: collections.Counter[tuple[tuple[str, str], ...]] = collections.Counter()
        self._last = 0

    def _sample(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time_ns()
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_code.co_qualname))
            frame = frame.f_back
        self.stacks[tuple(stack)] += now - self._last
        self._last = time.thread_time_ns()

    @contextmanager
    def running(self) -> Iterator[None]:
        signal.signal(signal.SIGALRM, self._sample)
        self._last = time.thread_time_ns()
        signal.setitimer(signal.ITIMER_REAL, self.EVERY, self.EVERY)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


class Turns:
    def __init__(self, app: App) -> None:
        self.app = app

    def ask(self, path: str, count: int, threads: int, at_once: int) -> None:
        """Ask `count` times in all: from this thread, or from so many others at once."""

        def some(count: int) -> None:
            ask = asking(self.app, path)
            for number in range(1, count + 1):
                ask()
                if number % at_once == 0 and threads == 1:
                    wait_until_idle()

        if threads == 1:
            return some(count)
        share, rest = divmod(count, threads)
        if rest:
            raise ValueError(f"{count} requests cannot be shared by {threads} threads")
        started = [threading.Thread(target=some, args=[share]) for _ in range(threads)]
        for each in started:
            each.start()
        for each in started:
            each.join()
        return None

    def turn(self, path: str, count: int, warm_up: int, threads: int, at_once: int) -> dict[str, float]:
        """Microseconds of CPU for a request: in all, and of the thread that answers."""
        self.ask(path, warm_up, threads, at_once)
        settle()
        began, began_here = time.process_time(), time.thread_time()
        self.ask(path, count, threads, at_once)
        here = time.thread_time() - began_here
        settle()
        figures = {"cpu": (time.process_time() - began) / count * 1e6}
        return figures if threads > 1 else {**figures, "answering": here / count * 1e6}

    def profile(self, path: str, count: int, at_once: int) -> dict[str, Any]:
        """The same, by stack of the main thread. Exports are made there too, if the environment lets none begin."""
        self.ask(path, at_once, 1, at_once)
        settle()
        profile = Profile()
        began, began_here = time.process_time(), time.thread_time()
        for _ in range(count // at_once):
            with profile.running():  # but not while it waits, which would never end
                self.ask(path, at_once, 1, at_once + 1)
                flush()
            wait_until_idle()
        return {
            "cpu": (time.process_time() - began) / count * 1e6,
            "main": (time.thread_time() - began_here) / count * 1e6,
            "stacks": [[cpu / count / 1e3, stack] for stack, cpu in profile.stacks.items()],
        }


def main() -> None:
    turns = Turns(importlib.import_module(sys.argv[1]).app)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(getattr(turns, asked.pop("do"))(**asked)), flush=True)
    shut_down()


if __name__ == "__main__":
    main()
