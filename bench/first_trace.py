"""Seconds to the first trace, step by step, beside the least that a person could do to see one.

Three ways to begin: `make demo` on a clean checkout, and `docker compose up` and `devcontainer up` in a new project.
The least is one file of Flask under `opentelemetry-instrument`, whose spans go to the terminal. Each begins once with
nothing there and once more with what the first time left.
"""

from __future__ import annotations

import ast
import atexit
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests
from report import percent, plot, save, table
from subjects import ROOT, project

from conftest import LEFTOVERS, environment, free_ports  # isort: skip  # in tests/, which subjects adds to the path
from processes import Running, answers  # isort: skip

Figures = dict[str, Any]
Steps = list[tuple[str, float]]

CLIENT: Final = "@devcontainers/cli@0.89.0"
BASE: Final = "python:3.14-slim-trixie"
HOME: Final = "/api/activities/home"
SPANS: Final = 5  # of that request, in two services

# What is reached, in the order in which plots name it.
MAKES_ENVIRONMENT = "virtual environment"
HAS_COOKIECUTTER = "cookiecutter"
RENDERED = "rendered"
HAS_TOOLS = "system packages"
HAS_PACKAGES = "Python packages"
HAS_IMAGE = "image"
HAS_CONTAINERS = "containers"
ANSWERS = "services answer"
TRACE = "first trace"
COLOURS: Final = {
    MAKES_ENVIRONMENT: "#999999",
    HAS_COOKIECUTTER: "#E69F00",
    RENDERED: "#666666",
    HAS_TOOLS: "#56B4E9",
    HAS_PACKAGES: "#0072B2",
    HAS_IMAGE: "#CC79A7",
    HAS_CONTAINERS: "#F0E442",
    ANSWERS: "#009E73",
    TRACE: "#D55E00",
}

# The least: https://opentelemetry.io/docs/languages/python/getting-started/, in versions that go together.
LEAST_APP: Final = """
from flask import Flask

app = Flask(__name__)


@app.get("/")
def home():
    return "hello"
"""
LEAST_RUN: Final = (
    "opentelemetry-instrument --traces_exporter console --metrics_exporter none --logs_exporter none flask run"
)
LEAST_DOCKERFILE: Final = f"""
FROM {BASE}
WORKDIR /app
COPY . .
RUN pip install -r requirements.txt
CMD {LEAST_RUN} --host 0.0.0.0 --port 4567
"""
LEAST_COMPOSE: Final = """
services:
  app:
    build: .
    ports:
      - "127.0.0.1:${PORT}:4567"
"""
LEAST_DEVCONTAINER: Final = {
    "dockerComposeFile": "../compose.yaml",
    "service": "app",
    "workspaceFolder": "/app",
    "overrideCommand": False,
}


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# When things are there.


def timeline(program: Running, began: float, there: Mapping[str, Callable[[], object]]) -> Steps:
    """What came about, and in how many seconds after what came before it; until the last in `there` has."""
    reached: dict[str, float] = {}
    *_, last = there
    while last not in reached:
        for name, is_there in there.items():
            if name not in reached and is_there():
                reached[name] = time.monotonic() - began
        if last not in reached and (time.monotonic() - began > 400 or program.process.poll()):
            raise RuntimeError(f"no {last}:\n{program.output()[-4000:]}")
        time.sleep(0.02)
    steps, before = [], 0.0
    for name, seconds in sorted(reached.items(), key=lambda each: each[1]):
        steps.append((name, seconds - before))
        before = seconds
    return steps


def said(program: Running, pattern: str) -> Callable[[], object]:
    return lambda: re.search(pattern, program.output(), re.MULTILINE)


LINE: Final = r"^(?:\[[-:.\dTZ]+\] )?"  # the client of devcontainers puts the time before some


def done(program: Running, step: str) -> Callable[[], bool]:
    """Whether BuildKit has done the first step of this description."""

    def is_done() -> bool:
        output = program.output()
        found = re.search(rf"{LINE}#(\d+) \[.*{step}", output, re.MULTILINE)
        return bool(found and re.search(rf"{LINE}#{found[1]} DONE", output, re.MULTILINE))

    return is_done


