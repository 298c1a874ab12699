"""`bin/honeycomb key`: every state of a key, every platform, and no place where the key is shown."""

from __future__ import annotations

import ast
import fcntl
import importlib.machinery
import importlib.util
import io
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from conftest import PROJECT, ROOT, environment
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from platforms import stand_in
from receiver import eventually, receiving
from test_running import Project

KEY = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
OTHER = "hcbik_02marked00key0that0must0never0be0shown00000000000000000000"
PLATFORMS = ("GITPOD_", "CODESPACE", "GITHUB_", "GP_STAND_IN")
PARI = """#!/bin/sh
echo "$@" >>"$0.log"
echo "                  GP/PARI CALCULATOR Version 2.17.0 (released)"
"""


class Machine:
    """A place where `bin/honeycomb` runs, with nothing but Python, and with all that it has said."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "my project"
        self.programs = folder / "programs"
        self.store = folder / "gp.json"
        (self.project / "bin").mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(ROOT / PROJECT / "bin" / "honeycomb", self.project / "bin")
        self.dotenv = self.project / ".env"
        self.program = self.project / "bin" / "honeycomb"
        self.env = {
            "HOME": str(folder),
            "PATH": str(self.programs),
            "TMPDIR": str(folder),
            "GP_STAND_IN_STORE": str(self.store),
        }

    def on_gitpod(self) -> None:
        gp = stand_in("gitpod/gp")
        (self.programs / "gp").write_text(f'#!/bin/sh\nexec {sys.executable} "{gp}" "$@"\n')
        (self.programs / "gp").chmod(0o755)
        self.env["GITPOD_WORKSPACE_ID"] = "stand-in"

    def held(self) -> dict[str, str]:
        """What `gp env` keeps."""
        return dict(json.loads(self.store.read_text())) if self.store.exists() else {}

    def key(self, *arguments: str, typed: str | bytes = "", exit: int = 0, **env: str) -> str:
        """What `bin/honeycomb key` says, which never is a part of a key."""
        done = subprocess.run(
            [sys.executable, "-I", str(self.program), "key", *arguments],
            cwd=self.project.parent,
            env={**self.env, **env},
            input=typed.encode() if isinstance(typed, str) else typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
        )
        said = done.stdout.decode()
        assert "marked" not in said
        assert "Traceback" not in said
        assert done.returncode == exit, said
        return said


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def gitpod(machine: Machine) -> Machine:
    machine.on_gitpod()
    return machine


@pytest.fixture(scope="session")
def honeycomb() -> ModuleType:
    """The program as a module."""
    program = str(ROOT / PROJECT / "bin" / "honeycomb")
    loader = importlib.machinery.SourceFileLoader("honeycomb", program)
    spec = importlib.util.spec_from_loader("honeycomb", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["honeycomb"] = module
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


# What is a key.

BAD = {
    "": "is empty",
    '"' + KEY + '"': "is in quotes",
    "'" + KEY: "is in quotes",
    KEY + '" ': "is in quotes",
    f" {KEY}": "white space around it",
    f"{KEY}\t": "white space around it",
    "${HONEYCOMB_API_KEY}": "not expanded",
    "$HONEYCOMB_API_KEY": "not expanded",
    "%HONEYCOMB_API_KEY%": "not expanded",
    f"HONEYCOMB_API_KEY={KEY}": "characters in it that no key has",
    f"{KEY[:30]} {KEY[30:]}": "characters in it that no key has",
    f"{KEY}é": "characters in it that no key has",
    KEY + "\n" + OTHER: "is more than one line",
    "hcamk_01marked" + "k" * 18 + ":" + "s" * 32: "is a management key",
    "hcamk_01marked" + "k" * 18: "is a management key",
    "hcaik_01marked" + "k" * 18: "is the id of a key",
    "hcalk_01marked" + "k" * 18: "is the id of a key",
    KEY[:60]: "has 60 characters, not 64",
    KEY + "0": "has 65 characters, not 64",
    "marked": "too short",
}
KINDS = {
    KEY: "ingest key",
    "markedmarkedmarkedMARK": "configuration key",
    "hcaic_" + "marked00" * 7 + "00": "classic ingest key",
    "0123456789abcdef" * 2: "classic key",
    "marked_and_of_a_shape_that_is_to_come": "key of an unknown kind",
}


@pytest.mark.parametrize("key", BAD, ids=BAD.values())
def test_what_is_no_key_is_named_and_changes_nothing(machine: Machine, key: str) -> None:
    machine.dotenv.write_text(f"HONEYCOMB_API_KEY={OTHER}\n")
    said = machine.key("set", typed=f"{key}\n" if key else "", exit=1)
    assert BAD[key] in said
    assert machine.dotenv.read_text() == f"HONEYCOMB_API_KEY={OTHER}\n"


@pytest.mark.parametrize("key", KINDS, ids=KINDS.values())
def test_what_is_a_key_is_kept_and_its_kind_is_said(machine: Machine, key: str) -> None:
    assert f"This {KINDS[key]} is kept in .env" in machine.key("set", typed=key)
    assert machine.dotenv.read_text() == f"HONEYCOMB_API_KEY={key}\n"
    assert re.search(rf"^\.env +{KINDS[key]}$", machine.key("status"), re.MULTILINE)


@pytest.mark.parametrize("typed", [f"{KEY}\r\n", f"\ufeff{KEY}\n", KEY])
def test_line_ends_and_marks_of_other_systems_are_no_part_of_it(machine: Machine, typed: str) -> None:
    machine.key("set", typed=typed)
    assert dotenv_values(machine.dotenv) == {"HONEYCOMB_API_KEY": KEY}


def test_utf_16_is_no_key(machine: Machine) -> None:
    assert "characters in it that no key has" in machine.key("set", typed=KEY.encode("utf-16"), exit=1)


def test_the_backend_and_the_command_have_the_same_idea_of_a_key(honeycomb: ModuleType) -> None:
    functions = []
    for path in ("backend/telemetry.py", "bin/honeycomb"):
        tree = ast.parse((ROOT / PROJECT / path).read_text())
        (function,) = [each for each in tree.body if getattr(each, "name", "") == "problem_with_key"]
        assert isinstance(function, ast.FunctionDef)
        functions.append([ast.unparse(statement) for statement in function.body[1:]])
    assert functions[0] == functions[1]
    for key in [*BAD, *KINDS]:
        if problem := honeycomb.problem_with_key(key):
            assert honeycomb.problem_with_new_key(key) == problem


# .env


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "HONEYCOMB_API_KEY={}\n"),
        ("PORT=1\n", "PORT=1\nHONEYCOMB_API_KEY={}\n"),
        ("PORT=1", "PORT=1\nHONEYCOMB_API_KEY={}\n"),
        ("PORT=1\r\nA=2", "PORT=1\r\nA=2\r\nHONEYCOMB_API_KEY={}\r\n"),
        ("#HONEYCOMB_API_KEY=\n", "#HONEYCOMB_API_KEY=\nHONEYCOMB_API_KEY={}\n"),
        ("HONEYCOMB_API_KEY=old", "HONEYCOMB_API_KEY={}"),
        ("A=1\r\nHONEYCOMB_API_KEY=old\r\nB=2\r\n", "A=1\r\nHONEYCOMB_API_KEY={}\r\nB=2\r\n"),
        ("\texport HONEYCOMB_API_KEY = 'old' # mine\nB=2", "\texport HONEYCOMB_API_KEY = {} # mine\nB=2"),
        ('HONEYCOMB_API_KEY="old" \n', "HONEYCOMB_API_KEY={} \n"),
        ("HONEYCOMB_API_KEY= # none\n", "HONEYCOMB_API_KEY= {} # none\n"),
        ("HONEYCOMB_API_KEY='old'# mine\n", "HONEYCOMB_API_KEY={} # mine\n"),
        ("HONEYCOMB_API_KEY\n", "HONEYCOMB_API_KEY={}\n"),
        ("HONEYCOMB_API_KEY=1\nA=1\n HONEYCOMB_API_KEY=2\nB=2\n", "A=1\n HONEYCOMB_API_KEY={}\nB=2\n"),
        (
            "A='1\nHONEYCOMB_API_KEY=of another\n'\nHONEYCOMB_API_KEYS=2\n",
            "A='1\nHONEYCOMB_API_KEY=of another\n'\nHONEYCOMB_API_KEYS=2\nHONEYCOMB_API_KEY={}\n",
        ),
        ("A='not closed\nHONEYCOMB_API_KEY=old\n", "A='not closed\nHONEYCOMB_API_KEY={}\n"),
        ("\ufeffHONEYCOMB_API_KEY=old\nÄ=ö\n", "\ufeffHONEYCOMB_API_KEY={}\nÄ=ö\n"),
    ],
)
def test_all_other_lines_stay_as_they_are(machine: Machine, before: str, after: str) -> None:
    machine.dotenv.write_bytes(before.encode())
    machine.key("set", typed=KEY)
    assert machine.dotenv.read_bytes().decode() == after.format(KEY)
    assert dotenv_values(machine.dotenv)["HONEYCOMB_API_KEY"] == KEY
    assert stat.S_IMODE(machine.dotenv.stat().st_mode) == 0o600
    machine.key("unset")
    left = machine.dotenv.read_bytes().decode()
    assert KEY not in left
    assert [line for line in after.splitlines() if "{}" not in line] == left.lstrip("\ufeff").splitlines()
    assert sorted(path.name for path in machine.project.iterdir()) == [".env", "bin"]


PIECES = (
    *("HONEYCOMB_API_KEY", "HONEYCOMB_API_KEY=", "A", "A='", "\nA=", "\nexport ", "export", " = ", " ", "\t", "=", "'"),
    *("'\n", '"', "\\", "#", " # ", "\n", "\r\n", "old", "${A}", "x y", "é", "\x0b"),
)
TEXTS = st.builds(
    str.__add__, st.sampled_from(["", "\ufeff"]), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
)


@given(TEXTS)
def test_it_reads_dotenv_as_the_backend_does(honeycomb: ModuleType, text: str) -> None:
    text = text.replace("\r\n", "\n")  # as python-dotenv opens a file
    theirs = dotenv_values(stream=io.StringIO(text), interpolate=False)
    ours = {each.name: each.value for each in honeycomb.bindings(text)}
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if "\\" not in text:
            assert ours[name] == value


@given(TEXTS)
def test_whatever_is_in_dotenv_the_key_gets_in_and_out_or_nothing_happens(honeycomb: ModuleType, text: str) -> None:
    others = [each for each in honeycomb.bindings(text) if each.name != "HONEYCOMB_API_KEY"]
    try:
        changed = honeycomb.with_key(text, KEY)
        without = honeycomb.with_key(changed, None)
    except honeycomb.Problem:
        return
    values = dotenv_values(stream=io.StringIO(changed.replace("\r\n", "\n")), interpolate=False)
    assert values["HONEYCOMB_API_KEY"] == KEY
    assert KEY not in without
    for kept in (changed, without):
        left = [each for each in honeycomb.bindings(kept) if each.name != "HONEYCOMB_API_KEY"]
        assert [each[:2] for each in left] == [each[:2] for each in others]


def test_a_link_stays_a_link(machine: Machine, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "variables"
    target.parent.mkdir()
    target.write_text("A=1\n")
    machine.dotenv.symlink_to(target)
    machine.key("set", typed=KEY)
    assert machine.dotenv.is_symlink()
    assert target.read_text() == f"A=1\nHONEYCOMB_API_KEY={KEY}\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["variables"]


def test_a_key_that_others_can_read_is_hidden_from_them(machine: Machine) -> None:
    machine.dotenv.write_text(f"HONEYCOMB_API_KEY={KEY}\n")
    machine.dotenv.chmod(0o644)
    machine.key("load")
    assert stat.S_IMODE(machine.dotenv.stat().st_mode) == 0o600


AS_NOBODY = """
import encodings.utf_8_sig, os, runpy, sys
runpy.run_path(sys.argv[1])  # imports what nobody may not read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def as_nobody(machine: Machine, verb: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(machine.program), "key", verb],
        env=machine.env,
        input=KEY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == (0 if verb == "load" else 1), done.stdout
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_cannot_be_written_is_said_and_left_as_it_is(machine: Machine, tmp_path: Path) -> None:
    for folder in tmp_path.parents:  # pytest's folders are for their owner alone
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    assert "cannot be written: Permission denied" in as_nobody(machine, "set")
    machine.project.chmod(0o777)
    machine.dotenv.write_text("A=1\n")
    machine.dotenv.chmod(0o644)
    assert "belongs to another user" in as_nobody(machine, "set")
    assert machine.dotenv.read_text() == "A=1\n"
    machine.dotenv.chmod(0o600)
    for verb in ("set", "load", "unset"):
        assert "cannot be read: Permission denied" in as_nobody(machine, verb)
    assert machine.dotenv.read_text() == "A=1\n"
    assert sorted(path.name for path in machine.project.iterdir()) == [".env", "bin"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for somebody else")
def test_what_root_writes_belongs_to_the_owner_of_the_folder(machine: Machine) -> None:
    os.chown(machine.project, 1234, 1235)
    for _ in range(2):
        machine.key("set", typed=KEY)
        assert (machine.dotenv.stat().st_uid, machine.dotenv.stat().st_gid) == (1234, 1235)
        assert stat.S_IMODE(machine.dotenv.stat().st_mode) == 0o600


def test_a_folder_called_dotenv_is_said(machine: Machine) -> None:
    machine.dotenv.mkdir()
    for verb, code in (("set", 1), ("load", 0), ("unset", 1), ("status", 1)):
        assert ".env cannot be read" in machine.key(verb, typed=KEY, exit=code)


# The terminal.


class Terminal:
    """`bin/honeycomb key` in a terminal of its own."""

    def __init__(self, machine: Machine, *arguments: str, **env: str) -> None:
        self.master, inside = pty.openpty()
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(machine.program), "key", *arguments],
            env={**machine.env, **env},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inside)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := os.read(self.master, 4096):
                self.shown += data
        except OSError:
            pass

    def answer(self, typed: str, times: int = 1) -> None:
        """Type once the question is there, for the given time."""
        assert eventually(lambda: self.shown.count(b"Enter skips") == times), self.shown
        time.sleep(0.1)
        os.write(self.master, typed.encode())

    def end(self) -> str:
        code = self.process.wait(10)
        eventually(lambda: False, 0.1)
        os.close(self.master)
        assert b"marked" not in self.shown
        return f"{code} {self.shown.decode()}"


