"""The documentation: its links, its reference pages against the code, and every command of its guides, run."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from conftest import PROJECT, ROOT, environment
from containers import engine  # noqa: F401
from reader import DOCKER, Reader, blocks, commands
from receiver import receiving
from test_tutorial import account  # noqa: F401

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READMES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
READMES += sorted((ROOT / "packages").glob("*/README.md"))
REFERENCE = DOCS / "reference"
PACKAGES = sorted((ROOT / "packages").glob("*/src/*/**/*.py"))


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def tables(page: Path, heading: str = "") -> list[list[str]]:
    """The rows of every table of a page, or of the part below a heading, as cells, without the header."""
    text = page.read_text("utf-8")
    if heading:
        text = re.split(r"^## ", text.split(f"## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for table in found for row in table.splitlines()]


def first_names(page: Path, heading: str = "") -> set[str]:
    """What the first column of the tables names."""
    return {name for row in tables(page, heading) for name in code(row[0])}


# Links and words.


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*READMES, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_works(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
        assert page.parent not in [DOCS, *DOCS.iterdir()] or DOCS in target.parents, f"{link} leaves docs/"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [program("mkdocs"), "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    fetched = re.findall(r'(?:src|<link[^>]* href)="(https?:[^"]+)"', (tmp_path / "index.html").read_text("utf-8"))
    assert fetched == []


def test_codespell_finds_nothing() -> None:
    done = subprocess.run([program("codespell")], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_block_is_valid_in_its_language() -> None:
    parsers: dict[str, Callable[[str], object]] = {"python": ast.parse, "json": json.loads, "sh": commands}
    parsers["yaml"] = lambda text: yaml.safe_load(re.sub(r"<<: \*\w+", "", text))
    for page in [*READMES, *PAGES]:
        for block in blocks(page):
            if (parse := parsers.get(block.language)) and not block.text.startswith("    "):
                parse(block.text)


def test_one_place_names_the_address_of_the_repository() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    texts = [path.read_text("utf-8") for path in [*READMES, *PAGES, *(ROOT / ".github").rglob("*.yml")]]
    found = {each for text in texts for each in re.findall(r"https://[\w.]+/[\w-]+/cookiecutter-traced-flask", text)}
    assert found <= {urls.get("Repository")}


# The reference and the code.


def test_every_prompt_is_listed_with_its_question_and_default() -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    questions = prompts["__prompts__"]
    rows = {code(row[0])[0]: row for row in tables(REFERENCE / "prompts.md")}
    assert list(rows) == [name for name in prompts if not name.startswith("_")]
    for name, row in rows.items():
        asked, default = questions[name], prompts[name]
        assert row[1] == (asked if isinstance(asked, str) else asked["__prompt__"])
        assert name == "project" or code(row[2]) == (default if isinstance(default, list) else [default])


def test_every_file_of_a_project_is_listed(default_project: Path, render: Callable[..., Path]) -> None:
    listed = first_names(REFERENCE / "files.md")
    full = render(deployment="Kubernetes too")
    for project in (default_project, full):
        files = [path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()]
        missing = [file for file in files if file not in listed and not any(
            each.endswith("/") and file.startswith(each) for each in listed
        )]  # fmt: skip
        assert missing == []
    assert [name for name in listed if not (full / name).exists()] == []


READS = re.compile(
    r"""\$\$?\{?(?:env:)?([A-Z][A-Z0-9_]{2,})|(?:environ(?:\.get|\.setdefault|\.pop)?[(\[]\s*|\bown\()f?["']([A-Z][A-Z0-9_]{2,})["']"""
)
NOT_SETTINGS = {  # of the shell, of Python, of the HTTP server, or make's own names
    "PATH", "PWD", "HOME", "PYTHONUNBUFFERED", "BIN", "INSTALLED", "PLACE", "RUN", "COMPILE", "TEMPLATE", "GOMEMLIMIT",
}  # fmt: skip


def read_by(project: Path) -> set[str]:
    """The environment variables that the files of a project, and the packages, read."""
    files = [
        path for path in project.rglob("*") if path.is_file() and "test" not in path.name and path.suffix != ".whl"
    ]
    texts = [path.read_text("utf-8") for path in [*files, *PACKAGES] if path.name != "AGENTS.md"]
    found = {name for text in texts for match in READS.findall(text) for name in match if name}
    example = (project / ".env.example").read_text("utf-8")
    wsgi = {"REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "HTTP_HOST", "HTTP_ORIGIN", "QUERY_STRING"}
    return (found | set(re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE))) - NOT_SETTINGS - wsgi


def test_every_variable_is_listed_and_every_listed_one_is_read(render: Callable[..., Path]) -> None:
    listed = first_names(REFERENCE / "variables.md")
    read = read_by(render(deployment="Kubernetes too")) | read_by(render(project="other", local_viewer="jaeger"))
    assert sorted(name for name in read if name not in listed and not name.endswith("_")) == []
    settings = (ROOT / "packages/traced-flask/src/traced_flask/settings.py").read_text("utf-8")
    names = re.findall(r"\(\s*f?\"((?:OTEL_)[^\"]+)\"", settings.replace("{SIGNAL}", "((TRACES|LOGS|METRICS)_)?"))
    elsewhere = {"HTTPS_PROXY", "HTTP_PROXY", "PYTHON", "VERSION", "REVISION", "OTEL_PROPAGATORS"}  # by urllib, make
    elsewhere |= set(runpy.run_path(str(ROOT / PROJECT / "bin" / "honeycomb"))["SECRETS"])
    unread = {name for name in listed - read - elsewhere if not any(re.fullmatch(each, name) for each in names)}
    assert unread == set()


@pytest.mark.parametrize(("heading", "folder"), [("make, in a project", PROJECT), ("make, in the template", ".")])
def test_every_make_target_is_listed(heading: str, folder: str) -> None:
    makefile = (ROOT / folder / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    listed = {code(row[0])[0] for row in tables(REFERENCE / "commands.md", heading)}
    assert listed == {f"make {each}" for each in targets}


def test_every_command_and_option_is_listed() -> None:
    def help_of(*words: str) -> str:
        return subprocess.run([sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True).stdout

    text = help_of("-m", "traced_flask")
    verbs = re.findall(r"^    (\w+)  ", text, re.MULTILINE)
    own = re.findall(r"^    bin/honeycomb (key \w+)  ", help_of(f"{PROJECT}/bin/honeycomb"), re.MULTILINE)
    named = first_names(REFERENCE / "commands.md", "bin/honeycomb")
    assert {" ".join(each.split()[1 : 3 if " key " in each else 2]) for each in named if "bin/" in each} == {
        *verbs,
        *own,
    }
    options = {option for verb in verbs for option in re.findall(r"  (--\w+)", help_of("-m", "traced_flask", verb))}
    assert {each for each in named if each.startswith("--")} == options
    viewer = set(re.findall(r"  (--\w+)", help_of("-m", "otlp_viewer")))
    assert first_names(REFERENCE / "commands.md", "otlp-viewer") == viewer


def test_commands_named_in_pages_exist() -> None:
    texts = {page: page.read_text("utf-8") for page in [*READMES, *PAGES, ROOT / PROJECT / "README.md"]}
    makefiles = [(ROOT / folder / "Makefile").read_text("utf-8") for folder in (".", PROJECT)]
    targets = {each for text in makefiles for each in re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)}
    for page, text in texts.items():
        for line in [*code(text), *(line for block in blocks(page) for line in block.text.splitlines())]:
            if found := re.match(r"(?:[A-Z_]+=\S+ )*make ([a-z-]+)", line):
                assert found[1] in targets, (page, line)


def literals() -> str:
    """Every literal of the packages and of the project, joined as Python joins them."""
    files = [*PACKAGES, *(ROOT / PROJECT / "example").glob("*.py")]
    found = [
        str(node.value)
        for path in files
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join(found).lower()


def test_log_lines_that_a_guide_quotes_exist() -> None:
    page, everything = DOCS / "how-to" / "debug-a-missing-trace.md", literals()
    quoted = [name for row in tables(page) for name in code(row[0]) if " " in name and "traceresponse" not in name]
    quoted += [line for block in blocks(page) if block.language == "text" for line in block.text.splitlines()]
    assert len(quoted) > 30
    variable = r"https?://\S+[a-z0-9]|\b\d+\b|\([^)]*\)|…|[A-Z]+_[A-Z_]+|\.env|the environment|[.:,;]"
    variable += "|a web page|log records|spans|zipkin|otlp or none|http/protobuf"
    for line in quoted:
        for part in (each.strip().lower() for each in re.split(variable, line)):
            assert len(part) < 17 or part in everything, (line, part)


def test_the_page_about_telemetry_lists_what_arrives(installed_project: Path) -> None:
    page = REFERENCE / "telemetry.md"
    program = (
        "from backend.app import create_app; client = create_app({'DEBUG': True}).test_client()\n"
        "for path in ('activities/home', 'activities/@andrew', 'examples/slow', 'examples/failing', 'no?a=b'):\n"
        "    client.get('/api/' + path, headers={'User-Agent': 'test'})"
    )
    with receiving() as receiver:
        env = environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, SAMPLE_RATE="1", OTEL_METRICS_EXPORTER="otlp")
        python = installed_project / ".venv" / "bin" / "python"
        subprocess.run([python, "-c", program], cwd=installed_project, env=env, capture_output=True, check=True)
        spans = receiver.spans()
        metrics = {
            metric.name
            for message in receiver.messages("/v1/metrics")
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
    listed = {name for row in tables(page) for cell in row for name in code(cell)}
    ours = {"name", "service", "resource", "trace_id", "span_id", "parent_id", "kind", "status", "events"}
    assert {span["name"] for span in spans} <= first_names(page, "Spans")
    assert {name for span in spans for name in span} - ours <= listed
    assert {name for span in spans for name in span["resource"]} <= first_names(page, "Resource")
    assert metrics <= first_names(page, "Metrics")
    assert {"GET /api/activities/home", "divide-by-likes"} <= {span["name"] for span in spans}
    source = "".join(path.read_text("utf-8") for path in (ROOT / PROJECT / "example").rglob("*.py"))
    assert {name for name in listed if name.startswith("app.")} == set(re.findall(r'"(app\.\w+)"', source))


# The guides.


ELSEWHERE = {  # the tests of guides that need more than a project
    "kubernetes.md": "test_kubernetes.py",
    "collector.md": "test_collector.py",
    "update-a-project.md": "test_updating.py",
}


def guides() -> Iterator[object]:
    for page in sorted((DOCS / "how-to").glob("*.md")):
        text = "".join(block.text for block in blocks(page) if block.language == "sh" and "not run" not in block.mark)
        if text and page.name not in ELSEWHERE:
            yield pytest.param(page, marks=[pytest.mark.docker] if DOCKER.search(text) else [], id=page.stem)


@pytest.mark.parametrize("page", list(guides()))
def test_the_commands_of_a_guide_work(
    page: Path,
    render: Callable[..., Path],
    account: object,  # noqa: F811
    request: pytest.FixtureRequest,
) -> None:
    docker = request.node.get_closest_marker("docker") is not None
    if docker:
        request.getfixturevalue("engine")
    project = render()
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for arguments in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message=First"]):
        subprocess.run(["git", *arguments], cwd=project, check=True)
    url = getattr(account, "url", "")
    reader = Reader(project, docker=docker, HONEYCOMB_API_ENDPOINT=url)
    try:
        reader.follow(page)
    finally:
        reader.close()
    assert reader.skipped == []


def test_the_command_without_questions_renders_a_project(template: Path, config_file: str, tmp_path: Path) -> None:
    clone = tmp_path / "cookiecutter-traced-flask"
    clone.symlink_to(template)
    reader = Reader(tmp_path, clone=clone, COOKIECUTTER_CONFIG=config_file)
    try:
        reader.follow(REFERENCE / "prompts.md")
    finally:
        reader.close()
    assert (tmp_path / "my-app" / "Procfile").exists()
