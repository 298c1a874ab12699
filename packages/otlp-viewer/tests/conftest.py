"""A store, a client of the application around it, and a viewer that runs."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from otlp_viewer.store import Store
from otlp_viewer.web.app import create_app
from running import free_port, viewer


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.close()


@pytest.fixture
def small_store() -> Iterator[Store]:
    """A store that keeps 32 MiB."""
    store = Store(memory=64 * 1024 * 1024)
    yield store
    store.close()


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return create_app(store).test_client()


@pytest.fixture(scope="session")
def viewer_address() -> Iterator[str]:
    with viewer(free_port()) as address:
        yield address
