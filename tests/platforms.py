"""The stand-ins for platforms that no test can open for real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import ROOT


def stand_in(name: str) -> Path:
    """A file of the folder of stand-ins, SHARED_DIR or beside this repository; with SHARED_DIR=none there is none."""
    folder = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    path = folder / name
    if path.exists():
        return path
    wrong = f"{path} is missing: SHARED_DIR names the folder of the stand-ins"
    if os.environ.get("CI") == "true" and os.environ.get("SHARED_DIR") != "none":
        pytest.fail(wrong)
    pytest.skip(wrong)
