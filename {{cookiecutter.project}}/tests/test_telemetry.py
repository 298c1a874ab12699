"""Telemetry: where it goes, with which key, what is said about it, and what it holds."""

from __future__ import annotations

import gzip
import logging
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from backend import telemetry
from backend.delivery import Batch, Outlet
from backend.telemetry import HoneycombKey, Routes, problem_with_key, shown, standard_url

if TYPE_CHECKING:
    from conftest import Received, Server

PROJECT = Path(__file__).parents[1]
KEY = "hcaik_" + "01marked" * 7 + "ab"
OTHER = "hcaik_" + "02marked" * 7 + "cd"
CLASSIC = "0123456789abcdef" * 2
HONEYCOMB = "https://api.honeycomb.io"
SIGNALS = ("traces", "logs", "metrics")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the machine or of the project counts: a person's own .env holds a real key."""
    about = {
        "project": {"version": "1.2.3"},
        "tool": {"telemetry": {"service-name": "backend-flask", "honeycomb-api-endpoint": HONEYCOMB}},
    }
    monkeypatch.setattr(telemetry, "project", lambda: about)
    monkeypatch.setattr(telemetry, "PROJECT", tmp_path)
    before = dict(os.environ)
    for variable in before:
        if variable.startswith(("OTEL_", "HONEYCOMB_", "VIEWER_", "TELEMETRY_", "SAMPLE_RATE")):
            monkeypatch.delenv(variable)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def no_key_is_shown(clean: None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever a test does, no key is printed or logged."""
    caplog.set_level(logging.DEBUG)
    yield
    said = "".join(capfd.readouterr()) + "".join(r.getMessage() + (r.exc_text or "") for r in caplog.records)
    for key in ("marked", CLASSIC):
        assert key not in said


def dotenv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / ".env"
    again = tmp_path / ".env.new"
    again.write_text(text, encoding="utf-8")
    again.replace(path)  # a file of its own each time, however coarse the clock is
    return path


def destinations(routes: Routes, signal: str, **headers: str) -> list[tuple[str, dict[str, str]]]:
    """Addresses and headers, with which a batch of `signal` is sent."""
    batch = Batch(
        outlet=Outlet(signal, []),
        url=standard_url(signal, os.environ) or f"http://localhost:4318/v1/{signal}",
        headers={"content-type": "application/x-protobuf", "user-agent": "otel", **headers},
        body=b"",
        count=1,
        timeout=1,
    )
    return [found for delivery in routes.by_signal[signal] if (found := delivery.address(batch)) is not None]


def urls(routes: Routes, signal: str) -> list[str]:
    return [url for url, _ in destinations(routes, signal)]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "backend.telemetry"]


# The key

BAD_KEYS = [
    ("", "is empty"),
    (f'"{KEY}"', "quotes"),
    (f"'{KEY}'", "quotes"),
    (f"`{KEY}`", "quotes"),
    (f'{KEY}"', "quotes"),
    (f' "{KEY}" ', "quotes"),
    (f" {KEY}", "white space around"),
    (f"{KEY}\t", "white space around"),
    (f"{KEY}\n", "white space around"),
    ("${HONEYCOMB_API_KEY}", "not expanded"),
    ("${HONEYCOMB_API_KEY:-}", "not expanded"),
    ("$HONEYCOMB_API_KEY", "not expanded"),
    ("$(cat key-marked)", "not expanded"),
    ("%HONEYCOMB_API_KEY%", "not expanded"),
    (f"{KEY[:10]} {KEY[10:]}", "characters in it that no key has"),
    (f"{KEY}é", "characters in it that no key has"),
    (f"{KEY[:10]}\r\nX-Evil: 1", "characters in it that no key has"),
]


@pytest.mark.parametrize(("key", "problem"), BAD_KEYS)
def test_what_is_no_key_is_told_apart_without_showing_it(key: str, problem: str) -> None:
    found = problem_with_key(key)
    assert found is not None
    assert problem in found
    assert "marked" not in found


@pytest.mark.parametrize("key", [KEY, CLASSIC, "hcaic_" + "a" * 58, "a" * 22, "short"])
def test_what_could_be_a_key_is_taken(key: str) -> None:
    assert problem_with_key(key) is None


def test_the_environments_key_wins_over_every_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(OTHER)
    environ = {"HONEYCOMB_API_KEY": KEY, "HONEYCOMB_API_KEY_FILE": str(file)}
    assert HoneycombKey(environ, dotenv(tmp_path, f"HONEYCOMB_API_KEY={OTHER}"))() == KEY


def test_a_file_of_its_own_wins_over_dotenv(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(KEY)
    key = HoneycombKey({"HONEYCOMB_API_KEY_FILE": str(file)}, dotenv(tmp_path, f"HONEYCOMB_API_KEY={OTHER}"))
    assert key() == KEY


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_file_may_end_its_line(tmp_path: Path, end: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes((KEY + end).encode())
    assert HoneycombKey({"HONEYCOMB_API_KEY_FILE": str(file)}, None)() == KEY


@pytest.mark.parametrize("line", ["{}", '"{}"', "'{}'", "{}   # mine", " {}", "{}\r"])
def test_dotenv_may_quote_and_comment(tmp_path: Path, line: str) -> None:
    path = dotenv(tmp_path, f"# a comment\nPORT=1\nexport HONEYCOMB_API_KEY={line.format(KEY)}\nOTHER=2\n")
    assert HoneycombKey({}, path)() == KEY


def test_dotenv_is_read_in_debug_only(tmp_path: Path) -> None:
    dotenv(tmp_path, f"HONEYCOMB_API_KEY={KEY}")
    assert urls(Routes("x", debug=True), "traces") == [f"{HONEYCOMB}/v1/traces"]
    assert urls(Routes("x", debug=False), "traces") == []


def test_a_bad_key_in_the_environment_leaves_the_file_to_count(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(KEY)
    assert HoneycombKey({"HONEYCOMB_API_KEY": "", "HONEYCOMB_API_KEY_FILE": str(file)}, None)() == KEY


@pytest.mark.parametrize(("key", "problem"), BAD_KEYS)
def test_a_bad_key_in_the_environment_is_named_and_nothing_is_sent_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, key: str, problem: str
) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", key)
    routes = Routes("x", debug=False)
    assert destinations(routes, "traces") == []
    assert "The Honeycomb API key in HONEYCOMB_API_KEY " in routes.sentence
    assert problem in routes.sentence
    assert "Telemetry goes nowhere" in routes.sentence
    telemetry.announce(routes)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize(("text", "problem"), [(f'"{KEY}"\n', "is in quotes"), (f"{KEY} \n", "has white space")])
def test_a_bad_key_in_a_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, debug: bool, text: str, problem: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    monkeypatch.setenv("HONEYCOMB_API_KEY_FILE", str(file))
    routes = Routes("x", debug)
    assert f"The Honeycomb API key in secret {problem}" in routes.sentence
    assert not routes.well


def test_a_file_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY_FILE", str(tmp_path / "missing"))
    routes = Routes("x", debug=False)
    assert f"HONEYCOMB_API_KEY_FILE names {tmp_path / 'missing'}, which does not exist" in routes.sentence
    assert not routes.well


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY_FILE", str(tmp_path))
    assert "cannot be read" in Routes("x", debug=False).sentence
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("HONEYCOMB_API_KEY_FILE", str(tmp_path / "secret"))
    assert "cannot be read" in Routes("x", debug=False).sentence


def test_a_key_given_in_place_of_its_file_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY_FILE", KEY)
    routes = Routes("x", debug=False)
    assert "HONEYCOMB_API_KEY_FILE" in routes.sentence
    assert KEY not in routes.sentence


def test_a_missing_dotenv_is_no_problem(tmp_path: Path) -> None:
    key = HoneycombKey({}, tmp_path / ".env")
    assert (key(), key.problems) == (None, [])


@pytest.mark.parametrize("text", ["", "PORT=1\n", "HONEYCOMB_API_KEY=\n", "HONEYCOMB_API_KEY\n"])
def test_a_dotenv_without_a_key_is_no_problem(tmp_path: Path, text: str) -> None:
    key = HoneycombKey({}, dotenv(tmp_path, text))
    assert (key(), key.problems) == (None, [])


def test_a_changed_dotenv_counts_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = HoneycombKey({}, tmp_path / ".env")
    assert key() is None
    dotenv(tmp_path, f"HONEYCOMB_API_KEY={KEY}")
    assert (key(), key()) == (KEY, KEY)
    dotenv(tmp_path, f"HONEYCOMB_API_KEY={OTHER}")
    assert key() == OTHER
    (tmp_path / ".env").unlink()
    assert (key(), key()) == (None, None)
    assert messages(caplog) == [
        "Telemetry now goes to Honeycomb.",
        "Telemetry now goes to Honeycomb.",
        "Telemetry no longer goes to Honeycomb.",
    ]


def test_a_dotenv_that_is_written_again_with_the_same_key_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = HoneycombKey({}, dotenv(tmp_path, f"HONEYCOMB_API_KEY={KEY}"))
    dotenv(tmp_path, f"PORT=1\nHONEYCOMB_API_KEY={KEY}")
    assert (key(), messages(caplog)) == (KEY, [])


def test_a_bad_key_that_comes_later_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = HoneycombKey({}, dotenv(tmp_path, f"HONEYCOMB_API_KEY={KEY}"))
    dotenv(tmp_path, "HONEYCOMB_API_KEY='${SOMETHING'")
    assert key() is None
    assert "The Honeycomb API key in .env is the name of a variable" in messages(caplog)[0]
    assert "no longer goes to Honeycomb" in messages(caplog)[0]
    dotenv(tmp_path, f"HONEYCOMB_API_KEY={OTHER}")
    assert key() == OTHER
    assert messages(caplog)[1:] == ["Telemetry now goes to Honeycomb."]


def test_a_bad_key_that_comes_where_there_was_none_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = HoneycombKey({}, tmp_path / ".env")
    dotenv(tmp_path, "HONEYCOMB_API_KEY='${SOMETHING'")
    assert (key(), key()) == (None, None)
    named = [record for record in caplog.records if "The Honeycomb API key in .env is the name" in record.getMessage()]
    assert [record.levelname for record in named] == ["WARNING"]


def test_a_key_that_a_tool_copied_from_dotenv_changes_with_the_file(tmp_path: Path) -> None:
    """honcho and flask put what .env says into the environment, where a key counts for ever."""
    environ = {"HONEYCOMB_API_KEY": KEY}
    key = HoneycombKey(environ, dotenv(tmp_path, f"HONEYCOMB_API_KEY={KEY}"))
    assert key() == KEY
    assert environ == {}
    dotenv(tmp_path, f"HONEYCOMB_API_KEY={OTHER}")
    assert key() == OTHER


def test_a_rotated_secret_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(KEY)
    key = HoneycombKey({"HONEYCOMB_API_KEY_FILE": str(file)}, None)
    assert key() == KEY
    (tmp_path / "next").write_text(OTHER)
    (tmp_path / "next").replace(file)
    assert key() == OTHER


def test_an_unchanged_file_is_not_read_for_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = HoneycombKey({}, dotenv(tmp_path, f"HONEYCOMB_API_KEY={KEY}"))
    monkeypatch.setattr(HoneycombKey, "_read", lambda *args: pytest.fail("read"))
    assert [key() for _ in range(3)] == [KEY] * 3


# Where telemetry goes


def test_a_key_sends_every_signal_to_honeycomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    routes = Routes("backend-flask", debug=False)
    for signal in SIGNALS:
        ((url, headers),) = destinations(routes, signal)
        assert (url, headers["x-honeycomb-team"]) == (f"{HONEYCOMB}/v1/{signal}", KEY)
        assert headers["content-type"] == "application/x-protobuf"
    assert routes.well
    assert routes.sentence == f"Telemetry goes to {HONEYCOMB}."


def test_without_a_key_it_goes_nowhere_and_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    routes = Routes("x", debug=False)
    assert not any(routes.by_signal.values())
    telemetry.announce(routes)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "Telemetry goes nowhere. Set HONEYCOMB_API_KEY, or " in record.getMessage()


@pytest.mark.parametrize("endpoint", ["https://api.eu1.honeycomb.io", "http://refinery:8080/"])
def test_another_address_for_honeycomb_can_be_named(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("HONEYCOMB_API_ENDPOINT", endpoint)
    assert urls(Routes("x", debug=False), "logs") == [f"{endpoint.rstrip('/')}/v1/logs"]


def test_a_project_for_europe_goes_there_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry.project()["tool"]["telemetry"]["honeycomb-api-endpoint"] = "https://api.eu1.honeycomb.io"
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("HONEYCOMB_API_ENDPOINT", "")
    assert urls(Routes("x", debug=False), "traces") == ["https://api.eu1.honeycomb.io/v1/traces"]


@pytest.mark.parametrize("key", [CLASSIC, "hcaic_" + "a1" * 29])
def test_classic_keys_name_a_dataset(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", key)
    routes = Routes("my-service", debug=False)
    for signal in ("traces", "logs"):
        assert destinations(routes, signal)[0][1]["x-honeycomb-dataset"] == "my-service"


def test_metrics_name_a_dataset_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    routes = Routes("my-service", debug=False)
    assert destinations(routes, "metrics")[0][1]["x-honeycomb-dataset"] == "my-service_metrics"
    for signal in ("traces", "logs"):
        assert "x-honeycomb-dataset" not in destinations(routes, signal)[0][1]


def test_the_standard_endpoint_wins_over_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/")
    routes = Routes("x", debug=False)
    for signal in SIGNALS:
        ((url, headers),) = destinations(routes, signal, **{"x-own": "1"})
        assert (url, headers["x-own"]) == (f"http://collector:4318/v1/{signal}", "1")
        assert KEY not in str(headers)
    assert routes.sentence == "Telemetry goes to http://collector:4318."


def test_a_standard_endpoint_of_one_signal_wins_for_that_signal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4318/custom/path")
    routes = Routes("x", debug=False)
    assert urls(routes, "logs") == ["http://logs:4318/custom/path"]
    assert urls(routes, "traces") == [f"{HONEYCOMB}/v1/traces"]
    assert urls(routes, "metrics") == [f"{HONEYCOMB}/v1/metrics"]
    assert "http://logs:4318" in routes.sentence
    assert HONEYCOMB in routes.sentence


def test_one_signal_sent_to_honeycomb_by_standard_variables_does_not_misdirect_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{HONEYCOMB}/v1/traces")
    routes = Routes("x", debug=False)
    ((url, headers),) = destinations(routes, "logs")
    assert url == f"{HONEYCOMB}/v1/logs"
    assert headers["x-honeycomb-team"] == KEY


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"])
def test_standard_headers_alone_name_the_standard_default_address(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", OTHER)
    monkeypatch.setenv(variable, "x-own=1")
    assert urls(Routes("x", debug=False), "traces") == ["http://localhost:4318/v1/traces"]


def test_empty_standard_variables_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    for variable in ("ENDPOINT", "HEADERS", "TRACES_ENDPOINT", "TRACES_HEADERS"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{variable}", "")
    assert urls(Routes("x", debug=False), "traces") == [f"{HONEYCOMB}/v1/traces"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("x-honeycomb-team=", "is empty"),
        (f'x-honeycomb-team="{KEY}"', "quotes"),
        ("X-Honeycomb-Team=${HONEYCOMB_API_KEY}", "not expanded"),
        (f"a=b, x-honeycomb-team = %22{KEY}%22", "quotes"),
        (f"x-honeycomb-team={KEY}é", "characters"),
    ],
)
def test_a_bad_key_in_the_standard_headers_is_named_and_not_sent(
    monkeypatch: pytest.MonkeyPatch, value: str, problem: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", HONEYCOMB)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", value)
    routes = Routes("x", debug=False)
    assert destinations(routes, "traces") == []
    assert "The Honeycomb API key in OTEL_EXPORTER_OTLP_HEADERS" in routes.sentence
    assert problem in routes.sentence
    assert routes.sentence.count("OTEL_EXPORTER_OTLP_HEADERS") == 1
    assert not routes.well
    assert "marked" not in routes.sentence


@pytest.mark.parametrize("quote", ['"', "'"])
def test_standard_headers_that_are_quoted_as_a_whole_are_a_problem_too(
    monkeypatch: pytest.MonkeyPatch, quote: str
) -> None:
    """`docker run --env-file` keeps quotes; the SDK then leaves the header out and every batch is refused."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", HONEYCOMB)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"{quote}x-honeycomb-team={KEY}{quote}")
    routes = Routes("x", debug=False)
    assert "OTEL_EXPORTER_OTLP_HEADERS" in routes.sentence
    assert "quotes" in routes.sentence
    assert "marked" not in routes.sentence


