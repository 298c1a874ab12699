"""Remove what the answers exclude, and print the next steps."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

EXAMPLE = "{{ cookiecutter.example }}"
LOCAL_VIEWER = "{{ cookiecutter.local_viewer }}"
DEPLOYMENT = "{{ cookiecutter.deployment }}"
IS_COOKIECUTTER: str = "{{ '_output_dir' in cookiecutter }}"  # False for cruft, which renders copies to compare

STARTED = Path(".rendering-started")


def excluded_paths() -> Iterator[str]:
    """Yield the files and folders that belong to other answers."""
    if EXAMPLE == "none":
        yield "example"
    else:
        yield from ("backend/hello.py", "tests/test_hello.py")
    if DEPLOYMENT == "one host":
        yield from ("deploy", "compose.collector.yaml")


def remove(path: Path, since: int) -> None:
    """Remove what was written after a time (ns). Older files belong to the user and stay."""
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            remove(child, since)
        if not any(path.iterdir()):
            path.rmdir()
    elif path.is_file() and path.stat().st_mtime_ns >= since:
        path.unlink()


def make_executable(folder: Path) -> None:
    """Set the execute bits of scripts, which a .zip file of the template loses."""
    for path in folder.glob("*"):
        if path.is_file() and path.read_bytes()[:2] == b"#!":
            mode = path.stat().st_mode
            path.chmod(mode | (mode & 0o444) >> 2)


def next_steps(start: Path, folder: Path) -> str:
    """Return the commands that show a first trace, for the folder `start`."""
    try:
        path = str(folder.relative_to(start.resolve()))
    except ValueError:
        path = str(folder)
    quoted = subprocess.list2cmdline([path]) if os.name == "nt" else shlex.quote(path)
    port = os.environ.get("PORT") or "4567"
    route = "hello" if EXAMPLE == "none" else "activities/home"
    commands = [f"cd {quoted}", "make run", f"curl http://127.0.0.1:{port}/api/{route}"]
    if LOCAL_VIEWER == "jaeger":
        commands.insert(1, "docker compose up --detach viewer")
    return "\n".join(["", *commands, "", "Run the last command in another terminal."])


def main() -> None:
    """Run in the rendered project."""
    since = STARTED.stat().st_mtime_ns
    for name in excluded_paths():
        remove(Path(name), since)
    STARTED.unlink()
    make_executable(Path("bin"))
    if IS_COOKIECUTTER == "True":
        try:
            print(next_steps(Path(os.environ.get("PWD", os.sep)), Path.cwd()), flush=True)
        except (OSError, UnicodeError):  # do not fail, since the project is complete
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails again at exit


if __name__ == "__main__":
    main()
