"""Where telemetry goes: the standard variables, else Honeycomb with a key, and the viewer in development."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from pytest_httpserver import HTTPServer
from receivers import Receiver, wait_until
from traced_flask import key as keys
from traced_flask import links, regions, routes, settings
from traced_flask.key import HoneycombKey, problem_with_key

KEY = "hcaik_" + "MARKED0KEY".lower().ljust(58, "0")
OTHER_KEY = "hcaik_" + "1" * 58
CLASSIC = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(routes, "_routes", None)
    monkeypatch.setattr(routes, "_deliveries", {})
    monkeypatch.setattr(routes, "_explicit", [])
    monkeypatch.setattr(routes, "_announced", set())
    monkeypatch.setattr(settings, "problems", [])
    monkeypatch.chdir(tmp_path)


def goes_to(monkeypatch: pytest.MonkeyPatch, **environ: str) -> dict[str, list[str]]:
    """The addresses of traces, logs and metrics with these variables."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return {signal: [each["endpoint"] for each in routes.destinations(signal)] for signal in routes.SIGNALS}


# The key.


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (KEY, "ingest key"),
        ("a1B2" * 5 + "c3", "configuration key"),
        (CLASSIC, "classic key"),
        ("hcaic_" + "0" * 58, "classic ingest key"),
        ("x" * 30, "key"),
    ],
)
def test_the_format_of_a_key_gives_its_kind(key: str, kind: str) -> None:
    assert problem_with_key(key) is None
    assert keys.kind_of(key) == kind
    assert keys.is_classic(key) == kind.startswith("classic")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("${HONEYCOMB_API_KEY}", "is the name of a variable that was not expanded"),
        (f'"{KEY}"', "is in quotes"),
        (f" {KEY}", "has leading or trailing whitespace"),
        ("hcamk_" + "0" * 58, "is a management key, which cannot send telemetry"),
        (f"{KEY[:-1]}\n{KEY[:2]}", "contains characters that keys do not have"),
        ("hcxik_" + "0" * 26, "is the ID of a key, without the secret that follows it"),
        (KEY[:-1], "begins like an ingest key but has 63 characters, not 64"),
        ("short", "is too short (ingest keys have 64 characters, configuration keys 22)"),
    ],
)
def test_a_problem_with_a_key_is_named_without_the_key(text: str, problem: str) -> None:
    assert problem_with_key(text) == problem


def test_a_key_in_dotenv_is_picked_up_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    environ = {"HONEYCOMB_API_KEY": KEY}
    (dotenv := tmp_path / ".env").write_text(f"A=1\nHONEYCOMB_API_KEY={KEY}\n")
    key = HoneycombKey(environ, dotenv)
    assert key() == KEY
    assert environ == {}  # a copy of the file's: the file decides
    dotenv.write_text(f"HONEYCOMB_API_KEY='{OTHER_KEY}'\n")
    assert key() == OTHER_KEY
    dotenv.write_text("HONEYCOMB_API_KEY=short\n")
    assert key() is None
    dotenv.unlink()
    assert key() is None
    assert [record.getMessage() for record in caplog.records] == [
        "Telemetry now goes to Honeycomb.",
        "The Honeycomb API key in .env is too short (ingest keys have 64 characters, configuration keys 22). "
        "Telemetry no longer goes to Honeycomb.",
    ]
    monkeypatch.setenv("FLASK_DEBUG", "1")
    monkeypatch.setenv("VIEWER_ENDPOINT", "http://127.0.0.1:4318")
    dotenv.write_text(f"HONEYCOMB_API_KEY={KEY}\n")
    assert key() == KEY
    assert caplog.messages[-1] == "Telemetry now goes to Honeycomb too."