def test_a_bad_key_in_one_signals_headers_is_named_for_that_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-honeycomb-team={KEY}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-honeycomb-team=")
    routes = Routes("x", debug=False)
    assert "OTEL_EXPORTER_OTLP_LOGS_HEADERS is empty" in routes.sentence
    assert urls(routes, "traces") == ["http://collector:4318/v1/traces"]
    assert destinations(routes, "logs") == []


def test_the_viewer_gets_everything_beside_honeycomb_but_never_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("VIEWER_ENDPOINT", "http://127.0.0.1:4318/")
    routes = Routes("x", debug=True)
    for signal in SIGNALS:
        assert urls(routes, signal) == [f"{HONEYCOMB}/v1/{signal}", f"http://127.0.0.1:4318/v1/{signal}"]
        assert "marked" not in str(destinations(routes, signal)[1])
    assert routes.sentence == f"Telemetry goes to {HONEYCOMB} and http://127.0.0.1:4318."


def test_headers_for_one_destination_are_sent_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")
    monkeypatch.setenv("VIEWER_ENDPOINT", "http://viewer:4318")
    routes = Routes("x", debug=True)
    secret = {"authorization": "Bearer marked", "x-honeycomb-team": OTHER}
    (_, own), (_, viewers) = destinations(routes, "traces", **secret)
    assert own["authorization"] == "Bearer marked"
    assert own["x-honeycomb-team"] == OTHER
    assert viewers == {"content-type": "application/x-protobuf", "user-agent": "otel"}
    (_, honeycombs), (_, viewers) = destinations(routes, "logs", **secret)
    assert "authorization" not in honeycombs
    assert honeycombs["x-honeycomb-team"] == KEY
    assert viewers == {"content-type": "application/x-protobuf", "user-agent": "otel"}


