# ruff: noqa: F811  a fixture that is imported has the name of the parameter that asks for it
"""The devcontainers of both levels, opened by the real client for a user who is not 1000, in a closed folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from conftest import ROOT
from containers import (  # noqa: F401  fixtures
    KEY,
    MARK,
    OWNER,
    Services,
    clone_of_template,
    docker,
    engine,
    from_inside,
    honeycomb,
    host_address,
    inspect,
    keys_of,
    missing,
    open_folder,
    own,
    run,
)
from platforms import stand_in
from processes import answers
from receiver import Receiver, eventually

CLI = "@devcontainers/cli@0.89.0"
AS_OWNER = """
mount --bind "$1" /etc/passwd
groups=$(stat --format %g /var/run/docker.sock)
shift
exec setpriv --reuid={} --regid={} --groups="$groups" "$@"
"""
DEBUGGER = """
import json, socket
debugger = socket.create_connection(("backend", 5678), 10)
body = json.dumps({"seq": 1, "type": "request", "command": "initialize", "arguments": {"adapterID": "test"}}).encode()
debugger.sendall(b"Content-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
answers = b""
while b"supportsConditionalBreakpoints" not in answers:
    answers += debugger.recv(65536) or exit("the debugger hung up")
print("it answers")
"""


@pytest.fixture(scope="module")
def client(open_folder: Path, engine: None) -> list[str]:
    """The real client, started by OWNER."""
    (open_folder / "home").mkdir()
    install = ("npm", "install", "--no-audit", "--no-fund", "--prefix", str(open_folder / "client"), CLI)
    if not shutil.which("npm") or run(*install, check=False).returncode:
        missing(f"npm is not here, or cannot install {CLI}")
    client = ["node", str(open_folder / "client/node_modules/@devcontainers/cli/devcontainer.js")]
    if os.geteuid() != 0:
        return client
    passwd = open_folder / "passwd"
    passwd.write_text(Path("/etc/passwd").read_text() + f"owner:x:{OWNER[0]}:{OWNER[1]}::{open_folder}/home:/bin/sh\n")
    as_owner = ["unshare", "--mount", "--propagation=private", "sh", "-euc", AS_OWNER.format(*OWNER), "sh"]
    return [*as_owner, str(passwd), *client]


class Devcontainer(Services):
    """A folder that the client opens, with the rendered project in it."""

    def __init__(self, folder: Path, project: Path, client: list[str], receiver: Receiver) -> None:
        super().__init__()
        self.folder, self.project, self.client, self.honeycomb = folder, project, client, receiver
        self.name, self.output = f"opened-{uuid.uuid4().hex[:8]}", list[str]()
        place = {"HOME": str(folder.parent / "home"), "TMPDIR": str(folder.parent)}
        self.env: dict[str, Any] = {
            **self.ports,
            **place,
            "CODESPACE_NAME": "stand-in",
            "COMPOSE_PROJECT_NAME": self.name,
        }
        self.dotenv = project / ".env"
        project.mkdir(exist_ok=True)
        self.dotenv.write_text(f"# mine\nHONEYCOMB_API_ENDPOINT={from_inside(receiver)}\n")
        run("git", "init", "--quiet", cwd=folder)
        own(folder.parent)
        folder.chmod(0o700)

    def ask(self, command: str, *arguments: str, **env: str) -> str:
        more = ["--workspace-folder", str(self.folder), *arguments]
        text = run(*self.client, command, *more, **{**self.env, **env}).stdout
        self.output.append(text)
        return text

    def up(self, *arguments: str, **env: str) -> None:
        """Open it. Where it is open, close it first, or the client would have nothing to do."""
        for container in self.containers():
            docker("stop", "--time", "2", container)
        text = self.ask("up", "--log-level", "trace", *arguments, **env)
        assert '"outcome":"success"' in text.splitlines()[-1]
        url = f"http://127.0.0.1:{self.ports['PORT']}/api/health"
        assert eventually(lambda: answers(url), 60), run("docker", "logs", f"{self.name}-backend-1").stdout

    def inside(self, *command: str) -> str:
        return self.ask("exec", *command).strip()

    def containers(self) -> list[str]:
        return docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.name}").split()

    def remove(self) -> None:
        containers = self.containers()
        images = {inspect(container)["Image"] for container in containers}
        names = [f"{self.name}-{image}" for image in ("dev", "workspace", "render")]
        docker("rm", "--force", *containers, check=False)
        docker("network", "rm", f"{self.name}_default", check=False)
        docker("image", "rm", "--force", *names, *images, check=False)


@pytest.fixture(scope="module", params=["project", "template"])
def opened(
    request: pytest.FixtureRequest,
    open_folder: Path,
    client: list[str],
    honeycomb: Receiver,
    render_into: Callable[..., Path],
) -> Iterator[Devcontainer]:
    """Either level under umask 077, opened without a key; the client's own environment has one, which is not ours."""
    before = os.umask(0o077)
    try:
        if request.param == "project":
            folder = project = render_into(open_folder)
        else:
            folder = clone_of_template(open_folder / "a template")
            project = folder / "demo"
        honeycomb.requests.clear()
        devcontainer = Devcontainer(folder, project, client, honeycomb)
    finally:
        os.umask(before)
    try:
        devcontainer.up(HONEYCOMB_API_KEY=KEY)
        yield devcontainer
    finally:
        devcontainer.remove()


# Without an engine.


@pytest.mark.parametrize("local_viewer", ["otlp-viewer", "jaeger", None])
def test_the_configurations_are_valid(render: Callable[..., Path], local_viewer: str | None) -> None:
    folder = render(local_viewer=local_viewer, project_name='It\'s "mine" \\o/') if local_viewer else ROOT
    file = folder / ".devcontainer" / "devcontainer.json"
    check = (sys.executable, "-m", "check_jsonschema")
    run(*check, "--schemafile", str(stand_in("schemas/devContainer.base.schema.json")), str(file))
    run(*check, "--builtin-schema", "vendor.compose-spec", str(file.with_name("compose.yaml")))
    devcontainer = json.loads(file.read_text())
    assert devcontainer["name"] == ('It\'s "mine" \\o/' if local_viewer else "cookiecutter-traced-flask")
    assert set(devcontainer["portsAttributes"]) == set(devcontainer["forwardPorts"])
    command = devcontainer.get("initializeCommand", ["docker"])  # a string would be for cmd.exe on Windows
    assert command[0] == "docker"


# With one, in the order in which they stand here.


@pytest.mark.docker
def test_opened_without_a_key_the_first_request_is_a_trace_across_two_services(opened: Devcontainer) -> None:
    assert {span["service.name"] for span in opened.traced()} == {"backend-flask", "profiles"}
    assert opened.honeycomb.requests == []
    assert opened.dotenv.read_text().startswith("# mine\n")
    for host, status in (("stand-in-4318.app.github.dev", 200), ("other-4318.app.github.dev", 403)):
        # As Codespaces shows it.
        assert requests.get(f"{opened.viewer}/api/health", headers={"Host": host}, timeout=5).status_code == status


@pytest.mark.docker
def test_the_workspace_has_the_tools(opened: Devcontainer) -> None:
    """git among it, for the folder is the repository's."""
    assert opened.inside("id", "-u").splitlines()[-1] == str(OWNER[0])
    opened.inside("git", "add", "--all")
    assert ".env" not in opened.inside("git", "ls-files").splitlines()
    if opened.folder == opened.project:
        assert " passed" in opened.inside("make", "test")
        assert re.search(r"/activities/home +200 ", opened.inside("make", "traffic"))
        assert "All checks passed" in opened.inside("make", "lint")
        assert "it answers" in opened.inside("python", "-c", DEBUGGER)
    else:
        assert "All checks passed" in opened.inside("ruff", "check", "hooks")
        assert " passed" in opened.inside("pytest", "-q", "tests/test_prompts.py")
        assert "Nothing to be done" in opened.inside("make", "install")
    assert [path for path in opened.folder.rglob("*") if path.lstat().st_uid != OWNER[0]] == []


@pytest.mark.docker
def test_the_workflow_builds_its_image_from_the_published_one_and_runs_its_tests(opened: Devcontainer) -> None:
    """With the commands of the client that devcontainers/ci runs. The image is published here and no further."""
    if opened.folder == opened.project:
        pytest.skip("the workflow is the template's")
    jobs = yaml.safe_load((opened.folder / ".github/workflows/devcontainer.yml").read_text())["jobs"]
    publish, test = (jobs[name]["steps"][-1]["with"] for name in ("publish", "test"))
    assert publish["imageName"] == test["cacheFrom"]
    image = f"{opened.name}-published:latest"
    try:
        opened.ask("build", "--image-name", image, "--cache-from", image)
        assert inspect(image)["Config"]["User"] == "dev"
        opened.ask("build", "--cache-from", image)
        assert " passed" in opened.inside("bash", "-c", test["runCmd"])
    finally:
        docker("image", "rm", "--force", image, check=False)


@pytest.mark.docker
def test_a_backend_crash_does_not_affect_the_editor(opened: Devcontainer) -> None:
    docker("kill", f"{opened.name}-backend-1")
    assert opened.inside("echo", "still", "here").endswith("still here")
    docker("start", f"{opened.name}-backend-1")


@pytest.mark.docker
def test_a_platform_secret_reaches_the_backend_and_is_never_shown(opened: Devcontainer) -> None:
    secrets = opened.folder.parent / "secrets.json"
    secrets.write_text(json.dumps({"HONEYCOMB_API_KEY": KEY}))
    opened.up("--secrets-file", str(secrets))
    assert eventually(lambda: f"\nHONEYCOMB_API_KEY={KEY}\n" in opened.dotenv.read_text())
    assert (stat.S_IMODE(opened.dotenv.stat().st_mode), opened.dotenv.stat().st_uid) == (0o600, OWNER[0])
    assert eventually(lambda: opened.responds() and keys_of(opened.honeycomb) == {KEY})

    opened.up()
    traces = [text for text in opened.output if "docker compose" in text and len(text) > 10_000]
    assert len(traces) == 3  # the client tells all about Compose: without a key, with a new one, with a stored one
    texts = [*opened.output, *(json.dumps(inspect(container)) for container in opened.containers())]
    texts += [run("docker", "logs", container).stdout for container in opened.containers()]
    texts += [body.decode("latin-1") for _, _, body in opened.honeycomb.requests]
    assert [text for text in texts if MARK in text] == []
