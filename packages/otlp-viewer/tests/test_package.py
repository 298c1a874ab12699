"""The package as its users get it: the wheel, and what it declares to need."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from export import TRACE, export, json_span
from running import free_port, viewer

PACKAGE = Path(__file__).parents[1]


def test_the_wheel_works_on_its_own(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=PACKAGE, check=True)
    [wheel] = tmp_path.glob("*.whl")
    python = str(tmp_path / "venv" / "bin" / "python")
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([*uv, "pip", "install", "-q", "--python", python, wheel], check=True)
    with viewer(free_port(), python=python) as address:
        body = json.dumps(export(json_span(1, name="alone"))).encode()
        request = urllib.request.Request(f"{address}/v1/traces", body, {"Content-Type": "application/json"})
        assert urllib.request.urlopen(request, timeout=30).status == 200
        page = urllib.request.urlopen(f"{address}/traces/{TRACE}", timeout=30).read().decode()
    assert "alone" in page
