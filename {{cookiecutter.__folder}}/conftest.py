"""Fixtures for the tests of every folder. `spans` comes from traced_flask's pytest plugin."""

from __future__ import annotations

import os
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

PREFIXES = ("OTEL_", "HONEYCOMB_", "VIEWER_", "FLASK_", "CORS_", "SAMPLE_", "TRUST_")
for name in [name for name in os.environ if name.startswith(PREFIXES)]:
    del os.environ[name]
os.environ.update(dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_METRICS_EXPORTER"), "none"))
os.environ.update(NO_PROXY="*", no_proxy="*")

from backend.app import create_app  # noqa: E402  reads the environment at import


@pytest.fixture
def app(spans: Any) -> Flask:
    return create_app({"TESTING": True})


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
