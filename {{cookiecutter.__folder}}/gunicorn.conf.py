"""gunicorn's settings in production: `gunicorn 'backend.app:create_app()'` reads this file.

https://docs.gunicorn.org/en/stable/settings.html
"""

import os

from traced_flask.gunicorn import on_starting, worker_exit, worker_int  # noqa: F401

bind = f"{os.environ.get('BIND_ADDRESS', '127.0.0.1')}:{os.environ.get('PORT') or 4567}"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
worker_class = "gthread"
threads = 4
keepalive = 1  # seconds; a stopping worker waits this long for idle connections
graceful_timeout = 10  # seconds, for requests in progress and then up to 3 s for telemetry
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  heartbeats on a disk can block
control_socket_disable = True  # a read-only file system has no place for it
