"""`traced-flask check`: send a span as the application does, step by step, and explain a failure."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind

from traced_flask import regions, settings
from traced_flask.checks import NOTHING_SENT
from traced_flask.destination import Destination, Endpoint
from traced_flask.encoder import encode_spans
from traced_flask.honeycomb_api import KEYS_PAGE, PERMISSIONS, Account, HoneycombAPI, Problem
from traced_flask.key import NAME, UNKNOWN_KIND, kind_of
from traced_flask.links import viewer_traces
from traced_flask.routes import Routes, service_name, standard_url, viewer_endpoint, without_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from traced_flask.cli import Project

MAX_SKEW: Final = 120  # seconds; smaller differences do not matter
DISABLED: Final = "OTEL_SDK_DISABLED=true: the application sends no telemetry."


class Finding(NamedTuple):
    step: str
    ok: bool
    text: str
    warning: bool = False


class Check:
    """Runs the steps and collects their findings."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.service = service_name()
        self.step = "settings"
        self.findings: list[Finding] = []
        self.facts: dict[str, Any] = {}

    def add(self, text: str, ok: bool = True, step: str = "", warning: bool = False) -> None:
        self.findings.append(Finding(step or self.step, ok, text, ok and warning))

    def run(self) -> None:
        """Run the steps. Raises Problem at the first failure; `self.step` is its step."""
        self.facts["service"] = self.service
        for problem in self.project.problems:
            self.add(problem.removesuffix("."), ok=NOTHING_SENT not in problem, warning=True)
        if self.service == "unknown_service":
            self.add("The service has no name, so it appears as unknown_service. Set OTEL_SERVICE_NAME", warning=True)
        if not self.project.keys and (url := standard_url("traces")):
            self.check_receiver(url)
            return
        self.step = "key"
        key = self.check_key()
        self.step = "address"
        address = self.check_address()
        self.step = "account"
        account = self.check_account(HoneycombAPI(address, key))
        self.step = "span"
        self.check_span(account, address, key)

    def check_receiver(self, url: str) -> None:
        """Send a span to `url`, which comes from the standard OTEL_EXPORTER_OTLP_ variables."""
        if settings.disabled():
            raise Problem(DISABLED)
        routes, name = Routes(), without_credentials(url)
        endpoint = routes.to("traces").get(name)
        for problem in routes.problems:
            self.add(problem, ok=endpoint is not None, warning=True)
        if endpoint is None:
            if all(finding.ok for finding in self.findings):
                raise Problem("The application's traces go nowhere. Check OTEL_TRACES_EXPORTER.")
            return
        self.step = "span"
        trace_id = self.send_span(name, endpoint)
        page = self.page(name, endpoint, trace_id)
        self.facts |= {"trace": page, "trace_id": trace_id}
        self.add(f"Sent a test span to {name} as service {self.service}: {page or f'trace {trace_id}'}")

    def page(self, name: str, endpoint: Endpoint, trace_id: str) -> str | None:
        """Return the URL of a trace's page, if the receiver is the viewer or Honeycomb."""
        if name == without_credentials(viewer_endpoint() or ""):
            return viewer_traces() + trace_id
        region = next((region for region in regions.REGIONS if region.api == name), None)
        if region and (key := (endpoint.headers() or {}).get("x-honeycomb-team")):
            with contextlib.suppress(Problem):
                account = HoneycombAPI(name, key).account()
                parts = ("datasets", regions.dataset_slug(self.service), "trace")
                page = regions.page(region.pages, account.team, account.environment, *parts)
                return f"{page}?trace_id={trace_id}"
        return None

    def check_key(self) -> str:
        key = self.project.key
        problems = [place.problem for place in self.project.keys if place.problem]
        if key is None and problems:
            raise Problem(f"{'. '.join(problems)}. Correct it, or create a key at {KEYS_PAGE}")
        if key is None:
            raise Problem(
                f"No API key was found. Set {NAME} in the environment or in .env, or set"
                f" OTEL_EXPORTER_OTLP_ENDPOINT to send telemetry to another receiver. Manage keys at {KEYS_PAGE}"
            )
        for problem in problems:
            self.add(f"{problem}. It is ignored", warning=True)
        where = next(place.where for place in self.project.keys if place.key)
        kind = kind_of(key)
        self.facts |= {"key": where, "kind": kind}
        if kind == UNKNOWN_KIND:
            self.add(f"The key in {where} does not look like a Honeycomb key", warning=True)
        else:
            self.add(f"Found {'an' if kind[0] in 'aeiou' else 'a'} {kind} in {where}")
        return key

    def check_address(self) -> str:
        address = self.project.address
        region = next((r.name for r in regions.REGIONS if r.api == address), "not one of Honeycomb's own")
        self.facts |= {"address": address, "region": region}
        self.add(f"{address} ({region})")
        return address

    def check_account(self, api: HoneycombAPI) -> Account:
        response = api.request("GET", "/1/auth")
        if abs(skew := response.clock_skew) > MAX_SKEW:
            direction = "ahead" if skew > 0 else "behind"
            self.add(
                f"This machine's clock is {abs(skew) / 60:.0f} minutes {direction}, so spans appear at the wrong time."
                " Set it; restarting Docker Desktop or WSL often does",
                ok=False,
                step="clock",
            )
        if response.status == 401 and (other := self.region_of_key(api.address)):
            raise Problem(f"This key belongs to the region {other.name}. Set HONEYCOMB_API_ENDPOINT={other.api}")
        api.check(response)
        account = api.account_in(response.body)
        environment = account.environment or "(classic)"
        self.facts |= {"team": account.team, "environment": account.environment, "permissions": account.permissions}
        permissions = ", ".join(account.permissions) or "none"
        self.add(f"Team {account.team}, environment {environment}, permissions: {permissions}")
        if account.key_type != "ingest" and "events" not in account.access:
            raise Problem(f"The key lacks the permission {PERMISSIONS['events']}. Add it at {KEYS_PAGE}")
        return account

    def region_of_key(self, address: str) -> regions.Region | None:
        """Return the other region if the key belongs to it. Skipped if the address is not Honeycomb's."""
        if address not in [region.api for region in regions.REGIONS]:
            return None
        key = self.project.key or ""
        for region in regions.REGIONS:
            try:
                if region.api != address and HoneycombAPI(region.api, key).request("GET", "/1/auth").status == 200:
                    return region
            except Problem:
                pass
        return None

    def check_span(self, account: Account, address: str, key: str) -> None:
        """Send a span to where the application's exporter sends its spans."""
        if settings.disabled():
            raise Problem(DISABLED)
        os.environ[NAME] = key
        endpoints = Routes().to("traces")
        name = without_credentials(address)
        viewer = without_credentials(viewer_endpoint() or address)  # it gets a copy in development
        for other in endpoints.keys() - {name, viewer}:
            self.add(f"An OTEL_EXPORTER_OTLP_ variable sends the application's traces to {other} instead", ok=False)
        if name not in endpoints:
            raise Problem(
                "The application's traces do not go to Honeycomb. Check OTEL_EXPORTER_OTLP_ENDPOINT,"
                " OTEL_EXPORTER_OTLP_HEADERS and OTEL_TRACES_EXPORTER."
            )
        missing = [name for name in ("events", "createDatasets") if name not in account.access]
        hint = f" The key lacks the permission {PERMISSIONS[missing[0]]}: {KEYS_PAGE}" if missing else ""
        trace_id = self.send_span(name, endpoints[name], hint)
        dataset = regions.dataset_slug(self.service)
        link = self.project.page(account, "datasets", dataset, "trace") + f"?trace_id={trace_id}"
        self.facts |= {"dataset": dataset, "trace": link}
        self.add(f"Sent a test span to dataset {dataset}: {link}")

    def send_span(self, name: str, endpoint: Endpoint, hint: str = "") -> str:
        """Send a test span and return its trace ID. Raises Problem, with `hint`, if `endpoint` does not accept it."""
        trace_id, body = make_span(self.service)
        if failure := Destination(name, {"traces": endpoint}).send("traces", body, endpoint.timeout):
            raise Problem(f"{name} did not accept a test span: {failure.reason}.{hint}", 3 if failure.retryable else 1)
        return trace_id


class _Collector(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


def make_span(service: str) -> tuple[str, bytes]:
    """Create a span; return its trace ID and the request that exports it."""
    collector = _Collector()
    resource = Resource.create({"service.name": service})
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(collector))
    with provider.get_tracer("traced_flask").start_as_current_span("traced-flask check", kind=SpanKind.SERVER) as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
    return trace_id, encode_spans(collector.spans).body


def check(arguments: argparse.Namespace, project: Project) -> int:
    check_run = Check(project)
    status = 0
    try:
        check_run.run()
    except Problem as problem:
        check_run.add(str(problem), ok=False)
        status = problem.status
    ok = all(finding.ok for finding in check_run.findings)
    if arguments.json:
        steps = [finding._asdict() for finding in check_run.findings]
        print(json.dumps({"ok": ok, **check_run.facts, "checks": steps}, indent=2))
    else:
        for finding in check_run.findings:
            level = "warn" if finding.warning else "ok" if finding.ok else "FAIL"
            print(f"{level:<4}  {finding.step:<8}  {finding.text}")
    return status or int(not ok)
