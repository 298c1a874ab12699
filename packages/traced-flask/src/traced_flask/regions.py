"""Honeycomb's addresses: where telemetry is sent to, and where a person looks at it.

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
    """The address of the API: HONEYCOMB_API_ENDPOINT, such as Refinery's or a test's, else the project's, else US."""
    return (own("HONEYCOMB_API_ENDPOINT") or _of_project() or US.api).rstrip("/")


def region_of(api: str) -> Region:
    """The region whose API is at `api`. Where that is not Honeycomb's: the project's region, else US."""
    by_api = {region.api: region for region in REGIONS}
    return by_api.get(api) or by_api.get(_of_project() or "") or US


def _of_project() -> str | None:
    """`honeycomb-api-endpoint` in `[tool.traced-flask]` of the current directory's pyproject.toml."""
    try:
        table = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["traced-flask"]
        return str(table["honeycomb-api-endpoint"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def page(pages: str, team: str, environment: str | None, *parts: str) -> str:
    """The address of a page of a team's environment. Classic teams have none.

    https://docs.honeycomb.io/investigate/collaborate/share-trace
    """
    of_environment = ["environments", environment] if environment else []
    return "/".join([pages, *(quote(part, safe="") for part in (team, *of_environment, *parts))])


def dataset_slug(service_name: str) -> str:
    """What the dataset of a service is called in an address."""
    return re.sub(r"[^a-z0-9_.~]+", "-", service_name.strip().lower())
