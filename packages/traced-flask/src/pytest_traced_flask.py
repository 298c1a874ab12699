"""traced-flask's pytest plugin: the fixture `spans`. Imports traced_flask only when a test uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from traced_flask.pytest_plugin import Spans


@pytest.fixture
def spans() -> Iterator[Spans]:
    """The spans that have ended since the test started: `all()`, `names()` and `named(name)`."""
    from traced_flask.pytest_plugin import recorded_spans

    yield from recorded_spans()
