"""The workflows of the template and of a project: valid, pinned, with few permissions; and the image job, run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROJECT, ROOT, environment, free_ports
from containers import docker, engine, run  # noqa: F401
from test_docs import program

LEVELS = [ROOT, ROOT / PROJECT]


@pytest.fixture(params=["template", "project"])
def level(request: pytest.FixtureRequest, default_project: Path) -> Path:
    return ROOT if request.param == "template" else default_project


def workflows(folder: Path) -> list[Path]:
    return sorted((folder / ".github" / "workflows").iterdir())


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]
    return found


def test_zizmor_finds_nothing(level: Path) -> None:
    options = ["--offline", "--no-progress", "--persona=auditor", "--strict-collection"]
    audited = [*workflows(level), level / ".github" / "dependabot.yml"]
    run(program("zizmor"), *options, *map(str, audited))


def test_every_file_follows_its_schema(level: Path) -> None:
    github = level / ".github"
    schemas = {
        "github-workflows": workflows(level),
        "dependabot": [github / "dependabot.yml"],
        "github-issue-forms": sorted(github.glob("ISSUE_TEMPLATE/[!c]*.yml")),
        "github-issue-config": sorted(github.glob("ISSUE_TEMPLATE/config.yml")),
    }
    for schema, files in schemas.items():
        if files:
            run(program("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *map(str, files))
    checked = {file for files in schemas.values() for file in files}
    assert {file for file in github.rglob("*") if file.is_file()} == checked


def test_each_action_is_pinned_to_one_commit_and_names_its_version() -> None:
    used = [
        line
        for level in LEVELS
        for file in workflows(level)
        for line in re.findall(r"uses: *(.*)", file.read_text("utf-8"))
    ]
    pinned = [re.fullmatch(r"([\w/-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line) for line in used]
    assert pinned
    assert None not in pinned
    pins = {match.groups() for match in pinned if match}
    assert len(pins) == len({action for action, _ in pins})


def test_jobs_have_read_permissions_and_timeouts(level: Path) -> None:
    """The one that publishes an image may write packages, and runs on main alone."""
    for workflow in workflows(level):
        assert yaml.safe_load(workflow.read_text("utf-8"))["permissions"] == {}
        for job in jobs(workflow).values():
            packages = job["permissions"].pop("packages", "read")
            assert packages == "read" or job["if"] == "github.ref == 'refs/heads/main'"
            assert job["permissions"] == {"contents": "read"}
            assert job["timeout-minutes"] <= 90


def test_dependabot_updates_the_opentelemetry_packages_as_a_set(level: Path) -> None:
    updates = yaml.safe_load((level / ".github" / "dependabot.yml").read_text("utf-8"))["updates"]
    (pip,) = [update for update in updates if update["package-ecosystem"] == "pip"]
    assert next(iter(pip["groups"])) == "opentelemetry"
    assert "opentelemetry-*" in pip["groups"]["opentelemetry"]["patterns"]
    folders = [folder for update in updates for folder in update.get("directories") or [update["directory"]]]
    assert [folder for folder in folders if not (level / folder.lstrip("/")).is_dir()] == []


def test_ci_tests_every_supported_python_from_a_full_clone() -> None:
    found = jobs(ROOT / ".github/workflows/ci.yml")
    assert all(job["steps"][0]["with"]["fetch-depth"] == 0 for job in found.values())
    matrix = found["elsewhere"]["strategy"]["matrix"]
    tested = {*matrix["python"], *(more["python"] for more in matrix["include"])}
    oldest = tomllib.loads((ROOT / PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    newest = max(re.findall(r'"3\.(\d+)"', (ROOT / "cookiecutter.json").read_text("utf-8")), key=int)
    assert tested == {f"3.{minor}" for minor in range(int(oldest.removeprefix(">=3.")), int(newest) + 1)}


def test_the_command_that_marks_a_deploy_is_valid(default_project: Path) -> None:
    steps = jobs(default_project / ".github/workflows/ci.yml")["deploy"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("name", "").startswith("Mark the deploy")]
    env = environment(GITHUB_SHA="4f1c2d", GITHUB_SERVER_URL="https://github.example", GITHUB_REPOSITORY="me/app")
    done = subprocess.run(["bash", "-c", command], cwd=default_project, env=env, capture_output=True, text=True)
    assert done.returncode == 1, done  # not 2, invalid usage: there is no key
    assert re.search("HONEYCOMB_CONFIGURATION_KEY|not installed", done.stderr), done


Ran = Callable[[Path], list[subprocess.CompletedProcess[str]]]


def run_step(script: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a step, and end what it leaves in the background, as the runner does at the end of a job."""
    with (folder / "step.log").open("w+") as output:
        command = ["bash", "-e", "-c", script]
        process = subprocess.Popen(
            command, cwd=folder, env=environment(**env), stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(600)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        return subprocess.CompletedProcess(command, status, output.read())


@pytest.fixture
def image_job(engine: None) -> Iterator[Ran]:  # noqa: F811
    """Run the steps of the project's job "image" as GitHub's runner would, up to the one that fails."""
    name = f"ci-{uuid.uuid4().hex[:8]}"
    env: dict[str, str] = {}

    def image_job(project: Path) -> list[subprocess.CompletedProcess[str]]:
        job = jobs(project / ".github/workflows/ci.yml")["image"]
        port, receiver = map(str, free_ports(2))
        settings = {key: value.replace("4318", receiver) for key, value in job["env"].items()}
        env.update(settings, COMPOSE_PROJECT_NAME=name, PORT=port, folder=str(project))
        done: list[subprocess.CompletedProcess[str]] = []
        for step in job["steps"]:
            if "run" in step and "if" not in step and not (done and done[-1].returncode):
                done.append(run_step(step["run"].replace("4318", receiver), project, env))
        return done

    yield image_job
    run("docker", "compose", "down", "--volumes", "--timeout", "5", cwd=Path(env.pop("folder")), check=False, **env)
    docker("image", "rm", "--force", name, check=False)


@pytest.mark.docker
@pytest.mark.parametrize(("setting", "passes"), [("", True), ("OTEL_TRACES_EXPORTER=none", False)])
def test_the_image_job_passes_only_when_a_span_arrives(
    image_job: Ran, render: Callable[..., Path], setting: str, passes: bool
) -> None:
    project = render()
    if setting:
        dockerfile = project / "Dockerfile"
        dockerfile.write_text(
            dockerfile.read_text("utf-8").replace("\nUSER 10001", f"\nENV {setting}\nUSER 10001"), "utf-8"
        )
    *_, arrived = image_job(project)
    assert (arrived.returncode == 0) is passes, arrived.stdout
