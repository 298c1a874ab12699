"""The `traced-flask` command, against a stand-in for Honeycomb's API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from honeycomb_stand_in import CLASSIC, CONFIGURATION, INGEST, Honeycomb, Key, honeycomb, on, rate_limited
from pytest_httpserver import HTTPServer
from receivers import Receiver, answering
from traced_flask import cli, honeycomb_api, regions
from traced_flask.regions import Region
from werkzeug import Request, Response

UNKNOWN = INGEST.replace("01", "09")
PYPROJECT = '[tool.traced-flask]\nservice-name = "backend-flask"\nhoneycomb-api-endpoint = "https://api.honeycomb.io"\n'
QUERIES: list[dict[str, Any]] = [
    {
        "name": "Which routes are slow?",
        "description": "The duration of every request, and the P90 of each route.",
        "query": {
            "calculations": [{"op": "HEATMAP", "column": "duration_ms"}, {"op": "P90", "column": "duration_ms"}],
            "breakdowns": ["http.route"],
            "filters": [{"column": "trace.parent_id", "op": "does-not-exist"}],
            "orders": [{"op": "P90", "column": "duration_ms", "order": "descending"}],
        },
    },
    {"name": "How many?", "description": "Spans by name.", "query": {"breakdowns": ["name"], "time_range": 600}},
]
COLUMNS = {"duration_ms", "name", "trace.trace_id", "trace.parent_id", "http.route"}

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project as the current directory. The command changes the environment, which is restored."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "queries.json").write_text(json.dumps(QUERIES))
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def service(httpserver: HTTPServer) -> Honeycomb:
    return on(httpserver)


@pytest.fixture
def run(service: Honeycomb, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run it against the stand-in: the exit status and the output, which never contains a key."""
    before = dict(os.environ)
    everything = []

    def run(*arguments: str, key: str | None = INGEST, **environ: str) -> tuple[int, str]:
        os.environ.clear()
        ours = {"HONEYCOMB_API_ENDPOINT": service.url, **({"HONEYCOMB_API_KEY": key} if key else {})}
        os.environ.update({**before, **ours, **environ})
        try:
            status = cli.main(list(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
        output = "".join(capfd.readouterr())
        everything.append(output)
        return status, output

    yield run
    assert "marked" not in "".join(everything)
    assert CLASSIC not in "".join(everything)
    assert "Traceback" not in "".join(everything)


def fails(result: tuple[int, str], status: int, *words: str) -> None:
    assert result[0] == status, result[1]
    for each in words:
        assert each in result[1]


def test_a_valid_key_passes_and_a_span_arrives(run: Run, service: Honeycomb) -> None:
    status, output = run("check")
    assert status == 0, output
    assert "FAIL" not in output
    assert "Found an ingest key in the environment" in output
    assert "Team acme, environment production, permissions: Send Events, Create Datasets" in output
    (event,) = service.events
    assert (event["service.name"], event["name"]) == ("backend-flask", "traced-flask check")
    assert abs(event["time"] - time.time()) < 60
    link = "https://ui.honeycomb.io/acme/environments/production/datasets/backend-flask/trace?trace_id="
    assert link + event["trace.trace_id"] in output
    service.keys["x" * 30] = service.keys[INGEST]
    warning = "warn  key       The key in the environment does not look like a Honeycomb key\n"
    fails(run("check", key="x" * 30), 0, warning)
    fails(run("check", key=CLASSIC), 0, "environment (classic)", "https://ui.honeycomb.io/acme/datasets/backend-flask/")


def test_without_a_key_the_receiver_of_the_standard_variables_is_checked(run: Run, receiver: Receiver) -> None:
    status, output = run("check", key=None, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert status == 0, output
    assert f"Sent a test span to {receiver.url}" in output
    assert [each.path for each in receiver.received] == ["/v1/traces"]
    receiver.answer = answering(404)
    fails(run("check", key=None, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url), 1, "no OTLP receiver at this address (404)")


@pytest.mark.parametrize("address", ["localhost:4328", "grpc://localhost:4317"])
def test_a_wrong_address_fails_with_the_applications_message(run: Run, address: str) -> None:
    words = "OTEL_EXPORTER_OTLP_ENDPOINT is not an address like http://localhost:4318; nothing is sent to it\n"
    status, output = run("check", key=None, OTEL_EXPORTER_OTLP_ENDPOINT=address)
    assert (status, output) == (1, f"FAIL  settings  {words}")
    fails(run("check", OTEL_EXPORTER_OTLP_ENDPOINT=address), 1, words, "traces do not go to Honeycomb")


def test_the_applications_problems_with_settings_are_warnings(run: Run, receiver: Receiver, project: Path) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{receiver.url}/v1/traces"}
    repaired = "warn  settings  OTEL_EXPORTER_OTLP_ENDPOINT ends in the path of a signal, which is removed"
    program = [sys.executable, "-m", "traced_flask", "check"]  # which repairs the variable when it is imported
    done = subprocess.run(program, env={**os.environ, **endpoint}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, repaired in done.stdout) == (0, True), done.stdout + done.stderr
    fails(run("check", key=None, **endpoint), 0, repaired, "Sent a test span")
    (project / ".env").write_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={receiver.url}/v1/traces\n")
    fails(run("check", key=None), 0, repaired, "Sent a test span")
    fails(run("check", OTEL_EXPORTER_OTLP_ENDPOINT="", SAMPLE_RATE="x"), 1, "warn  settings  SAMPLE_RATE is not a")


def test_settings_that_turn_off_traces_are_named_even_without_a_key(run: Run, receiver: Receiver) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    fails(run("check", key=None, OTEL_TRACES_EXPORTER="none", **endpoint), 1, "Check OTEL_TRACES_EXPORTER")
    fails(run("check", key=None, OTEL_SDK_DISABLED="true", **endpoint), 1, "OTEL_SDK_DISABLED=true")
    quoted = {"OTEL_EXPORTER_OTLP_HEADERS": "x-honeycomb-team=%22marked%22"}
    fails(run("check", key=None, **quoted), 1, "The Honeycomb API key in OTEL_EXPORTER_OTLP_HEADERS is in quotes")
    assert receiver.received == []


def test_a_service_without_a_name_is_checked_under_the_sdks_name(
    run: Run, service: Honeycomb, receiver: Receiver, project: Path
) -> None:
    (project / "pyproject.toml").unlink()
    unnamed = "warn  settings  The service has no name, so it appears as unknown_service. Set OTEL_SERVICE_NAME"
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    fails(run("check", key=None, **endpoint), 0, unnamed, f"to {receiver.url} as service unknown_service: trace ")
    assert b"unknown_service" in receiver.received[0].body
    fails(run("check"), 0, unnamed, "dataset unknown_service:")
    assert service.events[0]["service.name"] == "unknown_service"
    status, output = run("check", key=None, OTEL_RESOURCE_ATTRIBUTES="service.name=shop", **endpoint)
    assert (status, "warn" in output, "as service shop: " in output) == (0, False, True)


def test_the_url_of_the_test_span_is_printed_if_known(
    run: Run, service: Honeycomb, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "VIEWER_ENDPOINT": receiver.url}
    found = json.loads(run("check", "--json", key=None, **endpoint)[1])
    assert found["trace"] == f"{receiver.url}/traces/{found['trace_id']}"
    pages = {"VIEWER_TRACES": "http://127.0.0.1:4318/traces/"}
    fails(run("check", key=None, **endpoint, **pages), 0, "as service backend-flask: http://127.0.0.1:4318/traces/")
    monkeypatch.setattr(regions, "REGIONS", (Region("US", service.url, "https://ui.example"),))
    direct = {"OTEL_EXPORTER_OTLP_ENDPOINT": service.url, "OTEL_EXPORTER_OTLP_HEADERS": f"x-honeycomb-team={INGEST}"}
    page = "https://ui.example/acme/environments/production/datasets/backend-flask/trace?trace_id="
    output = run("check", key=None, **direct)[1]
    assert page + service.events[0]["trace.trace_id"] in output


def test_scripts_get_json(run: Run) -> None:
    status, output = run("check", "--json", key=CONFIGURATION)
    found = json.loads(output)
    assert (status, found["ok"], found["kind"], found["key"]) == (0, True, "configuration key", "the environment")
    assert (found["team"], found["environment"], found["dataset"]) == ("acme", "production", "backend-flask")
    assert [each["step"] for each in found["checks"]] == ["key", "address", "account", "span"]
    status, output = run("check", "--json", key=UNKNOWN)
    found = json.loads(output)
    assert (status, found["ok"], found["checks"][-1]["step"], found["checks"][-1]["ok"]) == (1, False, "account", False)


def test_the_command_uses_the_applications_key(run: Run, project: Path) -> None:
    (project / "secret").write_text(INGEST + "\n")
    fails(
        run("check", key='"x"', HONEYCOMB_API_KEY_FILE="secret"),
        0,
        "warn  key",
        "in quotes. It is ignored",
        "_FILE names",
    )
    (project / ".env").write_text(f"HONEYCOMB_API_KEY={INGEST}\nOTEL_SERVICE_NAME=other\n")
    fails(run("check", key=None), 0, "Found an ingest key in .env", "dataset other:")


def test_a_named_pipe_as_dotenv_is_read_once(run: Run, project: Path) -> None:
    os.mkfifo(project / ".env")
    writer = threading.Thread(target=lambda: (project / ".env").write_text(f"HONEYCOMB_API_KEY={INGEST}\n"))
    writer.start()
    fails(run("check", key=None), 0, "Found an ingest key in the environment")
    writer.join(30)


def test_files_that_cannot_be_read_are_named(run: Run, project: Path) -> None:
    (project / ".env").write_bytes("A=ä".encode("utf-16"))
    fails(run("check"), 1, ".env is not UTF-8")
    (project / ".env").unlink()
    (project / "pyproject.toml").write_text("[tool")
    fails(run("check"), 1, "pyproject.toml cannot be read")
    (project / "pyproject.toml").unlink()
    fails(run("board", key=CONFIGURATION), 1, "Set OTEL_SERVICE_NAME")
    (project / "queries.json").unlink()
    fails(run("queries", OTEL_SERVICE_NAME="x"), 1, "--queries")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (None, "No API key was found. Set HONEYCOMB_API_KEY"),
        (None, "or set OTEL_EXPORTER_OTLP_ENDPOINT to send telemetry to another receiver"),
        ("${HONEYCOMB_API_KEY}", "not expanded. Correct it, or create a key at https://docs.honeycomb.io/"),
        (UNKNOWN, "does not accept this key (401: unknown API key - check your credentials)"),
    ],
)
def test_a_bad_key_fails(run: Run, key: str | None, words: str) -> None:
    status, output = run("check", key=key)
    fails((status, output), 1, words)
    assert output.count("FAIL") == 1


def test_a_key_of_the_other_region_is_recognized(run: Run, service: Honeycomb, monkeypatch: pytest.MonkeyPatch) -> None:
    with honeycomb() as other:
        del service.keys[INGEST]
        fails(run("check"), 1, "does not accept this key")
        assert other.asked == []  # a key is not tried elsewhere when the address is one's own
        known = (Region("US", service.url, "https://ui.example"), Region("EU", other.url, "https://ui.eu.example"))
        monkeypatch.setattr(regions, "REGIONS", known)
        fails(run("check"), 1, f"belongs to the region EU. Set HONEYCOMB_API_ENDPOINT={other.url}")
        fails(run("check", HONEYCOMB_API_ENDPOINT=other.url), 0, "(EU)", "https://ui.eu.example/acme/environments/")


def test_missing_permissions_are_named(run: Run, service: Honeycomb) -> None:
    service.keys[CONFIGURATION] = Key(access={"boards"})
    fails(run("check", key=CONFIGURATION), 1, "lacks the permission Send Events")
    service.keys[INGEST] = Key("ingest", {"events"})
    fails(run("check"), 1, "did not accept a test span", "Create Datasets")
    service.datasets["backend-flask"] = {"name"}
    assert run("check")[0] == 0


def test_variables_that_send_traces_elsewhere_are_named(run: Run, service: Honeycomb) -> None:
    fails(run("check", OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318"), 1, "to http://collector:4318 instead")
    fails(run("check", OTEL_TRACES_EXPORTER="none"), 1, "OTEL_TRACES_EXPORTER")
    fails(run("check", OTEL_SDK_DISABLED="true"), 1, "OTEL_SDK_DISABLED")
    assert service.events == []
    assert run("check", FLASK_DEBUG="1", VIEWER_ENDPOINT="http://viewer:4318")[0] == 0  # a copy, not instead


@pytest.mark.parametrize(("minutes", "way"), [(10, "10 minutes ahead"), (-90, "90 minutes behind")])
def test_a_wrong_clock_is_detected(run: Run, monkeypatch: pytest.MonkeyPatch, minutes: int, way: str) -> None:
    clock = SimpleNamespace(time=lambda: time.time() + minutes * 60)
    monkeypatch.setattr(honeycomb_api, "time", clock)
    fails(run("check"), 1, f"clock is {way}")


def test_a_response_is_printed_without_the_key_and_control_characters(run: Run, service: Honeycomb) -> None:
    body = json.dumps({"error": f"unknown API key {UNKNOWN}\x1b[31m red"})
    service.instead = lambda _: Response(body, 401)
    status, output = run("check", key=UNKNOWN)
    assert (status, "\x1b" in output) == (1, False)
    assert "unknown API key REDACTED" in output


def slow(request: Request) -> Response:
    time.sleep(1)
    return Response("")


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (rate_limited, 3, "rate limit is reached (429). Wait until"),
        (lambda _: Response("", 503), 3, "https://status.honeycomb.io"),
        (lambda _: Response("<p>", 200, content_type="text/html"), 1, "Log in"),
        (lambda _: Response("{}", 200, content_type="application/json"), 1, "This is not Honeycomb's API"),
        (lambda _: Response("", 407), 1, "The proxy needs a user and a password"),
        (lambda _: Response("", 404), 1, "Check HONEYCOMB_API_ENDPOINT"),
        (slow, 3, "no answer within 0.3 s"),
    ],
)
def test_an_error_response_is_explained(
    run: Run,
    service: Honeycomb,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Request], Response],
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr(honeycomb_api, "TIMEOUT", 0.3 if "0.3" in words else 10)
    service.instead = answer
    fails(run("check"), status, "FAIL", words)