def test_the_terminal_shows_nothing_of_it_and_asks_again_for_a_better_one(machine: Machine) -> None:
    terminal = Terminal(machine, "set")
    terminal.answer(f'"{KEY}"\n')
    terminal.answer(f"{KEY}\n", times=2)
    said = terminal.end()
    assert said.startswith("0 ")
    assert "is in quotes" in said
    assert "This ingest key is kept" in said
    assert machine.dotenv.read_text() == f"HONEYCOMB_API_KEY={KEY}\n"


@pytest.mark.parametrize(("typed", "code"), [("\n", 0), ("\x04", 0), ("\x03", 130)], ids=["Enter", "Ctrl-D", "Ctrl-C"])
def test_nobody_has_to_have_one(machine: Machine, typed: str, code: int) -> None:
    terminal = Terminal(machine, "set")
    terminal.answer(typed)
    assert terminal.end().startswith(f"{code} ")
    assert not machine.dotenv.exists()


def test_only_set_ever_asks(machine: Machine) -> None:
    for verb, code in (("load", 0), ("status", 1), ("unset", 0)):
        assert Terminal(machine, verb).end().startswith(f"{code} ")


@pytest.mark.parametrize("arguments", [["set", KEY], ["set", "--key", KEY], [KEY], ["set", f"--key={KEY}"]])
def test_a_key_in_the_command_line_is_refused_and_not_repeated(machine: Machine, arguments: list[str]) -> None:
    code = 1 if arguments == ["set", KEY] else 2
    said = machine.key(*arguments, typed=KEY, exit=code)
    assert ("does not belong in the command line" in said) is (code == 1)
    assert not machine.dotenv.exists()


