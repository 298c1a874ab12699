"""What is measured: the same application untraced, traced the plain way, with zero code, and as rendered."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
sys.path.insert(0, str(ROOT / "tests"))  # whose programs and receiver are used here too

from conftest import LEFTOVERS, PROJECT, free_ports  # noqa: E402
from processes import Running, answers, running  # noqa: E402
from receiver import eventually  # noqa: E402

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Subject:
    name: str  # as tables call it
    app: str  # the module in apps/
    before: tuple[str, ...] = ()  # a program that starts the server
    env: dict[str, str] = field(default_factory=dict, hash=False)

    def environment(self, endpoint: str) -> dict[str, str]:
        """What it needs besides this machine's environment to send to the OTLP receiver at `endpoint`."""
        sends = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "backend-flask", "NO_PROXY": "*"}
        return {**sends, **self.env, "PYTHONPATH": f"{project()}:{BENCH / 'apps'}"}


UNTRACED = Subject("untraced", "untraced")
PLAIN = Subject("the plain way", "plain")
ZERO_CODE = Subject(
    "zero-code",
    "untraced",
    before=("opentelemetry-instrument",),
    env={"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
)
OURS = Subject("this template", "ours")
SUBJECTS = (UNTRACED, PLAIN, ZERO_CODE, OURS)


@functools.cache
def project() -> Path:
    """The default project, rendered from the work tree; it goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    template = folder / "template"
    template.mkdir()
    shutil.copy(ROOT / "cookiecutter.json", template)
    for name in ("hooks", PROJECT):
        shutil.copytree(ROOT / name, template / name, ignore=LEFTOVERS)
    config = folder / "config.yaml"
    config.write_text(json.dumps({"cookiecutters_dir": str(folder), "replay_dir": str(folder)}))
    command = [str(BIN / "cookiecutter"), "--no-input", "--config-file", str(config), "-o", str(folder), str(template)]
    subprocess.run([*command, "project=measured"], check=True, stdout=subprocess.DEVNULL)
    return folder / "measured"


@dataclass
class Server:
    base: str  # its address
    process: Running


def server(subject: Subject, endpoint: str, port: int, *flags: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """The command that starts `subject` under gunicorn with more `flags`, and its environment."""
    config = project() / "gunicorn.conf.py" if subject.app == OURS.app else BENCH / "apps" / "gunicorn_conf.py"
    before = [str(BIN / subject.before[0]), *subject.before[1:]] if subject.before else []
    command = [*before, str(BIN / "gunicorn"), "-c", str(config), *flags, f"{subject.app}:app"]
    return command, {**subject.environment(endpoint), **env, "PORT": str(port)}


@contextlib.contextmanager
def serving(subject: Subject, endpoint: str, *flags: str, **env: str) -> Iterator[Server]:
    """`subject` under gunicorn with more `flags`, sending to `endpoint`, until the end of the block."""
    (port,) = free_ports(1)
    command, environ = server(subject, endpoint, port, *flags, **env)
    with running(command, project(), project().parent / f"{subject.app}-{port}.log", **environ) as process:
        base = f"http://127.0.0.1:{port}"
        if not eventually(lambda: answers(f"{base}/api/health"), 30):
            raise RuntimeError(f"{subject.name} does not answer:\n{process.output()}")
        yield Server(base, process)
