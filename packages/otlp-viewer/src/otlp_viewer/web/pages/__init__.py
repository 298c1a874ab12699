"""The viewer's pages."""

import re
from typing import Any

from flask import Blueprint, Response, abort, jsonify, redirect, render_template, request, url_for
from flask.blueprints import BlueprintSetupState
from werkzeug.wrappers import Response as AnyResponse

from otlp_viewer.store import Store
from otlp_viewer.web import format
from otlp_viewer.web.pages import common, logs, overview, query, trace, traces
from otlp_viewer.web.pages.common import Site


def pages(store: Store) -> Blueprint:
    """Create the viewer's pages."""
    blueprint = Blueprint("pages", __name__)
    site = Site(store)

    @blueprint.record_once
    def cache_static_files(state: BlueprintSetupState) -> None:
        """Let browsers cache static files, which they would otherwise request with each click."""
        state.app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 60

    @blueprint.app_context_processor
    def template_context() -> dict[str, Any]:
        return {"health": store.health, "colors": site.colors, "now_path": request.full_path.rstrip("?")}

    for name, filter_ in format.FILTERS.items():
        blueprint.add_app_template_filter(filter_, name)
    for filter_ in (
        common.column,
        common.from_query,
        common.without,
        common.replace_filters,
        query.key_text,
        query.dash,
        query.lines_data,
    ):
        blueprint.add_app_template_filter(filter_, filter_.__name__)
    for helper in (common.query_url, common.traces_url, common.current_url, common.axis_data):
        blueprint.add_app_template_global(helper, helper.__name__)
    for part in (overview, query, traces, trace, logs):
        part.add(blueprint, site)

    @blueprint.get("/find")
    def find() -> AnyResponse:
        """Redirect from the trace ID box: an ID, a traceparent, or a URL that contains an ID."""
        text = common.parameter("id").strip().lower()
        match = re.search(r"(?<![0-9a-f])([0-9a-f]{32})(?![0-9a-f])(?:-([0-9a-f]{16})(?![0-9a-f]))?", text)
        if match is None:
            return redirect(url_for("pages.traces", text=text) if text else url_for("pages.traces"))
        return redirect(url_for("pages.trace", trace_id=match[1], span=match[2]))

    @blueprint.get("/values/<any('service.name', 'http.route'):column>")
    def values(column: str) -> Response:
        """Return the values of a field, as suggestions for input."""
        signal = "logs" if request.args.get("signal") == "logs" else "spans"
        return jsonify(store.values(column, signal=signal))

    @blueprint.get("/clear")
    def ask_to_clear() -> str:
        return render_template("clear.html", page="")

    @blueprint.post("/clear")
    def clear() -> AnyResponse:
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin" or (
            request.origin not in (None, request.host_url.rstrip("/"))
        ):
            abort(403, "Only this viewer's own page can clear it.")
        store.clear()
        return redirect(url_for("pages.overview"))

    return blueprint


def error_page(error: Any) -> Response:
    return Response(render_template("error.html", page="", error=error), error.code or 500, mimetype="text/html")
