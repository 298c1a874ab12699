"""The first route."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient


def test_hello_is_traced(client: FlaskClient, spans: Any) -> None:
    assert client.get("/api/hello").json == {"message": "Hello, world!"}
    request, work = spans.named("GET /api/hello"), spans.named("say-hello")
    assert work.parent.span_id == request.context.span_id
    assert work.attributes["app.message_length"] == 13
