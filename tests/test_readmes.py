"""Both READMEs: each command does what is said of it, code works where the text puts it, and what is named is there.

A command is run in one test: in this file by `Reader.run` or `Reader.start`, or where ELSEWHERE says.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from conftest import PROJECT, ROOT, environment, free_ports
from processes import answers
from receiver import Receiver, eventually, receiving
from test_docker import JAEGER, docker, engine, run  # noqa: F401
from test_tutorial import Terminal, pattern, stand_in  # noqa: F401

Render = Callable[..., Path]

OURS = {
    "project_name": "My *shop*",
    "project": "my-shop",
    "description": "What is sold | where",
    "service_name": "shop-api",
    "python_version": "3.13",
    "honeycomb_region": "EU",
}
VIEWERS = ("built-in", "jaeger")
ELSEWHERE = {  # the test of a command, and what it has of the command, where this file does not run it
    "make demo": ("test_demo.py", "test_a_clean_checkout_shows_the_first_trace_and_ctrl_c_ends_everything", "demo"),
    "make test": ("test_project.py", "test_its_own_tests_pass", "test"),
    "make prod": ("test_production.py", "test_make_prod_runs_it", "prod"),
}
BY_CI = "make test"  # of the template: .ci/run, and so this very run
HOME = "/api/activities/home"


# Reading Markdown.


def blocks(readme: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(readme: Path) -> list[str]:
    """Every line to type, without what is said beside it."""
    lines = [line for block in blocks(readme, "sh") for line in block.splitlines()]
    return [re.sub(r"  +#.*", "", line) for line in lines]


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def prose(readme: Path) -> str:
    return re.sub(r"^```.*?^```$", "", readme.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def rows(readme: Path, heading: str) -> list[list[str]]:
    """The table with this first row, as cells, without that row."""
    text = readme.read_text("utf-8")
    table = re.search(rf"^\| {re.escape(heading)} \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table, heading
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[1].splitlines()]


# Somebody who does what is said.


class Reader:
    """Has two terminals in a folder: one for what runs until Ctrl-C, one for everything else."""

    def __init__(self, folder: Path, honeycomb: Any = None, **env: str) -> None:
        self.folder = folder
        self.honeycomb = honeycomb
        self.ports = dict(zip(("4567", "4568", "4318", "16686"), map(str, free_ports(4)), strict=True))
        names = dict(zip(("PORT", "PROFILES_PORT", "VIEWER_PORT", "JAEGER_PORT"), self.ports.values(), strict=True))
        path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
        self.env = environment(**{**names, "PATH": path, "NO_PROXY": "127.0.0.1", **env})
        self.first, self.second = Terminal(folder, self.env), Terminal(folder, self.env)

    def as_here(self, text: str) -> str:
        """With the ports of this machine, where other programs may have those of the text."""
        return re.sub(r"\b(4567|4568|4318|16686)\b", lambda port: self.ports[port[0]], text)

    def start(self, command: str, until: Callable[[], Any], seconds: float = 60) -> None:
        """Type what runs until Ctrl-C."""
        self.first.type(self.as_here(command) + "\n")
        assert eventually(until, seconds), self.first.screen()[-4000:]

    def run(self, command: str, asks: str = "", answer: str = "", status: str = "0") -> str:
        """Type a command, and the answer once it asks for that; what it showed."""
        self.second.mark = len(self.second.everything())
        end = self.second.type(self.as_here(command) + "\n")
        if asks:
            assert eventually(lambda: asks in self.second.screen()), self.second.screen()
            self.second.type(answer)
        assert self.second.ended(end) == status, self.second.screen()[-4000:]
        return self.second.screen()

    def stop(self) -> None:
        self.first.ended(self.first.type("\x03"), 30)

    def url(self, path: str = HOME, port: str = "4567") -> str:
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def runs(self) -> bool:
        """Whether each service that `make run` starts here answers."""
        services = re.findall(r"^([a-z]+):", (self.folder / "Procfile").read_text(), re.MULTILINE)
        ports = {"backend": "4567", "profiles": "4568", "viewer": "4318"}
        return all(answers(self.url("/api/health", ports[service])) for service in services)

    def ask(self, path: str = HOME) -> str:
        """The trace of a request to the backend; nothing while that is being replaced, since an edit."""
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(self.url(path), timeout=10).headers["traceresponse"].split("-")[1]
        return ""

    def trace(self, path: str, *names: str) -> dict[str, dict[str, Any]]:
        """The spans by name of the first request to the backend of which the viewer has those that are named."""
        asked: list[str] = []

        def come() -> dict[str, dict[str, Any]]:
            asked.append(self.ask(path))
            for trace_id in filter(None, asked):
                trace = requests.get(self.url(f"/api/traces/{trace_id}", "4318"), timeout=5).json()
                spans = {span["name"]: span for span in trace.get("spans", [])}
                if set(names) <= set(spans):
                    return spans
            return {}

        spans = eventually(come)
        assert spans, self.first.screen()[-4000:]
        return dict(spans)

    def close(self) -> None:
        self.first.close()
        self.second.close()


Projects = Callable[..., Path]


@pytest.fixture(scope="module")
def projects(render_into: Render, installed_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Projects:
    """Projects of somebody's own, with the packages of another: these are the same."""

    def projects(**prompts: str) -> Path:
        project = render_into(tmp_path_factory.mktemp("a reader's"), **{**OURS, **prompts})
        (project / ".venv").symlink_to(installed_project / ".venv")
        for file in ("requirements.txt", "requirements-dev.txt"):
            assert (project / file).read_bytes() == (installed_project / file).read_bytes()
        shutil.copystat(installed_project / "requirements-dev.txt", project / "requirements-dev.txt")
        return project

    return projects


