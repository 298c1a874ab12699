"""The manifests on a real cluster, under load. `make test-kubernetes` runs this.

The cluster is the one of this project's builders where that exists; else the one of the kubectl context that
KUBERNETES_CONTEXT names, onto which KUBERNETES_LOAD, a command like "kind load docker-image", puts images.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, environment
from receiver import eventually

HERE = Path(__file__).parent / "kubernetes"
SHARED = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
CLUSTER_UP = SHARED / "kubernetes/cluster-up"
COLLECTOR = SHARED / "collector/collector"
COLLECTOR_IMAGE = "otel/opentelemetry-collector-contrib"
KEY = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
NEW_KEY = "hcaik_02marked00key0that0must0never0be0shown00000000000000000000"
SPANS_OF_THE_BACKEND, SPANS_OF_PROFILES = 3, 2
KEEP_ONE_IN = 10


def run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if check and done.returncode:
        pytest.fail(f"{shlex.join(command)}: {done.stdout}{done.stderr}")
    return done


@dataclass
class Cluster:
    """A cluster, and the environment in which kubectl reaches it."""

    env: dict[str, str]
    load: list[str]  # the command that puts images on its nodes

    def kubectl(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return run("kubectl", *arguments, check=check, env=self.env, **options)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster; one that was started here is stopped at the end."""
    if "KUBERNETES" not in os.environ:
        pytest.skip("run `make test-kubernetes` for the tests on a cluster")
    if context := os.environ.get("KUBERNETES_CONTEXT"):
        config = tmp_path_factory.mktemp("kubectl") / "config"
        config.write_text(run("kubectl", "config", "view", "--flatten", "--minify", f"--context={context}").stdout)
        config.chmod(0o600)
        yield Cluster(environment(KUBECONFIG=str(config)), shlex.split(os.environ.get("KUBERNETES_LOAD", "")))
        return
    if not CLUSTER_UP.exists():
        pytest.fail("name a context of kubectl in KUBERNETES_CONTEXT")
    found = re.search(r"export KUBECONFIG=(\S+) PATH=(\S+):\$PATH", CLUSTER_UP.read_text())
    assert found
    env = environment(KUBECONFIG=found[1], PATH=f"{found[2]}:{os.environ['PATH']}")
    ready = ["kubectl", "get", "--raw=/readyz", "--request-timeout=5s"]
    ran_before = Path(found[1]).exists() and run(*ready, check=False, env=env).returncode == 0
    if not ran_before:  # a second call would end kube-proxy
        run(str(CLUSTER_UP))
    try:
        with pods_reaching_each_other():
            yield Cluster(env, [str(CLUSTER_UP), "--load"])
    finally:
        if not ran_before:
            run(str(CLUSTER_UP), "--down")


@contextmanager
def pods_reaching_each_other() -> Iterator[None]:
    """Docker drops what is forwarded and not its own, pods' traffic too. DOCKER-USER is its place for exceptions."""
    rule = ["DOCKER-USER", "--in-interface", "kube-pods", "--jump", "ACCEPT"]
    if not run("iptables", "--check", *rule, check=False).returncode:
        yield
        return
    run("iptables", "--insert", *rule)
    try:
        yield
    finally:
        run("iptables", "--delete", *rule, check=False)


