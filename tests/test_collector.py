# ruff: noqa: F811  a fixture that is imported has the name of the parameter that asks for it
"""What the Collector keeps, and what that weighs."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from collectors import (  # noqa: F401  fixtures
    GATE,
    MARKED,
    PROTOBUF,
    Collector,
    Request,
    collector,
    collector_config,
    encode,
    otelcol,
    quiet,
    send_all,
    trace_ids,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from receiver import eventually, receiving

SLOW = 1.0  # seconds, as in the configuration
KEEP_ONE_IN = 10  # the same


def traffic() -> tuple[list[Request], list[Request]]:
    """What happened, and what the services send of it: of one route they keep one trace in five themselves."""
    source = random.Random(20)
    happened, sent = [], []
    for trace_id in trace_ids(30_000, seed=1):
        if len(sent) == 10_000:
            break
        draw = source.random()
        request = Request(
            trace_id,
            route=source.choice(["/api/activities/home", "/api/activities/@<handle>", "/api/busy"]),
            status=500 if draw < 0.01 else 404 if draw < 0.05 else 200,
            seconds=source.uniform(1.01, 3) if source.random() < 0.02 else source.uniform(0.001, 0.9),
        )
        happened.append(request)
        if request.route == "/api/busy":
            request.sample_rate = 5
            if int.from_bytes(trace_id[-7:], "big") % 5:
                continue
        sent.append(request)
    return happened, sent


def kept_for_sure(request: Request) -> bool:
    return request.status >= 500 or request.seconds > SLOW


def standard_error(happened: list[Request]) -> float:
    """Of the sum of weights: a request that is kept one time in w adds w - 1 to the variance."""
    weights = [(each.sample_rate or 1) * (1 if kept_for_sure(each) else KEEP_ONE_IN) for each in happened]
    return math.sqrt(sum(weight - 1 for weight in weights))


def test_weighted_counts_of_10_000_traces_match_the_real_counts(collector: Callable[..., Collector]) -> None:
    happened, sent = traffic()
    with receiving() as receiver:
        gateway = collector(receiver)
        send_all(gateway.url, sent)
        quiet(receiver)
        traces = receiver.traces()
    assert len(sent) == 10_000

    for_sure = {each.trace_id.hex() for each in sent if kept_for_sure(each)}
    assert for_sure <= set(traces), "an error or a slow trace is missing"
    by_id = {each.trace_id.hex(): each for each in sent}
    for trace_id, spans in traces.items():
        request = by_id[trace_id]
        assert len(spans) == 3, "a trace is kept whole"
        rate = (request.sample_rate or 1) * (1 if kept_for_sure(request) else KEEP_ONE_IN)
        assert {span.get("SampleRate", 1) for span in spans} == {rate}
    assert len(traces) < 0.2 * len(sent)

    roots = [span for spans in traces.values() for span in spans if not span["parent_id"]]
    for kind, value in {
        "http.route": lambda request: request.route,
        "http.response.status_code": lambda request: request.status,
    }.items():
        weighted: Counter[Any] = Counter()
        for root in roots:
            weighted[root[kind]] += root.get("SampleRate", 1)
        for group in {value(each) for each in happened}:
            members = [each for each in happened if value(each) == group]
            assert abs(weighted[group] - len(members)) <= 3 * standard_error(members), (kind, group)
    total = sum(root.get("SampleRate", 1) for root in roots)
    assert abs(total - len(happened)) <= 3 * standard_error(happened)


@pytest.mark.parametrize("restarted", [False, True])
def test_late_spans_get_the_decision_and_weight_of_their_trace(
    collector: Callable[..., Collector], restarted: bool
) -> None:
    many = [Request(trace_id) for trace_id in trace_ids(100, seed=2)]
    spans = [each for request in many for each in request.spans()]
    with receiving() as receiver:
        gateway = collector(receiver)
        for part in ("backend", "profiles"):
            body = encode([each for each in spans if each[0] == part])
            assert requests.post(f"{gateway.url}/v1/traces", data=body, headers=PROTOBUF, timeout=30).ok
            quiet(receiver)
            if restarted:
                gateway.stop()
                gateway.start()
        traces = receiver.traces()
    assert 0 < len(traces) < 50
    assert {len(spans) for spans in traces.values()} == {3}
    assert {span["SampleRate"] for spans in traces.values() for span in spans} == {KEEP_ONE_IN}


def test_another_percentage_gives_another_weight(collector: Callable[..., Collector]) -> None:
    many = [Request(trace_id, sample_rate=3) for trace_id in trace_ids(300, seed=3)]
    with receiving() as receiver:
        gateway = collector(receiver, COLLECTOR_KEEP_PERCENT="25", COLLECTOR_SLOW_MS="10000")
        send_all(gateway.url, many)
        quiet(receiver)
        spans = receiver.spans()
    assert {span["SampleRate"] for span in spans} == {12}
    assert 0.15 * 900 < len(spans) < 0.35 * 900


def test_the_key_goes_only_to_honeycomb(collector: Callable[..., Collector]) -> None:
    log = ExportLogsServiceRequest()
    log.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "hello"
    metric = ExportMetricsServiceRequest()
    gauge = metric.resource_metrics.add().scope_metrics.add().metrics.add(name="queue").gauge
    gauge.data_points.add(as_int=1, time_unix_nano=1)
    with receiving() as receiver:
        gateway = collector(receiver)
        send_all(gateway.url, [Request(bytes(range(16)), status=500)])
        for signal_name, message in {"logs": log, "metrics": metric}.items():
            body = message.SerializeToString()
            assert requests.post(f"{gateway.url}/v1/{signal_name}", data=body, headers=PROTOBUF, timeout=30).ok
        assert eventually(lambda: len({path for path, _, _ in receiver.requests}) == 3, 30), gateway.output()
        for path, headers, _ in receiver.requests:
            assert headers["x-honeycomb-team"] == MARKED
            assert headers.get("x-honeycomb-dataset") == ("metrics" if path == "/v1/metrics" else None)
        gateway.stop()
    assert MARKED not in gateway.output()


@pytest.mark.parametrize("variable", ["HONEYCOMB_API_KEY", "HONEYCOMB_API_KEY_FILE"])
def test_a_key_file_may_end_with_a_newline(collector: Callable[..., Collector], tmp_path: Path, variable: str) -> None:
    """A Secret that is made from a file has the line end too."""
    key = f"{MARKED}\n"
    file = tmp_path / "key"
    file.write_text(key)
    with receiving() as receiver:
        gateway = collector(receiver, **{variable: str(file) if variable.endswith("_FILE") else key})
        send_all(gateway.url, [Request(bytes(range(16)), status=500)])
        assert eventually(lambda: receiver.requests, 30), gateway.output()
        assert receiver.requests[0][1]["x-honeycomb-team"] == MARKED


def test_the_sampler_is_never_run_without_the_flag_that_records_weights(collector_config: Path) -> None:
    deploy = collector_config.parent.parent
    compose = yaml.safe_load((deploy.parent / "compose.collector.yaml").read_text())
    assert GATE in compose["services"]["collector"]["command"]
    sets = list(yaml.safe_load_all((deploy / "kubernetes/overlays/collector/collector.yaml").read_text()))
    (pod,) = [each["spec"]["template"]["spec"] for each in sets if each["kind"] == "StatefulSet"]
    assert GATE in pod["containers"][0]["args"]