def test_a_redirect_is_not_followed_with_the_key(run: Run, service: Honeycomb) -> None:
    with honeycomb() as other:
        service.instead = lambda _: Response("", 308, {"Location": f"{other.url}/1/auth"})
        fails(run("check"), 1, f"redirects to {urlsplit(other.url).netloc}")
        assert other.asked == []


def test_an_address_that_does_not_respond_is_explained(run: Run, service: Honeycomb) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{listener.getsockname()[1]}"
        fails(run("check", HONEYCOMB_API_ENDPOINT=f"http://{closed}"), 3, "nothing accepts connections there")
        fails(run("check", HONEYCOMB_API_ENDPOINT="https://api.honeycomb.invalid"), 3, "cannot be resolved")
        proxy = {"HTTPS_PROXY": f"http://me:marked@{closed}", "HONEYCOMB_API_ENDPOINT": "https://api.example"}
        fails(run("check", **proxy), 1, "The proxy in HTTPS_PROXY", "api.example to NO_PROXY")
        assert run("check", HTTP_PROXY=f"http://me:marked@{closed}")[0] == 0  # not for this machine
    fails(run("check", HONEYCOMB_API_ENDPOINT=service.url.replace("http:", "https:")), 1, "does not speak TLS")
    for wrong in ("api.honeycomb.io", "https://api.honeycomb.io/v1/traces", "https://me:marked@host"):
        fails(run("check", HONEYCOMB_API_ENDPOINT=wrong), 1, "HONEYCOMB_API_ENDPOINT is not the address of an API")