def test_a_compressed_batch_is_called_so_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("VIEWER_ENDPOINT", "http://viewer:4318")
    for _, headers in destinations(Routes("x", debug=True), "traces", **{"Content-Encoding": "gzip"}):
        assert headers["Content-Encoding"] == "gzip"


def test_the_viewer_alone_is_enough_in_development() -> None:
    os.environ["VIEWER_ENDPOINT"] = "http://127.0.0.1:4318"
    routes = Routes("x", debug=True)
    assert urls(routes, "traces") == ["http://127.0.0.1:4318/v1/traces"]
    assert (routes.well, routes.sentence) == (True, "Telemetry goes to http://127.0.0.1:4318.")


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "HONEYCOMB_API_ENDPOINT"])
def test_a_viewer_that_is_the_destination_already_gets_everything_once(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:4318")
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("VIEWER_ENDPOINT", "http://127.0.0.1:4318")
    assert urls(Routes("x", debug=True), "traces") == ["http://127.0.0.1:4318/v1/traces"]


def test_a_key_that_comes_later_sends_to_honeycomb_without_a_restart(tmp_path: Path) -> None:
    os.environ["VIEWER_ENDPOINT"] = "http://127.0.0.1:4318"
    routes = Routes("x", debug=True)
    assert HONEYCOMB not in routes.sentence
    dotenv(tmp_path, f"HONEYCOMB_API_KEY={KEY}")
    assert urls(routes, "logs") == [f"{HONEYCOMB}/v1/logs", "http://127.0.0.1:4318/v1/logs"]


def test_as_many_items_are_kept_as_the_standard_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", KEY)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "77")
    assert [delivery.capacity for delivery in Routes("x", debug=False).by_signal["traces"]] == [77]


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://collector:4318", "http://collector:4318"),
        ("https://me:marked@collector:4318/v1/traces?token=marked", "https://collector:4318"),
        ("https://marked@collector", "https://collector"),
        ("https://collector/marked#marked", "https://collector"),
        ("http://[::1]:4318/x", "http://[::1]:4318"),
        ("HTTPS://me:marked@collector:4318/v1", "HTTPS://collector:4318"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, what: str) -> None:
    assert shown(url) == what


@pytest.mark.parametrize("url", ["me:marked@collector:4318", "collector/?key=marked"])
def test_an_address_that_is_none_shows_no_secret_either(url: str) -> None:
    assert "marked" not in shown(url)


# What is said


def test_where_it_goes_is_said_once_for_a_process_and_its_children(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    routes: Any = SimpleNamespace(sentence="Telemetry goes to X.", well=True)
    telemetry.announce(routes)
    telemetry.announce(routes)
    pid = os.getpid()
    monkeypatch.setattr(os, "getppid", lambda: pid)
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    telemetry.announce(routes)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("INFO", "Telemetry goes to X.")]


def test_news_and_strangers_are_told_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    first: Any = SimpleNamespace(sentence="Telemetry goes to X.", well=True)
    second: Any = SimpleNamespace(sentence="Telemetry goes to Y.", well=False)
    telemetry.announce(first)
    telemetry.announce(second)
    monkeypatch.setattr(os, "getpid", lambda: 1_000_001)
    monkeypatch.setattr(os, "getppid", lambda: 1_000_000)
    telemetry.announce(second)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]


