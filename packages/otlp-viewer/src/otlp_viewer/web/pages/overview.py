"""The first page: services, and their newest, slowest and failed traces."""

from flask import Blueprint, render_template
from werkzeug.wrappers import Response

from otlp_viewer.web.pages.common import Site, unless_same
from otlp_viewer.web.questions import QUESTIONS

NEWEST = 15
FEW = 5
MOST_SERVICES = 12


def add(blueprint: Blueprint, site: Site) -> None:
    @blueprint.get("/")
    def overview() -> Response:
        return unless_same(site, lambda: _page(site))


def _page(site: Site) -> str:
    store = site.store
    if not store.counts()[0]:
        return render_template("overview.html", page="overview", empty=True)
    services = sorted(store.services(), key=lambda one: (-one.traces, -one.spans, one.name))
    newest, slowest, failed = store.highlights(NEWEST, FEW)
    return render_template(
        "overview.html",
        page="overview",
        empty=False,
        services=services,
        most_services=MOST_SERVICES,
        slowest_p95=max((one.p95_ms or 0 for one in services), default=0),
        newest=newest,
        slowest=slowest,
        failed=failed,
        questions=QUESTIONS,
    )
