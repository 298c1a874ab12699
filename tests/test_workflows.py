"""What code hosts do with both levels: the workflows and other files in .github/, and the jobs that can be run here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROJECT, ROOT, environment, free_ports
from platforms import stand_in
from test_docker import docker, engine, installed, run  # noqa: F401

Render = Callable[..., Path]


@pytest.fixture(scope="module", params=["template", "built-in", "jaeger"])
def level(request: pytest.FixtureRequest, render_into: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template, and a project with each viewer."""
    if request.param == "template":
        return ROOT
    return render_into(tmp_path_factory.mktemp("a level"), local_viewer=request.param)


def workflows(folder: Path) -> list[Path]:
    return sorted((folder / ".github" / "workflows").iterdir())


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]
    return found


def test_zizmor_finds_nothing(level: Path) -> None:
    audited = [*workflows(level), level / ".github" / "dependabot.yml"]
    run(
        installed("zizmor"),
        "--offline",
        "--no-progress",
        "--persona=auditor",
        "--strict-collection",
        *map(str, audited),
    )


def test_every_file_is_as_its_schema_wants(level: Path) -> None:
    github = level / ".github"
    schemas = {
        "github-workflows": workflows(level),
        "dependabot": [github / "dependabot.yml"],
        "compose-spec": sorted(github.glob("receiver.yaml")),
        "github-issue-forms": sorted(github.glob("ISSUE_TEMPLATE/[!c]*.yml")),
        "github-issue-config": sorted(github.glob("ISSUE_TEMPLATE/config.yml")),
    }
    for schema, files in schemas.items():
        if files:
            run(installed("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *map(str, files))
    checked = {file for files in schemas.values() for file in files}
    assert {file for file in github.rglob("*") if file.is_file()} == checked


def test_an_action_is_pinned_to_the_same_commit_everywhere_and_its_version_is_said() -> None:
    pins: dict[str, set[str]] = {}
    for workflow in [*workflows(ROOT), *workflows(ROOT / PROJECT)]:
        for used in re.findall(r"uses: *(.*)", workflow.read_text("utf-8")):
            pinned = re.fullmatch(r"([\w/-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", used)
            assert pinned, used
            pins.setdefault(pinned[1], set()).add(pinned[2])
    assert pins
    assert {action: len(commits) for action, commits in pins.items()} == dict.fromkeys(pins, 1)


def test_no_job_may_do_more_than_read_and_none_hangs_for_hours(level: Path) -> None:
    for workflow in workflows(level):
        assert yaml.safe_load(workflow.read_text("utf-8"))["permissions"] == {}
        for job in jobs(workflow).values():
            assert job["permissions"] == {"contents": "read"}
            assert job["timeout-minutes"] <= 90


def test_the_opentelemetry_packages_come_as_a_set(level: Path) -> None:
    updates = yaml.safe_load((level / ".github" / "dependabot.yml").read_text("utf-8"))["updates"]
    (pip,) = [update for update in updates if update["package-ecosystem"] == "pip"]
    assert next(iter(pip["groups"].items())) == ("opentelemetry", {"patterns": ["opentelemetry-*"]})
    for update in updates:
        for folder in update.get("directories") or [update["directory"]]:
            assert (level / folder.lstrip("/")).is_dir()


def test_what_the_template_s_workflow_names_is_there() -> None:
    steps = [step for job in jobs(ROOT / ".github/workflows/ci.yml").values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    named = re.findall(r'[^\s"]*(?:tests|requirements)[^\s"]*\.(?:py|txt)|\.ci/run', commands)
    assert len(named) == 5
    assert [name for name in named if not (ROOT / name).is_file()] == []
    (chosen,) = re.findall(r'-m "(.*)"', commands)
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]["markers"]
    assert set(re.findall(r"not (\w+)", chosen)) == {marker.partition(":")[0] for marker in markers}


def test_what_is_not_on_github_is_fetched_or_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The release before this one, with all history; the stand-ins, whose tests are then skipped in CI too."""
    for job in jobs(ROOT / ".github/workflows/ci.yml").values():
        assert job["steps"][0]["with"]["fetch-depth"] == 0
        variables = {**job.get("env", {}), **{k: v for step in job["steps"] for k, v in step.get("env", {}).items()}}
        assert variables["SHARED_DIR"] == "none"
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("SHARED_DIR", "none")
    with pytest.raises(pytest.skip.Exception):
        stand_in("gitpod/gp")


def test_every_python_that_the_project_takes_is_tested() -> None:
    matrix = jobs(ROOT / ".github/workflows/ci.yml")["elsewhere"]["strategy"]["matrix"]
    tested = {*matrix["python"], *(more["python"] for more in matrix["include"])}
    oldest = tomllib.loads((ROOT / PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    newest = max(re.findall(r'"3\.(\d+)"', (ROOT / "cookiecutter.json").read_text("utf-8")), key=int)
    first = re.fullmatch(r">=3\.(\d+)", oldest)
    assert first
    assert tested == {f"3.{minor}" for minor in range(int(first[1]), int(newest) + 1)}


def test_a_deploy_is_marked_as_the_command_takes_it(default_project: Path) -> None:
    steps = jobs(default_project / ".github/workflows/ci.yml")["deploy"]["steps"]
    (command,) = [step["run"] for step in steps if step.get("name", "").startswith("Mark the deploy")]
    env = environment(GITHUB_SHA="4f1c2d", GITHUB_SERVER_URL="https://github.example", GITHUB_REPOSITORY="me/app")
    # Without a key it gets as far as saying so: 1, and not 2 for a wrong use.
    done = subprocess.run(["bash", "-c", command], cwd=default_project, env=env, capture_output=True, text=True)
    assert (done.returncode, "HONEYCOMB_CONFIGURATION_KEY" in done.stderr + done.stdout) == (1, True), done


Ran = Callable[[Path], list[subprocess.CompletedProcess[str]]]


@pytest.fixture
def image_job(engine: None) -> Iterator[Ran]:  # noqa: F811
    """Do what the project's job "image" does, step by step, as GitHub's runner would, up to the step that fails."""
    name = f"ci-{uuid.uuid4().hex[:8]}"
    env: dict[str, str] = {}

    def image_job(project: Path) -> list[subprocess.CompletedProcess[str]]:
        job = jobs(project / ".github/workflows/ci.yml")["image"]
        env.update(job["env"], COMPOSE_PROJECT_NAME=name, PORT=str(free_ports(1)[0]), folder=str(project))
        done: list[subprocess.CompletedProcess[str]] = []
        for step in job["steps"]:
            if "run" in step and "if" not in step and not (done and done[-1].returncode):
                done.append(run("bash", "-e", "-c", step["run"], cwd=project, check=False, **env))
        return done

    yield image_job
    run("docker", "compose", "down", "--volumes", "--timeout", "5", cwd=Path(env.pop("folder")), check=False, **env)
    docker("image", "rm", "--force", name, check=False)


@pytest.mark.docker
def test_the_image_job_passes_when_the_span_of_a_request_arrives(image_job: Ran, default_project: Path) -> None:
    done = image_job(default_project)
    assert [step.returncode for step in done] == [0, 0], done[-1].stdout


@pytest.mark.docker
@pytest.mark.parametrize("setting", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none"])
def test_the_image_job_fails_when_the_backend_makes_or_sends_no_span(
    image_job: Ran, default_project: Path, tmp_path: Path, setting: str
) -> None:
    project = shutil.copytree(default_project, tmp_path / "project")
    dockerfile = project / "Dockerfile"
    before = dockerfile.read_text("utf-8")
    assert '\nCMD ["gunicorn"' in before
    dockerfile.write_text(before.replace('\nCMD ["', f'\nCMD ["env", "{setting}", "'), "utf-8")
    started, arrived = image_job(project)
    assert started.returncode == 0, started.stdout
    assert arrived.returncode != 0, arrived.stdout
