"""The documentation: what it says is what is there, its links lead somewhere, and it becomes a site."""

from __future__ import annotations

import ast
import html.parser
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import opentelemetry.environment_variables
import opentelemetry.instrumentation.environment_variables
import opentelemetry.sdk.environment_variables
import pytest
import requests
import yaml
from conftest import PROJECT, ROOT, environment, free_ports
from markdown_it import MarkdownIt
from markdown_it.token import Token
from processes import answers, running
from receiver import Receiver, attributes, eventually, receiving

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
GUIDES = DOCS / "how-to"
MARKDOWN = MarkdownIt().enable("table")

# Whom the documentation relies on: a link to a new host is added here too, and whether it is still there, the
# workflow `links.yml` asks.
HOSTS = (
    "codespaces.new",
    "cookiecutter.readthedocs.io",
    "cruft.github.io",
    "docs.github.com",
    "docs.honeycomb.io",
    "github.com",
    "gitpod.io",
    "img.shields.io",
    "ona.com",
    "opentelemetry.io",
    "vscode.dev",
    "www.honeycomb.io",
    "www.w3.org",
)


# Reading Markdown.


@dataclass
class Table:
    heading: str
    rows: list[list[str]] = field(default_factory=list)  # the cells as they are written, without the first row

    def first(self) -> list[str]:
        """What is in backticks in the first cells."""
        return [name for row in self.rows for name in in_backticks(row[0])]


def in_backticks(text: str) -> list[str]:
    return [token.content for token in MARKDOWN.parseInline(text)[0].children or [] if token.type == "code_inline"]


def tables(page: Path) -> list[Table]:
    found: list[Table] = []
    heading = ""
    tokens = MARKDOWN.parse(page.read_text("utf-8"))
    for before, token in itertools.pairwise(tokens):
        if before.type == "heading_open":
            heading = token.content
        elif before.type == "table_open":
            found.append(Table(heading))
        elif token.type == "tr_open" and before.type != "thead_open":
            found[-1].rows.append([])
        elif before.type == "td_open":
            found[-1].rows[-1].append(token.content)
    return found


def blocks(page: Path, language: str) -> list[str]:
    return [token.content for token in MARKDOWN.parse(page.read_text("utf-8")) if token.info == language]


def inline(page: Path) -> Iterator[Token]:
    for token in MARKDOWN.parse(page.read_text("utf-8")):
        yield from token.children or []


def links(page: Path) -> list[str]:
    """Where a page leads: links and pictures, those in HTML too."""
    found = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in inline(page)]
    text = "".join(t.content for t in MARKDOWN.parse(page.read_text("utf-8")) if t.type in ("html_block", "inline"))
    return [*filter(None, found), *re.findall(r"<(?:a|img)\b[^>]*(?:href|src)=\"([^\"]+)\"", text)]