class Arrived:
    """Whether the trace of a request is at the viewer, whole. Sends the request when it is first asked."""

    def __init__(self, backend: str, viewer: str) -> None:
        self.backend, self.viewer = backend, viewer
        self.trace_id = ""

    def __call__(self) -> bool:
        try:
            if not self.trace_id:
                answer = requests.get(self.backend + HOME, timeout=5)
                self.trace_id = answer.headers["traceresponse"].split("-")[1]
            found = requests.get(f"{self.viewer}/api/traces/{self.trace_id}", timeout=5)
            return found.ok and len(found.json()["spans"]) == SPANS
        except (requests.RequestException, KeyError):
            return False


# Where it begins.


def temporary(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{prefix}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def settings_of_pip() -> dict[str, str]:
    """pip's settings on this machine as variables, without places beside the index that hold packages already.

    And Python may keep bytecode, as it does where nobody forbids it.
    """
    command = ["python3", "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, env=environment())
    found = re.findall(r"^(?:global|install)\.([\w-]+)=('.*')$", listed.stdout, re.MULTILINE)
    settings = {f"PIP_{name.upper().replace('-', '_')}": str(ast.literal_eval(value)) for name, value in found}
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        settings[name] = ""
    return {**settings, "PIP_CONFIG_FILE": os.devnull, "PYTHONDONTWRITEBYTECODE": ""}


def checkout() -> Path:
    """The template as someone has just cloned it."""
    folder = temporary("checkout") / "template"
    more = {"demo", ".git", ".lock", "site"}
    shutil.copytree(ROOT, folder, ignore=lambda path, names: {*LEFTOVERS(path, names), *more})
    return folder


def packages(requirements: Path) -> int:
    return len(re.findall(r"^[\w.-]+==", requirements.read_text(), re.MULTILINE))


def least() -> Path:
    """The least, in a folder of its own."""
    folder = temporary("least")
    locked = (ROOT / "requirements-dev.txt").read_text() + (project() / "requirements.txt").read_text()
    names = ("flask", "opentelemetry-distro", "opentelemetry-instrumentation-flask")
    versions = {name: re.search(rf"^{name}==([\w.]+)", locked, re.MULTILINE)[1] for name in names}  # type: ignore[index]
    (folder / "requirements.txt").write_text("".join(f"{name}=={versions[name]}\n" for name in names))
    (folder / "app.py").write_text(LEAST_APP)
    (folder / "Dockerfile").write_text(LEAST_DOCKERFILE)
    (folder / "compose.yaml").write_text(LEAST_COMPOSE)
    (folder / ".dockerignore").write_text(".devcontainer\n.venv\n")
    (folder / ".devcontainer").mkdir()
    (folder / ".devcontainer" / "devcontainer.json").write_text(json.dumps(LEAST_DEVCONTAINER))
    return folder


# Without Docker.


def demo(folder: Path, **env: str) -> Steps:
    """`make demo` in a checkout, until the tree of the first request is on the terminal."""
    ports = dict(zip(("PORT", "PROFILES_PORT", "VIEWER_PORT"), map(str, free_ports(3)), strict=True))
    began = time.monotonic()
    program = Running(["make", "demo"], folder, folder.parent / "demo.log", **ports, **env)
    try:
        steps = timeline(
            program,
            began,
            {
                HAS_COOKIECUTTER: made_now(folder / ".venv" / "installed"),
                RENDERED: made_now(folder / "demo" / ".template"),
                MAKES_ENVIRONMENT: made_now(folder / "demo" / ".venv" / "bin" / "pip"),
                HAS_PACKAGES: made_now(folder / "demo" / ".venv" / "installed"),
                ANSWERS: said(program, "^Sending "),
                TRACE: said(program, "─ find-profiles-mock-data"),
            },
        )
        program.interrupt(30)
    finally:
        program.kill()
    return steps


def made_now(path: Path) -> Callable[[], bool]:
    """Whether `path` is there; never, if it is there already."""
    return (lambda: False) if path.exists() else path.exists


def by_hand(folder: Path, **env: str) -> Steps:
    """The least, in a virtual environment that is made if it is not there."""
    (port,) = free_ports(1)
    install = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && touch .venv/installed"
    script = f'test -e .venv/installed || {{ {install}; }} && PATH="$PWD/.venv/bin:$PATH" exec {LEAST_RUN} -p {port}'
    began = time.monotonic()
    program = Running(["sh", "-c", script], folder, folder / "least.log", **env)
    try:
        return timeline(
            program,
            began,
            {
                MAKES_ENVIRONMENT: made_now(folder / ".venv" / "bin" / "pip"),
                HAS_PACKAGES: made_now(folder / ".venv" / "installed"),
                ANSWERS: lambda: answers(f"http://127.0.0.1:{port}/"),
                TRACE: said(program, '"name": "GET /"'),
            },
        )
    finally:
        program.kill()


def without_docker(quick: bool) -> Iterator[Figures]:
    template, by, wheels = checkout(), least(), temporary("wheels")
    env = {**settings_of_pip(), "PIP_CACHE_DIR": str(temporary("pip"))}
    for state in ("packages fetched", "again") if quick else ("packages fetched", "packages on disk", "again"):
        progress(f"make demo, {state}")
        if state == "packages on disk":
            download(wheels, template, env, "requirements.txt", "demo/requirements-dev.txt")
            download(wheels, by, env, "requirements.txt")
            env |= {"PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1"}
            for path in (template / ".venv", template / "demo", by / ".venv"):
                shutil.rmtree(path)
        yield {"way": "make demo", "state": state, "ours": demo(template, **env), "least": by_hand(by, **env)}


def download(wheels: Path, folder: Path, env: dict[str, str], *files: str) -> None:
    """Put into a folder what the files name, as wheels for the Python of this folder's virtual environment."""
    for file in files:
        command = [str(folder / ".venv/bin/python"), "-m", "pip", "download", "--dest", str(wheels), "-r", file]
        subprocess.run(command, cwd=folder, env=environment(**env), check=True, capture_output=True)


# With Docker.


def docker(*arguments: str, check: bool = True, **options: Any) -> str:
    command = ["docker", *arguments]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, **{"env": environment(), **streams, **options})
    output = str(done.stdout, "utf-8", "replace").strip()
    if check and done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}:\n{output[-4000:]}")
    return output


