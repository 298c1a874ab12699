"""The Honeycomb API key: its format and sources."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import select
import stat
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Final, NamedTuple

from traced_flask import settings

logger = logging.getLogger(__name__)

NAME: Final = "HONEYCOMB_API_KEY"
KINDS: Final = {  # https://docs.honeycomb.io/configure/environments/manage-api-keys/
    "ingest key": r"hc[a-z]ik_[0-9a-z]{58}",
    "configuration key": r"[0-9A-Za-z]{22}",
    "classic ingest key": r"hc[a-z]ic_[0-9a-z]{58}",
    "classic key": r"[0-9a-f]{32}",
}
UNKNOWN_KIND: Final = "key"
FIFO_WAIT: Final = 2.0  # seconds for a writer; the application waits this long at startup
MAX_FILE: Final = 1 << 20  # bytes


def problem_with_key(key: str) -> str | None:
    """Return why `key` is not a valid Honeycomb API key, without quoting it; None if it is valid."""
    if not key:
        return "is empty"
    if re.search(r"\$\{|\$\(|^\$|^%.*%$", key):
        return "is the name of a variable that was not expanded"
    if key.strip()[:1] in {'"', "'", "`"} or key.strip()[-1:] in {'"', "'", "`"}:
        return "is in quotes"
    if key != key.strip():
        return "has leading or trailing whitespace"
    if re.match(r"hc[a-z]mk_", key):
        return "is a management key, which cannot send telemetry"
    if not re.fullmatch(r"[0-9A-Za-z_-]+", key):
        return "contains characters that keys do not have"
    if re.fullmatch(r"hc[a-z]{2}[ck]_[0-9a-z]{26}", key):
        return "is the ID of a key, without the secret that follows it"
    if re.match(r"hc[a-z]i[ck]_", key) and len(key) != 64:
        return f"begins like an ingest key but has {len(key)} characters, not 64"
    if len(key) < 20:
        return "is too short (ingest keys have 64 characters, configuration keys 22)"
    return None


def kind_of(key: str) -> str:
    """Return Honeycomb's name for the kind of key; UNKNOWN_KIND if its format matches none."""
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, key)), UNKNOWN_KIND)


def is_classic(key: str) -> bool:
    """Return whether `key` belongs to Honeycomb Classic, which has datasets and no environments."""
    return kind_of(key).startswith("classic")


class Place(NamedTuple):
    """A place to store a key: its description, and the key or its problem."""

    where: str
    key: str | None
    problem: str | None


def places(environ: Mapping[str, str], dotenv: Path | None) -> list[Place]:
    """Return every place that has a key, or should have one: the environment, its key file, then `dotenv`.

    A `dotenv` that is a FIFO is not opened if the environment has a key, because then the FIFO has been read already.
    """
    result = []
    if environ.get(NAME):
        result.append(_place("the environment", environ[NAME]))
    if path := environ.get(f"{NAME}_FILE"):
        result.append(_from_file(Path(path)))
    if dotenv and not (environ.get(NAME) and _is_fifo(dotenv)) and (place := _from_dotenv(dotenv)):
        result.append(place)
    return result


def _place(where: str, key: str) -> Place:
    problem = problem_with_key(key)
    return Place(where, None, f"The Honeycomb API key in {where} {problem}") if problem else Place(where, key, None)


def _from_file(path: Path) -> Place:
    where = f"the file that {NAME}_FILE names"
    try:
        text = _read(path)
    except FileNotFoundError:
        return Place(where, None, f"{NAME}_FILE names a file that does not exist")
    except ValueError as error:
        return Place(where, None, f"{where[0].upper()}{where[1:]} {error}")
    return _place(where, text.rstrip("\r\n"))


def _from_dotenv(path: Path) -> Place | None:
    try:
        key = read_variables(path).get(NAME)
    except ValueError as error:
        return Place(path.name, None, f"{path.name} {error}")
    return _place(path.name, key) if key else None


