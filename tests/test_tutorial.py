"""The tutorial, done as a reader does it: every block of it, in order, in terminals, in a scratch folder.

What a block needs beyond its text is said in an HTML comment above it, which readers do not see:

    terminal N                 typed into this terminal (the one before, when left out)
    ..., in FOLDER             a new terminal is opened there
    ..., stays busy            it does not end by itself; the page goes on once it answers
    ..., ends with N           its exit status, when that is not 0
    ..., asks for the key      it asks for a Honeycomb API key, and the test types one
    ..., Ctrl-C                pressed before the block, or without one
    ..., has ended             what stayed busy there has ended by itself
    terminal N shows           these lines come there, in this order; "…" stands for anything
    new file PATH              the reader puts this into a file
    in PATH, at the end        ... into a file that is there, at its end
    in PATH, in place of NAME  ... in place of a function
    from PATH                  an excerpt of a file
    asked of the viewer        a query
    not run here: NAMES        what the text says it could not try
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import screenshots
from conftest import PROJECT, ROOT, environment, free_ports
from processes import alive, answers, family
from receiver import eventually
from test_docker import engine  # noqa: F401
from test_viewer_browser import browser  # noqa: F401

DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "tutorial").glob("*.md"))
CONTAINERS = "05-containers.md"
LAST = PAGES[-1].name

# The only parts of the tutorial that are not run, each with what stands in for it.
NOT_RUN = {
    "Honeycomb",  # tests/honeycomb_stand_in.py of the project takes its place
    "Gitpod Classic",  # test_gitpod.py and test_key.py, with a stand-in for `gp`
    "Ona",  # test_devcontainer.py, with the client of devcontainers
    "Codespaces",  # the same, with a secret
}

# What looks like the name of a field in the text and is none of a span that this project makes.
NO_FIELDS = {
    "http.server.request.duration",  # a metric
    "http.status_code",  # older names, of which the text says so
    "http.url",
}


class Block(NamedTuple):
    """A fenced block, with what the comment above it says; or such a comment alone, without a language."""

    mark: str
    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(
        r"(?:<!-- ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$|^<!-- ([^\n]+) -->$", text, re.MULTILINE | re.DOTALL
    )
    return [
        Block(each[1] or each[4] or "", each[2] or "", each[3] or "", text.count("\n", 0, each.start()) + 1)
        for each in found
    ]


EDIT = re.compile(r"in (\S+), (?:at the end|in place of (\w+))")


def edit(project: Path, block: Block) -> None:
    """Put the text of a block where its mark says."""
    found = EDIT.fullmatch(block.mark)
    assert found
    file, name = project / found[1], found[2]
    text = file.read_text(encoding="utf-8")
    if name is None:
        file.write_text(f"{text}\n\n{block.text}", encoding="utf-8")
        return
    (function,) = [each for each in ast.parse(text).body if isinstance(each, ast.FunctionDef) and each.name == name]
    lines = text.splitlines(keepends=True)
    first = min([function.lineno, *(each.lineno for each in function.decorator_list)]) - 1
    lines[first : function.end_lineno] = [block.text]
    file.write_text("".join(lines), encoding="utf-8")


VARYING = {
    r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00": r"\S+",
    r"[0-9a-f]{32}": r"[0-9a-f]{32}",
    r"[0-9a-f]{16}": r"[0-9a-f]{16}",
    r"<0\.1 ms|\b\d+\.\d ms": r"(?:<0\.1|[\d,.]+) ms",
    r"\d+\.\d{6,}": r"[\d.e-]+",
    r"…": r".*",
    r"\s+": r"\s+",
}


def pattern(line: str) -> re.Pattern[str]:
    """What lines match that are like this one but for ids, times, durations and the width of columns."""
    branch = re.match(r"[ │]*[├└]─ |", line)
    assert branch
    made = [re.escape(branch[0]) or r"(?:\d{4}-\d\d-\d\d [\d:,]+)?\s*"]  # a log line begins with its time
    for part in re.split(f"({'|'.join(VARYING)})", line[branch.end() :].lstrip()):
        like = (whatever for one, whatever in VARYING.items() if re.fullmatch(one, part))
        made.append(next(like, re.escape(part)))
    return re.compile("".join(made))


class Terminal:
    """A bash that a person types into, and sees what it shows."""

    PROMPT = re.compile(r"\x01(\d+)\x02")

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._shown = ""
        self._window, terminal = pty.openpty()
        modes = termios.tcgetattr(terminal)
        modes[3] &= ~termios.ECHO  # what is typed must not be taken for an answer
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        termios.tcsetwinsize(terminal, (50, 250))
        self.shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "--noediting", "-i"],
            cwd=folder,
            env={**env, "PS1": "\x01$?\x02", "TERM": "dumb"},
            pass_fds=[terminal],
            preexec_fn=lambda: os.login_tty(terminal),
        )
        os.close(terminal)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.ended(1)
        self.mark = len(self._shown)

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                data = os.read(self._window, 1 << 16)
            except OSError:  # nobody is at the other end any more
                return
            self._shown += decoder.decode(data)

    def prompts(self) -> list[str]:
        """The exit statuses that the shell has told, one with each prompt."""
        return self.PROMPT.findall(self._shown)

    def screen(self, whose: bool = False) -> str:
        """What was shown since `mark`, without colours; with the name of the program before its lines, or without."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.PROMPT.sub("", self._shown[self.mark :]))
        return text if whose else re.sub(r"^(?:\d\d:\d\d:\d\d )?[a-z]+[.-]1 +\| ?", "", text, flags=re.MULTILINE)

    def type(self, text: str) -> int:
        """Type a line; how many prompts there will have been when it has ended."""
        before = len(self.prompts())
        os.write(self._window, text.encode())
        return before + 1

    def ended(self, prompts: int, seconds: float = 300) -> str:
        """The exit status of what was typed, once the shell asks for more."""
        assert eventually(lambda: len(self.prompts()) >= prompts, seconds), f"still busy:\n{self.screen()[-4000:]}"
        return self.prompts()[prompts - 1]

    def everything(self) -> str:
        return self._shown

    def close(self) -> None:
        """Close the window, and see that nothing that was started in it is left."""
        started = family(self.shell.pid)
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)
        if not eventually(lambda: not alive(started), 10):
            for pid in alive(started):
                os.kill(pid, signal.SIGKILL)
        self.shell.wait()
        self._reading.join()
        os.close(self._window)