# Platforms.


def test_gitpod_keeps_it_for_the_next_workspace(gitpod: Machine, tmp_path: Path) -> None:
    assert "`gp env` keeps it" in gitpod.key("set", typed=KEY)
    assert gitpod.held() == {"HONEYCOMB_API_KEY": KEY}
    second = Machine(tmp_path / "second")
    second.on_gitpod()
    second.env["GP_STAND_IN_STORE"] = gitpod.env["GP_STAND_IN_STORE"]
    assert second.key("status").count("ingest key") == 1  # before it is loaded: nobody is asked again
    assert "from `gp env` is now in .env" in second.key("load")
    assert "already" in second.key("load")
    assert second.dotenv.read_text() == f"HONEYCOMB_API_KEY={KEY}\n"
    assert "no longer a" in second.key("unset")
    assert gitpod.held() == {}
    assert "no longer" not in second.key("unset")


def test_the_freshest_key_wins(gitpod: Machine) -> None:
    keys = [KEY[:-1] + letter for letter in "abc"]
    gitpod.dotenv.write_text(f"HONEYCOMB_API_KEY={keys[0]}\n")
    gitpod.key("load")
    assert keys[0] in gitpod.dotenv.read_text()
    gitpod.key("load", HONEYCOMB_API_KEY=keys[1])  # when this terminal was opened
    assert keys[1] in gitpod.dotenv.read_text()
    gitpod.store.write_text(json.dumps({"OTHER": "1", "HONEYCOMB_API_KEY": keys[2]}))  # since, in another workspace
    assert "different keys" in gitpod.key("status", HONEYCOMB_API_KEY=keys[1])
    gitpod.key("load", HONEYCOMB_API_KEY=keys[1])
    assert gitpod.dotenv.read_text() == f"HONEYCOMB_API_KEY={keys[2]}\n"


