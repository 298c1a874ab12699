"""The package as its users get it: the wheel, the README's program, the types, and nobody's private parts."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import clean_environment
from receivers import Receiver, wait_until
from test_end import FLASK, names, serving

PACKAGE = Path(__file__).parents[1]
SOURCES = sorted((PACKAGE / "src").rglob("*.py"))
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
PROGRAM = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[:2])
ROUTES = """
import flask, requests

@app.get("/")
def hello() -> str:
    return "hello"

@app.get("/call")
def call() -> str:
    return requests.get(f"http://{flask.request.host}/?token=marked").text
"""


def build(folder: Path) -> Path:
    """The wheel, built in `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=PACKAGE, env={**clean_environment(), "SOURCE_DATE_EPOCH": "1600000000"}, check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_build_is_reproducible(wheel: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == wheel.read_bytes()


def test_the_readmes_program_works_with_only_the_wheel(wheel: Path, tmp_path: Path, receiver: Receiver) -> None:
    python = str(tmp_path / "venv" / "bin" / "python")
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([*uv, "pip", "install", "-q", "--python", python, wheel], check=True)
    with serving(tmp_path, receiver, FLASK, PROGRAM + ROUTES, python) as server:
        assert server.get("/") == "hello"
        wait_until(lambda: "GET /" in names(receiver))
        assert server.get("/call") == "hello"
        log = server.end(signal.SIGTERM)
    assert "Traceback" not in log
    assert set(names(receiver)) == {"GET", "GET /", "GET /call"}
    assert b"/?REDACTED" in b"".join(receiver.bodies())
    assert b"marked" not in b"".join(receiver.bodies())
    command = [str(Path(python).with_name("traced-flask")), "--help"]
    assert "check" in subprocess.run(command, text=True, capture_output=True, check=True).stdout


def test_the_public_names_are_typed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        PROGRAM
        + ROUTES
        + """
import traced_flask
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

exporters = [OTLPMetricExporter(**each) for each in traced_flask.destinations("metrics")]
traced_flask.shutdown_at_exit(TracerProvider(sampler=traced_flask.sampler()))
page: str | None = traced_flask.trace_url()
for name in traced_flask.__all__:
    print(name.upper())
"""
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "app.py"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


def private(name: str | None) -> bool:
    documented = ("_asdict", "_fields", "_replace")  # of named tuples
    return name is not None and name.startswith("_") and not name.endswith("__") and name not in documented


def test_no_private_part_of_a_dependency_is_used() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    own: set[str] = set()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                own.add(name)
    foreign = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr=name) if private(name) and name not in own:
                    foreign.append(f"{path.name}:{node.lineno} {name}")
                case ast.ImportFrom(module=module, names=imported) if not str(module).startswith("traced_flask"):
                    parts = [*str(module).split("."), *(each.name for each in imported)]
                    foreign += [f"{path.name}:{node.lineno} {x}" for x in parts if private(x) and x != "_logs"]
                case ast.Import(names=imported):
                    parts = [part for each in imported for part in each.name.split(".")]
                    foreign += [f"{path.name}:{node.lineno} {x}" for x in parts if private(x)]
                case ast.Call(func=ast.Name(id="getattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                    foreign += [f"{path.name}:{node.lineno} {name}"] if private(name) and name not in own else []
    assert foreign == []