def test_it_runs_as_a_program(service: Honeycomb) -> None:
    env = {**os.environ, "HONEYCOMB_API_ENDPOINT": service.url, "HONEYCOMB_API_KEY": UNKNOWN}
    done = subprocess.run([sys.executable, "-m", "traced_flask", "check"], env=env, capture_output=True, timeout=60)
    assert (done.returncode, b"marked" in done.stdout + done.stderr) == (1, False), done.stderr


def test_links_open_the_queries_without_a_key(run: Run, service: Honeycomb) -> None:
    status, output = run("queries", "--team", "acme", "--environment", "prod", "--json", key=None)
    assert (status, service.asked) == (0, [])
    service.datasets["backend-flask"] = COLUMNS
    for each, wanted in zip(json.loads(output), QUERIES, strict=True):
        address, _, query = each["url"].partition("?")
        assert address == "https://ui.honeycomb.io/acme/environments/prod/datasets/backend-flask"
        opened = json.loads(parse_qs(query, strict_parsing=True)["query"][0])
        assert opened == {"time_range": 7200, **wanted["query"]}
        service.checked_query("backend-flask", opened)


def test_the_team_comes_from_the_key_or_an_argument(run: Run, project: Path) -> None:
    (project / "queries.json").rename(project / "mine.json")
    status, output = run("queries", "--queries", "mine.json")
    assert (status, "How many?\n" in output) == (0, True)
    assert output.count("https://ui.honeycomb.io/acme/environments/production/datasets/backend-flask?query=%7B") == 2
    fails(run("queries", key=None), 1, "--team TEAM")