@pytest.fixture(scope="module")
def reader(projects: Projects, stand_in: ModuleType) -> Iterator[Reader]:  # noqa: F811
    """In a project that runs, with something in Honeycomb's place."""
    with stand_in.honeycomb() as honeycomb:
        key = stand_in.CONFIGURATION
        env = {"HONEYCOMB_API_ENDPOINT": honeycomb.url, "HONEYCOMB_CONFIGURATION_KEY": key}
        reader = Reader(projects(), honeycomb, **env)
        try:
            reader.start("make run", reader.runs)
            yield reader
        finally:
            reader.close()


# The project's.


def test_the_first_request_is_shown_as_in_the_text(reader: Reader) -> None:
    assert '"handle"' in reader.run("curl http://127.0.0.1:4567/api/activities/home")
    (tree,) = blocks(reader.folder / "README.md", "text")
    wanted = [pattern(reader.as_here(line)) for line in tree.splitlines()]
    assert re.search(r"^GET /api/activities/home  200  shop-api  ", tree)

    def shown() -> bool:
        lines = iter(reader.first.screen().splitlines())
        return all(any(each.fullmatch(line.rstrip()) for line in lines) for each in wanted)

    assert eventually(shown), reader.first.screen()[-4000:]


def test_what_the_text_says_can_be_opened_answers(reader: Reader) -> None:
    urls = [cells[0].strip("<>") for cells in rows(reader.folder / "README.md", "Where | What")]
    assert len(urls) == 5
    assert {url: requests.get(reader.as_here(url), timeout=10).status_code for url in urls} == dict.fromkeys(urls, 200)
    failing = requests.get(reader.url("/api/examples/failing"), timeout=10)
    assert failing.status_code == 500
    assert eventually(lambda: requests.get(failing.json()["trace_url"], timeout=10).status_code == 200)


def test_traffic_is_of_all_kinds(reader: Reader) -> None:
    shown = re.findall(r"^(/api/\S+) +(\d+) ", reader.run("make traffic"), re.MULTILINE)
    assert {"/api/activities/home", "/api/examples/slow"} <= {path for path, _ in shown}
    assert {status for _, status in shown} == {"200", "404", "500"}


