"""The owner of a Honeycomb API key: its team and environment, which are in the address of every page."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import requests
from opentelemetry.instrumentation.utils import suppress_instrumentation

TIMEOUT: Final = 10.0  # seconds for Honeycomb to answer; nobody waits for it
PAUSE: Final = 60.0  # seconds before it is asked again after a failure


class Owner(NamedTuple):
    """The team and the environment of a key, as they are called in addresses. Classic keys have no environment."""

    team: str
    environment: str


class Account:
    """The owner of the current API key. `api` is asked once for each key, in a thread.

    https://docs.honeycomb.io/api/auth/list-authorizations
    """

    def __init__(self, key: Callable[[], str | None], api: str) -> None:
        self._key = key
        self._api = api
        self._lock = threading.Lock()
        self._asked_about: str | None = None
        self._ask_again = 0.0  # on time.monotonic()
        self._owner: Owner | None = None

    def __call__(self) -> Owner | None:
        """The owner; None without a key, and until Honeycomb has answered. Never waits for the network."""
        key = self._key()
        # Without waiting: in a forked child a thread of the parent may hold the lock forever.
        if self._lock.acquire(blocking=False):
            try:
                if key != self._asked_about:
                    self._asked_about, self._owner, self._ask_again = key, None, 0.0
                if key and self._owner is None and time.monotonic() >= self._ask_again:
                    self._ask_again = time.monotonic() + TIMEOUT + PAUSE
                    thread = threading.Thread(target=self._ask, args=[key], name="honeycomb-account", daemon=True)
                    with contextlib.suppress(RuntimeError):  # since Python 3.12 a process that is ending starts none
                        thread.start()
            finally:
                self._lock.release()
        return self._owner

    def _ask(self, key: str) -> None:
        try:
            with suppress_instrumentation():
                answer = requests.get(
                    f"{self._api}/1/auth",
                    headers={"x-honeycomb-team": key},
                    timeout=TIMEOUT,
                    allow_redirects=False,  # a redirect would get the key
                )
            owner = _owner(answer.json()) if answer.status_code == 200 else None
        except (requests.RequestException, ValueError, KeyError, TypeError):
            owner = None  # the delivery of telemetry logs what is wrong with the key or the network
        with self._lock:
            if key == self._asked_about:
                self._owner = owner


def _owner(answer: Any) -> Owner:
    return Owner(str(answer["team"]["slug"]), str(answer["environment"]["slug"] or ""))