def anchors(page: Path) -> set[str]:
    """The names that a code host gives to headings."""
    seen: Counter[str] = Counter()
    found = set()
    for before, token in itertools.pairwise(MARKDOWN.parse(page.read_text("utf-8"))):
        if before.type == "heading_open":
            text = "".join(child.content for child in token.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def pages_of_the_template() -> list[Path]:
    return [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md")), *ROOT.glob("bench/*.md"), *ROOT.glob(".github/**/*.md")]


@pytest.fixture(scope="session")
def pages(render_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every page of both levels, those of the project as both viewers have it."""
    both = [render_into(tmp_path_factory.mktemp("pages"), local_viewer=each) for each in ("built-in", "jaeger")]
    return [*pages_of_the_template(), *(page for project in both for page in project.rglob("*.md"))]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else "/".join(path.parts[-2:])


# Links.


def test_every_relative_link_and_anchor_leads_somewhere(pages: list[Path]) -> None:
    dead = []
    for page in pages:
        for link in links(page):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists() or (parts.fragment and parts.fragment not in anchors(target)):
                dead.append(f"{shown(page)}: {link}")
    assert dead == []


def test_pages_of_the_site_link_to_no_file_outside_of_it() -> None:
    outside = [
        f"{shown(page)}: {link}"
        for page in DOCS.rglob("*.md")
        for link in links(page)
        if not urlsplit(link).scheme and not (page.parent / urlsplit(link).path).resolve().is_relative_to(DOCS)
    ]
    assert outside == []


def test_every_other_link_is_https_to_a_known_host(pages: list[Path]) -> None:
    found = {urlsplit(link) for page in pages for link in links(page) if urlsplit(link).scheme}
    here = {each for each in found if each.hostname in ("127.0.0.1", "localhost")}
    assert {each.geturl() for each in found - here if each.scheme != "https"} == set()
    assert sorted({each.hostname or "" for each in found - here}) == list(HOSTS)


def test_codespell_finds_nothing() -> None:
    done = subprocess.run([beside("codespell")], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def beside(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


# The site.


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [beside("mkdocs"), "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return folder


class Article(html.parser.HTMLParser):
    """Counts the elements of a page's article, and notes what the page as a whole fetches from elsewhere."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.fetched: list[str] = []
        self._inside = False
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self._inside = self._inside or tag == "article"
        if self._inside:
            self.counts[tag] += 1
        address = named.get("src") or (named.get("href") if tag == "link" else None) or ""
        if re.match("https?:|//", address) and named.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(address)

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "article"


def test_the_site_builds_strictly_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    built = list(site.rglob("*.html"))
    assert len(built) == len(list(DOCS.rglob("*.md"))) + 1  # and the page for what is not found
    assert {page.name: Article(page).fetched for page in built if Article(page).fetched} == {}
    styles = [style.read_text("utf-8") for style in site.rglob("*.css")]
    assert [found for style in styles for found in re.findall(r"url\(['\"]?(?:https?:)?//[^)]*", style)] == []


def test_a_page_has_the_same_parts_on_the_site_as_on_a_code_host(site: Path) -> None:
    """MkDocs is stricter than CommonMark about blank lines and indentation: a list could become a paragraph."""
    parts = {"h1", "h2", "h3", "li", "table", "tr", "pre", "img", "blockquote"}
    differing = []
    for page in DOCS.rglob("*.md"):
        here = Counter(t.tag for t in MARKDOWN.parse(page.read_text("utf-8")) if t.nesting >= 0)
        here["pre"] = sum(t.type in ("fence", "code_block") for t in MARKDOWN.parse(page.read_text("utf-8")))
        here["img"] = sum(token.type == "image" for token in inline(page))
        there = Article(site / page.relative_to(DOCS).with_suffix(".html")).counts
        differing += [f"{shown(page)}: {here[p]} {p}, {there[p]} on the site" for p in parts if here[p] != there[p]]
    assert differing == []


# Prompts.


def test_every_prompt_is_there_with_its_question_and_default() -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    (table,) = tables(REFERENCE / "prompts.md")
    said = {in_backticks(row[0])[0]: (row[1], in_backticks(row[2])) for row in table.rows}
    asked = {}
    for name, sentence in prompts["__prompts__"].items():
        question = sentence if isinstance(sentence, str) else sentence["__prompt__"]
        default = prompts[name] if isinstance(prompts[name], list) else [prompts[name]]
        asked[name] = (question, ["cruddur", "project_name"] if name == "project" else default)
    assert said == asked


def test_what_is_refused_is_quoted_as_the_hook_says_it() -> None:
    spec = importlib.util.spec_from_file_location("hook", ROOT / "hooks" / "pre_gen_project.py")
    assert spec
    assert spec.loader
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    good = {prompt: example for prompt, example, _ in hook.CHECKS}
    (quoted,) = blocks(REFERENCE / "prompts.md", "text")
    lines = quoted.splitlines()
    for line in lines:
        prompt, value = re.findall(r"^  (\w+) ('.*?') ", line)[0]
        assert hook.problems({**good, prompt: ast.literal_eval(value)}) == [line]
    assert len(lines) > 5


# Files.


def test_every_file_of_a_project_is_there(default_project: Path, render: Callable[..., Path]) -> None:
    def listed(project: Path) -> set[str]:
        return {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}

    by_heading = {table.heading: table.first() for table in tables(REFERENCE / "files.md")}
    named = [name for names in by_heading.values() for name in names]
    assert len(named) == len(set(named))
    folders = [name for name in named if name.endswith("/")]
    files = listed(default_project)
    of_folders = {file for file in files for folder in folders if file.startswith(folder)}
    assert [folder for folder in folders if not any(file.startswith(folder) for file in files)] == []
    assert files - of_folders == set(named) - set(folders)
    without = files - listed(render(local_viewer="jaeger"))
    assert {file for file in without if not file.startswith("tests/test_viewer")} == {
        file for file in files for name in by_heading["The viewer"] if file == name or file.startswith(name)
    }


# Variables.

A_NAME = "[A-Z][A-Z0-9_]*"
IN_TEXT = {  # where files that are not Python read variables
    "*compose*.yaml": rf"\$\{{({A_NAME})|^\s+({A_NAME}):\s*(?:#.*)?$",
    "*.yml": rf"\$\{{?({A_NAME})|secrets\.({A_NAME})",
    "Procfile": rf"\$\{{?({A_NAME})",
    "Makefile": rf"^({A_NAME}) \?=|^ifdef ({A_NAME})$",
    ".env.example": rf"^#?({A_NAME})=",
    "Dockerfile*": rf"^ARG ({A_NAME})",
}


class Variables(ast.NodeVisitor):
    """The variables that a program reads or gives a default, as patterns; in `unknown` what could not be found out."""

    def __init__(self, source: str) -> None:
        self.found: set[str] = set()
        self.unknown: list[str] = []
        self._scopes: list[dict[str, list[ast.expr]]] = []
        self._enter(ast.parse(source))

    def _enter(self, node: ast.AST) -> None:
        self._scopes.append(assigned(node, self._scopes[0] if self._scopes else {}))
        self.generic_visit(node)
        self._scopes.pop()

    visit_FunctionDef = _enter

    def visit_Call(self, node: ast.Call) -> None:
        name, _, method = ast.unparse(node.func).rpartition(".")
        asks = name in ("os.environ", "environ", "settings()") and method in ("get", "pop", "setdefault")
        if asks or (name, method) == ("os", "getenv"):
            self._read(node.args[0])
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if ast.unparse(node.value) == "os.environ":
            self._read(node.slice)
        self.generic_visit(node)

    def _read(self, name: ast.expr) -> None:
        self.found |= set(found := self._texts(name))
        if not found:
            self.unknown.append(ast.unparse(name))

    def _texts(self, expression: ast.expr) -> list[str]:
        """Every text that an expression may be, as patterns."""
        match expression:
            case ast.Constant(value=str(text)):
                return [re.escape(text)]
            case ast.Name(id=name):
                scope = next((scope for scope in reversed(self._scopes) if name in scope), {})
                return [text for each in scope.get(name, []) for text in self._texts(each)]
            case ast.IfExp(body=body, orelse=orelse):
                return self._texts(body) + self._texts(orelse)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return ["".join(parts) for parts in itertools.product(self._texts(left), self._texts(right))]
            case ast.JoinedStr(values=values):
                parts = [self._texts(v.value if isinstance(v, ast.FormattedValue) else v) or ["[A-Z]+"] for v in values]
                return ["".join(each) for each in itertools.product(*parts)]
        return []


def assigned(scope: ast.AST, of_module: dict[str, list[ast.expr]]) -> dict[str, list[ast.expr]]:
    """What the names of a scope may be: by assignment, and in loops over what is written out."""
    found: dict[str, list[ast.expr]] = {}

    def assign(target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Name(id=name), _:
                found.setdefault(name, []).append(value)
            case ast.Tuple(elts=[first, *_]), ast.Constant():  # the key of an item
                assign(first, value)
            case ast.Tuple(elts=targets), ast.Tuple(elts=values):
                for each, text in zip(targets, values, strict=False):
                    assign(each, text)

    def written_out(over: ast.expr) -> list[ast.expr]:
        match over:
            case ast.Tuple(elts=values) | ast.List(elts=values):
                return values
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="items")):
                dicts = [each for each in of_module.get(name, []) if isinstance(each, ast.Dict)]
                return [key for each in dicts for key in each.keys if key]
        return []

    for node in statements(scope):
        match node:
            case ast.Assign(targets=[target], value=value):
                assign(target, value)
            case ast.For(target=target, iter=over) | ast.comprehension(target=target, iter=over):
                for value in written_out(over):
                    assign(target, value)
    return found


def statements(scope: ast.AST) -> Iterator[ast.AST]:
    """Everything in a scope but what is in the functions in it."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, ast.FunctionDef):
            yield from statements(node)


def programs() -> list[Path]:
    """Everything in Python that a project runs, and what starts the demo."""
    folders = ("backend", "profiles", "viewer", ".devcontainer")
    modules = [path for folder in folders for path in (ROOT / PROJECT / folder).rglob("*.py")]
    return [*modules, *(ROOT / PROJECT / "bin").iterdir(), ROOT / PROJECT / "gunicorn.conf.py", ROOT / "demo.py"]


def test_every_variable_that_is_read_is_there_and_no_other() -> None:
    patterns: set[str] = set()
    for program in programs():
        variables = Variables(program.read_text("utf-8"))
        assert variables.unknown == [], program
        patterns |= variables.found
    for glob, pattern in IN_TEXT.items():
        for file in [*(ROOT / PROJECT).rglob(glob), *ROOT.glob(glob)]:
            if file.is_file() and ".venv" not in file.parts and file.name not in ("mkdocs.yml", "dependabot.yml"):
                found = re.findall(pattern, file.read_text("utf-8"), re.MULTILINE)
                patterns |= {name for each in found for name in ([each] if isinstance(each, str) else each) if name}
    assert len(patterns) > 50
    documented = [name for table in tables(REFERENCE / "variables.md") for name in table.first()]
    assert len(documented) == len(set(documented))
    assert [each for each in sorted(patterns) if not any(re.fullmatch(each, name) for name in documented)] == []
    others = {
        name
        for module in (
            opentelemetry.environment_variables,
            opentelemetry.instrumentation.environment_variables,
            opentelemetry.sdk.environment_variables,
        )
        for name in vars(module)
        if name.startswith("OTEL_")
    }
    text = (ROOT / PROJECT / "bin" / "honeycomb").read_text("utf-8")  # whose advice names those of the network
    others |= set(re.findall(r"\b(?:[A-Z]+_PROXY|SSL_CERT_FILE)\b", text)) | {"HTTPS_PROXY"}
    unread = {name for name in documented if not any(re.fullmatch(each, name) for each in patterns)}
    assert unread - others == set()


def test_defaults_are_those_of_the_example(default_project: Path) -> None:
    example = dict(re.findall(rf"^#({A_NAME})=(.+)$", (default_project / ".env.example").read_text(), re.MULTILINE))
    said = {
        name: found[1]
        for table in tables(REFERENCE / "variables.md")
        for row in table.rows
        for name in in_backticks(row[0])
        if (found := re.match("`([^`]+)`", row[1]))
    }
    both = said.keys() & example.keys()
    assert {name: said[name] for name in both} == {name: example[name] for name in both}
    assert len(both) > 5


# Commands.


def output_of(*command: str, cwd: Path) -> str:
    env = environment(PYTHONDONTWRITEBYTECODE="1", COLUMNS="200")
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=True).stdout


def targets(folder: Path) -> set[str]:
    return set(re.findall(r"^  make ([a-z-]+)", output_of("make", "help", cwd=folder), re.MULTILINE))


def of_commands(heading: str) -> list[Table]:
    return [table for table in tables(REFERENCE / "commands.md") if table.heading == heading]


@pytest.mark.parametrize("level", ["project", "template"])
def test_every_make_target_is_there(level: str, default_project: Path) -> None:
    (table,) = of_commands(f"make, in {'a' if level == 'project' else 'the'} {level}")
    there = targets(default_project if level == "project" else ROOT)
    assert sorted(table.first()) == sorted(f"make {target}" for target in there)


def commands_and_options(project: Path, *words: str) -> Iterator[tuple[str, str]]:
    """Each command that needs no further word, with its options, by asking it for help."""
    said = output_of(sys.executable, "bin/honeycomb", *words, "--help", cwd=project)
    if further := re.findall(r"^    ([a-z]+) {2,}\S", said, re.MULTILINE):
        for word in further:
            yield from commands_and_options(project, *words, word)
    else:
        for option in ["", *(set(re.findall("--[a-z-]+", said)) - {"--help"})]:
            yield " ".join(words), option


def test_every_command_of_honeycomb_is_there_with_its_options(default_project: Path) -> None:
    there = set(commands_and_options(default_project))
    commands, options, _ = of_commands("bin/honeycomb")
    said = {re.sub("^bin/honeycomb | [A-Z]+$| --.*", "", each) for each in commands.first()}
    assert said == {command for command, _ in there}
    assert {(of, in_backticks(row[0])[0]) for row in options.rows for of in in_backticks(row[1])} == {
        (command, option) for command, option in there if option
    }


def test_the_options_of_the_other_programs_are_there(default_project: Path) -> None:
    said = output_of(sys.executable, "bin/traffic", "--help", cwd=default_project)
    (traffic,) = of_commands("bin/traffic")
    assert set(traffic.first()) == set(re.findall("--[a-z]+", said)) - {"--help"}
    (demo,) = of_commands("demo.py")
    assert demo.first() == re.findall('"(--[a-z]+)"]', (ROOT / "demo.py").read_text("utf-8"))[-1:]


def test_commands_that_pages_name_exist(pages: list[Path], default_project: Path) -> None:
    known = targets(ROOT) | targets(default_project)
    of_honeycomb = {command for command, _ in commands_and_options(default_project)}
    wrong = []
    for page in pages:
        code = [token.content for token in inline(page) if token.type == "code_inline"]
        code += [line for block in blocks(page, "sh") for line in block.splitlines()]
        for text in code:
            for called in re.findall(r"^(?:[A-Z_]+=\S+ )*make ((?:[a-z-]+ ?)+)", text.partition("#")[0]):
                wrong += [f"{shown(page)}: make {word}" for word in called.split() if word not in known]
            for called in re.findall(r"^bin/honeycomb ((?:[a-z]+ ?){1,2})", text):
                words = called.split()
                if not ({" ".join(words), words[0]} & (of_honeycomb | {"key"})):
                    wrong.append(f"{shown(page)}: bin/honeycomb {called}")
    assert wrong == []


MADE_LATER = ("demo/", "site/", ".venv/", ".cruft.json")


def test_files_that_pages_name_exist(pages: list[Path], default_project: Path) -> None:
    """A file outside of the site is named and not linked, so no other check would miss it."""
    missing = []
    for page in pages:
        if page.is_relative_to(ROOT / "bench"):  # whose results name files of packages
            continue
        text = page.read_text("utf-8")
        for name in {token.content for token in inline(page) if token.type == "code_inline"}:
            if not re.fullmatch(r"[\w./-]*\w\.(?:py|md|ya?ml|toml|txt|json|svg|css)|[\w./-]+/", name):
                continue
            made = name in MADE_LATER or re.search(
                rf"(?:new file |goes into `|^# ){re.escape(name)}", text, re.MULTILINE
            )
            if not made and not any((folder / name).exists() for folder in (ROOT, default_project, page.parent)):
                missing.append(f"{shown(page)}: {name}")
    assert missing == []


# What is traced.

REQUESTS = (
    "/api/activities/home?token=1",
    "/api/activities/@andrew",
    "/api/activities/@nobody",
    "/api/examples/slow",
    "/api/examples/failing",
    "/api/no-such-page",
)
KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass
class Telemetry:
    receiver: Receiver
    headers: set[str]
    errors: set[str]  # names in the JSON of errors

    def spans(self) -> list[dict[str, Any]]:
        return [{**span, "kind": KINDS[span["kind"]]} for span in self.receiver.spans()]


@pytest.fixture(scope="module")
def telemetry(default_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telemetry]:
    """What a project sends for one request of each kind, and for one while profiles is away."""
    logs = tmp_path_factory.mktemp("telemetry")
    ports = dict(zip(("backend", "profiles"), free_ports(2), strict=True))
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
            "SAMPLE_RATE": "2",
            "VIEWER_ENDPOINT": receiver.url,  # for trace_url; it does not get everything twice
            "PROFILES_URL": f"http://127.0.0.1:{ports['profiles']}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        started = {}
        for service, port in ports.items():
            flask = [sys.executable, "-m", "flask", "--app", f"{service}.app", "run", "--debug", "--no-debugger"]
            command = [*flask, "--no-reload", "--port", str(port)]
            started[service] = stack.enter_context(running(command, default_project, logs / service, **env))
        base = f"http://127.0.0.1:{ports['backend']}"
        for port in ports.values():
            health = f"http://127.0.0.1:{port}/api/health"
            assert eventually(partial(answers, health), 40), (logs / "backend").read_text()
        kept = [ask(base + path) for path in REQUESTS]

        def named(name: str) -> int:
            return sum(span["name"] == name for span in receiver.spans())

        # What a killed process has not sent is lost; and spans are sent in the order in which they end.
        assert eventually(lambda: named("GET /api/profiles/<handles>") >= 2 and named("GET") >= 3)
        started["profiles"].kill()
        kept.append(ask(base + REQUESTS[0]))
        roots = {answer.headers["traceresponse"].split("-")[1] for answer in kept}
        assert eventually(
            lambda: (
                {span["trace_id"] for span in receiver.spans() if not span["parent_id"]} >= roots
                and any(record.attributes for _, record in records(receiver))
                and "error.type" in of_metrics(receiver).get("http.client.request.duration", set())
            )
        ), sorted(span["name"] for span in receiver.spans())
        errors = {name for answer in kept if answer.status_code >= 400 for name in answer.json()}
        yield Telemetry(receiver, set(kept[0].headers), errors)


def ask(url: str) -> requests.Response:
    """The answer to a request whose trace is kept, as one in two is."""
    while True:
        answer = requests.get(url, timeout=20)
        if int(answer.headers["traceresponse"][-2:], 16) & 1:
            return answer


def records(receiver: Receiver) -> Iterator[Any]:
    for message in receiver.messages("/v1/logs"):
        for resource in message.resource_logs:
            for scope in resource.scope_logs:
                yield from ((scope.scope.name, record) for record in scope.log_records)


def of_metrics(receiver: Receiver) -> dict[str, set[str]]:
    """The attributes of each metric."""
    found: dict[str, set[str]] = {}
    for message in receiver.messages("/v1/metrics"):
        for metric in (m for r in message.resource_metrics for s in r.scope_metrics for m in s.metrics):
            points = getattr(metric, metric.WhichOneof("data")).data_points
            found.setdefault(metric.name, set()).update(*(attributes(point.attributes) for point in points))
    return found


def of_telemetry(heading: str) -> list[Table]:
    return [table for table in tables(REFERENCE / "telemetry.md") if table.heading == heading]


def test_every_span_is_there_with_its_attributes(telemetry: Telemetry) -> None:
    spans, meanings = of_telemetry("Spans")
    (instrumented,) = of_telemetry("Attributes that instrumentations set")
    said: dict[tuple[str, str, str], set[str]] = {}
    for row in spans.rows:
        said[(in_backticks(row[0])[0], row[1], row[2])] = set(in_backticks(row[3])) | {
            name
            for each in instrumented.rows
            if row[2] in each[1] or each[1] == "every kind"
            for name in in_backticks(each[0])
        }
    came: dict[tuple[str, str, str], set[str]] = {}
    about = {"name", "service", "resource", "trace_id", "span_id", "parent_id", "kind", "status", "events"}
    for span in telemetry.spans():
        service = {"backend-flask": "backend"}.get(span["service"], span["service"])
        came.setdefault((span["name"], service, span["kind"]), set()).update(span.keys() - about)
    assert came.keys() == said.keys()
    assert {each: names - said[each] for each, names in came.items() if names - said[each]} == {}
    of_kind: dict[str, set[str]] = {}
    for (_, _, kind), names in came.items():
        of_kind.setdefault(kind, set()).update(names)
    for each in instrumented.rows:
        for kind in KINDS.values() if each[1] == "every kind" else each[1].split(", "):
            assert set(in_backticks(each[0])) <= of_kind[kind], each
    own = {name for names in came.values() for name in names if name.startswith("app.")}
    assert own == set(meanings.first()) == {name for row in spans.rows for name in in_backticks(row[3])}


def test_resource_headers_logs_and_metrics_are_there(telemetry: Telemetry) -> None:
    (resource,), (headers,), (metrics,) = map(of_telemetry, ("Resource", "Headers", "Metrics"))
    assert {name for span in telemetry.spans() for name in span["resource"]} == set(resource.first())
    answered = {name for row in headers.rows if row[1] == "every traced answer" for name in in_backticks(row[0])}
    assert telemetry.headers - answered == {"Server", "Date", "Content-Type", "Content-Length", "Connection"}
    assert answered <= telemetry.headers
    assert telemetry.errors == {"error", "trace_id", "trace_url", "traceback"}
    assert {in_backticks(row[0])[0]: set(in_backticks(row[2])) for row in metrics.rows} == of_metrics(
        telemetry.receiver
    )
    exceptions = [attributes(record.attributes) for scope, record in records(telemetry.receiver) if record.attributes]
    assert set(exceptions[0]) == {"exception.type", "exception.message", "exception.stacktrace"}
    assert all(record.trace_id and record.span_id for _, record in records(telemetry.receiver))
    text = (REFERENCE / "telemetry.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in telemetry.errors | set(exceptions[0]))


# What the log says.

COUNTED = r"\d+ (?:span|log record)s?(?: and \d+ (?:span|log record)s?)*(?: lost| sent without an answer)?"


def what_can_be_said() -> list[str]:
    """Every text in the backend's code that a person could read, as patterns."""
    found = []
    for module in (ROOT / PROJECT / "backend").glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            match node:
                case ast.Constant(value=str(text)):
                    pattern = re.sub(r"%(?:\\\.0)?[a-z]", "(.+?)", re.escape(text).replace(r"%\.200s", ".+"))
                case ast.JoinedStr(values=values):
                    parts = [re.escape(str(v.value)) if isinstance(v, ast.Constant) else "(.+?)" for v in values]
                    pattern = "".join(parts)
                case _:
                    continue
            if len(re.findall("[a-z]", pattern)) > 5:
                found.append(pattern)
    return found


def can_be_said(text: str, patterns: Collection[str]) -> bool:
    """Whether a text is one of the code's, filled in with words, counts or other such texts; or several in a row."""
    text = text.strip().removesuffix(".")
    if " " not in text or re.fullmatch(COUNTED, text):
        return True
    for pattern in patterns:
        if (found := re.fullmatch(pattern.removesuffix(r"\."), text)) and all(
            part is None or (part != text and can_be_said(part, patterns)) for part in found.groups()
        ):
            return True
    for separator in (". ", ", "):
        if separator in text:
            first, _, rest = text.partition(separator)
            if can_be_said(first, patterns) and can_be_said(rest, patterns) and " " in first:
                return True
    return False


def test_every_log_line_that_is_quoted_can_be_said() -> None:
    patterns = what_can_be_said()
    page = GUIDES / "debug-a-missing-trace.md"
    quoted = [line for block in blocks(page, "text") for line in block.splitlines()]
    for table in tables(page):
        if table.heading.startswith(("1.", "2.")):
            quoted += table.first()
    assert len(quoted) > 30
    assert [line for line in quoted if not can_be_said(line, patterns)] == []
    assert not can_be_said("Telemetry is not reaching http://localhost:4318: it is asleep.", patterns)


# The guides' code.


def files_of_the_guides() -> dict[str, str]:
    """What the guides have in full: the block's first line names the file."""
    found: dict[str, str] = {}
    for page in sorted(GUIDES.glob("*.md")):
        for block in blocks(page, "python"):
            if named := re.match(r"# ([\w/]+\.py)\n", block):
                assert named[1] not in found
                found[named[1]] = block.removeprefix(named[0])
    return found


def test_the_guides_code_passes_its_tests_and_the_linter(default_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(default_project, project)
    files = files_of_the_guides()
    for name, text in files.items():
        (project / name).write_text(text)
    tests = [name for name in files if name.startswith("tests/")]
    env = environment(PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE), done.stdout
    for check in (["check"], ["format", "--check"]):
        linted = [beside("ruff"), *check, "--no-cache", *files]
        done = subprocess.run(linted, cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("language", "parse"),
    [("json", json.loads), ("toml", tomllib.loads), ("yaml", yaml.safe_load), ("python", ast.parse)],
)
def test_every_block_is_valid_in_its_language(pages: list[Path], language: str, parse: Callable[[str], Any]) -> None:
    for page in pages:
        for block in blocks(page, language):
            if language == "toml" and block.startswith("  "):  # an excerpt of a list
                block = f"excerpt = [\n{block}]"
            parse(block)