def test_a_span_that_is_added_as_the_text_says_is_in_the_trace_and_passes_its_test(reader: Reader) -> None:
    function, test = blocks(reader.folder / "README.md", "python")
    file = reader.folder / "backend" / "activities.py"
    before = file.read_text("utf-8")
    begin, home, rest = before.partition("\ndef home() ")
    assert rest.count("        return activities\n") == 1
    text = begin + home + rest.replace("return activities\n", "return ranked(activities)\n")
    file.write_text(f"{text}\n\n{function}", "utf-8")
    (reader.folder / "tests" / "test_ranking.py").write_text(test, "utf-8")
    try:
        assert "1 passed" in reader.run(".venv/bin/pytest tests/test_ranking.py")
        lint = [str(reader.folder / ".venv/bin/ruff"), "check", "--no-cache", "backend"]
        subprocess.run(lint, cwd=reader.folder, check=True, capture_output=True)
        example = [str(reader.folder / ".venv/bin/pytest"), "-q", "-p", "no:cacheprovider", "tests/test_activities.py"]
        done = subprocess.run(example, cwd=reader.folder, env=reader.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        spans = reader.trace(HOME, "home-activities-mock-data", "rank-activities")
    finally:
        file.write_text(before, "utf-8")
        (reader.folder / "tests" / "test_ranking.py").unlink()
    assert spans["rank-activities"]["trace.parent_id"] == spans["home-activities-mock-data"]["trace.span_id"]


def test_the_commands_for_honeycomb_do_what_is_said(reader: Reader, stand_in: ModuleType) -> None:  # noqa: F811
    honeycomb = reader.honeycomb
    said = reader.run("bin/honeycomb key set", "Enter skips this: ", f"{stand_in.INGEST}\n")
    assert "kept in .env" in said
    assert re.search(r"^\.env +ingest key$", reader.run("bin/honeycomb key status"), re.MULTILINE)

    def arrives() -> bool:
        reader.ask()
        return {"shop-api", "profiles"} <= set(honeycomb.datasets)

    assert eventually(arrives), reader.first.screen()[-4000:]
    assert re.findall(r"^ok +(\w+)", reader.run("bin/honeycomb check"), re.MULTILINE)[-1] == "span"
    links = re.findall(r"https://ui\.eu1\.honeycomb\.io/acme/\S+", reader.run("bin/honeycomb queries --team acme"))
    assert len(links) == len(json.loads((reader.folder / "queries.json").read_text("utf-8")))
    assert all("/datasets/shop-api?" in link for link in links)
    reader.run("bin/honeycomb board")
    reader.run('bin/honeycomb marker "v1.2.3"')
    reader.run("bin/honeycomb trigger --over 500")
    assert [board["name"] for board in honeycomb.boards.values()] == ["shop-api: requests"]
    assert [marker["message"] for marker in honeycomb.markers] == ["v1.2.3"]
    alerts = [(dataset, made["threshold"]["value"]) for dataset, made in honeycomb.triggers.values()]
    assert alerts == [("shop-api", 500)]
    reader.run("bin/honeycomb key unset")
    assert stand_in.INGEST not in (reader.folder / ".env").read_text()
    everything = reader.first.everything() + reader.second.everything()
    assert not [key for key in (stand_in.INGEST, stand_in.CONFIGURATION) if key in everything]


def test_with_jaeger_a_trace_leaves_for_it(projects: Projects) -> None:
    project = projects(local_viewer="jaeger")
    with receiving() as jaeger:
        reader = Reader(project, VIEWER_PORT=jaeger.url.rpartition(":")[2])
        try:
            reader.start("make run", reader.runs)
            reader.run("curl http://127.0.0.1:4567/api/activities/home")
            assert eventually(lambda: five_spans(jaeger)), reader.first.screen()[-4000:]
            assert "not reaching" not in reader.first.screen()
            reader.stop()
        finally:
            reader.close()


def five_spans(receiver: Receiver) -> bool:
    found = receiver.traces().values()
    return any({span["service"] for span in spans} == {"shop-api", "profiles"} and len(spans) == 5 for spans in found)


# The example, and what is left without it.


def take_out(project: Path, files: list[str], what: str) -> None:
    """Delete from files what the text says, by whoever reads it in the plainest way."""
    for name in files:
        file = project / name
        before = file.read_text("utf-8").splitlines(keepends=True)
        after = HOW_TO_TAKE_OUT[what](before)
        assert after != before, name
        file.write_text("".join(after), "utf-8")


def out_of_app(lines: list[str]) -> list[str]:
    imports = "from backend import activities, errors, examples, telemetry\n"
    registering = ("register_blueprint(activities", "if app.debug:", "register_blueprint(examples")
    found = [[line for line in lines if part in line] for part in (*registering, "PROFILES_URL", imports)]
    assert list(map(len, found)) == [1, 1, 1, 2, 1]
    gone = {line for each in found[:-1] for line in each}
    return [line.replace(imports, "from backend import errors, telemetry\n") for line in lines if line not in gone]


def out_of_procfile(lines: list[str]) -> list[str]:
    return [re.sub(r"PROFILES_URL=\S+ ", "", line) for line in lines if not line.startswith("profiles:")]


def out_of_gitpod(lines: list[str]) -> list[str]:
    return without(lines, lambda line: line.strip() == "- port: 4568")


def lines_with_profiles(lines: list[str]) -> list[str]:
    return without(lines, lambda line: "profiles" in line.lower())


def without(lines: list[str], wanted: Callable[[str], bool]) -> list[str]:
    """Without the lines that are wanted, and what is indented below them."""
    kept, below = [], None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if below is not None and (indent > below or not line.strip()):
            continue
        below = indent if wanted(line) else None
        if below is None:
            kept.append(line)
    return kept


HOW_TO_TAKE_OUT = {
    "`activities` and `examples` in the import, the three lines that register them, "
    "the two with `PROFILES_URL`": out_of_app,
    "the line of `profiles`, and `PROFILES_URL=...` in the backend's": out_of_procfile,
    "port 4568": out_of_gitpod,
    "each line with `profiles` or `PROFILES`, and what is indented below it": lines_with_profiles,
}
A_ROUTE = """
    @app.get("/api/mine")
    def mine() -> list[str]:
        return []

    return app
"""


def remove_the_example(reader: Reader) -> None:
    reader.run(
        "rm -r profiles backend/activities.py backend/examples.py backend/profile_lookup.py tests/test_activities.py"
    )
    for files, what in rows(reader.folder / "README.md", "File | Delete"):
        take_out(reader.folder, in_backticks(files), what)


def naming(what: str, project: Path) -> set[str]:
    """The files that name it, but for this text, the questions that are examples too, and what tests make up."""
    found = ["git", "grep", "--no-index", "-l", "--ignore-case", "--word-regexp", what]
    named = subprocess.run(found, cwd=project, capture_output=True, text=True).stdout.split()
    return {name for name in named if not re.match(r"README\.md|queries\.json|tests/", name)}


@pytest.mark.parametrize("local_viewer", VIEWERS)
def test_without_the_example_nothing_names_it_and_every_file_is_valid(
    local_viewer: str, render: Render, invalid_files: Callable[[Path], list[str]]
) -> None:
    reader = Reader(render(**OURS, local_viewer=local_viewer))
    try:
        remove_the_example(reader)
    finally:
        reader.close()
    assert invalid_files(reader.folder) == []
    left = (reader.folder / "README.md").read_text("utf-8").rpartition("still named: ")[2]
    assert naming("activities", reader.folder) == set(in_backticks(left))
    assert naming("profiles", reader.folder) | naming("profiles_url", reader.folder) == set()
    schema = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    run(*schema, "compose.yaml", "compose.prod.yaml", ".github/receiver.yaml", cwd=reader.folder)


def test_without_the_example_the_rest_runs_is_traced_and_its_tests_pass(projects: Projects) -> None:
    # Jaeger, and not the tests of delivery: what knows nothing of the application is not tested once more.
    with receiving() as jaeger:
        reader = Reader(projects(local_viewer="jaeger"), VIEWER_PORT=jaeger.url.rpartition(":")[2])
        app = reader.folder / "backend" / "app.py"
        try:
            remove_the_example(reader)
            assert "Success: no issues found" in reader.run("make lint")
            tests = reader.run(".venv/bin/pytest --ignore tests/test_delivery.py")
            assert re.search(r"^=+ \d+ passed in ", tests, re.MULTILINE)
            app.write_text(app.read_text("utf-8").replace("\n    return app\n", A_ROUTE, 1), "utf-8")
            reader.start("make run", reader.runs)
            assert requests.get(reader.url("/api/mine"), timeout=10).json() == []
            assert eventually(lambda: [span["name"] for span in jaeger.spans()] == ["GET /api/mine"])
            reader.stop()
        finally:
            reader.close()


# In Docker.


@pytest.fixture
def in_docker(projects: Projects, engine: None) -> Iterator[Callable[..., Reader]]:  # noqa: F811
    """A reader with a Compose name that nothing else on this engine has."""
    readers: list[Reader] = []

    def in_docker(**prompts: str) -> Reader:
        project = projects(**prompts)
        (project / ".venv").unlink()
        readers.append(Reader(project, COMPOSE_PROJECT_NAME=f"readme-{uuid.uuid4().hex[:8]}"))
        return readers[-1]

    yield in_docker
    for reader in readers:
        reader.close()
        for file in ("compose.yaml", "compose.prod.yaml"):
            down = ("docker", "compose", "--file", file, "down", "--rmi", "local", "--timeout", "5")
            run(*down, cwd=reader.folder, check=False, **reader.env)
        name = reader.env["COMPOSE_PROJECT_NAME"]
        docker("image", "rm", "--force", name, f"{name}-dev", check=False)


@pytest.mark.docker
def test_docker_has_the_same(in_docker: Callable[..., Reader]) -> None:
    reader = in_docker()
    reader.start("make up", reader.runs, 500)
    assert reader.trace(HOME, "find-profiles-mock-data")["find-profiles-mock-data"]["service.name"] == "profiles"
    said = reader.run("make shell", ":/workspace", "python --version\nexit\n")
    assert re.search(r"^Python 3\.13\.", said, re.MULTILINE), said
    reader.run("make down")
    assert run("docker", "compose", "ps", "--all", "--quiet", cwd=reader.folder, **reader.env).stdout == ""


@pytest.mark.docker
@pytest.mark.parametrize("example", [True, False], ids=["whole", "without the example"])
def test_production_is_up_when_the_command_ends(in_docker: Callable[..., Reader], example: bool) -> None:
    reader = in_docker()
    if not example:
        remove_the_example(reader)
    reader.run("make prod-up")
    assert requests.get(reader.url("/api/health"), timeout=10).json()["status"] == "ok"
    assert requests.get(reader.url(), timeout=10).status_code == (200 if example else 404)


@pytest.mark.docker
def test_jaeger_is_there_when_the_command_ends(in_docker: Callable[..., Reader], tmp_path: Path) -> None:
    """Where Jaeger's image cannot be pulled, a small receiver of the same name stands in for it."""
    reader = in_docker(local_viewer="jaeger")
    compose = (reader.folder / "compose.yaml").read_text("utf-8")
    (image,) = re.findall(r"^    image: (jaegertracing/\S+)$", compose, re.MULTILINE)
    stands_in = run("docker", "image", "inspect", image, check=False).returncode != 0
    if stands_in:
        (tmp_path / "jaeger.py").write_text(JAEGER)
        command = 'CMD ["python", "-u", "/jaeger.py"]'
        (tmp_path / "Dockerfile").write_text(f"FROM python:3.14-slim-trixie\nCOPY jaeger.py /\n{command}\n")
        docker("build", "--tag", image, ".", cwd=tmp_path)
    try:
        reader.run("docker compose up --detach viewer")
        url = reader.as_here(rows(reader.folder / "README.md", "Where | What")[0][0].strip("<>"))
        assert eventually(lambda: answers(url), 30)
    finally:
        run("docker", "compose", "down", "--timeout", "5", cwd=reader.folder, check=False, **reader.env)
        if stands_in:
            docker("image", "rm", "--force", image, check=False)


# What both viewers' projects say.


@pytest.fixture(scope="module", params=VIEWERS)
def readme(request: pytest.FixtureRequest, render_into: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = render_into(tmp_path_factory.mktemp("to read"), **OURS, local_viewer=request.param)
    return project / "README.md"


def run_here() -> set[str]:
    """The commands that tests of this file type."""
    found = set()
    for node in ast.walk(ast.parse(Path(__file__).read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="reader"), attr="run" | "start"), args=[first, *_]):
                assert isinstance(first, ast.Constant)
                found.add(str(first.value))
    return found


def is_run_elsewhere(command: str) -> bool:
    """Whether the test that ELSEWHERE names is there, and has the part of the command."""
    if command not in ELSEWHERE:
        return False
    file, name, part = ELSEWHERE[command]
    tests = ast.parse((ROOT / "tests" / file).read_text("utf-8")).body
    (test,) = [each for each in tests if isinstance(each, ast.FunctionDef) and each.name == name]
    return part in {node.value for node in ast.walk(test) if isinstance(node, ast.Constant)}


def test_a_test_runs_every_command_of_the_project(readme: Path) -> None:
    said = commands(readme)
    assert len(said) > 15
    assert [each for each in said if each not in run_here() and not is_run_elsewhere(each)] == []


def test_the_project_s_own_names_are_said(readme: Path) -> None:
    text = readme.read_text("utf-8")
    assert text.startswith("# My \\*shop\\*\n\n*What is sold \\| where*\n")
    assert "The dataset is `shop-api`." in text
    assert "Python 3.13" in text
    assert text.count("OWNER/my-shop") == 3
    assert not re.search(r"backend-flask|Cruddur|cruddur|3\.14|cookiecutter\.|#%", text)
    assert not re.search(r"\n\n\n|[^\n]\n```(sh|python|text)\n|^```\n[^\n]", text, re.MULTILINE)
    built_in = (readme.parent / "viewer").exists()
    assert [name in text for name in ("4318", "viewer/", "Jaeger", "16686")] == [built_in] * 2 + [not built_in] * 2


def test_every_file_variable_and_link_that_the_project_names_is_there(readme: Path) -> None:
    named = [name for name in in_backticks(prose(readme)) if re.fullmatch(r"[\w./-]+", name)]
    files = {name for name in named if "/" in name.strip("/") or "." in name} - {"tests/test_ranking.py"}
    routes = {name for name in files if name.startswith("/api/")}
    ours = {name for name in files - routes if not re.match(r"app\.", name)}
    assert len(ours) > 15
    assert {name for name in ours if not (readme.parent / name).exists()} - {".env"} == set()
    example = (readme.parent / ".env.example").read_text("utf-8")
    variables = {name for name in named if re.fullmatch(r"[A-Z]+_[A-Z_]+|PORT", name)} - {"PROFILES"}
    assert {name for name in variables if f"\n#{name}=" not in example} == set()
    assert {cell for cells in rows(readme, "Variable | For") for cell in in_backticks(cells[0])} <= variables
    links = re.findall(r"\]\(([^)]+)\)", prose(readme))
    relative = [link for link in links if not link.startswith("https://")]
    assert relative
    assert [link for link in relative if not (readme.parent / link).exists()] == []


# The template's.

README = ROOT / "README.md"


@pytest.fixture
def published(template: Path, tmp_path: Path) -> Path:
    """The template as a repository with two commits, the first one with the tag of this version; a settings file of git
    with which its address leads there."""
    repository = tmp_path / "published"
    shutil.copytree(template, repository)
    settings = tmp_path / "gitconfig"
    settings.write_text(
        f'[url "{repository}"]\n    insteadOf = https://github.com/OWNER/cookiecutter-traced-flask\n'
        "[user]\n    name = Ada\n    email = ada@example.com\n[safe]\n    directory = *\n"
    )
    git = ("git", "-c", "init.defaultBranch=main", "-C", str(repository))
    env = {"GIT_CONFIG_GLOBAL": str(settings)}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for command in ("init --quiet", "add --all", "commit --quiet --message=First", f"tag v{version}"):
        run(*git, *command.split(), **env)
    return settings


def test_a_project_is_made_and_updated_as_the_text_says(published: Path, config_file: str, tmp_path: Path) -> None:
    folder = tmp_path / "projects"
    folder.mkdir()
    reader = Reader(folder, GIT_CONFIG_GLOBAL=str(published), COOKIECUTTER_CONFIG=config_file, HOME=str(tmp_path))
    try:
        questions = "\n" * 8
        first = "What is your project called?"
        reader.run(
            "cookiecutter https://github.com/OWNER/cookiecutter-traced-flask --checkout v0.2.0", first, questions
        )
        made = folder / "cruddur"
        made.rename(folder / "by cookiecutter")
        reader.run("cruft create https://github.com/OWNER/cookiecutter-traced-flask", first, questions)
        note = made / ".cruft.json"
        assert note.exists()
        assert (made / "Procfile").read_bytes() == (folder / "by cookiecutter" / "Procfile").read_bytes()

        repository = tmp_path / "published"
        with (repository / PROJECT / "Procfile").open("a") as file:
            file.write("# Newer.\n")
        for where, command in (
            (repository, "commit --quiet --all --message=Newer"),
            (made, "init --quiet"),
            (made, "add --all"),
            (made, "commit --quiet --message=Made"),
        ):
            run("git", "-C", str(where), *command.split(), GIT_CONFIG_GLOBAL=str(published))
        reader.run("cd cruddur")
        reader.run("cruft update --skip-apply-ask")
        assert (made / "Procfile").read_text("utf-8").endswith("# Newer.\n")
    finally:
        reader.close()


def test_a_test_runs_every_command_of_the_template() -> None:
    assert BY_CI in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    said = commands(README)
    assert len(said) == 5
    assert [each for each in said if each not in {*run_here(), BY_CI} and not is_run_elsewhere(each)] == []


def test_the_template_s_readme_is_of_this_version_and_shows_what_a_project_s_does(default_project: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert set(re.findall(r"v\d+\.\d+\.\d+", README.read_text("utf-8"))) == {f"v{version}"}
    assert blocks(README, "text") == blocks(default_project / "README.md", "text")


def test_every_file_that_the_template_s_readme_names_is_there(default_project: Path) -> None:
    named = {name for name in in_backticks(prose(README)) if re.fullmatch(r"[\w.][\w./-]*", name)}
    files = {name for name in named if "/" in name or "." in name}
    assert len(files) > 10
    missing = {name for name in files if not (default_project / name).exists() and not (ROOT / name).exists()}
    assert missing - {".env", "demo/"} == set()