def test_an_exporter_that_is_not_known_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "OTLP, zipkin")
    assert telemetry.exporters("traces") == {"otlp", "zipkin"}
    (problem,) = telemetry.unknown_exporters()
    assert problem.startswith("OTEL_TRACES_EXPORTER: there is no exporter 'zipkin' here")


def test_metrics_are_off_and_traces_and_logs_on_until_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for signal in ("TRACES", "LOGS", "METRICS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "")
    assert telemetry.exporters("metrics") == {"none"}
    assert telemetry.exporters("logs") == telemetry.exporters("traces") == {"otlp"}
    assert telemetry.start_metrics(telemetry.resource(None, debug=False), []) is None


def test_nothing_is_warned_of_where_nothing_is_to_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "console")
    routes = Routes("x", debug=False)
    assert routes.well
    assert routes.sentence == "Telemetry goes nowhere, as OTEL_TRACES_EXPORTER asks."


# What this service is


def test_a_resource_says_which_service_in_which_version_where() -> None:
    about = telemetry.resource(None, debug=False).attributes
    assert about["service.name"] == "backend-flask"
    assert about["service.version"] == "1.2.3"
    assert about["deployment.environment.name"] == "production"
    assert about["service.instance.id"]
    assert telemetry.resource("profiles", debug=True).attributes["service.name"] == "profiles"
    assert telemetry.resource(None, debug=True).attributes["deployment.environment.name"] == "development"


