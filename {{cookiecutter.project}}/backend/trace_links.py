"""Where a person who develops can look at a trace: in Honeycomb when there is a key, else in the local viewer."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import requests
from opentelemetry.instrumentation.utils import suppress_instrumentation

PATIENCE: Final = 10.0  # seconds for Honeycomb to answer; nobody waits for it
PAUSE: Final = 60.0  # seconds before it is asked again about a key that it could not say anything of
PAGES: Final = {
    "https://api.honeycomb.io": "https://ui.honeycomb.io",
    "https://api.eu1.honeycomb.io": "https://ui.eu1.honeycomb.io",
}


class TraceLinks:
    """Addresses of traces, to which only the trace's id must be added.

    `key` answers Honeycomb's API key of the moment, and None without one. Whose it is, which every address in
    Honeycomb has in it, is asked of `api` once for each key, in a thread: nothing here waits for the network.
    `pages` is where Honeycomb shows what `api` takes, and `viewer` where the local viewer shows a trace.
    """

    def __init__(
        self, key: Callable[[], str | None], api: str, pages: str, service_name: str, viewer: str | None
    ) -> None:
        self._key = key
        self._api = api
        self._pages = pages
        self._service_name = service_name
        self._viewer = viewer
        self._lock = threading.Lock()
        self._asked_about: str | None = None
        self._ask_again = 0.0  # on time.monotonic()
        self._in_honeycomb: str | None = None

    def __call__(self) -> str | None:
        """In Honeycomb, or else in the viewer; None while there is neither."""
        return self.in_honeycomb() or self._viewer

    def in_honeycomb(self) -> str | None:
        """In Honeycomb; None without a key, and until it is known whose the key is."""
        key = self._key()
        with self._lock:
            if key != self._asked_about:
                self._asked_about, self._in_honeycomb, self._ask_again = key, None, 0.0
            if key and self._in_honeycomb is None and time.monotonic() >= self._ask_again:
                self._ask_again = time.monotonic() + PATIENCE + PAUSE
                thread = threading.Thread(target=self._find_out, args=[key], name="trace-links", daemon=True)
                with contextlib.suppress(RuntimeError):  # since Python 3.12 a process that is ending starts none
                    thread.start()
            return self._in_honeycomb

    def _find_out(self, key: str) -> None:
        try:
            with suppress_instrumentation():
                answer = requests.get(
                    f"{self._api}/1/auth",
                    headers={"x-honeycomb-team": key},
                    timeout=PATIENCE,
                    allow_redirects=False,  # the key would go along
                )
            found = address(self._pages, answer.json(), self._service_name) if answer.status_code == 200 else None
        except (requests.RequestException, ValueError, KeyError, TypeError):
            found = None  # telemetry itself says what is wrong with the key or the network
        with self._lock:
            if key == self._asked_about:
                self._in_honeycomb = found


def address(pages: str, account: Any, service_name: str) -> str:
    """The address of a trace in Honeycomb, but for its id, by what `/1/auth` answers.

    https://docs.honeycomb.io/api/auth/list-authorizations
    https://docs.honeycomb.io/investigate/collaborate/share-trace
    """
    team, environment = account["team"]["slug"], account["environment"]["slug"]  # classic keys have no environment
    dataset = re.sub(r"[^a-z0-9_.~]+", "-", service_name.strip().lower())
    of_environment = ["environments", environment] if environment else []
    parts = [quote(part, safe="") for part in (team, *of_environment, "datasets", dataset)]
    return "/".join([pages, *parts]) + "/trace?trace_id="
