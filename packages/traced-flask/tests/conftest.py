"""What every test starts from: no setting of the machine counts, and nothing leaves it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from receivers import Receiver

OURS = ("OTEL_", "HONEYCOMB_", "VIEWER_", "FLASK_", "SAMPLE_RATE", "TRUST_TRACEPARENT", "CORS_ORIGINS", "GUNICORN_")

for variable in list(os.environ):  # before the first test module imports traced_flask
    if variable.startswith(OURS) or variable.lower().endswith("_proxy"):
        del os.environ[variable]

import traced_flask  # noqa: E402, F401  before any test imports OpenTelemetry


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def clean_environment() -> dict[str, str]:
    """The environment without anything that telemetry reads: importing traced_flask has set some of it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a Python program in a folder of its own, with `environ` and no other setting."""

    def run(program: str, timeout: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**clean_environment(), **environ},
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=timeout,
        )

    return run