def test_a_bad_key_does_not_replace_a_good_one(gitpod: Machine) -> None:
    gitpod.dotenv.write_text(f"HONEYCOMB_API_KEY={KEY}\n")
    said = gitpod.key("load", HONEYCOMB_API_KEY="${HONEYCOMB_API_KEY}")
    assert "in the environment is the name of a variable that was not expanded" in said
    assert gitpod.dotenv.read_text() == f"HONEYCOMB_API_KEY={KEY}\n"


def test_an_old_key_in_the_terminal_is_named(gitpod: Machine) -> None:
    assert "another HONEYCOMB_API_KEY" in gitpod.key("set", typed=KEY, HONEYCOMB_API_KEY=OTHER)
    assert "This terminal still has it" in gitpod.key("unset", HONEYCOMB_API_KEY=OTHER)


def test_gp_that_fails_is_said_and_the_key_is_in_dotenv(gitpod: Machine) -> None:
    fails = '#!/bin/sh\necho "$@" >&2\ncase $# in 1) exit 0;; *) exit 1;; esac\n'
    (gitpod.programs / "gp").write_text(fails)
    assert "`gp env` failed" in gitpod.key("set", typed=KEY, exit=1)
    assert gitpod.dotenv.read_text() == f"HONEYCOMB_API_KEY={KEY}\n"
    (gitpod.programs / "gp").write_text('#!/bin/sh\necho "$@" >>"$0.log"\nexit 1\n')
    for verb, code in (("set", 1), ("load", 0), ("status", 0), ("unset", 1)):
        gitpod.key(verb, typed=KEY, exit=code)
    assert set((gitpod.programs / "gp.log").read_text().splitlines()) == {"env"}  # and is told no key