class Reader:
    """Somebody who does what the tutorial says."""

    def __init__(self, folder: Path, honeycomb: Any, **env: str) -> None:
        self.folder = folder
        self.project = folder / "cruddur"
        self.honeycomb = honeycomb
        self.ports = dict(zip(("4567", "4568", "4318", "5001"), map(str, free_ports(4)), strict=True))
        self.viewer = f"http://127.0.0.1:{self.ports['4318']}"
        named = {"PORT": self.ports["4567"], "PROFILES_PORT": self.ports["4568"], "VIEWER_PORT": self.ports["4318"]}
        self.env = environment(HONEYCOMB_API_ENDPOINT=honeycomb.url, **named, **env)
        self.terminals: dict[str, Terminal] = {}
        self.at = "1"
        self.edited = False
        self.busy: dict[str, int] = {}
        self.done: list[str] = []

    def as_here(self, text: str) -> str:
        """With the ports of this machine, where other programs may have those of the text."""
        return re.sub(r"(?<=127\.0\.0\.1:)\d+|(?<=--port )\d+", lambda port: self.ports.get(port[0], port[0]), text)

    def read(self, name: str) -> None:
        """Do what this page says, and the pages before it that have not been done; not those with containers."""
        for page in PAGES:
            if page.name not in self.done and (page.name == name or (page.name < name and page.name != CONTAINERS)):
                self.done.append(page.name)
                for block in blocks(page):
                    try:
                        self.follow(block)
                    except (AssertionError, LookupError, OSError) as error:
                        pytest.fail(f"{page.name}:{block.line}: {error}")

    def follow(self, block: Block) -> None:
        mark = block.mark
        if found := re.fullmatch(r"terminal (\d) shows", mark):
            self.expect(self.terminals[found[1]], block.text)
        elif block.language == "sh" or mark.startswith("terminal"):
            self.use_terminal(mark, block.text)
        elif found := re.fullmatch(r"new file (\S+)", mark):
            assert not (self.project / found[1]).exists()
            (self.project / found[1]).write_text(self.as_here(block.text), encoding="utf-8")
        elif EDIT.fullmatch(mark):
            if not self.edited:
                self.look()
            edit(self.project, block)
            self.edited = True
        elif found := re.fullmatch(r"from (\S+)", mark):
            assert block.text in (self.project / found[1]).read_text(encoding="utf-8")
        elif mark == "asked of the viewer":
            self.ask(json.loads(block.text))
        else:
            assert mark.startswith("not run here: "), f"nobody knows what to do with {block.language} {mark!r}"

    def look(self) -> None:
        """From here on is what the next command, or edit, brings about."""
        for terminal in self.terminals.values():
            terminal.mark = len(terminal.everything())

    def use_terminal(self, mark: str, text: str) -> None:
        what, *more = mark.split(", ") if mark else (f"terminal {self.at}",)
        self.at = what.removeprefix("terminal ")
        if self.at not in self.terminals:
            where = next((each.removeprefix("in ") for each in more if each.startswith("in ")), ".")
            self.terminals[self.at] = Terminal(self.folder / where, self.env)
        terminal = self.terminals[self.at]
        if "Ctrl-C" in more:
            terminal.ended(terminal.type("\x03"), 30)
        if "has ended" in more:
            terminal.ended(self.busy.pop(self.at), 30)
        if text:
            self.settle()
            self.look()
        for line in text.splitlines():
            self.run(terminal, self.as_here(line), more)

    def settle(self) -> None:
        """Be as slow as hands are: after an edit, `make run` starts two services anew."""
        if self.edited:
            anew = [re.compile(rf" {name}\.1 .* \* Restarting with stat") for name in ("backend", "profiles")]
            terminal = self.terminals["1"]
            assert eventually(lambda: all(each.search(terminal.screen(whose=True)) for each in anew), 30)
            assert eventually(self.ready, 30)
        self.edited = False

    def ready(self) -> bool:
        return all(answers(f"http://127.0.0.1:{self.ports[port]}/api/health") for port in ("4318", "4568", "4567"))

    def run(self, terminal: Terminal, line: str, more: list[str]) -> None:
        end = terminal.type(line + "\n")
        if "asks for the key" in more:
            assert eventually(lambda: "Enter skips this: " in terminal.screen())
            terminal.type(self.key + "\n")
        if "stays busy" in more:
            self.busy[self.at] = end
            if "--port" not in line:  # otherwise the text waits for what it prints
                assert eventually(self.ready, 300), terminal.screen()[-4000:]
            return
        expected = next((each.removeprefix("ends with ") for each in more if each.startswith("ends with ")), "0")
        status = terminal.ended(end)
        assert status == expected, f"{line!r} ended with {status}:\n{terminal.screen()[-4000:]}"

    def expect(self, terminal: Terminal, text: str) -> None:
        text = text.replace("https://api.honeycomb.io", self.honeycomb.url)
        wanted = [pattern(self.as_here(line)) for line in text.splitlines()]

        def shown() -> bool:
            lines = iter(terminal.screen().splitlines())
            return all(any(each.fullmatch(line.rstrip()) for line in lines) for each in wanted)

        assert eventually(shown, 30), f"not in this order:\n{text}\nbut:\n{terminal.screen()[-6000:]}"

    def ask(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        answer = requests.post(f"{self.viewer}/api/query", json=query, timeout=10)
        assert answer.status_code == 200, answer.text
        return [row["data"] for row in answer.json()["data"]["results"]]

    @property
    def key(self) -> str:
        return str(next(key for key, known in self.honeycomb.keys.items() if known.kind == "ingest"))

    def traces(self, route: str) -> list[dict[str, Any]]:
        found = requests.get(f"{self.viewer}/api/traces?limit=1000", timeout=10).json()
        return [trace for trace in found if trace.get("route") == route]

    def spans(self, trace_id: str) -> dict[str, dict[str, Any]]:
        """The spans of a trace by name."""
        found = requests.get(f"{self.viewer}/api/traces/{trace_id}", timeout=10).json()
        return {span["name"]: span for span in found["spans"]}

    def close(self) -> None:
        for terminal in self.terminals.values():
            terminal.close()


@pytest.fixture(scope="module")
def stand_in() -> ModuleType:
    path = ROOT / PROJECT / "tests" / "honeycomb_stand_in.py"
    spec = importlib.util.spec_from_file_location("honeycomb_stand_in", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reader(
    template: Path, config_file: str, stand_in: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("a tutorial")
    shutil.copytree(template, folder / "cookiecutter-traced-flask")
    with stand_in.honeycomb() as honeycomb:
        # A Compose name that nothing else on this machine's engine has.
        name = f"traced-{uuid.uuid4().hex[:8]}"
        reader = Reader(folder, honeycomb, COOKIECUTTER_CONFIG=config_file, COMPOSE_PROJECT_NAME=name)
        try:
            yield reader
        finally:
            reader.close()


# What a reader does.


def test_five_minutes_give_a_first_trace(reader: Reader) -> None:
    reader.read("01-a-first-trace.md")
    assert len(reader.traces("/api/activities/home")) == 1


def test_one_request_is_seen_in_three_signals(reader: Reader) -> None:
    reader.read("02-opentelemetry.md")
    (failed,) = reader.traces("/api/examples/failing")
    url = f"{reader.viewer}/api/traces/{failed['trace_id']}"
    assert eventually(lambda: requests.get(url, timeout=10).json()["logs"])


def test_a_dozen_lines_trace_a_call_into_another_process(reader: Reader) -> None:
    reader.read("03-instrument.md")
    (called,) = reader.traces("/captain")
    assert called["services"] == ["plain", "profiles"]
    root = reader.spans(called["trace_id"])["GET /captain"]
    assert "http.status_code" in root
    assert "http.response.status_code" not in root
    assert not (reader.project / "plain.py").exists()


def test_every_package_and_every_step_that_the_tutorial_names_is_in_the_project(default_project: Path) -> None:
    code = ast.parse((default_project / "backend" / "telemetry.py").read_text(encoding="utf-8")).body
    defined = {each.name for each in code if isinstance(each, ast.FunctionDef | ast.ClassDef)}
    imported = {name.name for each in code if isinstance(each, ast.ImportFrom) for name in each.names}
    text = (DOCS / "tutorial" / "03-instrument.md").read_text(encoding="utf-8")
    rows = text.partition("| What it adds |\n")[2].partition("\n\n")[0].splitlines()[1:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[3])}
    assert len(named) > 10
    assert named <= defined | imported
    wanted = tomllib.loads((default_project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    packages = re.findall(r"^\| `(opentelemetry-[\w-]+)` \|", text, re.MULTILINE)
    assert sorted(packages) == sorted(each.partition("==")[0] for each in wanted if each.startswith("opentelemetry-"))


def test_a_span_of_one_s_own_arrives_where_it_belongs(reader: Reader) -> None:
    reader.read("04-spans-and-attributes.md")


@pytest.mark.docker
def test_both_images_are_as_the_tutorial_says(reader: Reader, engine: None) -> None:  # noqa: F811
    reader.read("04-spans-and-attributes.md")
    try:
        reader.read(CONTAINERS)
    finally:
        for file in ("compose.yaml", "compose.prod.yaml"):
            down = ["docker", "compose", "--file", file, "down", "--rmi", "all", "--timeout", "5"]
            subprocess.run(down, cwd=reader.project, env=reader.env, capture_output=True)


def test_the_key_goes_in_unseen_and_telemetry_follows_it(reader: Reader) -> None:
    reader.read("06-keep-the-key.md")
    assert {"GET /api/activities/home", "home-activities-mock-data"} <= {
        each["name"] for each in reader.honeycomb.events
    }
    assert (reader.project / ".env").stat().st_mode & 0o077 == 0
    assert not any(reader.key in terminal.everything() for terminal in reader.terminals.values())


def test_the_spans_of_a_trace_are_in_the_viewer_and_in_the_stand_in_for_honeycomb(reader: Reader) -> None:
    reader.read("07-look-at-a-trace.md")
    newest = reader.traces("/api/activities/home")[0]["trace_id"]

    def come() -> list[str]:
        return [each["name"] for each in reader.honeycomb.events if each.get("trace.trace_id") == newest]

    assert eventually(lambda: len(come()) == 5), come()
    assert set(reader.honeycomb.datasets) >= {"backend-flask", "profiles"}
    spans = reader.spans(newest)
    assert {"app.now", "app.result_length"} <= spans["home-activities-mock-data"].keys()
    assert "url.full" in spans["GET"]
    assert {"http.route", "http.response.status_code", "url.path"} <= spans["GET /api/activities/home"].keys()
    page = requests.get(f"{reader.viewer}/traces/{newest}", timeout=10).text
    assert f"trace_id={newest}" in page.partition("Open in Honeycomb")[0].rpartition("<a ")[2]


def test_latency_is_found_and_mended(reader: Reader, stand_in: ModuleType) -> None:
    reader.read(LAST)
    mended = int((reader.project / "backend" / "examples.py").stat().st_mtime)
    before, after = {"start_time": mended - 3600, "end_time": mended}, {"start_time": mended, "end_time": mended + 60}

    (query,) = [json.loads(block.text) for block in blocks(PAGES[-1]) if block.language == "json"]
    slowest = reader.ask(query | before)[0]
    assert slowest["http.route"] == "/api/examples/slow"
    assert slowest["MAX(duration_ms)"] >= slowest["P90(duration_ms)"] > 200

    reading = {
        "calculations": [{"op": "MIN", "column": "duration_ms"}, {"op": "MAX", "column": "duration_ms"}],
        "breakdowns": ["app.rows"],
        "filters": [{"column": "name", "op": "=", "value": "read-every-row"}],
        "orders": [{"op": "MAX", "column": "duration_ms", "order": "descending"}],
    }
    rows = [row["app.rows"] for row in reader.ask(reading | before)]
    assert len(rows) > 3
    assert rows[0] > rows[-1]
    assert min(row["MIN(duration_ms)"] for row in reader.ask(reading | after)) < 100

    addresses = re.findall(r"https://ui\.honeycomb\.io/\S+", reader.terminals["2"].screen())
    assert len(addresses) == len(json.loads((reader.project / "queries.json").read_text()))
    for address in addresses:
        reader.honeycomb.checked_query("backend-flask", json.loads(parse_qs(urlsplit(address).query)["query"][0]))


def test_every_field_and_calculation_that_the_text_names_can_be_asked_for(reader: Reader) -> None:
    reader.read(LAST)
    text = "".join(each.read_text(encoding="utf-8") for each in PAGES)
    for op, column in set(re.findall(r"`([A-Z][A-Z_0-9]+)\(([\w.]+)\)`", text)):
        reader.ask({"calculations": [{"op": op, "column": column}]})
    fields = set(re.findall(r"`((?:app|http|url|trace|service|span)\.[a-z_.]+)`", text))
    assert len(fields) > 8
    for field in fields - NO_FIELDS:
        reader.ask({"breakdowns": [field]})


@pytest.mark.browser
def test_the_viewer_shows_and_does_what_the_tutorial_says(reader: Reader, browser: Any) -> None:  # noqa: F811
    reader.read(LAST)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{reader.viewer}/logs")
    assert "Unhandled exception" in page.locator(".logs").inner_text()
    page.get_by_role("link", name="trace", exact=True).last.click()
    assert page.locator("h1").inner_text() == "GET /api/examples/failing"

    page.goto(f"{reader.viewer}/traces?route=/api/activities/home")
    page.get_by_role("link", name="GET /api/activities/home").first.click()
    page.locator(".row", has_text="home-activities-mock-data").click()
    page.locator("#span h2", has_text="home-activities-mock-data").wait_for()
    assert "app.result_length" in page.locator("#span").inner_text()
    assert page.get_by_role("link", name="Open in Honeycomb").count() == 1

    page.goto(reader.viewer)
    assert page.locator("h1").inner_text() == "Which routes are slow?"
    screenshots.draw_box(page, 0.0, 0.0, 1.0, screenshots.share_above(page, 180))
    page.wait_for_url("**box=**")
    first = page.locator("#comparison table").first.inner_text()
    assert re.search(r"http\.route\s+/api/examples/slow\s", first)
    page.get_by_role("link", name="Remove the box").click()
    # A busy machine may make another request the slowest of all.
    page.locator(".results tr", has_text="/api/examples/slow").get_by_role("link", name="only this").click()
    page.wait_for_url("**examples**slow**")
    cells = page.locator("svg.heatmap rect[data-at]")
    cells.nth(min(range(cells.count()), key=lambda number: cells.nth(number).bounding_box()["y"])).click()
    page.wait_for_url("**/traces/**")
    assert page.locator("h1").inner_text() == "GET /api/examples/slow"
    page.locator(".row", has_text="read-every-row").click()
    page.locator("#span h2", has_text="read-every-row").wait_for()
    assert "app.rows" in page.locator("#span").inner_text()

    page.goto(reader.viewer)
    page.get_by_role("link", name="Which work takes the time?").click()
    page.get_by_label("Field", exact=True).first.fill("name")
    page.get_by_label("Value").first.fill("read-every-row")
    page.locator("input[name=by]").nth(0).fill("app.rows")
    page.locator("input[name=by]").nth(1).fill("")
    page.get_by_role("button", name="Run query").click()
    page.wait_for_url("**read-every-row**")
    assert "app.rows" in page.locator(".results thead").inner_text()


@pytest.mark.browser
def test_the_pictures_show_what_is_there_and_are_small(
    reader: Reader,
    browser: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    reader.read(LAST)
    made = screenshots.take_for_tutorial(browser, reader.viewer, tmp_path)
    made += screenshots.take_after_mending(browser, reader.viewer, tmp_path)
    assert {each.name for each in made} == {each.name for each in (DOCS / "images").glob("tutorial-*.png")}
    for each in made:
        assert 5_000 < each.stat().st_size < 200_000, each.name


def test_ctrl_c_ends_all_of_it(reader: Reader) -> None:
    reader.read(LAST)
    terminal = reader.terminals["1"]
    started = family(terminal.shell.pid) - {terminal.shell.pid}
    assert started
    terminal.ended(terminal.type("\x03"), 30)
    assert eventually(lambda: not alive(started), 10)


# What the text is, whoever reads it where.


def test_the_tutorial_has_five_to_eight_pages_and_each_leads_to_the_next() -> None:
    assert 5 <= len(PAGES) <= 8
    for number, (this, following) in enumerate(zip(PAGES, [*PAGES[1:], None], strict=True), 1):
        text = this.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. ")
        assert "**You have seen** " in text
        assert following is None or f"\nNext: [{title(following)}]({following.name})\n" in text


def title(page: Path) -> str:
    return re.sub(r"^# (?:\d\. )?", "", page.read_text(encoding="utf-8").partition("\n")[0])


def test_what_is_not_run_is_listed_and_the_text_says_so() -> None:
    listed = set()
    for each in PAGES:
        text = each.read_text(encoding="utf-8")
        for found in re.finditer(r"([^\n]+(?:\n[^\n]+)*)\n\n<!-- not run here: (.*?) -->", text):
            assert re.search(r"not (?:be tried|run) |not against the live service", found[1]), each.name
            listed |= set(found[2].split(", "))
    assert listed == NOT_RUN


@pytest.mark.parametrize("page", [DOCS / "index.md", *PAGES], ids=lambda page: page.name)
def test_a_page_has_nothing_that_only_mkdocs_understands(page: Path) -> None:
    text = re.sub(r"```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    of_mkdocs = r"^(?:!!!|\?\?\?|===|\[TOC\]|--8<--)|\{[:{%]|:(?:material|octicons|fontawesome)-"
    assert not re.search(of_mkdocs, text, re.MULTILINE)