def engine() -> str | None:
    """What keeps images from being built here, if anything does."""
    for question in (["info"], ["compose", "version"], ["buildx", "version"]):
        try:
            docker(*question)
        except (FileNotFoundError, RuntimeError) as error:
            return str(error).splitlines()[-1]
    return None


def from_base(dockerfile: Path) -> str:
    """The image that the last stage begins with, in the default version of Python."""
    text = dockerfile.read_text()
    default = re.search(r'^ARG PYTHON="(.*)"$', text, re.MULTILINE)
    name = re.findall(r"^FROM (\S+)", text, re.MULTILINE)[-1]
    return str(name.replace("${PYTHON}", default[1] if default else ""))


def base_images() -> dict[str, int]:
    """The base images, which are fetched now, so that nothing measured waits for a registry; and their bytes."""
    sizes = {}
    for name in sorted({BASE, *map(from_base, project().glob("Dockerfile*"))}):
        try:
            size = docker("image", "inspect", "--format", "{{.Size}}", name)
        except RuntimeError:
            docker("pull", "--quiet", name)
            size = docker("image", "inspect", "--format", "{{.Size}}", name)
        sizes[name] = int(size)
    return sizes


def stand_ins() -> bool:
    """Whether the base images are stand-ins, made where no registry is reached."""
    return "stand-in" in docker("image", "inspect", "--format", "{{json .Config.Labels}}", BASE)


def new_to_the_engine(folder: Path, mark: str) -> None:
    """Let no layer of this folder's images be one that was built before, and pip's cache be empty.

    Nothing is pruned for it: what others have cached on this engine stays.
    """
    for dockerfile in folder.glob("Dockerfile*"):
        text = re.sub(r"^(FROM .*)$", rf"\1\nENV BENCH_MARK={mark}", dockerfile.read_text(), flags=re.MULTILINE)
        dockerfile.write_text(text.replace("target=/root/.cache/pip", f"target=/root/.cache/pip,id={mark}"))