def read_variables(path: Path) -> dict[str, str]:
    """Return the variables of a .env file, as python-dotenv reads them.

    Empty without the file or without python-dotenv. Raises ValueError if the file cannot be read. The message continues
    a sentence that starts with the file name.
    """
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:  # a development dependency
        return {}
    try:
        text = _read(path)
    except FileNotFoundError:
        return {}
    return {name: value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value}


def _read(path: Path) -> str:
    """Read a file, or a FIFO that a program writes to within `FIFO_WAIT` seconds."""
    try:
        content = _read_fifo(path) if _is_fifo(path) else path.open("rb").read(MAX_FILE)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None  # the exception contains the content
    except OSError as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    if "\0" in text:
        raise ValueError("contains NUL bytes; save it as UTF-8")
    return text


def _is_fifo(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def _read_fifo(path: Path) -> bytes:
    deadline, content = time.monotonic() + FIFO_WAIT, b""
    fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while len(content) < MAX_FILE and (remaining := deadline - time.monotonic()) > 0:
            if not select.select([fifo], [], [], remaining)[0]:
                break
            with contextlib.suppress(BlockingIOError):
                if not (part := os.read(fifo, MAX_FILE)):
                    return content
                content += part
    finally:
        os.close(fifo)
    raise TimeoutError


class HoneycombKey:
    """The current API key, from the environment or from a file that is reloaded when it changes.

    `dotenv` is a .env file, used in development. If the file and the environment have the same key, the file counts,
    since `flask run` and Compose copy it to the environment. A FIFO is read once. Safe to use from any thread.
    """

    def __init__(self, environ: MutableMapping[str, str], dotenv: Path | None) -> None:
        self._lock = threading.Lock()
        self._files: list[tuple[Path, Callable[[Path], Place | None]]] = []
        self._signatures: dict[Path, tuple[int, int] | None] = {}
        self._places: dict[Path, Place | None] = {}
        environment_key = environ.get(NAME)
        if path := environ.get(f"{NAME}_FILE"):
            self._files.append((Path(path), _from_file))
        if dotenv and not (environment_key and _is_fifo(dotenv)):
            self._files.append((dotenv, _from_dotenv))
        self._read_changed()
        if environment_key and dotenv and (place := self._places.get(dotenv)) and place.key == environment_key:
            del environ[NAME]  # or the reloader's child would not follow the file
            environment_key = None
        self._from_environment = _place("the environment", environment_key) if environment_key else None
        self._select()

    def __call__(self) -> str | None:
        """Return the key, or None while there is no usable one."""
        # With a timeout: in a forked child, a thread of the parent may hold the lock.
        if not (self._from_environment and self._from_environment.key) and self._lock.acquire(timeout=1):
            try:
                before = self._key
                if self._read_changed():
                    self._select()
                    self._log_change(before)
            finally:
                self._lock.release()
        return self._key

    def _read_changed(self) -> bool:
        """Read the files that have changed. Return whether there are any."""
        changed = False
        for path, read in self._files:
            signature = None if _is_fifo(path) else _signature(path)
            if path not in self._places or signature != self._signatures[path]:
                self._signatures[path] = signature
                self._places[path] = read(path)
                changed = True
        return changed

    def _select(self) -> None:
        places = [place for place in (self._from_environment, *self._places.values()) if place]
        self._key = next((place.key for place in places if place.key), None)
        self.problems = [place.problem for place in places if place.problem]

    def _log_change(self, before: str | None) -> None:
        if self._key == before and not self.problems:
            return
        change = "now goes" if self._key else "no longer goes" if before else "does not go"
        suffix = " too" if self._key and settings.development() and settings.own("VIEWER_ENDPOINT") else ""
        level = logging.WARNING if self.problems else logging.INFO
        logger.log(level, ". ".join([*self.problems, f"Telemetry {change} to Honeycomb{suffix}"]) + ".")


def _signature(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
