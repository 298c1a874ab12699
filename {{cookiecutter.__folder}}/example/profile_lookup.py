"""Look up authors' profiles in the profiles service or, without one, in this process."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

import requests
from opentelemetry import trace

from example.profiles import people

logger = logging.getLogger(__name__)

TIMEOUT: Final = 1.0  # seconds to connect, and again to receive the response

Profiles = dict[str, dict[str, Any]]


def find(handles: Collection[str], base_url: str | None) -> Profiles:
    """Return the profiles of `handles` by handle, without handles that have none.

    If the service at `base_url` fails, return no profiles and set `app.profiles_missing` on the current span to the
    reason.
    """
    if not base_url:
        return people.find(handles)
    path = ",".join(quote(handle, safe="") for handle in sorted(handles))
    try:
        response = requests.get(f"{base_url.rstrip('/')}/api/profiles/{path}", timeout=TIMEOUT)
        response.raise_for_status()
        profiles = response.json()
        if not isinstance(profiles, dict) or not all(isinstance(profile, dict) for profile in profiles.values()):
            raise ValueError("the response is not a JSON object of profiles by handle")
    except (requests.RequestException, ValueError, RecursionError) as error:
        trace.get_current_span().set_attribute("app.profiles_missing", reason(error))
        logger.warning("Responding without profiles: %s: %s", type(error).__name__, error)
        return {}
    return profiles


def reason(error: Exception) -> str:
    """Return a few words to group by."""
    if isinstance(error, requests.HTTPError):
        return f"status {error.response.status_code}"
    reasons = {requests.Timeout: "timeout", requests.ConnectionError: "no connection"}
    return next((text for kind, text in reasons.items() if isinstance(error, kind)), "bad address or answer")
