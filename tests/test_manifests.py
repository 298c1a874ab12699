"""The Kubernetes manifests without a cluster: valid, locked down, and the same promises for every service."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDERS = ["base", "marker", "overlays/collector", "overlays/hpa", "overlays/routing"]


def kustomize(kubectl: str, folder: Path) -> str:
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def kubectl() -> str:
    """A kubectl for `kubectl kustomize`, which needs no cluster."""
    if found := shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"):
        return found
    if os.environ.get("CI"):
        pytest.fail("kubectl is not installed")
    pytest.skip("kubectl is not installed")


@pytest.fixture(scope="session", params=["activities", "none"])
def manifests(
    request: pytest.FixtureRequest,
    render_into: Callable[..., Path],
    kubectl: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[dict[str, Any]]]:
    """What each folder of deploy/kubernetes makes."""
    folder = tmp_path_factory.mktemp("manifests")
    project = render_into(folder, deployment="Kubernetes too", example=request.param)
    return {
        each: list(yaml.safe_load_all(kustomize(kubectl, project / "deploy/kubernetes" / each))) for each in FOLDERS
    }


def pods(manifests: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for folder, documents in manifests.items():
        for document in documents:
            if "template" in document.get("spec", {}):
                yield f"{folder}: {document['kind']} {document['metadata']['name']}", document["spec"]["template"]


def test_every_manifest_is_valid_for_kubernetes(manifests: dict[str, list[dict[str, Any]]]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in itertools.chain(*manifests.values()):
        kubernetes_validate.validate(document, "1.35", strict=True)


def test_every_pod_meets_the_restricted_pod_security_level(manifests: dict[str, list[dict[str, Any]]]) -> None:
    found = list(pods(manifests))
    assert len(found) >= 8
    for name, template in found:
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not pod["automountServiceAccountToken"], name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True), name
            assert container["resources"]["limits"]["memory"], name


def test_one_file_names_the_image_of_everything(render: Callable[..., Path], kubectl: str) -> None:
    kubernetes = render(deployment="Kubernetes too") / "deploy/kubernetes"
    image = kubernetes / "image/kustomization.yaml"
    named = image.read_text().replace('"cruddur"', "registry.example/shop").replace("latest", "0.1.0")
    image.write_text(named)
    for folder in FOLDERS:
        text = kustomize(kubectl, kubernetes / folder)
        assert "image: registry.example/shop:0.1.0" in text
        assert "image: app" not in text


def test_every_service_can_be_updated_checked_and_spread(manifests: dict[str, list[dict[str, Any]]]) -> None:
    for document in manifests["base"]:
        if document["kind"] != "Deployment":
            continue
        spec = document["spec"]
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        assert pod["terminationGracePeriodSeconds"] >= container["lifecycle"]["preStop"]["sleep"]["seconds"] + 15
        assert len(pod["topologySpreadConstraints"]) == 2
        budgets = [each for each in manifests["base"] if each["kind"] == "PodDisruptionBudget"]
        assert document["metadata"]["name"] in [each["metadata"]["name"] for each in budgets]


def test_with_the_collector_only_the_collector_has_the_key(manifests: dict[str, list[dict[str, Any]]]) -> None:
    for folder in ("overlays/collector", "overlays/routing"):
        with_key = [
            document["metadata"]["name"]
            for document in manifests[folder]
            if "template" in document.get("spec", {}) and "'honeycomb'" in str(document)
        ]
        assert with_key == ["collector"]
        (settings,) = [each["data"] for each in manifests[folder] if each["metadata"]["name"].startswith("settings-")]
        address = "http://collector:4318" if folder == "overlays/collector" else "http://router:4318"
        assert settings == {"OTEL_EXPORTER_OTLP_ENDPOINT": address}


def test_only_the_autoscaler_sets_replicas(manifests: dict[str, list[dict[str, Any]]]) -> None:
    documents = manifests["overlays/hpa"]
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in documents if each["kind"] == "HorizontalPodAutoscaler"}
    deployments = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "Deployment"}
    assert scaled == set(deployments)
    assert not [name for name, spec in deployments.items() if "replicas" in spec]
