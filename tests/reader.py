"""A reader who does what a page says: types its commands into terminals, writes its files, and looks at what is shown.

Each fenced block is followed in order. `sh` is typed. `text` must be shown by a terminal after the last command or
edit; "…" stands for anything, and times and ids for others. A comment above a block, which is invisible, says more:

    not run: REASON                                         skip it
    run beside a clone                                      type it in the folder that holds the template
    exits with N                                            the exit status of its last command, if it is not 0
    file PATH, append to PATH, replace FUNCTION in PATH     where the text goes; so does a first line "# PATH"
    insert after "TEXT" in PATH, insert before ...          beside the first line that begins so
    from PATH                                               the file contains it
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import pexpect
from conftest import environment, free_ports
from processes import answers
from receiver import eventually

BUSY = {  # commands that do not end by themselves, and what they print once they are ready
    r"\bmake run\b": "Ready: ",
    r"\bmake prod$": "Listening at",
    r"\bmake up$|^docker compose up$": "",  # asked for over HTTP
    r"\bflask .*\brun\b": "Running on http",
    r"^\S*\botlp-viewer( --\S|$)": "http://",
    r"\bhttp\.server\b": "Serving HTTP",
}
ALONE = re.compile(r"\bmake (run|up|prod)\b|\bdocker compose up|^\S*\botlp-viewer")  # on the same ports: one at a time
DOCKER = re.compile(r"\bdocker\b|\bmake (up|down|shell|prod-up)\b")
PORTS = {"PORT": 4567, "PROFILES_PORT": 4568, "VIEWER_PORT": 4318, "JAEGER_PORT": 16686, "CLOCK_PORT": 4569}
OTHER_PORTS = (5001, 8000)
KEY = "hcaik_" + "01marked" * 7 + "ab"

VARYING = {
    r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00": r"\S+",
    r"[0-9a-f]{32}": r"[0-9a-f]{32}",
    r"[0-9a-f]{16}": r"[0-9a-f]{16}",
    r"<0\.1 ms|\b\d+\.\d ms": r"(?:<0\.1|[\d,.]+) m?s",
    r"…": r".*",
    r"\s+": r"\s+",
}


class Block(NamedTuple):
    language: str
    text: str
    mark: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, each with the comment above it."""
    text = page.read_text("utf-8")
    found = re.finditer(r"^(?:<!-- ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(each[2], each[3], each[1] or "", text.count("\n", 0, each.start()) + 1) for each in found]


def commands(text: str) -> list[str]:
    """The commands of a block, each with its continued lines and here-documents."""
    found, rest = [], ""
    for line in text.splitlines(keepends=True):
        rest += line
        done = subprocess.run(["bash", "-n", "-c", rest], capture_output=True, text=True)
        if not done.returncode and not done.stderr and not rest.endswith("\\\n"):
            found.append(re.sub(r"(?m)^#.*\n|  +#.*$", "", rest).rstrip("\n"))
            rest = ""
    assert not rest, f"an incomplete command: {rest}"
    return [each for each in found if each]


def pattern(line: str) -> re.Pattern[str]:
    """Lines like this one, with other ids, times and durations."""
    parts = re.split(f"({'|'.join(VARYING)})", line.strip())
    like = [next((to for each, to in VARYING.items() if re.fullmatch(each, part)), re.escape(part)) for part in parts]
    return re.compile(r"(?:\d{4}-\d\d-\d\d [\d:,]+)?\s*" + "".join(like))


class Terminal:
    """A bash that a person types into, and what it shows."""

    PROMPT = re.compile(r"\x01(\d+)\x02")

    def __init__(self, folder: Path | str, env: dict[str, str]) -> None:
        shell = ["--norc", "--noprofile", "--noediting"]
        env = {**env, "PS1": "\x01$?\x02", "PS2": "", "TERM": "dumb"}
        self.child = pexpect.spawn(
            "bash", shell, cwd=str(folder), env=env, echo=False, encoding="utf-8", codec_errors="replace"
        )
        self.child.setwinsize(50, 250)
        self.child.delaybeforesend = None
        self.output, self.mark, self.prompts = "", 0, 0
        self.until_prompt(10)

    def read(self) -> str:
        """Everything since the mark, without colors and the names of programs before each line."""
        try:
            while True:
                self.output += self.child.read_nonblocking(1 << 16, timeout=0)
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.PROMPT.sub("", self.output[self.mark :]))
        return re.sub(r"^[\w-]* *\| ?", "", text, flags=re.MULTILINE)

    def type(self, text: str) -> None:
        self.child.send(text)

    def has_ended(self) -> bool:
        """Whether the shell asks for the next command."""
        self.read()
        return len(self.PROMPT.findall(self.output)) > self.prompts

    def until_prompt(self, seconds: float = 300) -> str:
        """The exit status of the last command, once the shell asks for another one."""

        def statuses() -> list[str]:
            self.read()
            return self.PROMPT.findall(self.output)[self.prompts :]

        found = eventually(statuses, seconds)
        assert found, f"still busy:\n{self.read()[-3000:]}"
        self.prompts += 1
        return str(found[0])

    def run(self, command: str, seconds: float = 300) -> str:
        self.type(command + "\n")
        return self.until_prompt(seconds)

    def interrupt(self) -> None:
        self.child.sendintr()
        self.until_prompt(30)


