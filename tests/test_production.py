"""A rendered backend under gunicorn: nothing is lost, no collector holds it up, and its key is shown nowhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from conftest import free_ports
from containers import KEY, MARK, keys_of
from processes import Load, Running, answers, gunicorn, running
from receiver import Receiver, eventually, receiving

PARTS = ["GET /api/activities/home", "find-profiles-mock-data", "home-activities-mock-data"]
THRESHOLD = (1 << 56) - round((1 << 56) / 10)  # of the last 56 bits of a trace's id, to be one in ten


def complete(receiver: Receiver, trace_ids: list[str]) -> list[str]:
    """Those of the traces of which every span has arrived, once."""
    traces = receiver.traces()
    return [each for each in trace_ids if sorted(span["name"] for span in traces.get(each, [])) == PARTS]


def instances_after_more(base: str, receiver: Receiver) -> set[str]:
    """The workers that have sent spans, after a few more requests."""
    Load(base, 8).run()
    return {span["resource"]["service.instance.id"] for span in receiver.spans()}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.mark.parametrize(
    ("flags", "meanwhile", "workers"),
    [
        pytest.param([], None, 2, id="SIGTERM right after the last request"),
        pytest.param(["--preload"], signal.SIGHUP, 4, id="SIGHUP under load, preloaded"),
        pytest.param(["--max-requests", "20"], None, 4, id="recycled workers"),
    ],
)
def test_200_requests_give_200_complete_traces(
    installed_project: Path, log: Path, flags: list[str], meanwhile: signal.Signals | None, workers: int
) -> None:
    with receiving() as receiver:
        with gunicorn(installed_project, log, *flags, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as (server, base):
            load = Load(base, 100)
            load.run(lambda: server.process.send_signal(meanwhile) if meanwhile else None)
            assert eventually(lambda: server.output().count("Booting worker") >= workers, 60)
            assert eventually(lambda: len(instances_after_more(base, receiver)) >= 2, 60), "one worker does everything"
            load.run()
            server.stop()
        assert load.failures == []
        assert eventually(lambda: len(complete(receiver, load.trace_ids)) == 200)
    assert "lost" not in server.output()


def test_a_hanging_collector_delays_neither_requests_nor_shutdown(installed_project: Path, log: Path) -> None:
    """Far above what either takes, far below what waiting for the collector would take: 10 s for each attempt."""
    with (
        receiving(behave=lambda: None) as receiver,
        gunicorn(installed_project, log, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as (server, base),
    ):
        load = Load(base, 50)
        load.run()
        started = time.monotonic()
        load.run()
        assert time.monotonic() - started < 8
        assert server.stop() < 8
    assert load.failures == []
    assert "Stopped before all telemetry had reached" in server.output()


def test_one_trace_in_ten_is_sent_complete_and_with_its_weight(installed_project: Path, log: Path) -> None:
    with receiving() as receiver:
        env = {"HONEYCOMB_API_KEY": KEY, "HONEYCOMB_API_ENDPOINT": receiver.url, "SAMPLE_RATE": "10"}
        with gunicorn(installed_project, log, **env) as (server, base):
            load = Load(base, 300)
            load.run()
            server.stop()
        chosen = {each for each in load.trace_ids if int(each, 16) % (1 << 56) >= THRESHOLD}
        assert set(receiver.traces()) == set(complete(receiver, load.trace_ids)) == chosen
        assert {span["SampleRate"] for span in receiver.spans()} <= {10}


def test_a_quoted_key_is_reported_once_for_all_workers_and_nothing_is_sent(installed_project: Path, log: Path) -> None:
    with receiving() as receiver:
        env = {"HONEYCOMB_API_KEY": f'"{KEY}"', "HONEYCOMB_API_ENDPOINT": receiver.url}
        with gunicorn(installed_project, log, **env) as (server, base):
            Load(base, 20).run()
            server.stop()
        assert receiver.requests == []
    (warning,) = [line for line in server.output().splitlines() if "WARNING" in line]
    assert "is in quotes" in warning
    assert MARK not in server.output()


@contextmanager
def started(target: str, project: Path, log: Path, **env: str) -> Iterator[tuple[Running, str, str]]:
    """`make TARGET` with ports of its own; the backend's address, and the viewer's."""
    ports = free_ports(3)
    env |= {name: str(port) for name, port in zip(("PORT", "PROFILES_PORT", "VIEWER_PORT"), ports, strict=True)}
    with running(["make", target], project, log, **env) as program:
        backend, viewer = (f"http://127.0.0.1:{port}" for port in (ports[0], ports[2]))
        assert eventually(lambda: answers(f"{backend}/api/health"), 60), program.output()
        assert target != "run" or eventually(lambda: answers(f"{viewer}/api/health"), 60), program.output()
        try:
            yield program, backend, viewer
        finally:
            os.killpg(program.process.pid, signal.SIGTERM)
            program.process.wait(30)


@pytest.mark.parametrize("target", ["prod", "run"])
def test_the_key_is_sent_with_every_signal_and_never_shown(installed_project: Path, log: Path, target: str) -> None:
    """The same is tested of Docker, of the devcontainer and of Gitpod, where they are."""
    env = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
    with receiving() as receiver:
        env |= {"HONEYCOMB_API_KEY": KEY, "HONEYCOMB_API_ENDPOINT": receiver.url}
        with started(target, installed_project, log, **env) as (program, backend, viewer):
            pages = [requests.get(backend + path, timeout=10) for path in ("/api/activities/home", "/%", "/api/health")]
            pages.append(requests.get(f"{backend}/api/examples/failing", timeout=10))
            assert pages[-1].status_code == (500 if target == "run" else 404)
            paths = {"/v1/traces", "/v1/logs", "/v1/metrics"} - ({"/v1/logs"} if target == "prod" else set())
            assert eventually(lambda: paths <= {path for path, _, _ in receiver.requests}, 30)
            if target == "run":
                pages += [requests.get(viewer + path, timeout=10) for path in ("/api/traces", "/logs", "/traces")]
        assert keys_of(receiver) == {KEY}
        texts = [program.output(), *(page.text + str(page.headers) for page in pages)]
        texts += [body.decode("latin-1") for _, _, body in receiver.requests]
    assert [text for text in texts if MARK in text] == []
    assert "Traceback" not in program.output() or target == "run"