def test_an_eu_project_links_to_eu_pages(run: Run, project: Path) -> None:
    (project / "pyproject.toml").write_text(PYPROJECT.replace("api.honeycomb", "api.eu1.honeycomb"))
    for endpoint in ("", "http://refinery:8080"):
        output = run("queries", "--team", "acme", key=None, HONEYCOMB_API_ENDPOINT=endpoint)[1]
        assert output.count("https://ui.eu1.honeycomb.io/acme/environments/test/") == 2


def panels_of(service: Honeycomb) -> list[tuple[str, dict[str, Any]]]:
    """Name and query of each panel of the only board."""
    (board,) = service.boards.values()
    inner = [panel["query_panel"] for panel in board["panels"] if panel["type"] == "query"]
    return [
        (service.annotations[each["query_annotation_id"]][1]["name"], service.queries[each["query_id"]][1])
        for each in inner
    ]


def test_creating_a_board_twice_gives_one_board(run: Run, service: Honeycomb) -> None:
    service.datasets["backend-flask"] = COLUMNS
    status, output = run("board", key=CONFIGURATION)
    (board_id,) = service.boards
    assert (status, output) == (0, f"Created: https://ui.honeycomb.io/acme/environments/production/board/{board_id}\n")
    before = json.dumps(service.boards)
    assert run("board", key=CONFIGURATION)[1].startswith("Already up to date: https://ui.honeycomb.io/acme/")
    assert json.dumps(service.boards) == before
    assert [name for name, _ in panels_of(service)] == [each["name"] for each in QUERIES]
    assert panels_of(service)[0][1]["time_range"] == 7200
    rows = [panel["position"]["y_coordinate"] for panel in service.boards[board_id]["panels"]]
    assert rows == sorted(set(rows))
    run("board", "--name", "Second", key=CONFIGURATION)
    assert [board["name"] for board in service.boards.values()] == ["backend-flask: requests", "Second"]


