"""pytest plugin of traced-flask: the fixture `spans`. It imports nothing before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from traced_flask.pytest_plugin import Spans


@pytest.fixture
def spans() -> Iterator[Spans]:
    """The spans that ended since the test began: `all()`, `names()` and `named(name)`."""
    from traced_flask.pytest_plugin import recorded_spans

    yield from recorded_spans()
