"""The profiles service's Flask application."""

from __future__ import annotations

from flask import Flask

from backend import errors, telemetry
from backend.callers import Callers
from profiles import people


def create_app() -> Flask:
    """Make the application: `GET /api/profiles/<handles>` (comma-separated) answers profiles by handle."""
    app = Flask(__name__)
    telemetry.instrument(app, service_name="profiles", callers=Callers(trusted=True))  # the backend alone
    errors.register(app)

    @app.get("/api/profiles/<handles>")
    def profiles(handles: str) -> dict[str, dict[str, str]]:
        return people.find(handles.split(","))

    @app.get("/api/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
