"""`make demo`: render the default project into demo/, start it, send requests, show the first trace.

    python demo.py --render    only render
    python demo.py --new       ask the template's questions and render a project next to this folder

Needs only the standard library: it installs cookiecutter into .venv, and the project's own Makefile does the rest.
"""

from __future__ import annotations  # so that an old Python gets as far as check_python

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PROJECT = ROOT / "{{cookiecutter.__folder}}"
VENV = Path(os.environ.get("INSTALLED_IN") or ROOT / ".venv")  # the image of Dockerfile.dev sets INSTALLED_IN
DEMO = ROOT / "demo"
LOG = DEMO / "demo.log"
PORTS = {"PORT": 4567, "PROFILES_PORT": 4568, "VIEWER_PORT": 4318}
# What running the demo creates in demo/, besides the rendered files.
GENERATED = {".venv", ".env", ".template", "demo.log", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
FIRST_REQUEST = "/api/activities/home"
MORE_REQUESTS = (
    "/api/activities/@andrew",
    "/api/examples/slow",
    "/api/activities/@nobody",
    "/api/examples/failing",
)


def say(text: str = "", end: str = "\n") -> None:
    print(text + end, end="", flush=True)  # in one call, since two threads print


def check_python() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036
        target, version = sys.argv[1][2:] if sys.argv[1:] else "demo", sys.version.split()[0]
        sys.exit(f"This needs Python 3.11 or newer, not {version}. Specify one: make {target} PYTHON=python3.14")


def check_ports() -> None:
    """Put the three ports into the environment. Exit if one cannot be used."""
    suggestions = []
    for name, default in PORTS.items():
        port = os.environ.get(name) or str(default)
        if not port.isdecimal() or not 0 < int(port) < 65536:
            sys.exit(f"{name} is {port!r}, not a port from 1 to 65535. For example: make demo {name}={default}")
        os.environ[name] = port
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do; reuses recently closed ports
            try:
                probe.bind(("127.0.0.1", int(port)))
            except OSError as error:
                print(f"Port {port} cannot be used: {error.strerror}.", file=sys.stderr)
                suggestions.append(f"{name}={int(port) % 60000 + 1000}")
    if suggestions:
        port = "another port" if len(suggestions) == 1 else "other ports"
        sys.exit(f"Another project may be running. Stop it, or use {port}: make demo {' '.join(suggestions)}")


def in_venv(program: str) -> str:
    return str(VENV / ("Scripts" if os.name == "nt" else "bin") / program)


def install() -> None:
    """Install cookiecutter into .venv, if that has not been done."""
    requirements = ROOT / "requirements.txt"
    done = VENV / "installed"
    if done.is_file() and done.read_text() in ("", requirements.read_text()):
        return
    say("Installing cookiecutter into .venv")
    if uv := shutil.which("uv"):
        make_venv = [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(VENV)]
        installer = [uv, "pip", "install", "--quiet", "--python", in_venv("python")]
    else:
        make_venv = [sys.executable, "-m", "venv", str(VENV)]
        installer = [
            in_venv("python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-compile",
        ]
    new = not VENV.exists()
    try:
        if new:
            run(make_venv)
        run([*installer, "--require-hashes", "-r", str(requirements)])
    except BaseException as error:
        if new:
            shutil.rmtree(VENV, ignore_errors=True)
        if isinstance(error, subprocess.CalledProcessError):
            sys.exit(f"{explain(error.stdout)} Nothing was installed.")
        raise
    done.write_text(requirements.read_text())


def run(command: list[str]) -> None:
    """Run with a line of dots, one a second, instead of output; raises CalledProcessError with it as `stdout`."""
    environment = {**os.environ, "PIP_USER": "0"}  # pip refuses --user in a virtual environment
    pipe, output, seconds = subprocess.PIPE, None, 0
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        while output is None:
            try:
                output = process.communicate(timeout=1)[0]
            except subprocess.TimeoutExpired:
                say(".", end="")
                seconds += 1
    if seconds:
        say()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)


def explain(output: str) -> str:
    """Return why an installer failed: one sentence, or its output."""
    if re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|error sending request", output):
        return "The package index cannot be reached: check the network."
    if "ensurepip" in output:
        return "This Python cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv."
    return f"{output.rstrip()}\n\nThe reason is above."


def digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file by its path in `folder`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.is_file() and GENERATED.isdisjoint(path.relative_to(folder).parts)
    }


