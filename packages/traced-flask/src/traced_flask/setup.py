"""The shutdown of telemetry when a process ends: it is delivered, within a time limit."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Final, Protocol

from traced_flask.delivery import SHUTDOWN_TIMEOUT, is_shutting_down, start_shutdown
from traced_flask.logs import detach

MARGIN: Final = 0.25  # seconds in which deliveries log what they could not send


class Provider(Protocol):
    """A TracerProvider, LoggerProvider or MeterProvider."""

    def shutdown(self) -> object: ...


def shutdown_at_exit(*providers: Provider) -> None:
    """Shut `providers` down when the process ends, all at the same time and in 3 seconds at most.

    That bound is for OpenTelemetry's own exporters and metric readers too: one that takes longer is abandoned. The
    providers' own exit handlers, which take up to 30 seconds each, are removed.
    """
    for provider in providers:
        atexit.unregister(provider.shutdown)
        _shutdowns.append(Shutdown(provider))
    atexit.unregister(shutdown)
    atexit.register(shutdown)


def shutdown(seconds: float = SHUTDOWN_TIMEOUT, in_outage: float | None = None) -> None:
    """Do now what `shutdown_at_exit` does at the end.

    All together take up to `seconds`, and deliveries to a destination in an outage up to `in_outage`.
    """
    until = time.monotonic() + seconds
    start_shutdown(seconds - MARGIN, in_outage)
    detach()  # what is logged from now on could not be sent
    providers, _shutdowns[:] = _shutdowns[:], []
    for each in providers:
        each.begin()
    for each in providers:
        each.wait(until)


class Shutdown:
    """The shutdown of one provider, in a thread that can be abandoned.

    The thread starts at once and waits: since Python 3.12 a process that is ending starts none.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._asked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-shutdown", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._asked.wait()
        self._provider.shutdown()

    def begin(self) -> None:
        try:
            if self._pid != os.getpid():  # a forked child, without the thread
                self._start()
        except RuntimeError:
            self._provider.shutdown()
        self._asked.set()

    def wait(self, until: float) -> None:
        """Wait for its end, until then on time.monotonic()."""
        with contextlib.suppress(RuntimeError):  # it could not be started
            self._thread.join(max(0.0, until - time.monotonic()))


_shutdowns: list[Shutdown] = []
_exits_until = float("-inf")  # on time.monotonic()


def end_on_sigterm() -> None:
    """Let SIGTERM end the process as `sys.exit` does, so that telemetry is delivered, unless it has a handler.

    A process that `multiprocessing` has started is left alone: its parent ends it with SIGTERM, and then waits for it.
    """
    is_main = threading.current_thread() is threading.main_thread() and not _is_of_multiprocessing()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):  # in a subinterpreter
            signal.signal(signal.SIGTERM, _exit)


def _is_of_multiprocessing() -> bool:
    return multiprocessing.current_process().name != "MainProcess"  # `parent_process` is set later


def _exit(signum: int, frame: FrameType | None) -> None:
    """Exit with the status that a shell reports for a process that the signal ended.

    Another signal would interrupt the exit, so it is ignored, for 3 seconds at most.
    """
    global _exits_until
    if _is_of_multiprocessing():  # forked, with this handler
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    now = time.monotonic()
    if now >= _exits_until and not is_shutting_down():
        _exits_until = now + SHUTDOWN_TIMEOUT
        sys.exit(128 + signum)