def test_a_key_in_the_environment_overrides_files(tmp_path: Path) -> None:
    (dotenv := tmp_path / ".env").write_text(f"HONEYCOMB_API_KEY={KEY}\n")
    (file := tmp_path / "key").write_text(f"{KEY}\n")
    environ = {"HONEYCOMB_API_KEY": OTHER_KEY, "HONEYCOMB_API_KEY_FILE": str(file)}
    assert HoneycombKey(environ, dotenv)() == OTHER_KEY
    assert [place.where for place in keys.places(environ, dotenv)] == [
        "the environment",
        "the file that HONEYCOMB_API_KEY_FILE names",
        ".env",
    ]
    environ["HONEYCOMB_API_KEY"] = "${X}"
    key = HoneycombKey(environ, dotenv)
    assert key() == KEY
    assert key.problems == ["The Honeycomb API key in the environment is the name of a variable that was not expanded"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"HONEYCOMB_API_KEY={KEY}".encode("utf-16"), ".env is not UTF-8"),
        (f"HONEYCOMB_API_KEY={KEY}\0".encode(), ".env contains NUL bytes; save it as UTF-8"),
        (f"A=é\nHONEYCOMB_API_KEY={KEY}".encode("latin-1"), ".env is not UTF-8"),
    ],
)
def test_a_dotenv_that_cannot_be_read_is_reported_without_its_content(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    (dotenv := tmp_path / ".env").write_bytes(content)
    key = HoneycombKey({}, dotenv)
    assert key() is None
    assert key.problems == [problem]


def test_a_fifo_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(dotenv := tmp_path / ".env")
    opened = []

    def serve() -> None:
        with dotenv.open("w") as fifo:
            opened.append(True)
            fifo.write(f"HONEYCOMB_API_KEY={KEY}\n")

    threading.Thread(target=serve, daemon=True).start()
    key = HoneycombKey({}, dotenv)
    assert key() == KEY
    threading.Thread(target=serve, daemon=True).start()
    assert [key(), key()] == [KEY, KEY]
    assert HoneycombKey({"HONEYCOMB_API_KEY": OTHER_KEY}, dotenv)() == OTHER_KEY  # not opened at all
    assert opened == [True]
    dotenv.read_bytes()  # lets the second writer go


def test_a_fifo_without_a_writer_does_not_block_startup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "FIFO_WAIT", 0.05)
    os.mkfifo(dotenv := tmp_path / ".env")
    key = HoneycombKey({}, dotenv)
    assert key() is None
    assert key.problems == [".env cannot be read (TimeoutError)"]


# Routes.


def test_without_settings_one_warning_explains_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert goes_to(monkeypatch) == {"traces": [], "logs": [], "metrics": []}
    routes.announce()
    routes.announce()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "Telemetry is not being sent. Set HONEYCOMB_API_KEY or OTEL_EXPORTER_OTLP_ENDPOINT, "
            "or turn it off with OTEL_SDK_DISABLED=true.",
        )
    ]