@dataclass
class Containers:
    """A project whose services get a Compose name, ports and a folder of their own, and are gone in the end."""

    origin: Path
    ours: bool
    name: str = field(default_factory=lambda: f"bench-{os.getpid()}-{uuid.uuid4().hex[:6]}")

    def __enter__(self) -> Containers:
        self.folder = temporary("containers") / "project"
        shutil.copytree(self.origin, self.folder, ignore=LEFTOVERS)
        new_to_the_engine(self.folder, self.name)
        self.images = {f"{self.name}-{service}" for service in ("app", "dev", "workspace")}
        ports = free_ports(3)
        self.backend, _, self.viewer = (f"http://127.0.0.1:{port}" for port in ports)
        self.env = {
            "BUILDKIT_PROGRESS": "plain",
            "COMPOSE_PROJECT_NAME": self.name,
            "TMPDIR": str(self.folder.parent),
            **dict(zip(("PORT", "PROFILES_PORT", "VIEWER_PORT"), map(str, ports), strict=True)),
        }
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        docker("image", "rm", "--force", *self.images, check=False)

    def down(self) -> None:
        labelled = ("--filter", f"label=com.docker.compose.project={self.name}", "--quiet")
        if containers := docker("ps", "--all", *labelled).split():
            # The client of devcontainers makes one more, of a name that is its own.
            self.images |= {docker("inspect", "--format", "{{.Config.Image}}", each) for each in containers}
            docker("rm", "--force", "--volumes", *containers)
        if networks := docker("network", "ls", *labelled).split():
            docker("network", "rm", *networks)

    def up(self, command: list[str]) -> tuple[Steps, float | None]:
        """Until the first trace; and seconds until the command said that it is done, if it ends."""
        self.down()
        began = time.monotonic()
        program = Running(command, self.folder, self.folder.parent / "up.log", **self.env)
        try:
            there: dict[str, Callable[[], object]] = {
                HAS_TOOLS: done(program, "RUN .*apt-get"),
                HAS_PACKAGES: done(program, "RUN .*pip install"),
                HAS_IMAGE: said(program, LINE + r"#\d+ naming to .* done$"),
                HAS_CONTAINERS: said(program, r"Attaching to |Container \S+ +Started"),
                ANSWERS: lambda: answers(self.backend + ("/api/health" if self.ours else "/")),
            }
            if self.ours:
                arrived = Arrived(self.backend, self.viewer)
                there[TRACE] = lambda: answers(self.backend + "/api/health") and arrived()
            else:
                there[TRACE] = lambda: '"name": "GET /"' in docker("logs", f"{self.name}-app-1", check=False)
            steps = timeline(program, began, there)
            ended = None
            if command[0] != "docker":
                program.process.wait(300)
                if program.process.returncode:
                    raise RuntimeError(program.output()[-4000:])
                ended = time.monotonic() - began
            return steps, ended
        finally:
            program.kill()


def with_docker(way: str, command: Callable[[Containers], list[str]], by: Path) -> Iterator[Figures]:
    with Containers(project(), ours=True) as ours, Containers(by, ours=False) as theirs:
        for state in ("images not built", "images built"):
            progress(f"{way}, {state}")
            mine, ended = ours.up(command(ours))
            least_steps, _ = theirs.up(command(theirs))
            yield {"way": way, "state": state, "ours": mine, "least": least_steps, "ended": ended}


def devcontainer_client() -> list[str]:
    """The real client, which an editor would bring along."""
    folder = temporary("client")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), CLIENT]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{CLIENT} cannot be installed: {done.stderr[-500:]}")
    return ["node", str(folder / "node_modules/@devcontainers/cli/devcontainer.js")]


def opener(client: list[str]) -> Callable[[Containers], list[str]]:
    return lambda containers: [*client, "up", "--workspace-folder", str(containers.folder)]


# What could be chosen.


