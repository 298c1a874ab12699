"""Threads under gevent that raise an error when they end after a fork."""

from __future__ import annotations

import importlib
import sys
from types import TracebackType
from typing import Any


def hide_failures_of_inherited_threads() -> None:
    """Suppress the traceback of a thread that ends but is not in `threading`'s list.

    With gevent workers and `preload_app`, all of the SDK's threads end like this: `threading` removes those from before
    the fork, and gevent renames those that started before its patches. No telemetry is lost.
    https://github.com/open-telemetry/opentelemetry-python/issues/3884
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return
    hub = importlib.import_module("gevent").get_hub()
    handle_error, report = hub.handle_error, sys.unraisablehook

    def handle(context: object, kind: Any, value: Any, traceback: Any) -> None:
        if not is_from_ending_thread(kind, traceback):
            handle_error(context, kind, value, traceback)

    def unraisable(failure: Any) -> None:
        if not is_from_ending_thread(failure.exc_type, failure.exc_traceback):
            report(failure)

    hub.handle_error, sys.unraisablehook = handle, unraisable


def is_from_ending_thread(kind: type[BaseException] | None, traceback: TracebackType | None) -> bool:
    """Return whether an error is the KeyError of a thread that removes itself from `threading`'s list."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if kind is not KeyError or traceback is None:
        return False
    frame = traceback.tb_frame
    return frame.f_code.co_name == "_delete" and frame.f_globals.get("__name__") == "threading"
