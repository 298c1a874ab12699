"""Delivers telemetry within a time limit when the process exits."""

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
    """Shut down `providers` when the process exits, all at the same time and in at most 3 seconds.

    The limit also applies to OpenTelemetry's own exporters and metric readers: one that takes longer is abandoned. The
    providers' own exit handlers, which take up to 30 seconds each, are removed.
    """
    for provider in providers:
        atexit.unregister(provider.shutdown)
        _shutdowns.append(Shutdown(provider))
    atexit.unregister(shutdown)
    atexit.register(shutdown)


def shutdown(seconds: float = SHUTDOWN_TIMEOUT, in_outage: float | None = None) -> None:
    """Shut down now the providers of `shutdown_at_exit`.

    Together they take at most `seconds`; deliveries to a destination in an outage take at most `in_outage`.
    """
    deadline = time.monotonic() + seconds
    start_shutdown(seconds - MARGIN, in_outage)
    detach()  # later records could not be sent
    providers, _shutdowns[:] = _shutdowns[:], []
    for item in providers:
        item.begin()
    for item in providers:
        item.wait(deadline)


class Shutdown:
    """The shutdown of one provider, in a thread that can be abandoned.

    The thread starts in advance and waits, because since Python 3.12, no thread starts during shutdown.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._requested = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-shutdown", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._requested.wait()
        self._provider.shutdown()

    def begin(self) -> None:
        try:
            if self._pid != os.getpid():  # a forked child, without the thread
                self._start()
        except RuntimeError:
            self._provider.shutdown()
        self._requested.set()

    def wait(self, deadline: float) -> None:
        """Wait for the end of the shutdown, at most until `deadline` on time.monotonic()."""
        with contextlib.suppress(RuntimeError):  # the thread could not be started
            self._thread.join(max(0.0, deadline - time.monotonic()))


_shutdowns: list[Shutdown] = []
_exit_deadline = float("-inf")  # on time.monotonic()


def end_on_sigterm() -> None:
    """Make SIGTERM exit through `sys.exit`, so that telemetry is delivered, unless it already has a handler.

    Processes that `multiprocessing` has started keep the default, since their parent sends SIGTERM and waits.
    """
    is_main = threading.current_thread() is threading.main_thread() and not _is_multiprocessing_child()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):  # in a subinterpreter
            signal.signal(signal.SIGTERM, _exit)


def _is_multiprocessing_child() -> bool:
    return multiprocessing.current_process().name != "MainProcess"  # `parent_process` is set later


def _exit(signum: int, frame: FrameType | None) -> None:
    """Exit with the status that shells report for a process ended by the signal.

    Another signal would interrupt the exit, so it is ignored for at most 3 seconds.
    """
    global _exit_deadline
    if _is_multiprocessing_child():  # forked, with this handler
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    now = time.monotonic()
    if now >= _exit_deadline and not is_shutting_down():
        _exit_deadline = now + SHUTDOWN_TIMEOUT
        sys.exit(128 + signum)