def choices(rounds: int) -> Figures:
    """Seconds to install the project's development packages in several ways, in turn."""
    folder = temporary("choices")
    env = environment(**settings_of_pip(), UV_CACHE_DIR=str(folder / "uv"), PIP_CACHE_DIR=str(folder / "pip"))
    if index := env.get("PIP_INDEX_URL"):
        env["UV_DEFAULT_INDEX"] = index

    def timed(*command: str) -> float:
        began = time.monotonic()
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
        return time.monotonic() - began

    old, new = folder / "old", folder / "new"
    timed("python3", "-m", "venv", str(old))
    timed("python3", "-m", "venv", str(new))
    timed(str(new / "bin" / "python"), "-m", "pip", "install", "--upgrade", "pip", "uv")
    locked = ["install", "--require-hashes", "-r", str(project() / "requirements-dev.txt")]
    target = str(folder / "target")
    pip = [str(old / "bin/python"), "-m", "pip", "--python", target, *locked]
    new_pip = [str(new / "bin/python"), "-m", "pip", "--python", target, *locked]
    ways = {
        "pip install": pip,
        "pip install --no-compile": [*pip, "--no-compile"],
        "the newest pip, --no-compile": [*new_pip, "--no-compile"],
        "uv": [str(new / "bin/uv"), "pip", *locked, "--python", target],
    }
    seconds: dict[str, list[float]] = {
        **{name: [] for name in ways},
        "python -m venv": [],
        "python -m venv --without-pip": [],
    }

    def installed(command: list[str]) -> float:
        shutil.rmtree(target, ignore_errors=True)
        timed("python3", "-m", "venv", "--without-pip", target)
        return timed(*command)

    for name in ("pip install --no-compile", "uv"):  # which fills their caches
        installed(ways[name])
    for number in range(rounds):
        progress(f"Choices: {number + 1} of {rounds}")
        for name in ways if number % 2 else reversed(ways):
            seconds[name].append(installed(ways[name]))
        for flags in ([], ["--without-pip"]):
            shutil.rmtree(target)
            seconds[" ".join(["python -m venv", *flags])].append(timed("python3", "-m", "venv", *flags, target))
    versions = subprocess.run([*pip[:3], "--version"], env=env, capture_output=True, text=True, check=True).stdout
    newest = subprocess.run([*new_pip[:3], "--version"], env=env, capture_output=True, text=True, check=True).stdout
    return {
        "seconds": seconds,
        "pip": versions.split()[1],
        "newest_pip": newest.split()[1],
        "takes_uv": 'which("uv")' in (ROOT / "demo.py").read_text(),
        "taken": "pip install --no-compile" if '"--no-compile"' in (ROOT / "demo.py").read_text() else "pip install",
    }


# The part.


def about() -> Figures:
    command = ["python3", "--version"]
    return {
        "python": subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1],
        "ours": packages(project() / "requirements-dev.txt"),
        "template": packages(ROOT / "requirements.txt"),
        "spans": SPANS,
    }


def measure(quick: bool, pieces: Sequence[str] = ()) -> Figures:
    asked = pieces or (("demo",) if quick else ("demo", "compose", "devcontainer", "choices"))
    figures: Figures = {"about": about(), "ways": [], "not_measured": {}}
    if "demo" in asked:
        figures["ways"] += without_docker(quick)
    by = least()
    missing = engine() if {"compose", "devcontainer"} & {*asked} else None
    for name, way in (("compose", "docker compose up"), ("devcontainer", "devcontainer up")):
        if name not in asked:
            continue
        if missing:
            figures["not_measured"][way] = missing
            continue
        figures["bases"] = base_images()
        figures["stand_ins"] = stand_ins()
        if name == "compose":
            figures["ways"] += with_docker(way, lambda _: ["docker", "compose", "up"], by)
        elif not shutil.which("npm"):
            figures["not_measured"][way] = "npm is not installed"
        else:
            figures["ways"] += with_docker(way, opener(devcontainer_client()), by)
    if "choices" in asked:
        figures["choices"] = choices(1 if quick else 2)
    return figures


# The report.


def total(steps: Steps) -> float:
    return sum(seconds for _, seconds in steps)


def seconds(value: float) -> str:
    return f"{value:.1f} s"


def headline(figures: Figures) -> list[list[str]]:
    rows = []
    for each in figures["ways"]:
        if each["state"] in ("packages fetched", "images not built"):
            mine, theirs = total(each["ours"]), total(each["least"])
            name = f"First trace: `{each['way']}`, {each['state']}"
            rows.append([name, f"{mine / theirs:.2f}", f"{seconds(mine)}, beside one file by hand"])
    return rows


def report(figures: Figures, plots: Path) -> str:
    lines = ["## Time to the first trace", ""]
    about = figures["about"]
    lines += [
        "From the command until the trace of a request can be seen: as a tree in the terminal or at the viewer, all"
        f" {about['spans']} spans of it. The least is one file of Flask under `opentelemetry-instrument` with its spans"
        " on the terminal: three packages named without hashes, one service, and the same in a Dockerfile of five"
        " lines. Its trace is one span, which the SDK at its default keeps for up to 5 s before it writes it."
        f" `make demo` ran with Python {about['python']}. Fetched packages came from the package index that this"
        " machine is set to, with pip's cache empty; on disk they were a folder of wheels." + images_there(figures),
        "",
    ]
    rows = []
    for each in figures["ways"]:
        mine, theirs = total(each["ours"]), total(each["least"])
        step, longest = max(each["ours"], key=lambda one: one[1])
        most = f"{step} ({percent(round(longest / mine, 2))})"
        rows.append([f"`{each['way']}`", each["state"], seconds(mine), seconds(theirs), f"{mine / theirs:.2f}", most])
    lines += [table(["", "", "This template", "The least", "Ratio", "Longest step"], rows, left=2)]
    if figures["ways"]:
        draw(figures["ways"], plots / "first_trace.svg")
        lines += ["![Seconds to the first trace, by step](plots/first_trace.svg)", ""]
        lines += ["A step is named for what is there when it ends, and begins where the one before it ended."]
        lines += [opened_after(figures["ways"]), bought(figures), ""]
    lines += [f"`{way}` was not measured: {why}." for way, why in figures["not_measured"].items()]
    if "choices" in figures:
        lines += chosen(figures["choices"], about)
    return "\n".join(lines)