def test_a_calculator_called_gp_is_not_told_the_key(machine: Machine) -> None:
    gp = machine.programs / "gp"
    gp.write_text(PARI)
    gp.chmod(0o755)
    machine.key("set", typed=KEY)
    assert not Path(f"{gp}.log").exists()
    machine.key("set", typed=KEY, GITPOD_WORKSPACE_ID="stand-in", exit=0)
    assert Path(f"{gp}.log").read_text() == "env\n"


@pytest.mark.parametrize(
    ("env", "where"),
    [
        ({"CODESPACES": "true"}, "https://github.com/settings/codespaces"),
        ({"GITPOD_ENVIRONMENT_ID": "1"}, "your user settings, under Secrets"),
    ],
    ids=["Codespaces", "Ona"],
)
def test_where_a_platform_keeps_its_secrets_is_said(machine: Machine, env: dict[str, str], where: str) -> None:
    assert where in machine.key("set", typed=KEY, **env)
    assert where in machine.key("unset", **env)
    machine.key("load", **env, HONEYCOMB_API_KEY=OTHER)
    assert dotenv_values(machine.dotenv) == {"HONEYCOMB_API_KEY": OTHER}


def test_status_names_every_place(gitpod: Machine, tmp_path: Path) -> None:
    assert "no Honeycomb API key yet" in gitpod.key("status", exit=1)
    (tmp_path / "secret").write_text(f"{KEY}\n")
    gitpod.dotenv.write_text("HONEYCOMB_API_KEY='${X}'\n")
    env = {"HONEYCOMB_API_KEY_FILE": str(tmp_path / "secret"), "HONEYCOMB_API_KEY": '"x"'}
    lines = [re.split(r"  +", line) for line in gitpod.key("status", **env).splitlines()]
    assert lines == [
        ["environment", "no key: it is in quotes that belong to the key now"],
        ["HONEYCOMB_API_KEY_FILE", "ingest key"],
        [".env", "no key: it is the name of a variable that was not expanded"],
        ["gp env", "none"],
    ]


