"""Traffic of a made-up bookshop: spans and logs made by the Python SDK at chosen times, and sent by its exporters.

Also a command, which fills a viewer that runs: python traffic.py http://127.0.0.1:4318
"""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

BATCH = 512
VERSIONS = {"checkout": "2.14.0", "gateway": "1.9.3"}
SEVERITIES = {
    "DEBUG": SeverityNumber.DEBUG,
    "INFO": SeverityNumber.INFO,
    "WARN": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
    "FATAL": SeverityNumber.FATAL,
}
TITLES = ["The Waves", "Invisible Cities", "Kindred", "Pedro Páramo", "The Left Hand of Darkness", "Beloved"]


class Ids(IdGenerator):
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def generate_span_id(self) -> int:
        return self._random.getrandbits(64) | 1

    def generate_trace_id(self) -> int:
        return self._random.getrandbits(128) | 1


class Sender:
    """Makes spans and logs of any service, and sends them. Times are seconds since 1970, durations seconds."""

    def __init__(self, seed: int = 1) -> None:
        self.ids = Ids(seed)
        self._spans = InMemorySpanExporter()
        self._logs = InMemoryLogRecordExporter()
        self._tracers: dict[str, Any] = {}
        self._loggers: dict[str, Any] = {}

    def span(
        self,
        service: str,
        name: str,
        start: float,
        duration: float,
        parent: Span | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        events: Sequence[tuple[str, float, Mapping[str, Any]]] = (),
        links: Sequence[Span] = (),
        error: str | None = None,
    ) -> Span:
        context = set_span_in_context(parent) if parent is not None else None
        span: Span = self._tracer(service).start_span(
            name,
            context=context,
            kind=kind,
            attributes=dict(attributes or {}),
            links=[Link(one.get_span_context(), {"messaging.operation.type": "process"}) for one in links],
            start_time=round(start * 1e9),
        )
        for event, after, fields in events:
            span.add_event(event, dict(fields), round((start + after) * 1e9))
        if error is not None:
            span.set_status(StatusCode.ERROR, error)
        span.end(round((start + duration) * 1e9))
        return span

    def log(
        self,
        service: str,
        at: float,
        severity: str,
        body: Any,
        span: Span | None = None,
        event: str = "",
        **fields: Any,
    ) -> None:
        record = LogRecord(
            timestamp=round(at * 1e9),
            observed_timestamp=round(at * 1e9),
            context=set_span_in_context(span) if span is not None else None,
            severity_text=severity,
            severity_number=SEVERITIES[severity],
            body=body,
            attributes={name.replace("__", "."): value for name, value in fields.items()},
            event_name=event or None,
        )
        self._logger(service).emit(record)

    def send(self, address: str) -> None:
        """Send what was made since the last time."""
        spans, logs = self._spans.get_finished_spans(), self._logs.get_finished_logs()
        self._spans.clear()
        self._logs.clear()
        traces = OTLPSpanExporter(endpoint=f"{address}/v1/traces")
        for first in range(0, len(spans), BATCH):
            if traces.export(spans[first : first + BATCH]) is not SpanExportResult.SUCCESS:
                raise RuntimeError(f"{address} does not take spans")
        records = OTLPLogExporter(endpoint=f"{address}/v1/logs")
        for first in range(0, len(logs), BATCH):
            if records.export(logs[first : first + BATCH]) is not LogRecordExportResult.SUCCESS:
                raise RuntimeError(f"{address} does not take logs")
        traces.shutdown()
        records.shutdown()

    def _resource(self, service: str) -> Resource:
        return Resource.create(
            {
                "service.name": service,
                "service.version": VERSIONS.get(service, "1.4.2"),
                "deployment.environment.name": "development",
                "host.name": f"{service}-7d9f",
            }
        )

    def _tracer(self, service: str) -> Any:
        if service not in self._tracers:
            provider = TracerProvider(resource=self._resource(service), id_generator=self.ids, shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(self._spans))
            self._tracers[service] = provider.get_tracer(
                "bookshop.tracing", "0.3.0", attributes={"bookshop.generated": True}
            )
        return self._tracers[service]

    def _logger(self, service: str) -> Any:
        if service not in self._loggers:
            provider = LoggerProvider(resource=self._resource(service), shutdown_on_exit=False)
            provider.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
            self._loggers[service] = provider.get_logger("bookshop.logging")
        return self._loggers[service]