def template_digests() -> dict[str, str]:
    """Return digests of the template's files."""
    return digests(ROOT, [ROOT / "cookiecutter.json", *(ROOT / "hooks").rglob("*"), *PROJECT.rglob("*")])


def remove_caches() -> None:
    """Remove caches of editors and linters from the template, so that they are not rendered."""
    for path in [path for name in ("__pycache__", ".*_cache") for path in PROJECT.rglob(name)]:
        shutil.rmtree(path)


def render() -> None:
    """Render the default project into demo/, unless it is up to date or has been edited."""
    record = DEMO / ".template"
    recorded: dict[str, dict[str, str]] = {"template": {}, "demo": {}}
    with suppress(OSError, ValueError):
        recorded |= json.loads(record.read_text())
    remove_caches()
    current = template_digests()
    if recorded["template"] == current:
        return
    existing = digests(DEMO, DEMO.rglob("*"))
    if changed := sorted({name for name, _ in existing.items() - recorded["demo"].items()}):
        names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        say(f"You have changed demo/ ({names}), so it is not rendered again. To get a new one, move it away.")
        return
    install()
    say("Rendering the project into demo/" + (" again: the template has changed" if existing else ""))
    with tempfile.TemporaryDirectory() as folder:
        command = [in_venv("cookiecutter"), "--no-input", "--output-dir", folder, str(ROOT), "project_name=Demo"]
        try:
            run(command)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{error.stdout.rstrip()}\n\nNothing was rendered. The reason is above.")
        rendered = Path(folder, "demo")
        files = digests(rendered, rendered.rglob("*"))
        for name in existing:
            (DEMO / name).unlink()
        DEMO.mkdir(exist_ok=True)
        record.write_text(json.dumps({"template": {}, "demo": files}))  # so that an interrupted copy starts again
        shutil.copytree(rendered, DEMO, dirs_exist_ok=True)
    record.write_text(json.dumps({"template": current, "demo": files}))


class Services:
    """The services of `make run` in demo/. All output goes to demo/demo.log; with `print_traces`, prints traces too."""

    def __init__(self) -> None:
        # Not through make, which would print a message about the signal.
        python = Path(os.environ.get("INSTALLED_IN") or DEMO / ".venv") / "bin" / "python"
        if sys.stdout.isatty():
            os.environ.setdefault("FORCE_COLOR", "1")
        LOG.write_text("")
        self._process = subprocess.Popen(
            [str(python), "bin/run"],
            cwd=DEMO,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches only this process, which then stops the other
        )
        self.print_traces = False
        self._output = threading.Thread(target=self._follow, daemon=True)
        self._output.start()

    def _follow(self) -> None:
        with LOG.open("w", encoding="utf-8") as log:
            for line in self._process.stdout or ():
                name, _, text = line.rstrip("\n").partition("| ")
                if self.print_traces and name.rstrip() == "viewer":
                    say(text)
                log.write(line)
                log.flush()

    def wait_for(self, text: str, seconds: float = 60) -> bool:
        """Return whether the services print `text` in time. Exit if they stop."""
        deadline = time.monotonic() + seconds
        while text not in LOG.read_text(encoding="utf-8"):
            if not self._output.is_alive():
                self.wait()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def wait(self) -> None:
        """Wait until the services stop, which is a failure."""
        self._process.wait()
        self._output.join()
        lines = LOG.read_text(encoding="utf-8").splitlines()[-15:]
        sys.exit("\n".join([*lines, "", "The demo has ended. The reason is above, and in demo/demo.log."]))

    def stop(self) -> None:
        """Stop all processes within 10 s."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def get(url: str) -> str:
    """Send a request without a proxy. Return its trace ID, even for an error response."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        headers = opener.open(url, timeout=60).headers
    except urllib.error.HTTPError as error:
        headers = error.headers
    except OSError:
        return "no answer"
    return str(headers["traceresponse"]).split("-")[1]


