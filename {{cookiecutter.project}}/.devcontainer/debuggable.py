"""`flask` with a debugger that an editor can attach to on port 5678. It costs nothing until one does.

    python .devcontainer/debuggable.py --app backend.app run --debug ...

The reloader starts the process that serves again after each edit; that process listens.
"""

import logging
import os
import time

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # no warning about Python's own modules

import debugpy
from flask.cli import main


def listen() -> None:
    for _ in range(20):  # the previous process may still have the port
        try:
            debugpy.listen(("0.0.0.0", 5678))  # noqa: S104
        except RuntimeError:
            time.sleep(0.1)
        else:
            return
    logging.warning("No debugger can attach: port 5678 is in use.")


if os.environ.get("WERKZEUG_RUN_MAIN") == "true":
    listen()
main()
