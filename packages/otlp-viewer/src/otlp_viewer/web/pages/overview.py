"""The first page: services, and their newest, slowest and failed traces."""

from flask import Blueprint, render_template
from werkzeug.wrappers import Response

from otlp_viewer.web.pages.common import Site, respond_if_changed
from otlp_viewer.web.questions import QUESTIONS

NEWEST = 15
FEW_TRACES = 5
MAX_SERVICES = 12


def add(blueprint: Blueprint, site: Site) -> None:
    @blueprint.get("/")
    def overview() -> Response:
        return respond_if_changed(site, lambda: _page(site))


def _page(site: Site) -> str:
    store = site.store
    if not store.counts()[0]:
        return render_template("overview.html", page="overview", empty=True)
    services = sorted(store.services(), key=lambda service: (-service.traces, -service.spans, service.name))
    newest, slowest, failed = store.highlights(NEWEST, FEW_TRACES)
    return render_template(
        "overview.html",
        page="overview",
        empty=False,
        services=services,
        most_services=MAX_SERVICES,
        slowest_p95=max((service.p95_ms or 0 for service in services), default=0),
        newest=newest,
        slowest=slowest,
        failed=failed,
        questions=QUESTIONS,
    )
