"""Runs `otlp-viewer` for tests that send from other programs."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test; in CI, which has everything, let it fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A port that nothing uses, below those that the system gives to programs that ask for any port."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def get(address: str, path: str) -> Any:
    """The JSON at a path of a viewer."""
    with urllib.request.urlopen(address + path, timeout=60) as response:
        return json.load(response)


@contextmanager
def viewer(port: int, *options: str, python: str = sys.executable) -> Iterator[str]:
    """The address of a viewer that runs."""
    command = [python, "-m", "otlp_viewer", "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace") as process:
        try:
            assert process.stdout
            assert "waiting" in process.stdout.readline()
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
