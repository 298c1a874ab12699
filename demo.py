"""`make demo`: render the default project into demo/, start it, send requests, show the first trace.

    python demo.py --render    render, and do no more
    python demo.py --new       ask the template's questions, and render a project beside this folder

Runs with the system's Python and its standard library alone: it makes the virtual environments itself. Every
reason not to go on is one clear line, before anything is half done.
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
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PROJECT = ROOT / "{{cookiecutter.project}}"
DEMO = ROOT / "demo"
LOG = DEMO / "demo.log"
PORTS = {"PORT": 4567, "PROFILES_PORT": 4568, "VIEWER_PORT": 4318}
# What running the demo leaves in demo/, beside what was rendered.
MADE = {".venv", ".env", ".template", "demo.log", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
FIRST_REQUEST = "/api/activities/home"
MORE_REQUESTS = (
    "/api/activities/@andrew",
    "/api/examples/slow",
    "/api/activities/@nobody",
    "/api/examples/failing",
)


def say(text: str = "", end: str = "\n") -> None:
    print(text + end, end="", flush=True)  # in one piece, since two may speak at once


def check_python() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}: make demo PYTHON=python3.14")


def check_ports() -> dict[str, int]:
    """The three ports, from the environment or the usual ones; all of them free."""
    ports = {}
    for name, usual in PORTS.items():
        given = os.environ.get(name) or str(usual)
        if not given.isdecimal() or not 0 < int(given) < 65536:
            sys.exit(f"{name} is {given!r}, and a port is a number from 1 to 65535: make demo {name}={usual}")
        ports[name] = int(given)
        with socket.socket() as probe:
            if os.name != "nt":  # as servers do: a port that was just left is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", ports[name]))
            except OSError:
                sys.exit(f"Port {given} is in use. Stop what uses it, or take another: make demo {name}={usual + 1000}")
    return ports


def venv(folder: Path) -> Path:
    """The virtual environment of a folder; in a container that the project's Dockerfile.dev made, that one's."""
    return Path(os.environ.get("INSTALLED_IN") or folder / ".venv")


def in_venv(folder: Path, program: str) -> str:
    return str(venv(folder) / ("Scripts" if os.name == "nt" else "bin") / program)


def install(folder: Path, requirements: Path) -> None:
    """Make a virtual environment and install into it what `requirements` locks, if that has not been done."""
    wanted = requirements.read_text()
    done = venv(folder) / "installed"
    if folder == DEMO and os.environ.get("INSTALLED_IN"):  # everything is in the image
        return
    if done.is_file() and done.read_text() in ("", wanted):
        return
    total = len(re.findall(r"^[a-z0-9_.-]+==", wanted, re.MULTILINE))
    say(f"Installing up to {total} packages into {os.path.relpath(venv(folder), ROOT.parent)}")
    python, new = in_venv(folder, "python"), not venv(folder).exists()
    if uv := shutil.which("uv"):
        make_venv = [uv, "venv", "--quiet", "--python", sys.executable, str(venv(folder))]
        installer = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        make_venv = [sys.executable, "-m", "venv", str(venv(folder))]
        installer = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2"]
        if not sys.dont_write_bytecode:
            installer.append("--no-compile")  # Python compiles what it imports, and much is never imported
    try:
        if new:
            run(make_venv)
        run([*installer, "--require-hashes", "-r", str(requirements)])
    except BaseException as error:
        if new:
            shutil.rmtree(venv(folder), ignore_errors=True)
            with suppress(OSError):  # demo/, when there is nothing else in it
                folder.rmdir()
        if isinstance(error, subprocess.CalledProcessError):
            sys.exit(why_not_installed(error.stdout))
        raise
    done.write_text(wanted)


def run(command: list[str]) -> None:
    """Run quietly; raises CalledProcessError with all output as `stdout`."""
    environment = {**os.environ, "PIP_USER": "0"}  # pip refuses --user in a virtual environment
    subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def why_not_installed(output: str) -> str:
    """One sentence, of what pip or uv printed."""
    if re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|error sending request", output):
        return "The packages cannot be fetched: there is no connection to the package index. Nothing was installed."
    lines = output.splitlines()
    reason = next((line for line in lines if line.lower().startswith("error")), "the installer gives no reason")
    return f"The packages cannot be installed: {reason}"


def digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its path from `folder`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.is_file() and MADE.isdisjoint(path.relative_to(folder).parts)
    }


def template() -> dict[str, str]:
    """Changes when the template does."""
    return digests(ROOT, [ROOT / "cookiecutter.json", *(ROOT / "hooks").rglob("*"), *PROJECT.rglob("*")])


def render() -> None:
    """Render the default project into demo/, unless it is there and up to date, or has somebody's changes."""
    record = DEMO / ".template"
    before: dict[str, dict[str, str]] = {"template": {}, "demo": {}}
    with suppress(OSError, ValueError):
        before |= json.loads(record.read_text())
    now = template()
    if before["template"] == now:
        return
    found = digests(DEMO, DEMO.rglob("*"))
    if changed := sorted(name for name, _ in found.items() ^ before["demo"].items()):
        names = ", ".join(dict.fromkeys(changed[:3])) + (", ..." if len(changed) > 3 else "")
        say(f"demo/ has changes ({names}), so it stays as it is. To render it again, move it away.")
        return
    install(ROOT, ROOT / "requirements.txt")
    say("Rendering the project into demo/" + (" again: the template has changed" if found else ""))
    for name in found:
        (DEMO / name).unlink()
    command = [in_venv(ROOT, "cookiecutter"), "--no-input", "--overwrite-if-exists", "--output-dir", str(ROOT)]
    subprocess.run([*command, str(ROOT), "project_name=Demo"], check=True, stdout=subprocess.DEVNULL)
    record.write_text(json.dumps({"template": now, "demo": digests(DEMO, DEMO.rglob("*"))}))


