"""Sampling under load: what a receiver counts of one trace in ten is what there was."""

from __future__ import annotations

import sys
from pathlib import Path

import requests
from conftest import PROJECT, ROOT
from processes import Load, gunicorn

sys.path.append(str(ROOT / PROJECT / "tests"))
from honeycomb_stand_in import INGEST, honeycomb

REQUESTS = 2000
SPANS = 3  # of each
THRESHOLD = (1 << 56) - round((1 << 56) / 10)

# gunicorn's settings, with trace ids that each worker spreads evenly, so that no run is unlucky: steps of the golden
# ratio leave no gap, and after any number of them no tenth has more than two or three too many or too few.
EVENLY = """
exec(open("gunicorn.conf.py").read())

import itertools, os
from opentelemetry.sdk.trace import RandomIdGenerator

numbers = itertools.count(1)
step = round((5**0.5 - 1) / 2 * (1 << 56))
RandomIdGenerator.generate_trace_id = lambda self: os.getpid() << 64 | next(numbers) * step % (1 << 56)
"""


def test_one_trace_in_ten_is_counted_as_ten(installed_project: Path, tmp_path: Path) -> None:
    config = tmp_path / "evenly.py"
    config.write_text(EVENLY)
    with honeycomb() as service:
        env = {"HONEYCOMB_API_KEY": INGEST, "HONEYCOMB_API_ENDPOINT": service.url, "SAMPLE_RATE": "10"}
        with gunicorn(installed_project, tmp_path / "output", "-c", str(config), **env) as (server, base):
            load = Load(base, REQUESTS)
            load.run()
            for _ in range(50):
                assert requests.get(f"{base}/api/health", timeout=5).status_code == 200
            server.stop()
        assert load.failures == []
        kept = {each for each in load.trace_ids if int(each, 16) % (1 << 56) >= THRESHOLD}
        assert {event["trace.trace_id"] for event in service.events} == kept
        assert len(service.events) == SPANS * len(kept)
        assert {event["SampleRate"] for event in service.events} == {10}
        assert abs(service.counted() / (SPANS * REQUESTS) - 1) <= 0.03
        assert abs(len(kept) / (REQUESTS / 10) - 1) <= 0.03
    assert "marked" not in server.output()
