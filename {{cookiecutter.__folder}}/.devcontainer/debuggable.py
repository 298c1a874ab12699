"""`flask` with a debugger that an editor can attach to on port 5678. It costs nothing until one does.

The reloader starts the process that serves again after each edit; that process listens.
"""

import os
import time
from contextlib import suppress

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # no warning about Python's own modules

import debugpy
from flask.cli import main

if os.environ.get("WERKZEUG_RUN_MAIN") == "true":
    for _ in range(20):  # the previous process may still have the port
        with suppress(RuntimeError):
            debugpy.listen(("0.0.0.0", 5678))  # noqa: S104
            break
        time.sleep(0.1)
main()
