"""Run the tests of every part, each in its own folder. `make test` calls this.

The packages' tests run beside the template's, which wait for other programs most of the time. Their output comes last.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("packages/traced-flask", "packages/otlp-viewer")
TEMPLATE = "."
interrupted = threading.Event()


def failed(parts: tuple[str, ...], output: IO[bytes] | None = None) -> list[str]:
    """Run the tests of these parts, one after another; return those that failed."""
    found = []
    for part in parts:
        if interrupted.is_set():
            break
        done = subprocess.run(
            [sys.executable, "-m", "pytest"], cwd=ROOT / part, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        if done.returncode:
            found.append(part)
    return found


def main() -> None:
    # Ctrl-C reaches every pytest, which stops its programs and reports. A handler, since programs inherit SIG_IGN.
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    print(f"The tests of {' and '.join(PACKAGES)} run at the same time. Their output comes last.\n", flush=True)
    with tempfile.TemporaryFile() as output, ThreadPoolExecutor(1) as pool:
        packages = pool.submit(failed, PACKAGES, output)
        wrong = [*failed((TEMPLATE,)), *packages.result()]
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout.buffer)
    if wrong:
        sys.exit("Tests failed in: " + ", ".join("the template" if part == TEMPLATE else part for part in wrong))
    sys.exit(130 if interrupted.is_set() else 0)


if __name__ == "__main__":
    main()
