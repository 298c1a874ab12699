"""Starts the programs of a project, and uses them like a user or under load."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import requests
from conftest import environment, free_ports
from receiver import eventually


def family(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    try:
        return {pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return {pid}


def alive(pids: set[int]) -> set[int]:
    """Return those that are still running, without zombies."""
    return {
        each.pid for each in psutil.process_iter(["status"]) if each.pid in pids and each.info["status"] != "zombie"
    }


class Running:
    """A program in its own process group, whose output goes to a file."""

    def __init__(self, command: list[str], folder: Path, log: Path, **env: str) -> None:
        self.log = log
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(PYTHONUNBUFFERED="1", **env),
            stdin=subprocess.DEVNULL,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def interrupt(self, wait: float = 15) -> None:
        """Interrupt all processes in the terminal's foreground, like Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(wait)

    def stop(self, sign: int = signal.SIGTERM, wait: float = 20) -> float:
        """Send a signal to the program. Return the seconds until it exits."""
        start = time.monotonic()
        self.process.send_signal(sign)
        self.process.wait(wait)
        return time.monotonic() - start

    def kill(self) -> None:
        """Stop the program and everything that it started, even in other sessions."""
        if self.process.poll() is None:
            for pid in family(self.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def running(command: list[str], folder: Path, log: Path, **env: str) -> Iterator[Running]:
    program = Running(command, folder, log, **env)
    try:
        yield program
    finally:
        program.kill()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


@contextmanager
def gunicorn(project: Path, log: Path, *flags: str, **env: str) -> Iterator[tuple[Running, str]]:
    """Run the backend as `make prod` does, with more flags. Return its address too."""
    (port,) = free_ports(1)
    command = [str(project / ".venv/bin/gunicorn"), *flags, "backend.app:create_app()"]
    with running(command, project, log, PORT=str(port), **env) as server:
        base = f"http://127.0.0.1:{port}"
        assert eventually(lambda: answers(f"{base}/api/health"), 30), server.output()
        yield server, base


class Load:
    """`count` requests to the home feed from four clients. Records the trace of each response."""

    def __init__(self, base: str, count: int) -> None:
        self.trace_ids: list[str] = []
        self.failures: list[Any] = []
        self._url = f"{base}/api/activities/home"
        self._count = count

    def _ask(self) -> None:
        try:
            response = requests.get(self._url, timeout=20)
            self.trace_ids.append(response.headers["traceresponse"].split("-")[1])
            response.raise_for_status()
        except (KeyError, requests.RequestException) as error:
            self.failures.append(error)

    def run(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Send the requests. Call `meanwhile` after a tenth of the responses."""
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(self._ask) for _ in range(self._count)]
            asked[self._count // 10].result()
            meanwhile()
            for each in asked:
                each.result()
