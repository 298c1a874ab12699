"""Profiles of the activities' authors: from the profiles service or, without one, from this process."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

import requests
from opentelemetry import trace

from example.profiles import people

logger = logging.getLogger(__name__)

TIMEOUT: Final = 1.0  # seconds to connect, and again for the answer

Profiles = dict[str, dict[str, Any]]


def find(handles: Collection[str], base_url: str | None) -> Profiles:
    """The profiles of `handles`, by handle. A handle without a profile is left out.

    If the service at `base_url` cannot be used there are none, and the current span has the reason in
    `app.profiles_missing`.
    """
    if not base_url:
        return people.find(handles)
    path = ",".join(quote(handle, safe="") for handle in sorted(handles))
    try:
        answer = requests.get(f"{base_url.rstrip('/')}/api/profiles/{path}", timeout=TIMEOUT)
        answer.raise_for_status()
        profiles = answer.json()
        if not isinstance(profiles, dict) or not all(isinstance(profile, dict) for profile in profiles.values()):
            raise ValueError("the answer is not a JSON object of profiles by handle")
    except (requests.RequestException, ValueError, RecursionError) as error:
        trace.get_current_span().set_attribute("app.profiles_missing", reason(error))
        logger.warning("Answering without profiles: %s: %s", type(error).__name__, error)
        return {}
    return profiles


def reason(error: Exception) -> str:
    """A few words to group by."""
    if isinstance(error, requests.HTTPError):
        return f"status {error.response.status_code}"
    reasons = {requests.Timeout: "timeout", requests.ConnectionError: "no connection"}
    return next((words for kind, words in reasons.items() if isinstance(error, kind)), "bad address or answer")
