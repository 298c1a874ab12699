"""Honeycomb's addresses: of the API and of the web pages.

https://docs.honeycomb.io/get-started/basics/honeycomb/regions
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from traced_flask.settings import own


class Region(NamedTuple):
    """A region of Honeycomb, with the addresses of its API and of its pages."""

    name: str
    api: str
    pages: str


US: Final = Region("US", "https://api.honeycomb.io", "https://ui.honeycomb.io")
EU: Final = Region("EU", "https://api.eu1.honeycomb.io", "https://ui.eu1.honeycomb.io")
REGIONS: Final = (US, EU)


def api_endpoint() -> str:
    """Return the API's address: HONEYCOMB_API_ENDPOINT (such as Refinery's), else the project's, else US."""
    return (own("HONEYCOMB_API_ENDPOINT") or _project_endpoint() or US.api).rstrip("/")


def region_of(api: str) -> Region:
    """Return the region whose API is at `api`. If that is not Honeycomb's, the project's region, else US."""
    by_api = {region.api: region for region in REGIONS}
    return by_api.get(api) or by_api.get(_project_endpoint() or "") or US


def _project_endpoint() -> str | None:
    """Return `honeycomb-api-endpoint` of `[tool.traced-flask]` in the current directory's pyproject.toml."""
    try:
        table = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["traced-flask"]
        return str(table["honeycomb-api-endpoint"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def page(pages: str, team: str, environment: str | None, *parts: str) -> str:
    """Return the URL of a page in a team's environment. Classic teams have no environments.

    https://docs.honeycomb.io/investigate/collaborate/share-trace
    """
    environment_parts = ["environments", environment] if environment else []
    return "/".join([pages, *(quote(part, safe="") for part in (team, *environment_parts, *parts))])


def dataset_slug(service_name: str) -> str:
    """Return the name of a service's dataset in URLs."""
    return re.sub(r"[^a-z0-9_.~]+", "-", service_name.strip().lower())