class Shop:
    """Requests to the bookshop. Every kind of them is a method that makes one trace, begun `at`."""

    def __init__(self, sender: Sender, seed: int = 1) -> None:
        self.sender = sender
        self._chance = random.Random(seed)

    def some(self, at: float) -> Span:
        kinds = [self.search, self.book, self.cart, self.checkout, self.recommend]
        return self._chance.choices(kinds, [8, 10, 4, 3, 3])[0](at)

    def search(self, at: float) -> Span:
        took = self._chance.lognormvariate(-3.3, 0.4)
        root, edge = self._request(at, took, "GET", "/search")
        term = self._chance.choice(["woolf", "calvino", "butler", "rulfo", "le guin"])
        inside = self._call("gateway", "search", edge, at + took * 0.1, took * 0.75, "GET", "/v1/search", term=term)
        self.sender.span(
            "search", "query index", at + took * 0.3, took * 0.45, inside,
            attributes={"db.system.name": "opensearch", "app.search.term": term, "app.search.hits": 7},
        )  # fmt: skip
        return root

    def book(self, at: float) -> Span:
        slow = self._chance.random() < 0.06
        took = self._chance.lognormvariate(-0.6, 0.3) if slow else self._chance.lognormvariate(-3.9, 0.35)
        plan = "free" if slow else self._chance.choice(["free", "member", "member", "publisher"])
        root, edge = self._request(at, took, "GET", "/books/{id}", plan=plan)
        inside = self._call(
            "gateway", "catalog", edge, at + took * 0.08, took * 0.8, "GET", "/v1/books/{id}", plan=plan
        )
        title = self._chance.choice(TITLES)
        reads = 5 if slow else 1
        for number in range(reads):
            self.sender.span(
                "catalog", "SELECT catalog.books", at + took * (0.2 + 0.6 * number / reads), took * 0.5 / reads, inside,
                SpanKind.CLIENT,
                {"db.system.name": "postgresql", "db.collection.name": "books", "app.plan": plan,
                 "app.book.title": title,
                 "db.query.text": "SELECT id, title, author, price FROM books WHERE id = $1 ORDER BY edition DESC"},
            )  # fmt: skip
        if self._chance.random() < 0.3:
            self.sender.log(
                "catalog", at + took * 0.6, "INFO", f"Found {title!r}", inside, app__book__title=title, app__plan=plan
            )
        return root

    def cart(self, at: float) -> Span:
        took = self._chance.lognormvariate(-3.6, 0.3)
        root, edge = self._request(at, took, "POST", "/cart/items")
        inside = self._call("gateway", "cart", edge, at + took * 0.1, took * 0.7, "POST", "/v1/items")
        self.sender.span(
            "cart", "HSET cart", at + took * 0.3, took * 0.2, inside, SpanKind.CLIENT,
            {"db.system.name": "redis", "db.operation.name": "HSET"},
            events=[("cache.miss", took * 0.05, {"key": "cart:81"})],
        )  # fmt: skip
        if self._chance.random() < 0.15:
            self.sender.log("cart", at + took * 0.4, "WARN", "Cart has been idle for 30 minutes", inside, app__items=3)
        return root

    def checkout(self, at: float) -> Span:
        """Many services; one in five is declined; what follows the answer is asynchronous, and linked from `email`."""
        took = self._chance.lognormvariate(-1.4, 0.25)
        declined = self._chance.random() < 0.2
        status = 502 if declined else 201
        root, edge = self._request(at, took, "POST", "/checkout", status=status)
        inside = self._call(
            "gateway", "checkout", edge, at + took * 0.04, took * 0.92, "POST", "/v1/orders", status=status
        )
        at_work = at + took * 0.08
        for service, route, share in (
            ("accounts", "/v1/me", 0.08), ("cart", "/v1/cart", 0.07), ("currency", "/v1/rates", 0.05),
            ("inventory", "/v1/reserve", 0.14), ("fraud", "/v1/score", 0.12),
        ):  # fmt: skip
            there = self._call("checkout", service, inside, at_work, took * share, "POST", route)
            self.sender.span(service, "load", at_work + took * share * 0.3, took * share * 0.4, there)
            at_work += took * share
        message = "card_declined: the issuer did not approve 42.00 EUR"
        raised = [
            ("exception", took * 0.2, {
                "exception.type": "payments.CardDeclined", "exception.message": message,
                "exception.stacktrace": "Traceback (most recent call last):\n"
                '  File "payments/charge.py", line 71, in charge\n'
                "    answer = processor.charge(card, amount)\npayments.CardDeclined: " + message + "\n",
            })
        ] if declined else []  # fmt: skip
        pay = self._call(
            "checkout", "payments", inside, at_work, took * 0.3, "POST", "/v1/charges", status=402 if declined else 200,
            error=declined,
        )  # fmt: skip
        self.sender.span(
            "payments", "charge card", at_work + took * 0.05, took * 0.22, pay, SpanKind.CLIENT,
            {"server.address": "processor.example", "app.amount": 42.0, "app.currency": "EUR"},
            events=[("retry", took * 0.1, {"attempt": 2}), *raised], error=message if declined else None,
        )  # fmt: skip
        if declined:
            self.sender.log(
                "payments", at_work + took * 0.27, "ERROR", "Card was declined", pay, event="payment.declined",
                exception__type="payments.CardDeclined", exception__message=message,
                exception__stacktrace=raised[0][2]["exception.stacktrace"],
            )  # fmt: skip
            return root
        sent = self.sender.span(
            "checkout", "orders send", at + took * 0.9, took * 0.02, inside, SpanKind.PRODUCER,
            {"messaging.system": "kafka", "messaging.destination.name": "orders"},
        )  # fmt: skip
        self.sender.log("checkout", at + took * 0.91, "INFO", {"order": 4711, "items": 2}, inside, event="order.placed")
        later = at + took + self._chance.uniform(0.5, 2)
        ship = self.sender.span(
            "shipping", "orders process", later, 0.35, sent, SpanKind.CONSUMER, {"messaging.system": "kafka"}
        )
        self.sender.span("shipping", "print label", later + 0.05, 0.25, ship)
        mail = self.sender.span(
            "email", "orders process", later + 0.4, 0.12, None, SpanKind.CONSUMER, {"messaging.system": "kafka"},
            links=[sent],
        )  # fmt: skip
        self.sender.span(
            "email", "render template", later + 0.41, 0.05, mail, attributes={"app.template": "thanks.html"}
        )
        return root

    def recommend(self, at: float) -> Span:
        took = self._chance.lognormvariate(-3, 0.5)
        root, edge = self._request(at, took, "GET", "/recommendations")
        inside = self._call("gateway", "recommendations", edge, at + took * 0.1, took * 0.8, "GET", "/v1/for/{user}")
        for number in range(3):
            self._call(
                "recommendations",
                "catalog",
                inside,
                at + took * (0.2 + 0.1 * number),
                took * 0.4,
                "GET",
                "/v1/books/{id}",
            )
        return root

    def skewed(self, at: float, behind: float = 120) -> Span:
        """The clock of one host is behind."""
        root, edge = self._request(at, 0.01, "GET", "/books/{id}")
        call = self.sender.span("gateway", "GET", at + 0.002, 0.006, edge, SpanKind.CLIENT)
        there = self.sender.span(
            "catalog", "GET /v1/books/{id}", at + 0.003 - behind, 0.004, call, SpanKind.SERVER,
            {"http.route": "/v1/books/{id}", "http.response.status_code": 200},
        )  # fmt: skip
        self.sender.span("catalog", "SELECT catalog.books", at + 0.004 - behind, 0.002, there, SpanKind.CLIENT)
        return root

    def detached(self, at: float) -> Span:
        """A root of 10 ms whose background task goes on for 3 s."""
        root, edge = self._request(at, 0.01, "POST", "/imports", status=202)
        task = self.sender.span("gateway", "import books", at + 0.008, 3.03, edge)
        for number in range(12):
            self.sender.span("gateway", "import book", at + 0.02 + number * 0.25, 0.2, task)
        return root

    def lost(self, at: float) -> Span:
        """Spans whose parents never come."""
        ids = self.sender.ids
        context = SpanContext(ids.generate_trace_id(), ids.generate_span_id(), True, TraceFlags(TraceFlags.SAMPLED))
        elsewhere = NonRecordingSpan(context)
        there = self.sender.span("catalog", "GET /v1/books/{id}", at, 0.2, elsewhere, SpanKind.SERVER)
        self.sender.span("catalog", "SELECT catalog.books", at + 0.05, 0.1, there, SpanKind.CLIENT)
        self.sender.span("email", "send mail", at + 0.1, 0.05, elsewhere)
        return there

    def large(self, at: float, spans: int = 10_000, services: int = 14) -> Span:
        """A batch job of many spans: a few levels, errors early and late, a gap, spans shorter than a pixel."""
        took = 60.0
        root = self.sender.span(
            "warehouse", "nightly stock count", at, took, attributes={"app.batch": "2026-11-28"},
            error="3 items could not be counted",
        )  # fmt: skip
        made = 1
        shelves = max((spans - 1) // 100, 1)
        errors = {spans // 50, spans // 2, spans - 5}
        for shelf in range(shelves):
            if made >= spans:
                break
            begin, length = at + took * shelf / shelves, took / shelves
            there = self.sender.span(
                f"counter-{shelf % (services - 1) + 1:02}", f"count shelf {shelf}", begin, length * 0.95, root,
                attributes={"app.shelf": shelf},
            )  # fmt: skip
            made += 1
            rest = spans - made if shelf == shelves - 1 else min(99, spans - made)
            for item in range(rest):
                started = begin + length * 0.9 * item / max(rest, 1)
                self.sender.span(
                    f"counter-{shelf % (services - 1) + 1:02}", "count item", started,
                    length * (0.00001 if item % 10 == 0 else 0.008), there,
                    attributes={"app.item": made, "app.isbn": f"978-{made:06}"},
                    error="barcode cannot be read" if made in errors else None,
                )  # fmt: skip
                made += 1
        return root

    def _request(
        self, at: float, took: float, method: str, route: str, status: int = 200, plan: str = "member"
    ) -> tuple[Span, Span]:
        """The root at the gateway; the same span twice, as the parent of what follows."""
        failed = status >= 500
        span = self.sender.span(
            "gateway", f"{method} {route}", at, took, None, SpanKind.SERVER,
            {
                "http.request.method": method, "http.route": route, "http.response.status_code": status,
                "url.path": route.replace("{id}", str(self._chance.randrange(1, 500))), "url.scheme": "https",
                "server.address": "shop.example", "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0)",
                "app.plan": plan, "app.user.id": self._chance.randrange(1, 60),
            },
            error="" if failed else None,
        )  # fmt: skip
        return span, span

    def _call(
        self, caller: str, service: str, parent: Span, at: float, took: float, method: str, route: str,
        status: int = 200, error: bool | None = None, **fields: Any,
    ) -> Span:  # fmt: skip
        """A CLIENT span at the caller and the SERVER span that it caused; returns the latter."""
        failed = status >= 500 if error is None else error
        call = self.sender.span(
            caller, method, at, took, parent, SpanKind.CLIENT,
            {
                "http.request.method": method, "url.full": f"http://{service}.internal:8080{route}",
                "server.address": f"{service}.internal", "server.port": 8080, "http.response.status_code": status,
            },
            error="" if failed or status >= 400 else None,
        )  # fmt: skip
        return self.sender.span(
            service, f"{method} {route}", at + took * 0.06, took * 0.88, call, SpanKind.SERVER,
            {
                "http.request.method": method, "http.route": route, "http.response.status_code": status,
                **{f"app.{name}": value for name, value in fields.items()},
            },
            error="" if failed else None,
        )  # fmt: skip


def fill(address: str, requests: int = 240, seconds: float = 120, seed: int = 1, end: float | None = None) -> None:
    """Send what `seconds` of traffic leave, up to `end` (by default a second ago)."""
    until = time.time() - 1 if end is None else end
    shop = Shop(Sender(seed), seed)
    for number in range(requests):
        shop.some(until - 4 - seconds + seconds * number / requests)
    shop.sender.send(address)


def odd(address: str, seed: int = 5) -> dict[str, str]:
    """Send a trace of each unusual kind; their ids by kind."""
    shop = Shop(Sender(seed), seed)
    now = time.time()
    made = {
        "skewed": shop.skewed(now - 20),
        "detached": shop.detached(now - 18),
        "lost": shop.lost(now - 16),
        "large": shop.large(now - 90),
    }
    shop.sender.send(address)
    return {name: f"{span.get_span_context().trace_id:032x}" for name, span in made.items()}


if __name__ == "__main__":
    fill(sys.argv[1])
    for kind, trace_id in odd(sys.argv[1]).items():
        print(f"{kind}: {sys.argv[1]}/traces/{trace_id}")
