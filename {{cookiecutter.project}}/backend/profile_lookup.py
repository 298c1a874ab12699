"""Profiles of activities' authors: from the profiles service, or from this process without one."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

import requests
from opentelemetry import trace
from requests import exceptions

from profiles import people

logger = logging.getLogger(__name__)

PATIENCE: Final = 1.0  # seconds to connect, and again for the answer; a feed without profiles is better than a wait

Profiles = dict[str, dict[str, Any]]


def find(handles: Collection[str], base_url: str | None) -> Profiles:
    """Profiles by handle, of those of `handles` that have one.

    A service at `base_url` that is away, slow or wrong gives none; the current span then says why in
    `app.profiles_missing`.
    """
    if not base_url:
        return people.find(handles)
    path = ",".join(quote(handle, safe="") for handle in sorted(handles))
    try:
        answer = requests.get(f"{base_url.rstrip('/')}/api/profiles/{path}", timeout=PATIENCE)
        answer.raise_for_status()
        profiles = answer.json()
        if not isinstance(profiles, dict) or not all(isinstance(profile, dict) for profile in profiles.values()):
            raise ValueError("not a JSON object of profiles by handle")
    except (requests.RequestException, ValueError, RecursionError) as error:
        reason = why(error)
        trace.get_current_span().set_attribute("app.profiles_missing", reason)
        logger.warning("Answering without profiles: the service is %s", reason)
        return {}
    return profiles


def why(error: Exception) -> str:
    """A word to group by: what kept the profiles away."""
    match error:
        case requests.Timeout():
            return "slow"
        case requests.HTTPError(response=requests.Response(status_code=status)):
            return f"answering {status}"
        case requests.JSONDecodeError():
            return "not answering JSON"
        case exceptions.InvalidURL() | exceptions.InvalidSchema() | exceptions.MissingSchema():
            return "at a bad address"
        case requests.RequestException():
            return "away"
    return "not answering profiles"
