"""Run the tests of every part, each in its own folder. `make test` calls this.

The packages' tests run beside the template's, which wait for other programs most of the time. Their output comes last.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("packages/traced-flask", "packages/otlp-viewer")
TEMPLATE = "."


def failed(parts: tuple[str, ...], output: IO[bytes] | None = None) -> list[str]:
    """Run the tests of these parts, one after another; return those that failed."""
    found = []
    for part in parts:
        done = subprocess.run(
            [sys.executable, "-m", "pytest"], cwd=ROOT / part, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        if done.returncode:
            found.append(part)
        if done.returncode == pytest.ExitCode.INTERRUPTED:
            break
    return found


def main() -> None:
    # Ctrl-C reaches every pytest, which stops its programs and reports. A handler, since programs inherit SIG_IGN.
    signal.signal(signal.SIGINT, lambda *_: None)
    print(f"The tests of {' and '.join(PACKAGES)} run at the same time. Their output comes last.\n", flush=True)
    with tempfile.TemporaryFile() as output, ThreadPoolExecutor(1) as pool:
        packages = pool.submit(failed, PACKAGES, output)
        wrong = [*failed((TEMPLATE,)), *packages.result()]
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout.buffer)
    if wrong:
        sys.exit("Tests failed in: " + ", ".join("the template" if part == TEMPLATE else part for part in wrong))


if __name__ == "__main__":
    main()