@pytest.fixture(scope="session")
def project(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("on kubernetes")
    return render_into(folder, project="shop", deployment="Kubernetes too")


@pytest.fixture(scope="session")
def images(cluster: Cluster, project: Path) -> Iterator[dict[str, str]]:
    """The project's image in two versions, and the Collector's, on the cluster's nodes."""
    made = {name: f"local/shop:{name}-{uuid.uuid4().hex[:8]}" for name in ("old", "new")}
    for name, image in made.items():
        run("docker", "build", "--quiet", "--tag", image, "--build-arg", f"VERSION={name}", str(project))
    if COLLECTOR.exists():
        made["collector"] = f"local/collector:test-{uuid.uuid4().hex[:8]}"
        run(str(COLLECTOR), "--image", made["collector"])
    try:
        if cluster.load:
            run(*cluster.load, *made.values())
        yield made
    finally:
        run("docker", "image", "rm", "--force", *made.values(), check=False)


@dataclass
class Load:
    traces: dict[str, float] = field(default_factory=dict)  # and when each was answered, in seconds since the epoch
    failures: list[str] = field(default_factory=list)


class Namespace:
    """A namespace that enforces the restricted Pod Security level, with a receiver in Honeycomb's place."""

    def __init__(self, cluster: Cluster, project: Path, images: dict[str, str]) -> None:
        self.name = f"shop-{uuid.uuid4().hex[:8]}"
        self.cluster = cluster
        self.images = images
        self.project = project
        self.kubectl("create", "namespace", self.name)
        level = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn", "audit")]
        self.kubectl("label", "namespace", self.name, *level)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        done = self.cluster.kubectl(f"--namespace={self.name}", *arguments, **options)
        return str(done.stdout)

    def secret(self, key: str, name: str = "honeycomb") -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {"key": f"{key}\n"},  # as from a file
        }
        self.kubectl("apply", "--filename=-", input=json.dumps(manifest))

    def apply(self, of: str, *options: str, **more: Any) -> None:
        """Apply a folder of deploy/kubernetes with what a test changes. No API server's warning is let through."""
        folder = self.project / "deploy/kubernetes" / f"test-{self.name}-{of.replace('/', '-')}"
        shutil.copytree(HERE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        images: list[dict[str, str]] = []
        for name, image in {"app": self.images["old"], COLLECTOR_IMAGE: self.images.get("collector")}.items():
            if image:
                new, _, tag = image.rpartition(":")
                images.append({"name": name, "newName": new, "newTag": tag})
        kustomization = {
            "namespace": self.name,
            "resources": [f"../{of}", "receiver.yaml"],
            "configMapGenerator": [{"name": "scripts", "files": ["receiver.py", "load.py"]}],
            "images": [*images, {**images[0], "name": "shop"}],
            **more,
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        self.kubectl("apply", "--warnings-as-errors", f"--kustomize={folder}", *options)

    def rollout(self, *names: str) -> None:
        for name in names:
            self.kubectl("rollout", "status", name, "--timeout=180s")

    def python(self, code: str) -> str:
        """What a program prints that runs in the cluster."""
        return self.kubectl("exec", "client", "--", "python", "-c", code)

    def received(self) -> dict[str, Any]:
        url = "http://receiver:4318/"
        answer: dict[str, Any] = json.loads(
            self.python(f"import urllib.request as r; print(r.urlopen({url!r}, timeout=20).read().decode())")
        )
        return answer

    def incomplete(self, traces: Iterable[str]) -> dict[str, list[str]]:
        """Those of the traces of which a span is missing, with the services of the spans that are there.

        A busy node may answer a call to profiles too late. The backend then goes on without, its span has the error,
        and what profiles traces is no part of the answer.
        """
        by_id = {(each["trace_id"], each["span_id"]): each for each in self.received()["spans"]}
        services: dict[str, list[str]] = {each: [] for each in traces}
        failed = set()
        for (trace_id, _), span in by_id.items():
            if trace_id in services:
                services[trace_id].append(span["service"])
                if span["error"]:
                    failed.add(trace_id)
        return {
            trace_id: sorted(found)
            for trace_id, found in services.items()
            if len(found) - found.count("profiles") != SPANS_OF_THE_BACKEND
            or (found.count("profiles") != SPANS_OF_PROFILES and trace_id not in failed)
        }

    @contextmanager
    def load(self, path: str = "/api/activities/home") -> Iterator[Load]:
        """Requests through the Service until the block ends; then what came of them."""
        command = ["kubectl", f"--namespace={self.name}", "exec", "--stdin", "client", "--"]
        command += ["python", "/scripts/load.py", f"http://backend:4567{path}"]
        result = Load()
        with subprocess.Popen(
            command, env=self.cluster.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            time.sleep(3)
            try:
                yield result
                time.sleep(3)
            finally:
                out, _ = client.communicate()
            for name, value in json.loads(out).items():
                setattr(result, name, value)

    def available(self, name: str) -> str:
        return self.kubectl("get", name, "--output=jsonpath={.status.availableReplicas}")

    def pods(self, name: str) -> list[str]:
        found = self.kubectl("get", "pods", f"--selector=app.kubernetes.io/name={name}", "--output=name")
        return [each.removeprefix("pod/") for each in found.split()]

    def evict(self, pod: str) -> None:
        """As `kubectl drain` does it: again and again, until the disruption budget allows it."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.name}}
        path = f"/api/v1/namespaces/{self.name}/pods/{pod}/eviction"
        command = ["create", f"--raw={path}", "--filename=-"]

        def evicted() -> bool:
            done = self.cluster.kubectl(*command, input=json.dumps(eviction), check=False)
            assert not done.returncode or "disruption budget" in done.stderr, done.stderr
            return not done.returncode

        assert eventually(evicted, 120)

    def delete(self) -> None:
        self.kubectl("delete", "namespace", self.name, "--timeout=120s", check=False)
        volumes = json.loads(self.cluster.kubectl("get", "persistentvolumes", "--output=json").stdout)["items"]
        for volume in volumes:  # a cluster that retains them would run out of volumes
            if volume["spec"].get("claimRef", {}).get("namespace") == self.name:
                free = '{"spec": {"claimRef": null}}'
                self.cluster.kubectl(
                    "patch", "persistentvolume", volume["metadata"]["name"], "--patch", free, check=False
                )
        for folder in (self.project / "deploy/kubernetes").glob(f"test-{self.name}-*"):
            shutil.rmtree(folder)


SERVICES = ("deployment/backend", "deployment/profiles")


@pytest.fixture(scope="class")
def base(cluster: Cluster, project: Path, images: dict[str, str]) -> Iterator[Namespace]:
    """The base, rolled out."""
    namespace = Namespace(cluster, project, images)
    try:
        namespace.secret(KEY)
        namespace.apply(
            "base",
            configMapGenerator=[
                {"name": "scripts", "files": ["receiver.py", "load.py"]},
                {
                    "name": "settings",
                    "behavior": "merge",
                    "literals": ["HONEYCOMB_API_ENDPOINT=http://receiver:4318"],
                },
            ],
        )
        namespace.rollout("deployment/receiver", *SERVICES)
        yield namespace
    finally:
        namespace.delete()


@pytest.fixture(scope="class")
def with_collector(cluster: Cluster, project: Path, images: dict[str, str]) -> Iterator[Namespace]:
    """The overlay with the Collector, rolled out."""
    namespace = Namespace(cluster, project, images)
    endpoint = {"name": "HONEYCOMB_API_ENDPOINT", "value": "http://receiver:4318"}
    patch = [{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": endpoint}]
    try:
        namespace.secret(KEY)
        namespace.apply(
            "overlays/collector",
            patches=[{"target": {"kind": "StatefulSet", "name": "collector"}, "patch": yaml.safe_dump(patch)}],
        )
        namespace.rollout("deployment/receiver", "statefulset/collector", *SERVICES)
        yield namespace
    finally:
        namespace.delete()


@pytest.mark.kubernetes
class TestBase:
    def test_the_traces_of_requests_through_the_service_arrive_with_the_key(self, base: Namespace) -> None:
        with base.load() as load:
            pass
        assert not load.failures
        assert len(load.traces) > 20
        assert eventually(lambda: not base.incomplete(load.traces), 30), base.incomplete(load.traces)
        assert base.received()["keys"] == [KEY]
        assert KEY not in "".join(
            base.kubectl("logs", pod) for name in ("backend", "profiles") for pod in base.pods(name)
        )

    def test_a_rolling_update_fails_no_request_and_loses_no_span(self, base: Namespace) -> None:
        before = set(base.pods("backend") + base.pods("profiles"))
        with base.load() as load:
            base.kubectl("set", "image", *SERVICES, f"app={base.images['new']}")
            base.rollout(*SERVICES)
        assert eventually(lambda: not before & set(base.pods("backend") + base.pods("profiles")), 60)
        assert not load.failures
        assert eventually(lambda: not base.incomplete(load.traces), 30), base.incomplete(load.traces)

    @pytest.mark.parametrize("service", ["backend", "profiles"])
    @pytest.mark.parametrize("how", ["deleted", "evicted"])
    def test_deleting_a_pod_fails_no_request_and_loses_no_span(self, base: Namespace, how: str, service: str) -> None:
        pod = base.pods(service)[0]
        with base.load() as load:
            if how == "deleted":
                base.kubectl("delete", "pod", pod)
            else:
                base.evict(pod)
                base.kubectl("wait", "--for=delete", f"pod/{pod}", "--timeout=60s")
            base.rollout(f"deployment/{service}")
        assert not load.failures
        assert eventually(lambda: not base.incomplete(load.traces), 30), base.incomplete(load.traces)

    def test_a_killed_pod_loses_only_unsent_data(self, base: Namespace) -> None:
        """It sends every half second."""
        with base.load() as load:
            killed = time.time()
            base.kubectl("delete", "pod", base.pods("backend")[0], "--grace-period=0", "--force")
            base.rollout("deployment/backend")
            back = time.time()
        sent = [trace_id for trace_id, answered in load.traces.items() if not killed - 2 < answered < back]
        assert sent
        assert eventually(lambda: not base.incomplete(sent), 30), base.incomplete(sent)

    def test_a_new_key_in_the_secret_is_used_without_a_restart(self, base: Namespace) -> None:
        pods = set(base.pods("backend") + base.pods("profiles"))
        with base.load() as load:
            base.secret(NEW_KEY)
            assert eventually(lambda: NEW_KEY in base.received()["keys"], 180)
        assert set(base.pods("backend") + base.pods("profiles")) == pods
        assert not load.failures
        assert eventually(lambda: not base.incomplete(load.traces), 30), base.incomplete(load.traces)

    def test_a_bad_image_stops_the_rollout_and_the_old_version_serves(self, base: Namespace) -> None:
        with base.load() as load:
            base.kubectl("set", "image", "deployment/backend", "app=local/shop:absent")
            status = base.kubectl("rollout", "status", "deployment/backend", "--timeout=20s", check=False)
            assert "successfully rolled out" not in status
            assert eventually(lambda: base.available("deployment/backend") == "3", 60)
            base.kubectl("rollout", "undo", "deployment/backend")
            base.rollout("deployment/backend")
        assert not load.failures

    def test_a_missing_secret_stops_the_rollout_and_the_old_version_serves(self, base: Namespace) -> None:
        with base.load() as load:
            base.kubectl("delete", "secret", "honeycomb")
            base.kubectl("rollout", "restart", "deployment/backend")
            status = base.kubectl("rollout", "status", "deployment/backend", "--timeout=20s", check=False)
            assert "successfully rolled out" not in status
            assert eventually(lambda: base.available("deployment/backend") == "3", 60)
            base.secret(NEW_KEY)
            base.rollout("deployment/backend")
        assert not load.failures

    def test_a_job_sets_a_marker(self, base: Namespace) -> None:
        base.secret("configuration0key00000", name="honeycomb-configuration")
        base.apply(
            "marker",
            configMapGenerator=[
                {"name": "scripts", "files": ["receiver.py", "load.py"]},
                {
                    "name": "marker",
                    "behavior": "merge",
                    "literals": ["MESSAGE=0.2.0 is out", "HONEYCOMB_API_ENDPOINT=http://receiver:4318"],
                },
            ],
        )
        base.kubectl("wait", "--for=condition=complete", "job/marker", "--timeout=60s")
        assert [marker["message"] for marker in base.received()["markers"]] == ["0.2.0 is out"]

    @pytest.mark.parametrize("overlay", ["hpa", "routing"])
    def test_the_api_server_accepts_the_overlays_that_are_not_run(self, base: Namespace, overlay: str) -> None:
        base.apply(f"overlays/{overlay}", "--dry-run=server")


@pytest.mark.kubernetes
class TestWithTheCollector:
    def test_it_keeps_one_trace_in_ten_whole_and_their_weights_add_up(self, with_collector: Namespace) -> None:
        with with_collector.load() as load:
            time.sleep(30)
        assert not load.failures
        quiet, spans = time.monotonic(), -1
        while time.monotonic() < quiet + 10:
            if (now := len(with_collector.received()["spans"])) != spans:
                quiet, spans = time.monotonic(), now
            time.sleep(1)
        received = with_collector.received()
        by_trace: dict[str, list[dict[str, Any]]] = {}
        for span in received["spans"]:
            by_trace.setdefault(span["trace_id"], []).append(span)
        assert received["keys"] == [KEY]
        assert by_trace
        assert set(by_trace) <= set(load.traces)
        assert not with_collector.incomplete(by_trace)
        slow = [spans for spans in by_trace.values() if {span["weight"] for span in spans} == {1}]
        some = [spans for spans in by_trace.values() if {span["weight"] for span in spans} == {KEEP_ONE_IN}]
        assert len(slow) + len(some) == len(by_trace)
        total = len(slow) + KEEP_ONE_IN * len(some)
        standard_error = math.sqrt(len(load.traces) * (KEEP_ONE_IN - 1))
        assert abs(total - len(load.traces)) <= 4 * standard_error  # chance fails it once in 16,000 runs

    def test_a_restart_of_the_collector_loses_no_span(self, with_collector: Namespace) -> None:
        with_collector.kubectl("set", "env", "statefulset/collector", "COLLECTOR_KEEP_PERCENT=100")
        with_collector.rollout("statefulset/collector")
        with with_collector.load() as load:
            with_collector.kubectl("rollout", "restart", "statefulset/collector")
            with_collector.rollout("statefulset/collector")
            with_collector.kubectl("delete", "pod", "collector-0")
            with_collector.rollout("statefulset/collector")
        assert not load.failures
        assert eventually(lambda: not with_collector.incomplete(load.traces), 60), with_collector.incomplete(
            load.traces
        )