def test_an_update_keeps_positions_and_other_panels(run: Run, service: Honeycomb, project: Path) -> None:
    service.datasets["backend-flask"] = COLUMNS
    run("board", key=CONFIGURATION)
    (board,) = service.boards.values()
    note = {"type": "text", "text_panel": {"content": "# Ours"}, "position": {"x_coordinate": 0, "y_coordinate": 40}}
    board["panels"].insert(0, note)
    board["panels"][1]["position"]["x_coordinate"] = 3
    board["tags"] = [{"key": "team", "value": "blue"}]
    changed = [{**QUERIES[0], "query": {**QUERIES[0]["query"], "limit": 7}}, {**QUERIES[1], "name": "Another"}]
    (project / "queries.json").write_text(json.dumps(changed))
    fails(run("board", key=CONFIGURATION), 0, "Updated: ")
    (board,) = service.boards.values()
    assert (board["panels"][0], board["tags"]) == (note, [{"key": "team", "value": "blue"}])
    assert board["panels"][1]["position"]["x_coordinate"] == 3
    assert panels_of(service)[0][1]["limit"] == 7
    assert [name for name, _ in panels_of(service)] == ["Which routes are slow?", "How many?", "Another"]


def test_a_dataset_or_column_that_does_not_exist_yet_is_named(run: Run, service: Honeycomb) -> None:
    fails(run("board", key=CONFIGURATION), 1, "The dataset backend-flask does not exist yet")
    service.datasets["backend-flask"] = COLUMNS - {"http.route"}
    fails(run("board", key=CONFIGURATION), 1, "has no column http.route yet")
    assert (service.queries, service.boards) == ({}, {})