def test_a_key_sends_traces_logs_and_enabled_metrics_to_honeycomb(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = goes_to(monkeypatch, HONEYCOMB_API_KEY=KEY, OTEL_METRICS_EXPORTER="otlp", OTEL_SERVICE_NAME="shop")
    assert found == {signal: [f"https://api.honeycomb.io/v1/{signal}"] for signal in routes.SIGNALS}
    assert routes.destinations("traces")[0]["headers"] == {"x-honeycomb-team": KEY}
    metrics = {"x-honeycomb-team": KEY, "x-honeycomb-dataset": "shop_metrics"}
    assert routes.destinations("metrics")[0]["headers"] == metrics
    assert routes.deliveries("traces") == routes.deliveries("logs")  # one queue for one destination
    routes.announce()
    assert caplog.messages == ["Telemetry goes to https://api.honeycomb.io."]


def test_a_classic_key_sends_to_the_dataset_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_to(monkeypatch, HONEYCOMB_API_KEY=CLASSIC, OTEL_RESOURCE_ATTRIBUTES="service.name=shop")
    headers = {"x-honeycomb-team": CLASSIC, "x-honeycomb-dataset": "shop"}
    assert routes.destinations("traces")[0]["headers"] == headers


def test_standard_variables_override_a_key_for_each_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = goes_to(
        monkeypatch,
        HONEYCOMB_API_KEY=KEY,
        HONEYCOMB_API_ENDPOINT="http://refinery:8080/",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://user:pw@tempo:4318/otlp",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="a=b",
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_METRICS_HEADERS="c=d",
    )
    assert found == {
        "traces": ["http://user:pw@tempo:4318/otlp"],
        "logs": ["http://refinery:8080/v1/logs"],
        "metrics": ["http://localhost:4318/v1/metrics"],
    }
    assert routes.destinations("traces")[0]["headers"] == {"a": "b"}
    sentence = "Telemetry goes to http://tempo:4318 and http://localhost:4318 and http://refinery:8080."
    assert routes.routes().announcement() == (logging.INFO, sentence)


def test_the_viewer_is_added_only_in_development(monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = {"VIEWER_ENDPOINT": "http://127.0.0.1:4318/"}
    assert goes_to(monkeypatch, **viewer)["traces"] == []
    monkeypatch.setattr(routes, "_routes", None)
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4318", "OTEL_EXPORTER_OTLP_HEADERS": "secret=x"}
    found = goes_to(monkeypatch, FLASK_DEBUG="1", **viewer, **standard)
    assert found["traces"] == ["http://other:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"]
    # OpenTelemetry's exporters would send the header of the environment to both.
    assert [each["headers"] for each in routes.destinations("logs")] == [{"secret": "x"}, {"secret": ""}]


def test_stock_exporters_reach_this_machine_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    goes_to(monkeypatch, OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    exporter = OTLPMetricExporter(**routes.destinations("metrics")[0])
    exporter.export(MetricsData([]))
    assert [each.path for each in receiver.received] == ["/v1/metrics"]


def test_the_region_of_the_project_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.traced-flask]\nhoneycomb-api-endpoint = "{regions.EU.api}"\n', encoding="utf-8"
    )
    assert goes_to(monkeypatch, HONEYCOMB_API_KEY=KEY)["traces"] == ["https://api.eu1.honeycomb.io/v1/traces"]
    assert regions.region_of("http://refinery:8080") is regions.EU


def test_an_address_that_is_both_standard_and_the_viewers_gets_telemetry_once(monkeypatch: pytest.MonkeyPatch) -> None:
    same = "http://127.0.0.1:4318"
    found = goes_to(monkeypatch, FLASK_DEBUG="1", VIEWER_ENDPOINT=same, OTEL_EXPORTER_OTLP_ENDPOINT=same)
    assert found["traces"] == [f"{same}/v1/traces"]


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"HONEYCOMB_API_KEY": ""}, "The Honeycomb API key in the environment is empty"),
        ({"HONEYCOMB_API_KEY": f'"{KEY}"'}, "The Honeycomb API key in the environment is in quotes"),
        ({"HONEYCOMB_API_KEY_FILE": "gone"}, "HONEYCOMB_API_KEY_FILE names a file that does not exist"),
        (
            {"HONEYCOMB_API_KEY": KEY, "HONEYCOMB_API_ENDPOINT": "api.honeycomb.io"},
            "HONEYCOMB_API_ENDPOINT is not an address like https://api.honeycomb.io; nothing is sent to it",
        ),
        (
            {"OTEL_EXPORTER_OTLP_HEADERS": f"x-honeycomb-team=%22{KEY}%22"},
            "The Honeycomb API key in OTEL_EXPORTER_OTLP_HEADERS is in quotes",
        ),
        (
            {"FLASK_DEBUG": "1", "VIEWER_ENDPOINT": "127.0.0.1:4318"},
            "VIEWER_ENDPOINT is not an address like http://localhost:4318; it is ignored",
        ),
    ],
)
def test_an_invalid_setting_is_named_and_nothing_is_sent_elsewhere(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], problem: str
) -> None:
    assert goes_to(monkeypatch, **environ)["traces"] == []
    level, sentence = routes.routes().announcement()
    assert level == logging.WARNING
    assert sentence.startswith(f"{problem}. Telemetry is not being sent. Set HONEYCOMB_API_KEY")
    assert KEY not in sentence


def test_a_wrong_standard_address_does_not_send_telemetry_somewhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"HONEYCOMB_API_KEY": KEY, "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}
    assert goes_to(monkeypatch, **environ)["traces"] == []


