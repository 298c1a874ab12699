"""The packages travel with the project as wheels: built from these sources, byte for byte, and locked."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import PROJECT, ROOT

WHEELS = ROOT / PROJECT / "wheels"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    program = [sys.executable, str(ROOT / "packages" / "wheels.py"), str(folder)]
    subprocess.run(["sh", "-c", 'umask 077; exec "$@"', "sh", *program], check=True)
    return folder


def test_the_wheels_match_a_build_from_the_sources(built: Path) -> None:
    names = sorted(path.name for path in WHEELS.iterdir())
    assert names == sorted(path.name for path in built.iterdir())
    assert len(names) == 2
    differ = [name for name in names if (WHEELS / name).read_bytes() != (built / name).read_bytes()]
    assert differ == [], "run: make wheels"


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_the_requirements_lock_the_wheels(file: str) -> None:
    text = (ROOT / PROJECT / file).read_text("utf-8")
    assert {*re.findall(r"^--find-links (.*)$", text, re.MULTILINE)} == {"wheels"}
    locked = dict(re.findall(r"^(traced-flask|otlp-viewer)==(\S+ \\\n    --hash=sha256:\w+)$", text, re.MULTILINE))
    assert list(locked) == ["traced-flask"] if file == "requirements.txt" else ["otlp-viewer", "traced-flask"]
    for name, pin in locked.items():
        (wheel,) = WHEELS.glob(f"{name.replace('-', '_')}-*.whl")
        version = wheel.name.split("-")[1]
        assert pin == f"{version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def test_a_wheel_contains_the_package_its_types_and_license(built: Path) -> None:
    for wheel in built.iterdir():
        names = zipfile.ZipFile(wheel).namelist()
        package = wheel.name.split("-")[0]
        assert f"{package}/py.typed" in names
        assert any(name.endswith("licenses/LICENSE") for name in names)
        assert [name for name in names if "test" in name and name != "pytest_traced_flask.py"] == [
            name for name in names if name == f"{package}/pytest_plugin.py"
        ]


def test_no_requirements_file_names_an_index() -> None:
    for path in (*ROOT.glob("requirements*.txt"), *(ROOT / PROJECT).glob("requirements*.txt")):
        assert not re.search(r"https?://|--(extra-)?index-url", path.read_text("utf-8")), path
