"""Hooks for gunicorn's configuration file:

    from traced_flask.gunicorn import on_starting, worker_exit, worker_int

https://gunicorn.org/reference/settings/#server-hooks
"""

from __future__ import annotations

import logging
import os
import sys
from threading import Thread
from typing import Any, Final

from traced_flask.delivery import SHUTDOWN_TIMEOUT
from traced_flask.routes import announce_for_workers
from traced_flask.setup import shutdown

REPLACED: Final = 0.5  # seconds for a destination in an outage, since the next worker waits


def hide_quoted_request(record: logging.LogRecord) -> bool:
    """Shorten gunicorn's log line about an invalid request, which quotes it and may contain credentials."""
    if (message := record.getMessage()).startswith("Invalid request from ip="):
        record.msg, record.args = message.partition(": ")[0], ()
    return True


def on_starting(server: Any) -> None:
    """Log where telemetry goes, once for all workers."""
    announce_for_workers(server.log)
    logging.getLogger("gunicorn.error").addFilter(hide_quoted_request)
    monkey = sys.modules.get("gevent.monkey")
    is_patched = monkey is not None and monkey.is_module_patched("threading")
    if server.cfg.preload_app and server.cfg.worker_class_str == "gevent" and not is_patched:
        server.log.warning(
            "With gevent workers and preload_app, a worker's last telemetry is lost. Leave preload_app off."
        )


def worker_int(worker: Any) -> None:
    """On SIGINT and SIGQUIT, let the requests of a threaded worker finish within `graceful_timeout`.

    gunicorn does not wait for them, but the interpreter does, so their spans would end after the export has stopped.
    """
    if pool := getattr(worker, "tpool", None):
        waiter = Thread(target=pool.shutdown, daemon=True)
        waiter.start()
        waiter.join(max(0.0, worker.cfg.graceful_timeout - SHUTDOWN_TIMEOUT - 1))


def worker_exit(server: Any, worker: Any) -> None:
    """Deliver the telemetry of an exiting worker, in at most 3 seconds.

    After `max_requests`, gunicorn starts the next worker only when this one has exited, so a destination in an outage
    gets half a second.
    """
    if worker.pid == os.getpid():  # gunicorn also calls this in its master, for a killed worker
        shutdown(in_outage=REPLACED if worker.nr >= worker.max_requests else None)