def test_the_standard_variables_win_over_what_the_project_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=other,service.version=9,deployment.environment.name=staging,team=blue",
    )
    about = telemetry.resource("profiles", debug=True).attributes
    assert (about["service.name"], about["service.version"]) == ("other", "9")
    assert (about["deployment.environment.name"], about["team"]) == ("staging", "blue")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert telemetry.resource("profiles", debug=True).attributes["service.name"] == "mine"


# A process from its beginning to its end


def run(*scripts: str, seconds: float = 60, **environ: str) -> str:
    """What scripts print, one after the other, in a process of their own that sees no other settings."""
    keep = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    began = """
        import logging, pathlib, sys
        from backend import telemetry
        telemetry.project()["tool"]["telemetry"]["honeycomb-api-endpoint"] = "https://api.honeycomb.io"
        telemetry.PROJECT = pathlib.Path("/nonexistent")  # where a person keeps their own .env
        sys.path.append("tests")
        from work import create_app
    """
    done = subprocess.run(
        [sys.executable, "-c", "".join(textwrap.dedent(script) for script in (began, *scripts))],
        cwd=PROJECT,
        env={**keep, "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "*", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "marked" not in done.stdout
    return done.stdout


ONE_REQUEST = """
    app = create_app()
    assert app.test_client().get("/work").status_code == 200
    app.logger.warning("a line of its own")
"""


def sent(server: Server, path: str) -> list[Received]:
    return [received for received in server.received if received.path == path]


def spans_of(server: Server) -> dict[str, Any]:
    """Spans by name, as the receiver got them, and the resource as `resource`."""
    found: dict[str, Any] = {}
    for received in sent(server, "/v1/traces"):
        for group in ExportTraceServiceRequest.FromString(received.body).resource_spans:
            found["resource"] = {a.key: a.value.string_value for a in group.resource.attributes}
            found.update({span.name: span for scope in group.scope_spans for span in scope.spans})
    return found


def logs_of(server: Server) -> list[Any]:
    return [
        record
        for received in sent(server, "/v1/logs")
        for group in ExportLogsServiceRequest.FromString(received.body).resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def test_a_process_sends_all_three_signals_with_the_key_and_shows_it_nowhere(server: Server) -> None:
    printed = run(ONE_REQUEST, HONEYCOMB_API_KEY=KEY, HONEYCOMB_API_ENDPOINT=server.url, OTEL_METRICS_EXPORTER="otlp")
    assert {received.path for received in server.received} == {"/v1/traces", "/v1/logs", "/v1/metrics"}
    assert {received.headers["x-honeycomb-team"] for received in server.received} == {KEY}
    assert not any(b"marked" in received.body for received in server.received)
    assert printed.count("Telemetry goes to") == 1
    assert f"Telemetry goes to {server.url}." in printed
    spans = spans_of(server)
    assert spans["resource"]["deployment.environment.name"] == "production"
    assert spans["resource"]["service.instance.id"]
    root = spans["GET /work"]
    assert spans["do-work"].parent_span_id == root.span_id
    (line,) = [record for record in logs_of(server) if record.body.string_value == "a line of its own"]
    assert line.severity_text == "WARN"
    metrics = {
        metric.name
        for received in sent(server, "/v1/metrics")
        for group in ExportMetricsServiceRequest.FromString(received.body).resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    }
    assert "http.server.request.duration" in metrics


def test_a_process_obeys_the_standard_variables(server: Server, other_server: Server) -> None:
    run(
        ONE_REQUEST,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
        OTEL_EXPORTER_OTLP_HEADERS=f"x-honeycomb-team={KEY},x-own=1",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_SERVICE_NAME="mine",
        VIEWER_ENDPOINT=other_server.url,
        HONEYCOMB_API_KEY=OTHER,
    )
    assert {received.path for received in server.received} == {"/v1/traces", "/v1/logs"}
    for received in server.received:
        assert (received.headers["x-honeycomb-team"], received.headers["x-own"]) == (KEY, "1")
        assert received.headers["content-encoding"] == "gzip"
    (group,) = ExportTraceServiceRequest.FromString(gzip.decompress(sent(server, "/v1/traces")[0].body)).resource_spans
    assert [a.value.string_value for a in group.resource.attributes if a.key == "service.name"] == ["mine"]
    assert {received.path for received in other_server.received} == {"/v1/traces", "/v1/logs"}
    for received in other_server.received:
        assert not {"x-honeycomb-team", "x-own"} & set(received.headers)
        assert received.headers["content-encoding"] == "gzip"


def test_the_standard_switch_turns_all_of_it_off(server: Server) -> None:
    printed = run(
        ONE_REQUEST,
        """
        answer = app.test_client().get("/nowhere")
        assert answer.json["trace_id"] is None
        assert not {"traceresponse", "Server-Timing"} & set(answer.headers.keys())
        """,
        OTEL_SDK_DISABLED="True",
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
        HONEYCOMB_API_KEY=KEY,
        OTEL_METRICS_EXPORTER="otlp",
    )
    assert server.received == []
    assert "Telemetry" not in printed


def test_without_a_destination_there_is_one_warning_and_no_attempt() -> None:
    printed = run(ONE_REQUEST)
    assert printed.count("Telemetry") == 1
    assert "WARNING backend.telemetry Telemetry goes nowhere. Set HONEYCOMB_API_KEY" in printed


def test_the_exporters_that_the_standard_variables_name_are_used(server: Server) -> None:
    printed = run(
        ONE_REQUEST,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
        OTEL_TRACES_EXPORTER="console",
        OTEL_LOGS_EXPORTER="none",
    )
    assert '"name": "do-work"' in printed
    assert server.received == []


def test_the_sampler_that_the_standard_variable_names_is_used(server: Server) -> None:
    run(ONE_REQUEST, OTEL_EXPORTER_OTLP_ENDPOINT=server.url, OTEL_TRACES_SAMPLER="always_off")
    assert sent(server, "/v1/traces") == []
    assert sent(server, "/v1/logs")


REQUESTS = """
    app = create_app()
    client = app.test_client()
    for number in range(200):
        client.get("/work")
        client.get("/api/health", headers={"traceparent": f"00-{number + 1:032x}-00f067aa0ba902b7-01"})
    app.logger.warning("a line of its own")
"""


def test_one_trace_in_ten_is_kept_whole_with_its_rate_and_no_metric_or_log_is_left_out(server: Server) -> None:
    numbered = """
    from opentelemetry.sdk.trace import RandomIdGenerator
    numbers = iter(range(200))
    RandomIdGenerator.generate_trace_id = lambda self: (1 << 64) + next(numbers) * (1 << 56) // 200  # evenly spread
    """
    run(
        numbered,
        REQUESTS,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
        OTEL_METRICS_EXPORTER="otlp",
        SAMPLE_RATE="10",
    )
    spans = [
        span
        for received in sent(server, "/v1/traces")
        for group in ExportTraceServiceRequest.FromString(received.body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]
    assert len({span.trace_id for span in spans}) == 20
    assert len(spans) == 20 * 3
    rates = [[a.value.int_value for a in span.attributes if a.key == "SampleRate"] for span in spans]
    assert rates == [[10]] * len(spans)
    (duration,) = (
        metric
        for received in sent(server, "/v1/metrics")
        for group in ExportMetricsServiceRequest.FromString(received.body).resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
        if metric.name == "http.server.request.duration"
    )
    assert sum(point.count for point in duration.histogram.data_points) == 200
    assert [record.body.string_value for record in logs_of(server)] == ["a line of its own"]


def test_a_bad_rate_is_said_once_and_everything_is_kept(server: Server) -> None:
    printed = run(ONE_REQUEST, OTEL_EXPORTER_OTLP_ENDPOINT=server.url, SAMPLE_RATE="a tenth")
    assert printed.count("SAMPLE_RATE is 'a tenth'; every trace is kept") == 1
    assert len(spans_of(server)) == 3 + 1


def test_the_standard_sampler_wins_over_the_rate_and_this_is_said(server: Server) -> None:
    printed = run(
        ONE_REQUEST, OTEL_EXPORTER_OTLP_ENDPOINT=server.url, SAMPLE_RATE="1000000", OTEL_TRACES_SAMPLER="always_on"
    )
    assert "SAMPLE_RATE has no effect: OTEL_TRACES_SAMPLER=always_on wins." in printed
    assert len(spans_of(server)) == 3 + 1


def test_a_quoted_key_in_the_standard_headers_is_named_and_printed_by_nobody(server: Server) -> None:
    printed = run(
        ONE_REQUEST,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
        OTEL_EXPORTER_OTLP_HEADERS=f'x-honeycomb-team="{KEY}"',
        VIEWER_ENDPOINT=server.url.replace("127.0.0.1", "localhost"),
    )
    assert "The Honeycomb API key in OTEL_EXPORTER_OTLP_HEADERS is in quotes" in printed
    assert not any("x-honeycomb-team" in received.headers for received in server.received)


def test_a_log_line_within_a_request_leads_to_its_span(server: Server) -> None:
    printed = run(
        """
        app = create_app()

        @app.get("/logging")
        def logs():
            app.logger.warning("within")
            return "", 204

        app.test_client().get("/logging")
        app.logger.warning("outside")
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
    )
    root = spans_of(server)["GET /logging"]
    within, outside = (
        next(record for record in logs_of(server) if record.body.string_value == body) for body in ("within", "outside")
    )
    assert (within.trace_id, within.span_id) == (root.trace_id, root.span_id)
    assert outside.trace_id == b""
    line = next(line for line in printed.splitlines() if "within" in line)
    assert f"trace_id={root.trace_id.hex()} span_id={root.span_id.hex()}" in line
    assert "trace_id" not in next(line for line in printed.splitlines() if "outside" in line)


def test_only_the_applications_own_lines_are_sent_without_what_the_terminal_adds(server: Server) -> None:
    run(
        ONE_REQUEST,
        """
        for name in ("werkzeug", "urllib3.connectionpool", "opentelemetry.sdk"):
            logging.getLogger(name).warning("noise")
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
    )
    assert [record.body.string_value for record in logs_of(server)] == ["a line of its own"]
    attributes = {attribute.key for record in logs_of(server) for attribute in record.attributes}
    assert "trace" not in attributes


def test_logging_that_is_set_up_already_is_left_alone(server: Server) -> None:
    printed = run(
        'logging.basicConfig(format="mine: %(message)s", level=logging.INFO)',
        ONE_REQUEST,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
    )
    assert "mine: a line of its own\n" in printed
    assert printed.count("a line of its own") == 1
    assert "a line of its own" in {record.body.string_value for record in logs_of(server)}


def test_other_protocols_than_http_are_said_not_to_be_spoken_and_telemetry_ends_once(server: Server) -> None:
    printed = run(
        ONE_REQUEST,
        "telemetry.shutdown()\ntelemetry.shutdown()",
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
    )
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is grpc; this service sends http/protobuf all the same" in printed
    assert len(sent(server, "/v1/traces")) == 1


def test_a_process_ends_soon_and_says_what_is_lost_when_the_collector_hangs(server: Server) -> None:
    server.answer = server.hang
    printed = run(
        ONE_REQUEST,
        """
        import time
        telemetry.LONGEST_SHUTDOWN = 0.5
        began = time.monotonic()
        telemetry.shutdown()
        print(f"ended after {time.monotonic() - began:.1f} s")
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
    )
    assert f"Stopped before all telemetry had reached {server.url}: " in printed
    assert "3 spans" in printed
    assert "1 log record" in printed
    took = float(printed.split("ended after ")[1].split()[0])
    assert 0.5 <= took < 5  # without the bound, the exporter's timeout of 10 s


def test_a_process_ends_by_itself_when_the_collector_refuses() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        unused = listener.getsockname()[1]
    printed = run(ONE_REQUEST, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{unused}")
    assert "lost; nothing accepts connections there" in printed
    assert "3 spans" in printed
    assert "1 log record" in printed
    assert printed.count("Traceback") == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_workers_send_their_own_under_their_own_instance_and_announce_nothing_more(server: Server) -> None:
    printed = run(
        """
        import os
        telemetry.announce_for_workers()
        workers = []
        for number in range(2):
            if not (pid := os.fork()):
                app = create_app()
                app.test_client().get("/work")
                telemetry.shutdown()
                os._exit(0)
            workers.append(pid)
        for pid in workers:
            assert os.waitpid(pid, 0)[1] == 0
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
    )
    assert printed.count("Telemetry goes to") == 1
    instances = set()
    for received in sent(server, "/v1/traces"):
        for group in ExportTraceServiceRequest.FromString(received.body).resource_spans:
            instances |= {a.value.string_value for a in group.resource.attributes if a.key == "service.instance.id"}
    assert len(instances) == 2


@pytest.mark.parametrize("opt_in", ["http/dup", "database"])
def test_a_query_is_redacted_whatever_names_attributes_have(server: Server, opt_in: str) -> None:
    run(
        """
        app = create_app()
        app.test_client().get("/work?token=s3cret")
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=server.url,
        OTEL_SEMCONV_STABILITY_OPT_IN=opt_in,
    )
    assert sent(server, "/v1/traces")
    assert not any(b"s3cret" in received.body for received in server.received)