def start(ports: dict[str, int]) -> subprocess.Popen[str]:
    """Start everything in demo/Procfile; its output comes out of a pipe."""
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}, "PYTHONUNBUFFERED": "1"}
    environment["PATH"] = os.path.dirname(in_venv(DEMO, "python")) + os.pathsep + environment["PATH"]
    if sys.stdout.isatty():
        environment.setdefault("FORCE_COLOR", "1")
    return subprocess.Popen(
        [in_venv(DEMO, "python"), "bin/run"],
        cwd=DEMO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for this process, which then stops that one
    )


def follow(process: subprocess.Popen[str], showing: threading.Event) -> None:
    """Write all output to demo/demo.log; once `showing` is set, show the viewer's part, the traces."""
    with LOG.open("w", encoding="utf-8") as log:
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            shown = re.match(r"(?:\x1b\[\d+m)?\S+ viewer\.1 +\| ?(?:\x1b\[0m)?(.*)", line)
            if shown and showing.is_set():
                say(shown[1])


def stop(process: subprocess.Popen[str]) -> None:
    """End every process that was started: politely, then for good, within 10 s."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get(url: str, accept: str = "application/json") -> str | None:
    """The body of the answer, whatever its status; None where there is none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=5) as answer:
            return str(answer.read(), "utf-8")
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return None


def wait_until(process: subprocess.Popen[str], condition: Callable[[], object], what: str) -> object:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if answer := condition():
            return answer
        if process.poll() is not None:
            sys.exit(f"{what}: it stopped. Its last words, from demo/demo.log:\n{last_words()}")
        time.sleep(0.1)
    sys.exit(f"{what}: no answer in a minute. Its last words, from demo/demo.log:\n{last_words()}")


def last_words() -> str:
    return "".join(LOG.read_text(encoding="utf-8").splitlines(keepends=True)[-15:])


def first_trace(viewer: str) -> str | None:
    """The trace of the first request as a tree, once all of it has come."""
    for trace in reversed(json.loads(get(f"{viewer}/api/traces") or "[]")):
        if trace.get("route") == FIRST_REQUEST and trace["complete"] and len(trace["services"]) > 1:
            return get(f"{viewer}/api/traces/{trace['trace_id']}", accept="text/plain")
    return None


def main() -> None:
    check_python()
    if sys.argv[1:] == ["--render"]:
        render()
        return
    if sys.argv[1:2] == ["--new"]:
        install(ROOT, ROOT / "requirements.txt")
        command = [in_venv(ROOT, "cookiecutter"), "--output-dir", str(ROOT.parent), str(ROOT), *sys.argv[2:]]
        sys.exit(subprocess.run(command).returncode)
    ports = check_ports()
    with ThreadPoolExecutor() as pool:  # what the project needs is known before it is there
        installing = pool.submit(install, DEMO, PROJECT / "requirements-dev.txt")
        render()
        installing.result()
    backend, viewer = (f"http://127.0.0.1:{ports[name]}" for name in ("PORT", "VIEWER_PORT"))
    profiles = f"http://127.0.0.1:{ports['PROFILES_PORT']}"

    say("Starting backend, profiles and viewer")
    for ending in (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
        signal.signal(ending, lambda *_: sys.exit(1))
    process = start(ports)
    showing = threading.Event()
    threading.Thread(target=follow, args=(process, showing), daemon=True).start()
    try:
        for base in (viewer, profiles, backend):
            wait_until(process, partial(get, f"{base}/api/health"), f"Starting {base}")
        say("Sending a request, and a few more\n")
        get(backend + FIRST_REQUEST)
        say(f"The first trace: GET {FIRST_REQUEST}\n")
        say(str(wait_until(process, lambda: first_trace(viewer), "Waiting for the first trace")))
        for path in MORE_REQUESTS:
            get(backend + path)
        say(f"  Ask the backend    curl {backend}{FIRST_REQUEST}")
        say(f"  See its traces     {viewer}/")
        say("  Send much more     make -C demo traffic")
        say("\nEach new trace is shown below. Ctrl-C ends it.\n")
        showing.set()
        process.wait()
        sys.exit(f"It stopped. Its last words, from demo/demo.log:\n{last_words()}")
    except KeyboardInterrupt:
        say("\nStopping")
    finally:
        stop(process)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
