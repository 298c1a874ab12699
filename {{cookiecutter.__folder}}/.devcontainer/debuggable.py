"""Run `flask` with a debugger listening on port 5678. It adds no overhead until an editor attaches.

The reloader restarts the serving process after each edit. Only that process listens.
"""

import os
import time
from contextlib import suppress

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # no warning about Python's own modules

import debugpy
from flask.cli import main

if os.environ.get("WERKZEUG_RUN_MAIN") == "true":
    for _ in range(20):  # the previous process may still hold the port
        with suppress(RuntimeError):
            debugpy.listen(("0.0.0.0", 5678))  # noqa: S104
            break
        time.sleep(0.1)
main()
