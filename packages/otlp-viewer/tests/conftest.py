"""A store, and a client of the application around it."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from otlp_viewer.store import Store
from otlp_viewer.web.app import create_app


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.close()


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return create_app(store).test_client()