# The `cookiecutter` command, without its traceback when a hook rejects the answers.
RENDER = """
import logging, sys
from cookiecutter.exceptions import CookiecutterException, FailedHookException
from cookiecutter.main import cookiecutter

logging.disable()
template, folder, *answers = sys.argv[1:]
context = dict(answer.split("=", 1) for answer in answers if "=" in answer)
try:
    cookiecutter(template, output_dir=folder, extra_context=context, no_input="--no-input" in answers)
except FailedHookException:
    sys.exit(1)
except CookiecutterException as error:
    sys.exit(str(error))
"""


def new(answers: list[str]) -> None:
    """Render next to this folder. Ask again, with the valid answers as defaults, until all answers are valid."""
    command = [in_venv("python"), "-c", RENDER, str(ROOT), str(ROOT.parent)]
    while True:
        result = subprocess.run([*command, *answers], stderr=subprocess.PIPE, text=True)
        if message := result.stderr.partition("\n\nTry again")[0].rstrip():
            print(message, file=sys.stderr)
        rejected = re.findall(r"^  (\w+) ", message, re.MULTILINE)
        replay = Path.home() / ".cookiecutter_replay" / f"{ROOT.name}.json"
        if not (result.returncode and rejected and sys.stdin.isatty() and replay.is_file()):
            sys.exit(result.returncode)
        say("\nPlease answer again. Press Enter to keep an answer.")
        previous = json.loads(replay.read_text("utf-8"))["cookiecutter"]
        answers = [f"{k}={v}" for k, v in previous.items() if not k.startswith("_") and k not in rejected]


def main() -> None:
    check_python()
    if sys.argv[1:] == ["--render"]:
        render()
        return
    if sys.argv[1:2] == ["--new"]:
        if not os.access(ROOT.parent, os.W_OK):
            sys.exit(f"{ROOT.parent} is not writable. Clone the template into a folder that you can write to.")
        install()
        remove_caches()
        new(sys.argv[2:])
    check_ports()
    render()
    if subprocess.run(["make", "--silent", "--no-print-directory", "install"], cwd=DEMO).returncode:  # noqa: S607
        sys.exit(1)
    backend, viewer = (f"http://127.0.0.1:{os.environ[name]}" for name in ("PORT", "VIEWER_PORT"))

    say("Starting backend, profiles and viewer")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    services = Services()
    try:
        if not services.wait_for("Ready: "):
            sys.exit("The demo did not start. See demo/demo.log.")
        say(f"The first trace, of GET {FIRST_REQUEST}:\n")
        services.print_traces = True
        if not services.wait_for(f"/{get(backend + FIRST_REQUEST)}"):
            sys.exit("The first request has no trace. See demo/demo.log.")
        services.print_traces = False
        for trace_id in [get(backend + path) for path in MORE_REQUESTS]:
            services.wait_for(f"/{trace_id}", 2)
        say("  Send a request   curl " + backend + FIRST_REQUEST)
        port = "" if os.environ["PORT"] == str(PORTS["PORT"]) else f" PORT={os.environ['PORT']}"
        say(f"  Send many        make -C demo traffic{port}")
        say(f"  All traces       {viewer}/")
        say("\nNew traces appear below. Press Ctrl-C to stop.\n")
        services.print_traces = True
        services.wait()
    except KeyboardInterrupt:
        say("\nStopping")
    finally:
        services.stop()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