def test_a_development_process_waits_for_a_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, receiver: Receiver
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    monkeypatch.setenv("HONEYCOMB_API_ENDPOINT", receiver.url)
    [delivery] = routes.deliveries("traces")
    assert routes.routes().announcement()[1].startswith("Telemetry is not being sent. Set HONEYCOMB_API_KEY")
    delivery.put("traces", b"before", 1)
    assert delivery.flush(time.monotonic() + 10)
    (tmp_path / ".env").write_text(f"HONEYCOMB_API_KEY={KEY}\n")
    delivery.put("traces", b"after", 1)
    assert delivery.flush(time.monotonic() + 10)
    assert [(each.body, each.headers["x-honeycomb-team"]) for each in receiver.received] == [(b"after", KEY)]


def test_an_exporter_with_arguments_sends_there_alone(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a=b")
    endpoint = f"{receiver.url}/mine"
    [delivery] = routes.explicit("traces", endpoint=endpoint, headers={"C": "d"}, compression="gzip")
    delivery.put("traces", b"spans", 1)
    assert delivery.flush(time.monotonic() + 10)
    [received] = receiver.received
    assert received.path == "/mine"
    assert {"a": "b", "c": "d", "content-encoding": "gzip"}.items() <= received.headers.items()
    routes.announce()
    assert caplog.messages == [f"Telemetry goes to {receiver.url}."]
    routes.deliveries("traces")
    routes.announce()
    assert caplog.messages[1:] == ["Telemetry goes to http://127.0.0.1:9."]


def test_a_server_announces_for_its_workers_what_python_does_not_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(routes, "_announced_for_workers", False)
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    routes.announce()  # as a preloaded application does, with logging as it is by default
    assert caplog.messages == []
    servers_own = logging.getLogger("server")
    servers_own.setLevel(logging.INFO)
    routes.announce_for_workers(servers_own)
    routes.announce_for_workers(servers_own)
    assert caplog.messages == ["Telemetry goes to https://api.honeycomb.io."]


# Pages.


@pytest.fixture
def honeycomb(monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer) -> HTTPServer:
    """Honeycomb's API, in development beside a viewer."""
    owner = {"team": {"slug": "a team"}, "environment": {"slug": "test"}}
    httpserver.expect_request("/1/auth", headers={"x-honeycomb-team": KEY}).respond_with_json(owner)
    for name, value in {
        "FLASK_DEBUG": "1",
        "HONEYCOMB_API_KEY": KEY,
        "HONEYCOMB_API_ENDPOINT": httpserver.url_for("/"),
        "VIEWER_ENDPOINT": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    return httpserver


def test_trace_links_use_the_viewer_until_the_team_of_the_key_is_known(
    monkeypatch: pytest.MonkeyPatch, honeycomb: HTTPServer
) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "My Shop"}))
    assert links.trace_url() is None
    with provider.get_tracer("test").start_as_current_span("work") as span:
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        assert links.trace_url() == f"http://127.0.0.1:9/traces/{trace_id}"
        in_honeycomb = "https://ui.honeycomb.io/a%20team/environments/test/datasets/my-shop/trace?trace_id="
        wait_until(lambda: links.trace_url() == in_honeycomb + trace_id)
        assert [request.path for request, _ in honeycomb.log] == ["/1/auth"]
        monkeypatch.delenv("FLASK_DEBUG")
        assert links.trace_url() is None


def test_the_viewer_gets_the_honeycomb_url_of_the_services_traces(
    monkeypatch: pytest.MonkeyPatch, honeycomb: HTTPServer
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    viewer = routes.routes().to("traces")["http://127.0.0.1:9"]
    page = "https://ui.honeycomb.io/a%20team/environments/test/datasets/shop/trace?trace_id="
    wait_until(lambda: viewer.headers() == {"x-honeycomb-trace-url": page})
    assert routes.routes().to("logs")["http://127.0.0.1:9"].headers() == {}


def test_a_page_in_the_eu_and_of_a_classic_team() -> None:
    region = regions.region_of("https://api.eu1.honeycomb.io")
    assert regions.page(region.pages, "team", None, "datasets", "d") == "https://ui.eu1.honeycomb.io/team/datasets/d"
    assert regions.region_of("http://refinery:8080") is regions.US