# Where the key is, and where it is not.


@pytest.fixture
def seen(gitpod: Machine) -> Iterator[set[str]]:
    """Every command line with the key in it that there is meanwhile; `gp` takes its time."""
    slow = (gitpod.programs / "gp").read_text().replace("exec", "PATH=/usr/bin:/bin sleep 0.3\nexec")
    (gitpod.programs / "gp").write_text(slow)
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = process.read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if "marked" in line:
                    seen.add(line.replace("\0", " ").strip())

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    stop.set()
    thread.join()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc here")
def test_the_key_is_in_dotenv_and_in_gp_s_hands_and_nowhere_else(
    gitpod: Machine, seen: set[str], tmp_path: Path
) -> None:
    for verb in ("set", "load", "status"):
        gitpod.key(verb, typed=KEY)
    holders = {path for path in tmp_path.rglob("*") if path.is_file() and b"marked" in path.read_bytes()}
    assert holders == {gitpod.dotenv, gitpod.store}
    assert seen
    assert {line for line in seen if not re.search(r"/gp\"? env HONEYCOMB_API_KEY=\S+$", line)} == set()


def test_a_running_backend_takes_it_up_and_lets_it_go(installed_project: Path, tmp_path: Path) -> None:
    def key(*arguments: str) -> None:
        command = [sys.executable, "bin/honeycomb", "key", *arguments]
        done = subprocess.run(command, cwd=installed_project, env=environment(), input=KEY, text=True, check=True)
        assert done.returncode == 0

    with receiving() as honeycomb:
        project = Project(installed_project, tmp_path / "log", HONEYCOMB_API_ENDPOINT=honeycomb.url)
        try:
            project.trace(project.home(), 5)
            assert honeycomb.requests == []
            key("set")
            began = time.monotonic()
            trace_id = project.home().headers["traceresponse"].split("-")[1]
            assert eventually(lambda: len(honeycomb.traces().get(trace_id, [])) == 5, 5)
            print(f"at Honeycomb after {time.monotonic() - began:.1f} s")
            assert {headers.get("x-honeycomb-team") for _, headers, _ in honeycomb.requests} == {KEY}
            key("unset")
            answer = project.home()
            project.trace(answer, 5)
            time.sleep(1)
            assert answer.headers["traceresponse"].split("-")[1] not in honeycomb.traces()
            assert "marked" not in project.program.output()
        finally:
            (installed_project / ".env").unlink(missing_ok=True)
            project.program.interrupt()
