"""The backend under gunicorn: no telemetry is lost that can be kept, and no collector holds it up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from conftest import environment, free_ports
from processes import Load, Running, gunicorn
from receiver import Receiver, eventually, receiving

MARKED = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
PARTS = ["GET /api/activities/home", "find-profiles-mock-data", "home-activities-mock-data"]


def complete(receiver: Receiver, trace_ids: list[str]) -> list[str]:
    """Those of the traces of which every span has arrived, once."""
    traces = receiver.traces()
    return [each for each in trace_ids if sorted(span["name"] for span in traces.get(each, [])) == PARTS]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "output"


WAYS_TO_GO = {
    "SIGTERM right after the last request": ([], None),
    "SIGTERM, preloaded": (["--preload"], None),
    "SIGHUP under load": ([], signal.SIGHUP),
    "SIGHUP under load, preloaded": (["--preload"], signal.SIGHUP),
    "recycled workers": (["--max-requests", "20"], None),
    "recycled workers, preloaded": (["--max-requests", "20", "--preload"], None),
}


@pytest.mark.parametrize(("flags", "meanwhile"), WAYS_TO_GO.values(), ids=WAYS_TO_GO)
def test_400_requests_give_400_complete_traces(
    installed_project: Path, log: Path, flags: list[str], meanwhile: signal.Signals | None
) -> None:
    with receiving() as receiver:
        with gunicorn(installed_project, log, *flags, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as (server, base):
            load = Load(base, 400)
            load.run((lambda: server.process.send_signal(meanwhile)) if meanwhile else None)
            server.stop()
        assert load.failures == []
        assert len(load.trace_ids) == 400
        assert eventually(lambda: len(complete(receiver, load.trace_ids)) == 400, 5)
        workers = {span["resource"]["service.instance.id"] for span in receiver.spans()}
        assert len(workers) >= (2 if not flags or flags == ["--preload"] else 4)
    assert "lost" not in server.output()


def test_a_worker_that_is_killed_loses_at_most_what_was_finished_in_the_last_second(
    installed_project: Path, log: Path
) -> None:
    with (
        receiving() as receiver,
        gunicorn(installed_project, log, "-w", "1", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as (_, base),
    ):
        load = Load(base, 40)
        load.run()
        time.sleep(1)
        (worker,) = re.findall(r"Booting worker with pid: (\d+)", log.read_text())
        os.kill(int(worker), signal.SIGKILL)
        assert len(complete(receiver, load.trace_ids)) == 40


def hang() -> None:
    return None


def slow() -> tuple[int, dict[str, str]]:
    time.sleep(2)
    return 200, {}


def refusing() -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_ports(1)[0]}"}


@pytest.mark.parametrize("collector", ["refuses", "hangs"])
def test_stopping_takes_at_most_5_s_without_a_collector(installed_project: Path, log: Path, collector: str) -> None:
    with receiving(behave=hang) as receiver:
        env = refusing() if collector == "refuses" else {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        with gunicorn(installed_project, log, **env) as (server, base):
            load = Load(base, 100)
            load.run()
            assert server.stop() <= 5
    assert load.failures == []
    stopped = [line for line in server.output().splitlines() if "Stopped before" in line]
    lost = sum(int(count) for line in stopped for count in re.findall(r"(\d+) spans?\b", line))
    assert lost == 300


def test_recycling_costs_at_most_half_more_without_a_collector(installed_project: Path, tmp_path: Path) -> None:
    """The bound is the promise; the baseline is a healthy collector, and the best of two runs counts for each."""

    def seconds(name: str, **env: str) -> float:
        with gunicorn(installed_project, tmp_path / name, "--max-requests", "20", **env) as (server, base):
            load = Load(base, 200)
            took = load.run()
            assert load.failures == []
            server.stop()
        return took

    with receiving() as healthy, receiving(behave=hang) as hanging:
        kinds = {
            "healthy": {"OTEL_EXPORTER_OTLP_ENDPOINT": healthy.url},
            "refusing": refusing(),
            "hanging": {"OTEL_EXPORTER_OTLP_ENDPOINT": hanging.url},
        }
        took = {kind: min(seconds(f"{kind}{turn}", **env) for turn in (1, 2)) for kind, env in kinds.items()}
    assert took["refusing"] <= 1.5 * took["healthy"], took
    assert took["hanging"] <= 1.5 * took["healthy"], took


def test_a_slow_collector_gets_everything_once_from_recycled_workers(installed_project: Path, log: Path) -> None:
    with receiving(behave=slow) as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        with gunicorn(installed_project, log, "--max-requests", "20", **env) as (server, base):
            load = Load(base, 100)
            load.run()
            server.stop()
        assert eventually(lambda: len(complete(receiver, load.trace_ids)) == 100, 10)
    assert load.failures == []


BAD_ANSWERS: dict[str, tuple[Callable[[], tuple[int, dict[str, str]]], str]] = {
    "401": (lambda: (401, {}), "answered 401; the API key is not accepted"),
    "302": (lambda: (302, {"Location": "/elsewhere"}), "answered 302; telemetry does not follow redirects"),
    "429": (lambda: (429, {"Retry-After": "1"}), "answered 429; the receiver asks for less"),
    "503": (lambda: (503, {}), "answered 503; the receiver has a fault"),
}


@pytest.mark.parametrize(("behave", "reason"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_an_outage_is_one_line_with_the_reason_and_its_end_another(
    installed_project: Path, log: Path, behave: Callable[[], tuple[int, dict[str, str]]], reason: str
) -> None:
    with receiving(behave=behave) as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_HEADERS": f"x-honeycomb-team={MARKED}"}
        with gunicorn(installed_project, log, "-w", "1", **env) as (server, base):
            ask = Load(base, 20)
            ask.run()
            assert eventually(lambda: reason in server.output(), 20)
            ask.run()
            receiver.behave = lambda: (200, {})
            assert eventually(lambda: "is reaching" in server.output(), 20)
            assert ask.failures == []
            server.stop()
    lines = [line for line in server.output().splitlines() if "backend.delivery" in line]
    assert len(lines) == 2, lines
    assert MARKED not in server.output()


def test_telemetry_that_waited_out_an_outage_arrives_after_it(installed_project: Path, log: Path) -> None:
    (port,) = free_ports(1)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    with gunicorn(installed_project, log, **env) as (server, base):
        load = Load(base, 100)
        load.run()
        assert eventually(lambda: "nothing accepts connections there" in server.output(), 20)
        with receiving(port=port) as receiver:
            assert eventually(lambda: len(complete(receiver, load.trace_ids)) == 100, 20)
            assert eventually(lambda: "nothing was lost" in server.output(), 20)


STANDARD = "OTEL_EXPORTER_OTLP_ENDPOINT"
WAYS_TO_GIVE_A_KEY = {
    "Honeycomb's variable": lambda url: {"HONEYCOMB_API_KEY": MARKED, "HONEYCOMB_API_ENDPOINT": url},
    "the standard variables": lambda url: {
        STANDARD: url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-honeycomb-team={MARKED}",
        "OTEL_SERVICE_NAME": "backend-flask",
    },
}


@pytest.mark.parametrize("variables", WAYS_TO_GIVE_A_KEY.values(), ids=WAYS_TO_GIVE_A_KEY)
def test_the_key_goes_with_every_signal_and_nowhere_else(
    installed_project: Path, log: Path, variables: Callable[[str], dict[str, str]]
) -> None:
    with receiving() as receiver:
        # Without its profiles service the backend has something to log.
        env = {**variables(receiver.url), "OTEL_METRICS_EXPORTER": "otlp", "PROFILES_URL": "http://127.0.0.1:1"}
        with gunicorn(installed_project, log, **env) as (server, base):
            pages = [requests.get(base + path, timeout=10) for path in ("/api/activities/home", "/nope", "/api/health")]
            server.stop()
        assert {path for path, _, _ in receiver.requests} == {"/v1/traces", "/v1/logs", "/v1/metrics"}
        assert {headers.get("x-honeycomb-team") for _, headers, _ in receiver.requests} == {MARKED}
        shown = [server.output(), *(page.text + str(page.headers) for page in pages)]
        shown += [body.decode("latin-1") for _, _, body in receiver.requests]
    assert not any(MARKED in text for text in shown)


BAD_KEYS = {
    "empty": ("", "is empty"),
    "quoted": (f'"{MARKED}"', "is in quotes"),
    "unexpanded": ("${HONEYCOMB_API_KEY}", "is the name of a variable that was not expanded"),
}
BAD = [
    (variable, *bad) for variable in ("HONEYCOMB_API_KEY", "OTEL_EXPORTER_OTLP_HEADERS") for bad in BAD_KEYS.values()
]
BAD.append(("HONEYCOMB_API_KEY", f" {MARKED} ", "has white space around it"))


@pytest.mark.parametrize(("variable", "key", "problem"), BAD)
def test_a_bad_key_is_named_once_for_all_workers_and_nothing_is_sent(
    installed_project: Path, log: Path, variable: str, key: str, problem: str
) -> None:
    with receiving() as receiver:
        if variable == "HONEYCOMB_API_KEY":
            env = {variable: key, "HONEYCOMB_API_ENDPOINT": receiver.url}
        else:
            env = {variable: f"x-honeycomb-team={key}", STANDARD: receiver.url}
        with gunicorn(installed_project, log, **env) as (server, base):
            Load(base, 20).run()
            server.stop()
    warnings = [line for line in server.output().splitlines() if "WARNING" in line]
    assert len(warnings) == 1, warnings
    assert problem in warnings[0]
    assert "Set HONEYCOMB_API_KEY" in warnings[0]
    assert receiver.requests == []
    assert MARKED not in server.output()


def test_flags_on_the_command_line_go_over_the_file(installed_project: Path, log: Path) -> None:
    with gunicorn(installed_project, log, "--workers", "3", OTEL_SDK_DISABLED="true") as (server, _):
        assert eventually(lambda: server.output().count("Booting worker") == 3)
    assert "elemetry" not in server.output()


def test_make_prod_runs_it(installed_project: Path, log: Path) -> None:
    (port,) = free_ports(1)
    server = Running(["make", "prod"], installed_project, log, PORT=str(port))
    try:
        url = f"http://127.0.0.1:{port}/api/activities/home"
        assert eventually(lambda: "Listening at" in server.output(), 30), server.output()
        answer = requests.get(url, timeout=10)
        assert answer.status_code == 200
        assert all(activity["profile"] for activity in answer.json())
        assert requests.get(f"http://127.0.0.1:{port}/api/examples/failing", timeout=10).status_code == 404
    finally:
        os.killpg(server.process.pid, signal.SIGTERM)
        server.process.wait(20)


def test_no_request_is_slowed_by_a_collector_that_hangs(installed_project: Path, tmp_path: Path) -> None:
    """Far above what a request takes, far below what waiting for the collector would take (10 s)."""
    with receiving(behave=hang) as receiver:
        env = {STANDARD: receiver.url}
        with gunicorn(installed_project, tmp_path / "log", **env) as (_, base):
            Load(base, 50).run()
            slowest = max(
                requests.get(f"{base}/api/activities/home", timeout=20).elapsed.total_seconds() for _ in range(100)
            )
    assert slowest < 2


def test_the_configuration_file_is_read_by_gunicorn_itself(installed_project: Path) -> None:
    command = [installed_project / ".venv/bin/gunicorn", "-c", "gunicorn.conf.py", "--check-config"]
    subprocess.run(
        [*command, "backend.app:create_app()"], cwd=installed_project, env=environment(), check=True, timeout=60
    )