def images_there(figures: Figures) -> str:
    if "bases" not in figures:
        return ""
    kind = "stand-ins for the published base images" if figures["stand_ins"] else "base images"
    sizes = ", ".join(f"`{name}` {size / 1e6:.0f} MB" for name, size in figures["bases"].items())
    return (
        f" The {kind} ({sizes}) and the client of devcontainers were there before: fetching them from a registry is"
        " in no figure."
    )


def opened_after(ways: list[Figures]) -> str:
    ended = [(each["state"], each["ended"]) for each in ways if each.get("ended")]
    if not ended:
        return ""
    return "The editor could connect after " + ", ".join(f"{seconds(at)} ({state})" for state, at in ended) + "."


def bought(figures: Figures) -> str:
    """What somebody gets for the difference, where there is one."""
    slower = [each for each in figures["ways"] if total(each["ours"]) > 1.05 * total(each["least"])]
    faster = len(figures["ways"]) - len(slower)
    text = f"{faster} of {len(figures['ways'])} are as quick as the least or quicker." if faster else ""
    if slower:
        text += (
            f" The difference in the others buys a rendered project with {figures['about']['ours']} locked and verified"
            " packages: two services, the viewer, the tests, the linter, the type checker and the debugger."
        )
    return text.strip()


def chosen(found: Figures, about: Figures) -> list[str]:
    median = {name: statistics.median(each) for name, each in found["seconds"].items()}
    base = median["pip install"]
    rows = [
        [name, seconds(median[name]), f"{median[name] / base:.2f}", note(name, found)]
        for name in median
        if not name.startswith("python")
    ]
    venv, bare = median["python -m venv"], median["python -m venv --without-pip"]
    return [
        f"Where the packages' time goes: to install the {about['ours']} packages of development in turn, from the same"
        " index, with caches as full as it allows:",
        "",
        table(["", "Seconds", "Ratio", ""], rows),
        f"A virtual environment takes {seconds(venv)} to make, {percent(round(1 - bare / venv, 2))} of it for pip's own"
        " copy. `uv` is the quickest. "
        + (
            "It is used where it is installed."
            if found["takes_uv"]
            else "It does not read pip's settings, by which many find their package index, so `make` stays with pip."
        ),
        "",
    ]


def note(name: str, found: Figures) -> str:
    if name == found["taken"]:
        return "what `make demo` and `make install` do"
    versions = {"pip install": found["pip"], "the newest pip, --no-compile": found["newest_pip"]}
    return f"pip {versions[name]}" if name in versions else ""


def draw(ways: list[Figures], path: Path) -> None:
    figure, (axes,) = plot(height=0.6 + 0.42 * 2 * len(ways))
    labels: list[str] = []
    drawn: set[str] = set()
    for each in ways:
        for who, name in (("ours", "this template"), ("least", "the least")):
            left = 0.0
            for step, length in each[who]:
                axes.barh(
                    len(labels),
                    length,
                    left=left,
                    color=COLOURS[step],
                    label=None if step in drawn else step,
                    height=0.8,
                )
                drawn.add(step)
                left += length
            axes.text(left, len(labels), f" {left:.1f}", va="center", fontsize=8)
            labels.append(f"{each['way']}, {each['state']}: {name}")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    handles, names = axes.get_legend_handles_labels()
    in_order = sorted(zip(names, handles, strict=True), key=lambda each: list(COLOURS).index(each[0]))
    axes.legend([handle for _, handle in in_order], [name for name, _ in in_order], fontsize=8, loc="upper right")
    save(figure, path)
