"""Build the packages as wheels, the same bytes from the same sources.

python packages/wheels.py           into the project's wheels/, and write their hashes into its requirements files
python packages/wheels.py FOLDER    into another folder
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = Path(__file__).resolve().parent
PROJECT = PACKAGES.parent / "{{cookiecutter.__folder}}"
WHEELS = PROJECT / "wheels"
NAMES = ("traced-flask", "otlp-viewer")
SOURCE_DATE_EPOCH = "1767225600"  # the time of every file in a wheel: 2026-01-01


def build(folder: Path) -> None:
    """Replace the wheels in a folder by newly built ones."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as built:
        for name in NAMES:
            command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", built]
            environment = {**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
            subprocess.run(command, cwd=PACKAGES / name, env=environment, check=True, capture_output=True)
        for old in folder.glob("*.whl"):
            old.unlink()
        for wheel in Path(built).glob("*.whl"):
            (folder / wheel.name).write_bytes(wheel.read_bytes())


def lock() -> None:
    """Change the lines of these packages in the requirements files, and no others."""
    for path in (PROJECT / "requirements.txt", PROJECT / "requirements-dev.txt"):
        text = path.read_text(encoding="utf-8")
        for wheel in WHEELS.glob("*.whl"):
            name, version = wheel.name.split("-")[:2]
            line = rf"^{name.replace('_', '-')}==\S+ \\\n    --hash=sha256:\w+$"
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            locked = f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{digest}"
            text = re.sub(line, lambda _, locked=locked: locked, text, flags=re.MULTILINE)  # type: ignore[misc]
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:]:
        build(Path(sys.argv[1]).resolve())
    else:
        build(WHEELS)
        lock()
