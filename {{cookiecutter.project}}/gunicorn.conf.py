"""gunicorn's settings in production; flags on the command line go over them.

gunicorn -c gunicorn.conf.py 'backend.app:create_app()'
https://docs.gunicorn.org/en/stable/settings.html
"""

import os
import threading

from backend import telemetry

bind = f"127.0.0.1:{os.environ.get('PORT', '4567')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "backend.worker.Worker"
threads = 4
keepalive = 1  # seconds; a stopping worker waits as long for connections that are kept alive
graceful_timeout = 10  # seconds for requests under way and, after them, telemetry.LONGEST_SHUTDOWN
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  a file on disk can block heartbeats
control_socket_disable = True  # nobody uses it, and a read-only file system has no place for it


def on_starting(server):
    telemetry.announce_for_workers()


def worker_int(worker):
    # After SIGINT gunicorn does not wait for requests under way, but the interpreter does: so do their spans.
    waiting = threading.Thread(target=worker.tpool.shutdown, daemon=True)
    waiting.start()
    waiting.join(graceful_timeout - telemetry.LONGEST_SHUTDOWN - 1)


def worker_exit(server, worker):
    replaced = worker.nr >= worker.max_requests  # as gunicorn decides it: its successor comes when it is gone
    if replaced:
        for socket in worker.sockets:
            socket.close()
    telemetry.shutdown(replaced)
