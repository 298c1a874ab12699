"""Activities: what people posted, each with its author's profile."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, abort, current_app
from flask.blueprints import BlueprintSetupState
from opentelemetry import trace

from example import examples, profile_lookup

blueprint = Blueprint("activities", __name__, url_prefix="/api/activities")
tracer = trace.get_tracer(__name__)

Activity = dict[str, Any]

POSTS = (
    ("68f126b0-1ceb-4a33-88be-d90fa7109eee", "andrew", "Traces are the best thing since sliced bread", 2, 5),
    ("66e12864-8c26-4c3a-9658-95a10f8fea67", "worf", "I am out of prune juice", 7, 0),
    ("248959df-3079-4947-b847-9e0892d1bab4", "garak", "My dear doctor, I am just a simple tailor", 1 / 24, 0),
)


@blueprint.record
def configure(state: BlueprintSetupState) -> None:
    """Read PROFILES_URL, the address of the profiles service. Without it, this process looks up profiles."""
    state.app.config.setdefault("PROFILES_URL", os.environ.get("PROFILES_URL") or None)
    if state.app.debug:
        state.app.register_blueprint(examples.blueprint)


def mock_activities(now: datetime) -> list[Activity]:
    """Return what a database would: newest last, with times in ISO 8601."""
    return [
        {
            "uuid": uuid,
            "handle": handle,
            "message": message,
            "likes_count": likes,
            "created_at": (now - timedelta(days=days)).isoformat(),
        }
        for uuid, handle, message, days, likes in POSTS
    ]


def with_profiles(activities: list[Activity]) -> list[Activity]:
    """Return the activities, each with its author's `profile` (None if there is none)."""
    profiles = profile_lookup.find({activity["handle"] for activity in activities}, current_app.config["PROFILES_URL"])
    return [{**activity, "profile": profiles.get(activity["handle"])} for activity in activities]


@blueprint.get("/home")
def home() -> list[Activity]:
    with tracer.start_as_current_span("home-activities-mock-data") as span:
        now = datetime.now(UTC).astimezone()
        span.set_attribute("app.now", now.isoformat())
        activities = with_profiles(mock_activities(now))
        span.set_attribute("app.result_length", len(activities))
        return activities


@blueprint.get("/@<handle>")
def user(handle: str) -> list[Activity]:
    with tracer.start_as_current_span("user-activities-mock-data") as span:
        span.set_attribute("app.handle", handle)
        now = datetime.now(UTC).astimezone()
        activities = [activity for activity in mock_activities(now) if activity["handle"] == handle]
        span.set_attribute("app.result_length", len(activities))
        activities = with_profiles(activities) if activities else []
    # Outside the span, because an exception would mark it as an error.
    if not activities:
        abort(404, description=f"User {handle!r} has no activities")
    return activities