@pytest.mark.parametrize("command", [("marker", "x"), ("trigger", "--over", "5"), ("board",)])
def test_each_command_says_which_key_it_needs(run: Run, service: Honeycomb, command: tuple[str, ...]) -> None:
    fails(run(*command, key=None), 1, "No key was found. Create a configuration key with Manage")
    fails(run(*command), 1, "An ingest key can only send telemetry", "set HONEYCOMB_CONFIGURATION_KEY")
    fails(run(*command, key=UNKNOWN), 1, "does not accept this key")
    fails(run(*command, HONEYCOMB_CONFIGURATION_KEY='"x"'), 1, "The key in HONEYCOMB_CONFIGURATION_KEY is in quotes")
    service.keys[CONFIGURATION] = Key(access={"events"})
    fails(run(*command, key=CONFIGURATION), 1, "The key lacks the permission Manage")


def test_a_marker_is_for_all_datasets_or_one(run: Run, service: Honeycomb, project: Path) -> None:
    (project / ".env").write_text(f"HONEYCOMB_CONFIGURATION_KEY={CONFIGURATION}\n")
    fails(
        run("marker", "v1.2.3", "--url", "https://ci.example/1"), 0, "all datasets of environment production, team acme"
    )
    service.datasets["backend-flask"] = COLUMNS
    assert run("marker", "x", "--dataset", "backend-flask", "--type", "outage")[0] == 0
    fails(run("marker", "x", "--dataset", "other"), 1, "Not found")
    made = [(each["dataset"], each["message"], each["type"], each.get("url")) for each in service.markers]
    assert made == [("__all__", "v1.2.3", "deploy", "https://ci.example/1"), ("backend-flask", "x", "outage", None)]


def test_a_trigger_is_created_once_and_updated(run: Run, service: Honeycomb) -> None:
    service.datasets["backend-flask"] = COLUMNS
    asked = ("trigger", "--route", "/api/home", "--minutes", "10")
    fails(run(*asked, "--over", "500", key=CONFIGURATION), 0, "notifies nobody yet")
    status, output = run(*asked, "--over", "250.5", "--recipient", "abc", key=CONFIGURATION)
    assert (status, "nobody" in output) == (0, False)
    assert "Slow: /api/home: fires when P90 is over 250.5 ms. https://ui.honeycomb.io/acme/" in output
    ((dataset, made),) = service.triggers.values()
    assert (dataset, made["threshold"]) == ("backend-flask", {"op": ">", "value": 250.5})
    assert made["query"]["calculations"] == [{"op": "P90", "column": "duration_ms"}]
    assert {"column": "http.route", "op": "=", "value": "/api/home"} in made["query"]["filters"]
    assert made["recipients"] == [{"id": "abc"}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("trigger", "--over is required."),
        ("trigger --over nan", "The value of --over is missing or invalid."),
        ("trigger --over", "The value of --over is missing or invalid."),
        ("trigger --over 5 --minutes 0", "The value of --minutes is missing or invalid."),
        ("marker", "MESSAGE is required."),
        ("queries --team a/b", "The value of --team is missing or invalid."),
        (f"queries --team {INGEST}!", "The value of --team is missing or invalid."),
        (f"check --json={INGEST}", "The value of --json is missing or invalid."),
        (f"board {INGEST}", "Unknown argument."),
        (f"board --{INGEST}", "Unknown argument."),
        (INGEST, "Unknown command."),
        ("", "No command given."),
    ],
)
def test_invalid_usage_is_named_without_the_arguments(run: Run, arguments: str, words: str) -> None:
    status, output = run(*arguments.split())
    assert (status, output.startswith(f"{words}\n\nusage: traced-flask")) == (2, True), output
    assert INGEST not in output


@pytest.mark.parametrize("command", ["queries", "board", "trigger", "marker"])
def test_help_names_the_default_dataset_of_the_command(run: Run, command: str) -> None:
    default = "all datasets" if command == "marker" else "the dataset of the service"
    assert f"default: {default}\n" in run(command, "--help")[1]


def test_help_fits_a_screen(run: Run) -> None:
    for command in ((), ("check",), ("queries",), ("board",), ("marker",), ("trigger",)):
        status, output = run(*command, "--help")
        assert (status, len(output.splitlines()) <= 24) == (0, True)
