"""The owner of a Honeycomb API key: its team and environment, which are part of every page's URL."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import requests
from opentelemetry.instrumentation.utils import suppress_instrumentation

TIMEOUT: Final = 10.0  # seconds for a response; nothing waits for it
PAUSE: Final = 60.0  # seconds between a failure and the next request


class Owner(NamedTuple):
    """The slugs of the team and environment of a key. Classic keys have no environment."""

    team: str
    environment: str


class Account:
    """The owner of the current API key. Requests it from `api` once for each key, in a thread.

    https://docs.honeycomb.io/api/auth/list-authorizations
    """

    def __init__(self, key: Callable[[], str | None], api: str) -> None:
        self._key = key
        self._api = api
        self._lock = threading.Lock()
        self._requested_for: str | None = None
        self._retry_at = 0.0  # on time.monotonic()
        self._owner: Owner | None = None

    def __call__(self) -> Owner | None:
        """Return the owner; None without a key and until Honeycomb responds. Never waits for the network."""
        key = self._key()
        # Do not block: in a forked child, a thread of the parent may hold the lock forever.
        if self._lock.acquire(blocking=False):
            try:
                if key != self._requested_for:
                    self._requested_for, self._owner, self._retry_at = key, None, 0.0
                if key and self._owner is None and time.monotonic() >= self._retry_at:
                    self._retry_at = time.monotonic() + TIMEOUT + PAUSE
                    thread = threading.Thread(target=self._request, args=[key], name="honeycomb-account", daemon=True)
                    with contextlib.suppress(RuntimeError):  # since Python 3.12, no thread starts during shutdown
                        thread.start()
            finally:
                self._lock.release()
        return self._owner

    def _request(self, key: str) -> None:
        try:
            with suppress_instrumentation():
                response = requests.get(
                    f"{self._api}/1/auth",
                    headers={"x-honeycomb-team": key},
                    timeout=TIMEOUT,
                    allow_redirects=False,  # the target of a redirect would get the key
                )
            owner = _owner(response.json()) if response.status_code == 200 else None
        except (requests.RequestException, ValueError, KeyError, TypeError):
            owner = None  # the delivery of telemetry logs problems with the key or the network
        with self._lock:
            if key == self._requested_for:
                self._owner = owner


def _owner(body: Any) -> Owner:
    return Owner(str(body["team"]["slug"]), str(body["environment"]["slug"] or ""))