class Reader:
    """Has a folder and as many terminals as the pages ask for. `front` is the one to type into."""

    def __init__(self, folder: Path, docker: bool = False, clone: Path | None = None, **env: str) -> None:
        named = (*PORTS.values(), *OTHER_PORTS)
        ports = dict(zip(named, map(str, free_ports(len(named))), strict=True))
        self.ports, self.docker, self.clone = ports, docker, clone
        home = folder.parent / f"home-{uuid.uuid4().hex[:6]}"
        home.mkdir()
        real = Path.home()
        self.env = environment(
            **{name: ports[port] for name, port in PORTS.items()},
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            HOME=str(home),
            XDG_CACHE_HOME=os.environ.get("XDG_CACHE_HOME") or str(real / ".cache"),
            DOCKER_CONFIG=os.environ.get("DOCKER_CONFIG") or str(real / ".docker"),
            COMPOSE_PROJECT_NAME=f"reader-{uuid.uuid4().hex[:8]}",
            GIT_PAGER="cat",
            **env,
        )
        self.terminals = [Terminal(folder, self.env)]
        self.alone: Terminal | None = None
        self.folder = folder
        self.skipped: list[str] = []
        self.replaced: dict[str, str] = {}  # in what is expected

    @property
    def front(self) -> Terminal:
        return self.terminals[-1]

    def here(self, text: str) -> str:
        """With the ports of this test."""
        names = "|".join(map(str, self.ports))
        return re.sub(rf"\b({names})\b", lambda port: self.ports[int(port[0])], text)

    def where(self) -> Path:
        """The folder of the front terminal."""
        before = len(self.front.output)
        self.front.run("pwd")
        return Path(Terminal.PROMPT.sub("", self.front.output[before:]).strip())

    def follow(self, page: Path) -> None:
        for block in blocks(page):
            try:
                self.do(block)
            except (AssertionError, LookupError, OSError, ValueError) as error:
                raise AssertionError(f"{page.name}:{block.line}: {error}") from error

    def do(self, block: Block) -> None:
        if block.mark.startswith("not run: "):
            return
        if block.language == "sh":
            self.look()
            status = re.fullmatch(r"exits with (\d+)", block.mark)
            if block.mark == "run beside a clone":
                assert self.clone
                self.front.run(f"cd '{self.clone.parent}'")
            typed = commands(block.text)
            for command in typed:
                self.type(command, status[1] if status and command == typed[-1] else "0")
        elif block.language == "text" and not block.mark:
            self.expect(block.text)
        else:
            self.edit(block)

    def look(self) -> None:
        """From here on is what the next command or edit brings about."""
        for terminal in self.terminals:
            terminal.read()
            terminal.mark = len(terminal.output)

    def type(self, command: str, status: str) -> None:
        if DOCKER.search(command) and not self.docker:
            self.skipped.append(command)
            return
        command = self.here(command)
        if ready := [text for each, text in BUSY.items() if re.search(each, command)]:
            self.start(command, ready[0])
            return
        if command == "make prod-up" and self.alone:
            self.alone.interrupt()
            self.alone = None
        if command == "make traffic":  # as it is but for its 10 seconds
            program = self.where() / "bin" / "traffic"
            program.write_text(program.read_text("utf-8").replace("default=10)", "default=2)"), "utf-8")
        self.front.type(command + "\n")
        if command.startswith("bin/honeycomb key set"):
            self.answer("Enter to skip: ", KEY + "\n")
        elif command.startswith("cat >~/"):
            time.sleep(0.5)
            self.front.type(f"{KEY}\n\x04")
        elif command == "make new":
            self.answer("called?", "\n" * 10)
        elif command == "make shell":
            self.answer("workspace", "exit\n")
        found = self.front.until_prompt()
        assert found == status, f"{command!r} exited with {found}:\n{self.front.read()[-3000:]}"

    def answer(self, question: str, text: str) -> None:
        assert eventually(lambda: question in self.front.read(), 120), self.front.read()[-3000:]
        self.front.type(text)

    def start(self, command: str, ready: str) -> None:
        """Start what keeps its terminal, and open another one in the same folder."""
        folder = self.where()
        if ALONE.search(command):
            if self.alone:
                self.alone.interrupt()
            self.alone = self.front
        busy = self.front
        busy.type(command + "\n")
        self.terminals.append(Terminal(folder, self.env))
        port = self.ports[4567]
        check = (lambda: ready in busy.read()) if ready else (lambda: answers(f"http://127.0.0.1:{port}/api/health"))
        eventually(lambda: check() or busy.has_ended(), 300)
        assert check(), f"{command!r} is not ready:\n{busy.read()[-3000:]}"

    def expect(self, text: str) -> None:
        text = self.here(text)
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        wanted = [pattern(line) for line in text.splitlines()]

        def is_there() -> bool:
            for terminal in self.terminals:
                lines = iter(terminal.read().splitlines())
                if all(any(each.fullmatch(line.rstrip()) for line in lines) for each in wanted):
                    return True
            return False

        if not eventually(is_there, 30):
            everything = "\n".join(each.read()[-3000:] for each in self.terminals)
            raise AssertionError(f"not printed:\n{text}\nbut:\n{everything}")

    def edit(self, block: Block) -> None:
        text, first = self.here(block.text), re.match(r"# ([\w/.-]+\.\w+)\n", block.text)
        folder = self.where()
        if found := re.fullmatch(r"from (\S+)", block.mark):
            assert text in (folder / found[1]).read_text("utf-8")
            return
        if found := re.fullmatch(r"file (\S+)", block.mark) or (None if block.mark else first):
            path = folder / found[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text if block.mark else text.partition("\n")[2], "utf-8")
            return
        if not block.mark:
            return
        self.look()
        found = re.fullmatch(r'(?:append to|(replace) (\w+) in|insert (after|before) "(.+)" in) (\S+)', block.mark)
        assert found, f"nobody knows what to do with {block.mark!r}"
        path = folder / found[5]
        lines = path.read_text("utf-8").splitlines(keepends=True)
        if found[1]:
            functions = [each for each in ast.parse("".join(lines)).body if isinstance(each, ast.FunctionDef)]
            (function,) = [each for each in functions if each.name == found[2]]
            lines[function.decorator_list[0].lineno - 1 : function.end_lineno] = [text]
        elif found[3]:
            beside = next(at for at, line in enumerate(lines) if line.startswith(found[4]))
            lines.insert(beside + (found[3] == "after"), text)
        else:
            lines.append(f"\n\n{text}" if path.suffix == ".py" else text)
        path.write_text("".join(lines), "utf-8")
        if self.alone and path.suffix == ".py":
            busy = self.alone
            assert eventually(lambda: f"{path.name}', reloading" in busy.read(), 30), busy.read()[-3000:]
            time.sleep(1)
            assert eventually(lambda: answers(f"http://127.0.0.1:{self.ports[4567]}/api/health"), 30)

    def close(self) -> None:
        for terminal in self.terminals:
            if terminal is self.alone or terminal is not self.front:
                terminal.child.sendintr()
        if self.docker:
            for file in ("compose.yaml", "compose.prod.yaml"):
                done = ["docker", "compose", "-f", file, "down", "--volumes", "--rmi", "all", "--timeout", "5"]
                subprocess.run(done, cwd=self.folder, env=self.env, capture_output=True)
        for terminal in self.terminals:
            terminal.child.close(force=True)
