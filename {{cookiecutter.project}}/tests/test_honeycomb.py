"""bin/honeycomb check, queries, board, marker and trigger, against a stand-in for Honeycomb's API."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from honeycomb_stand_in import CLASSIC, CONFIGURATION, INGEST, Honeycomb, Key, honeycomb

if TYPE_CHECKING:
    from conftest import Server

PROJECT = Path(__file__).parents[1]
SCRIPT = PROJECT / "bin" / "honeycomb"
UNKNOWN = INGEST.replace("01", "09")
PYPROJECT = """
[tool.telemetry]
service-name = "backend-flask"
honeycomb-api-endpoint = "https://api.honeycomb.io"
"""

Said = tuple[int, str]
Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def no_setting_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("HONEYCOMB_", "OTEL_", "GITPOD_")) or variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of its own, so that nobody's .env counts."""
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPT, tmp_path / "bin" / "honeycomb")
    shutil.copy(PROJECT / "queries.json", tmp_path)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


@pytest.fixture
def program(folder: Path) -> Any:
    """bin/honeycomb as a module."""
    loader = SourceFileLoader("bin_honeycomb", str(folder / "bin" / "honeycomb"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


@pytest.fixture
def service() -> Iterator[Honeycomb]:
    with honeycomb() as service:
        yield service


@pytest.fixture
def run(
    program: Any, service: Honeycomb, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run it against the stand-in: the exit status and what it printed, in which no key may be."""
    monkeypatch.setenv("HONEYCOMB_API_ENDPOINT", service.url)
    everything = []

    def run(*arguments: str, key: str | None = INGEST, **environ: str) -> Said:
        for name, value in {**({"HONEYCOMB_API_KEY": key} if key is not None else {}), **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["bin/honeycomb", *arguments])
        try:
            status = program.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = "".join(capfd.readouterr())
        everything.append(said)
        return status, said

    yield run
    assert "marked" not in "".join(everything)
    assert CLASSIC not in "".join(everything)


def send(service: Honeycomb, columns: str = "") -> None:
    """As if the backend had sent all sorts of spans."""
    usual = (
        "duration_ms name trace.trace_id trace.span_id trace.parent_id service.name span.kind http.route"
        " http.response.status_code server.address"
    )
    service.datasets["backend-flask"] = set((columns or usual).split())


# check


def test_a_good_key_passes(run: Run, service: Honeycomb) -> None:
    status, said = run("check")
    assert status == 0
    assert "FAIL" not in said
    assert "An ingest key, in the environment" in said
    assert "Team acme, environment production; may: Send Events, Create Datasets" in said
    (event,) = service.events
    assert (event["service.name"], event["name"]) == ("backend-flask", "bin/honeycomb check")
    assert abs(event["time"] - time.time()) < 60
    link = "https://ui.honeycomb.io/acme/environments/production/datasets/backend-flask/trace?trace_id="
    assert link + event["trace.trace_id"] in said


def test_scripts_get_the_same_in_json(run: Run, service: Honeycomb) -> None:
    status, said = run("check", "--json", key=CONFIGURATION)
    found = json.loads(said)
    assert status == 0
    assert found["ok"] is True
    assert (found["team"], found["environment"], found["dataset"]) == ("acme", "production", "backend-flask")
    assert (found["kind"], found["key"]) == ("configuration key", "the environment")
    assert "Manage Public Boards" in found["permissions"]
    assert [each["about"] for each in found["checks"]] == ["key", "address", "account", "span"]


def test_a_fault_in_json_is_one_too(run: Run) -> None:
    status, said = run("check", "--json", key=UNKNOWN)
    assert status == 1
    found = json.loads(said)
    assert found["ok"] is False
    assert [(each["about"], each["well"]) for each in found["checks"]][-1] == ("account", False)


def test_a_classic_key_passes_too(run: Run, service: Honeycomb) -> None:
    status, said = run("check", key=CLASSIC)
    assert (status, "environment (classic)" in said) == (0, True)
    assert "https://ui.honeycomb.io/acme/datasets/backend-flask/trace?trace_id=" in said


@pytest.mark.parametrize("where", [".env", "HONEYCOMB_API_KEY_FILE"])
def test_a_key_is_found_where_the_backend_finds_it(run: Run, folder: Path, where: str) -> None:
    if where == ".env":
        (folder / ".env").write_text(f"HONEYCOMB_API_KEY={INGEST}\n")
        status, said = run("check", key=None)
        assert ", in .env" in said
    else:
        (folder / "secret").write_text(INGEST + "\n")
        status, said = run("check", key=None, HONEYCOMB_API_KEY_FILE=str(folder / "secret"))
        assert ", in the file that HONEYCOMB_API_KEY_FILE names" in said
    assert status == 0


def test_a_key_that_is_none_is_passed_over_for_one_that_is(run: Run, folder: Path) -> None:
    (folder / ".env").write_text(f"HONEYCOMB_API_KEY={INGEST}\n")
    status, said = run("check", key="")
    assert (status, "The one in the environment is empty, and is passed over" in said) == (0, True)


# The bad set-ups: each by its name, what makes it, the exit status, and what is said.


def fails(said: Said, status: int, *words: str) -> None:
    assert said[0] == status, said[1]
    for word in words:
        assert word in said[1]
    assert said[1].count("FAIL") >= 1


def test_no_key(run: Run) -> None:
    fails(run("check", key=None), 1, "There is no usable API key", "bin/honeycomb key set")


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (f'"{INGEST}"', "quotes"),
        ("${HONEYCOMB_API_KEY}", "not expanded"),
        (f"{INGEST} ", "white space"),
        ("hcamk_01markedmarked", "management key"),
    ],
)
def test_what_is_no_key(run: Run, service: Honeycomb, key: str, problem: str) -> None:
    fails(run("check", key=key), 1, problem, "bin/honeycomb key set")
    assert service.asked == []


def test_a_key_that_honeycomb_does_not_know(run: Run) -> None:
    fails(run("check", key=UNKNOWN), 1, "does not know this key", "copied whole")


def test_a_key_of_the_other_region(run: Run, program: Any, service: Honeycomb) -> None:
    with honeycomb() as other:
        del service.keys[INGEST]
        program.REGIONS = {service.url: ("US", "https://ui.honeycomb.io"), other.url: ("EU", "https://ui.example")}
        fails(run("check"), 1, "of the other region, EU", f"HONEYCOMB_API_ENDPOINT={other.url}")
        status, said = run("check", HONEYCOMB_API_ENDPOINT=other.url)
        assert (status, f"{other.url} (EU)" in said) == (0, True)
        assert "https://ui.example/acme/environments/production/" in said


def test_a_key_is_not_tried_elsewhere_when_the_address_is_ones_own(run: Run, program: Any, service: Honeycomb) -> None:
    with honeycomb() as other:
        del service.keys[INGEST]
        program.REGIONS = {other.url: ("EU", "https://ui.example")}
        fails(run("check"), 1, "does not know this key")
        assert other.asked == []


def test_a_key_that_may_not_send(run: Run, service: Honeycomb) -> None:
    service.keys[CONFIGURATION] = Key(access={"boards"})
    fails(run("check", key=CONFIGURATION), 1, "lacks the permission Send Events")


def test_a_key_that_may_not_make_the_dataset(run: Run, service: Honeycomb) -> None:
    service.keys[INGEST] = Key("ingest", {"events"})
    fails(run("check"), 1, "takes no spans with it", "Create Datasets")
    service.datasets["backend-flask"] = {"name"}
    assert run("check")[0] == 0


def test_too_many_requests(run: Run, service: Honeycomb) -> None:
    service.limited = True
    fails(run("check"), 3, "asked too often", "wait until", "GMT")


def test_trouble_of_honeycombs_own(run: Run, service: Honeycomb) -> None:
    service.misbehave = answering(503)
    fails(run("check"), 3, "trouble of its own (503)", "https://status.honeycomb.io")


@pytest.mark.parametrize(("minutes", "way"), [(-10, "10 minutes ahead of"), (90, "90 minutes behind")])
def test_a_clock_that_is_wrong(run: Run, service: Honeycomb, minutes: int, way: str) -> None:
    service.date = lambda: formatdate(time.time() + minutes * 60, usegmt=True)
    fails(run("check"), 1, f"clock is {way}", "set it")


def answering(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], bool]:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        return True

    return answer


def test_a_redirect_is_not_followed_with_the_key(run: Run, service: Honeycomb) -> None:
    with honeycomb() as other:
        service.misbehave = answering(308, Location=f"{other.url}/1/auth")
        fails(run("check"), 1, f"sends us on to {urlsplit(other.url).netloc}", "HONEYCOMB_API_ENDPOINT")
        assert other.asked == []


def test_a_network_that_wants_a_login_first(run: Run, service: Honeycomb) -> None:
    service.misbehave = answering(200, Content_Type="text/html")
    fails(run("check"), 1, "web page answers in place of the API", "log in first")


def test_something_else_that_answers(run: Run, service: Honeycomb) -> None:
    service.misbehave = answering(200, Content_Type="application/json")
    fails(run("check"), 1, "not Honeycomb's API", "HONEYCOMB_API_ENDPOINT")


def test_nothing_that_answers(run: Run, service: Honeycomb) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    fails(run("check", HONEYCOMB_API_ENDPOINT=address), 3, "Nothing accepts connections")


def test_an_answer_that_does_not_come(run: Run, program: Any, service: Honeycomb) -> None:
    program.PATIENCE = 0.3
    service.misbehave = lambda handler: time.sleep(1) or True  # type: ignore[func-returns-value]
    fails(run("check"), 3, "did not answer within 0.3 s", "HTTP_PROXY")


def test_a_name_that_cannot_be_resolved(run: Run) -> None:
    fails(run("check", HONEYCOMB_API_ENDPOINT="https://api.honeycomb.invalid"), 3, "cannot be resolved (DNS)")


@pytest.mark.parametrize(
    "address", ["api.honeycomb.io", "https://api.honeycomb.io/v1/traces", "https://me:marked@host"]
)
def test_an_address_that_is_none(run: Run, address: str) -> None:
    fails(run("check", HONEYCOMB_API_ENDPOINT=address), 1, "HONEYCOMB_API_ENDPOINT is no address of an API")


def test_a_proxy_that_wants_a_password(run: Run, server: Server) -> None:
    proxy = server.url.replace("//", "//me:marked@")
    server.answer = server.answering(407)
    environ = {"NO_PROXY": "", "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy}
    fails(run("check", HONEYCOMB_API_ENDPOINT="http://api.example", **environ), 1, "proxy wants a name and a password")


def test_a_proxy_that_lets_nothing_through(run: Run, server: Server) -> None:
    proxy = server.url.replace("//", "//me:marked@")  # it answers 501 to CONNECT
    environ = {"NO_PROXY": "", "HTTPS_PROXY": proxy, "HONEYCOMB_API_ENDPOINT": "https://api.example"}
    fails(run("check", **environ), 1, "The proxy that HTTPS_PROXY names", "api.example into NO_PROXY")


def test_a_proxy_that_wants_a_password_for_tls(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:marked@proxy:3128")
    problem = program.no_answer(OSError("Tunnel connection failed: 407 Proxy Authentication Required"), "https://api.x")
    assert "The proxy wants a name and a password" in str(problem)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate, with its key, that nobody trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout"]
    subprocess.run([*command, path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def test_a_certificate_that_is_not_trusted(run: Run, server: Server, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.http.handle_error = lambda *_: None  # type: ignore[method-assign]
    address = server.url.replace("http://127.0.0.1", "https://localhost")
    fails(run("check", HONEYCOMB_API_ENDPOINT=address), 1, "nobody whom this machine trusts", "SSL_CERT_FILE")
    assert server.received == []


@pytest.mark.parametrize("code", [9, 10])
def test_a_certificate_of_another_day(program: Any, code: int) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    assert "Set the clock" in str(program.no_answer(error, "https://api.honeycomb.io/1/auth"))


def test_tls_where_there_is_none(run: Run, service: Honeycomb) -> None:
    address = service.url.replace("http://", "https://")
    fails(run("check", HONEYCOMB_API_ENDPOINT=address), 1, "does not speak TLS", "http://")


def test_a_standard_variable_that_sends_the_backend_elsewhere(run: Run) -> None:
    said = run("check", OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318")
    fails(said, 1, "OTEL_EXPORTER_OTLP_ENDPOINT is set and wins")


def test_a_standard_variable_that_sends_the_backend_to_honeycomb_all_the_same(run: Run, service: Honeycomb) -> None:
    assert run("check", OTEL_EXPORTER_OTLP_ENDPOINT=f"{service.url}/")[0] == 0


def test_an_answer_that_repeats_the_key_or_steers_the_terminal_is_shown_without(run: Run, service: Honeycomb) -> None:
    def repeat(handler: BaseHTTPRequestHandler) -> bool:
        body = json.dumps({"error": f"unknown API key {UNKNOWN}\x1b[31m red"}).encode()
        handler.send_response(401)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    service.misbehave = repeat
    status, said = run("check", key=UNKNOWN)
    assert (status, "\x1b" in said) == (1, False)
    assert "401: unknown API key ..." in said


def test_it_runs_by_itself_and_tells_scripts(folder: Path, service: Honeycomb) -> None:
    keep = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    for key, status in ((INGEST, 0), (UNKNOWN, 1)):
        done = subprocess.run(
            [sys.executable, folder / "bin" / "honeycomb", "check"],
            env={**keep, "NO_PROXY": "*", "HONEYCOMB_API_KEY": key, "HONEYCOMB_API_ENDPOINT": service.url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status
        assert "marked" not in done.stdout + done.stderr


# queries


def test_links_open_the_queries_without_a_key(run: Run, service: Honeycomb) -> None:
    status, said = run("queries", "--team", "acme", "--environment", "prod", "--json", key=None)
    assert (status, service.asked) == (0, [])
    found = json.loads(said)
    assert len(found) == 5
    send(service)
    for each in found:
        link = urlsplit(each["url"])
        assert f"{link.scheme}://{link.netloc}{link.path}" == (
            "https://ui.honeycomb.io/acme/environments/prod/datasets/backend-flask"
        )
        query = json.loads(parse_qs(link.query, strict_parsing=True)["query"][0])
        assert query == each["query"]
        service.checked_query("backend-flask", query)
    assert {tuple(each.values()) for each in found[0]["query"]["calculations"]} >= {
        ("HEATMAP", "duration_ms"),
        ("P90", "duration_ms"),
        ("MAX", "duration_ms"),
    }
    assert found[0]["query"]["breakdowns"] == ["http.route"]
    assert found[0]["query"]["filters"] == [{"column": "trace.parent_id", "op": "does-not-exist"}]


def test_the_team_is_found_out_with_a_key(run: Run) -> None:
    status, said = run("queries")
    assert status == 0
    assert said.count("https://ui.honeycomb.io/acme/environments/production/datasets/backend-flask?query=%7B") == 5
    assert "Which routes are slow?\n" in said


def test_without_either_it_says_what_to_give(run: Run) -> None:
    status, said = run("queries", key=None)
    assert (status, "--team TEAM" in said) == (1, True)


def test_a_project_in_europe_opens_europes_pages(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONEYCOMB_API_ENDPOINT")
    (folder / "pyproject.toml").write_text(PYPROJECT.replace("api.honeycomb", "api.eu1.honeycomb"))
    assert (
        run("queries", "--team", "acme", key=None)[1].count("https://ui.eu1.honeycomb.io/acme/environments/test/") == 5
    )


@pytest.mark.parametrize("team", ["a/b", "a b", "../x", INGEST + "!"])
def test_a_team_that_is_no_slug_is_not_taken(run: Run, team: str) -> None:
    assert run("queries", "--team", team, key=None)[0] == 2


# board


def shown(service: Honeycomb) -> list[tuple[str, dict[str, Any]]]:
    """Name and query of each panel of the only board."""
    (board,) = service.boards.values()
    panels = [panel["query_panel"] for panel in board["panels"] if panel["type"] == "query"]
    return [
        (service.annotations[panel["query_annotation_id"]][1]["name"], service.queries[panel["query_id"]][1])
        for panel in panels
    ]


def test_a_board_twice_is_one_board_with_the_five_queries(run: Run, service: Honeycomb) -> None:
    send(service)
    status, said = run("board", key=CONFIGURATION)
    (board_id,) = service.boards
    assert (status, said) == (0, f"Made: https://ui.honeycomb.io/acme/environments/production/board/{board_id}\n")
    before = json.dumps(service.boards)
    status, said = run("board", key=CONFIGURATION)
    assert (status, said.startswith("Already up to date: https://ui.honeycomb.io/acme/")) == (0, True)
    assert json.dumps(service.boards) == before
    assert len(service.queries) == len(service.annotations) == 5
    wanted = json.loads((PROJECT / "queries.json").read_text())
    assert [name for name, _ in shown(service)] == [each["name"] for each in wanted]
    for (_, query), each in zip(shown(service), wanted, strict=True):
        assert query["time_range"] == 7200
        assert {name: value for name, value in query.items() if name not in ("id", "time_range")} == each["query"]


def test_panels_do_not_overlap(run: Run, service: Honeycomb) -> None:
    send(service)
    run("board", key=CONFIGURATION)
    (board,) = service.boards.values()
    rows = [panel["position"]["y_coordinate"] for panel in board["panels"]]
    assert rows == sorted(set(rows))


def test_a_changed_query_is_changed_in_its_place_and_what_others_put_there_stays(
    run: Run, service: Honeycomb, folder: Path
) -> None:
    send(service)
    run("board", key=CONFIGURATION)
    (board,) = service.boards.values()
    note = {"type": "text", "text_panel": {"content": "# Ours"}, "position": {"x_coordinate": 0, "y_coordinate": 40}}
    board["panels"].insert(0, note)
    board["panels"][1]["position"]["x_coordinate"] = 3
    board["tags"] = [{"key": "team", "value": "blue"}]
    wanted = json.loads((folder / "queries.json").read_text())
    wanted[0]["query"]["limit"] = 7
    del wanted[4]
    wanted.append({**wanted[1], "name": "Another"})
    (folder / "queries.json").write_text(json.dumps(wanted))
    status, said = run("board", key=CONFIGURATION)
    assert (status, said.startswith("Brought up to date: ")) == (0, True)
    (board,) = service.boards.values()
    assert board["panels"][0] == note
    assert board["panels"][1]["position"]["x_coordinate"] == 3
    assert board["tags"] == [{"key": "team", "value": "blue"}]
    assert shown(service)[0][1]["limit"] == 7
    assert [name for name, _ in shown(service)][-1] == "Another"
    assert len(board["panels"]) == 7


def test_boards_of_other_names_are_left_alone(run: Run, service: Honeycomb) -> None:
    send(service)
    run("board", "--name", "First", key=CONFIGURATION)
    run("board", "--name", "Second", key=CONFIGURATION)
    assert [board["name"] for board in service.boards.values()] == ["First", "Second"]


def test_an_ingest_key_makes_no_board(run: Run, service: Honeycomb) -> None:
    send(service)
    status, said = run("board")
    assert status == 1
    assert "This is an ingest key, which can only send" in said
    assert "a configuration key with Manage Public Boards and Manage Queries and Columns" in said
    assert service.asked == ["GET /1/auth"]


def test_a_configuration_key_of_its_own_is_used_for_that_alone(run: Run, service: Honeycomb, folder: Path) -> None:
    send(service)
    (folder / ".env").write_text(f"HONEYCOMB_CONFIGURATION_KEY={CONFIGURATION}\n")
    assert run("board")[0] == 0
    assert "An ingest key" in run("check")[1]


@pytest.mark.parametrize(
    ("access", "missing"),
    [
        ({"boards"}, "Manage Queries and Columns"),
        ({"queries", "columns"}, "Manage Public Boards"),
        (set(), "Manage Public Boards and Manage Queries and Columns"),
    ],
)
def test_the_permission_that_is_missing_is_named(run: Run, service: Honeycomb, access: set[str], missing: str) -> None:
    send(service)
    service.keys[CONFIGURATION] = Key(access=access)
    status, said = run("board", key=CONFIGURATION)
    assert (status, f"The key lacks the permission {missing}:" in said) == (1, True)
    assert not service.boards


def test_a_dataset_that_is_not_there_yet(run: Run, service: Honeycomb) -> None:
    status, said = run("board", key=CONFIGURATION)
    assert (status, "There is no dataset backend-flask yet" in said, "make traffic" in said) == (1, True, True)


def test_columns_that_are_not_there_yet(run: Run, service: Honeycomb) -> None:
    send(service, "duration_ms name trace.trace_id trace.parent_id service.name span.kind http.route")
    status, said = run("board", key=CONFIGURATION)
    assert (status, "has no http.response.status_code, server.address yet" in said) == (1, True)
    assert not service.queries


def test_what_the_backend_sends_is_enough_for_the_board(run: Run, service: Honeycomb) -> None:
    """The queries ask about nothing that only an error or a rare request brings."""
    script = """
        import os, threading
        from backend import telemetry
        telemetry.PROJECT = telemetry.PROJECT / "nowhere"
        telemetry.project = lambda: {
            "project": {"version": "1"},
            "tool": {"telemetry": {"service-name": "backend-flask", "honeycomb-api-endpoint": ""}},
        }
        from werkzeug.serving import make_server
        import requests
        from backend.app import create_app
        app = create_app()
        app.add_url_rule("/", view_func=lambda: requests.get(f"http://127.0.0.1:{server.port}/api/health").json())
        server = make_server("127.0.0.1", 0, app)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert app.test_client().get("/").status_code == 200
    """
    keep = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    ours = {"HONEYCOMB_API_KEY": INGEST, "HONEYCOMB_API_ENDPOINT": service.url, "OTEL_SERVICE_NAME": "backend-flask"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**keep, **ours, "NO_PROXY": "*", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(service.events) == 2
    status, said = run("board", key=CONFIGURATION)
    assert status == 0, said
    assert run("trigger", "--over", "500", key=CONFIGURATION)[0] == 0


# marker


def test_a_deploy_is_marked_everywhere(run: Run, service: Honeycomb) -> None:
    status, said = run("marker", "v1.2.3", "--url", "https://ci.example/1", key=CONFIGURATION)
    assert (status, said) == (0, "Marked in every dataset of production, team acme.\n")
    (made,) = service.markers
    assert (made["dataset"], made["message"], made["type"]) == ("__all__", "v1.2.3", "deploy")
    assert made["url"] == "https://ci.example/1"


def test_a_marker_can_be_for_one_dataset(run: Run, service: Honeycomb) -> None:
    assert run("marker", "x", "--dataset", "backend-flask", key=CONFIGURATION)[0] == 1
    send(service)
    assert run("marker", "x", "--dataset", "backend-flask", "--type", "outage", key=CONFIGURATION)[0] == 0
    assert [(each["dataset"], each["type"]) for each in service.markers] == [("backend-flask", "outage")]


@pytest.mark.parametrize("command", [("marker", "x"), ("trigger", "--over", "5"), ("board",)])
def test_each_command_needs_a_key_and_says_which(run: Run, command: tuple[str, ...]) -> None:
    status, said = run(*command, key=None)
    assert (status, "a configuration key in HONEYCOMB_CONFIGURATION_KEY" in said) == (1, True)
    status, said = run(*command, key=INGEST)
    assert (status, "an ingest key, which can only send" in said) == (1, True)
    status, said = run(*command, key=UNKNOWN)
    assert (status, "does not know this key" in said) == (1, True)


# trigger


def test_a_trigger_watches_the_slowest_tenth_of_a_route(run: Run, service: Honeycomb) -> None:
    send(service)
    asked = ("trigger", "--route", "/api/activities/home", "--minutes", "10", "--recipient", "abc")
    assert run(*asked, "--over", "500", key=CONFIGURATION)[0] == 0
    status, said = run(*asked, "--over", "250.5", key=CONFIGURATION)
    assert status == 0
    assert "Slow: /api/activities/home, when P90 is over 250.5 ms: https://ui.honeycomb.io/acme/" in said
    ((dataset, made),) = service.triggers.values()
    assert (dataset, made["threshold"]) == ("backend-flask", {"op": ">", "value": 250.5})
    assert made["query"]["calculations"] == [{"op": "P90", "column": "duration_ms"}]
    assert {"column": "http.route", "op": "=", "value": "/api/activities/home"} in made["query"]["filters"]
    assert made["recipients"] == [{"id": "abc"}]


def test_a_trigger_without_a_recipient_says_that_it_tells_nobody(run: Run, service: Honeycomb) -> None:
    send(service)
    status, said = run("trigger", "--over", "500", key=CONFIGURATION)
    assert (status, "Slow: any route" in said, "It tells nobody yet" in said) == (0, True, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("trigger",),
        ("trigger", "--over", "fast"),
        ("trigger", "--over", "nan"),
        ("trigger", "--over", "-1"),
        ("trigger", "--over", "5", "--minutes", "0"),
        ("trigger", "--over", "5", "--minutes", "2000"),
        ("marker",),
        ("board", INGEST),
    ],
)
def test_what_is_called_wrongly_says_how_to_call_it(run: Run, arguments: tuple[str, ...]) -> None:
    status, said = run(*arguments)
    assert (status, "usage: bin/honeycomb" in said) == (2, True)
