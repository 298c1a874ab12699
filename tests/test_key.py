"""`bin/honeycomb key`: every state of a key, every platform, and no place where the key is printed."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
import threading
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace

import pexpect
import pytest
from conftest import PROJECT, ROOT
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from platforms import stand_in

NAME = "HONEYCOMB_API_KEY"
KEY = "hcaik_01marked00key0that0must0never0be0shown00000000000000000000"
OTHER = "hcbik_02marked00key0that0must0never0be0shown00000000000000000000"
SCRIPT = ROOT / PROJECT / "bin" / "honeycomb"


class Machine:
    """A folder in which `bin/honeycomb` runs, with nothing but Python."""

    def __init__(self, folder: Path) -> None:
        self.flags = ["-I"]
        self.project, self.programs, self.gp_store = folder / "my project", folder / "programs", folder / "gp.json"
        (self.project / "bin").mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(SCRIPT, self.project / "bin")
        self.program, self.dotenv = self.project / "bin" / "honeycomb", self.project / ".env"
        self.env = {"HOME": str(folder), "PATH": str(self.programs), "GP_STAND_IN_STORE": str(self.gp_store)}

    def install_gp(self, script: str) -> Path:
        gp = self.programs / "gp"
        gp.write_text(f"#!/bin/sh\n{script}\n")
        gp.chmod(0o755)
        self.env["GITPOD_WORKSPACE_ID"] = "stand-in"
        return gp

    def run(self, *arguments: str, typed: str | bytes = "", exit: int = 0, **env: str) -> str:
        """What `bin/honeycomb` prints, which never contains a key."""
        done = subprocess.run(
            [sys.executable, *self.flags, str(self.program), *arguments],
            cwd=self.project.parent,
            env={**self.env, **env},
            input=typed.encode() if isinstance(typed, str) else typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        output = done.stdout.decode()
        assert "marked" not in output
        assert "Traceback" not in output
        assert done.returncode == exit, output
        return output

    key = partialmethod(run, "key")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def gitpod(machine: Machine) -> Machine:
    machine.install_gp(f'exec {sys.executable} "{stand_in("gitpod/gp")}" "$@"')
    return machine


@pytest.fixture(scope="session")
def honeycomb() -> SimpleNamespace:
    """The names of the program."""
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


INVALID = {
    "": "is empty",
    f'"{KEY}"': "is in quotes",
    f"'{KEY}": "is in quotes",
    f'{KEY}" ': "is in quotes",
    f" {KEY}": "leading or trailing whitespace",
    "${HONEYCOMB_API_KEY}": "not expanded",
    "$HONEYCOMB_API_KEY": "not expanded",
    "%HONEYCOMB_API_KEY%": "not expanded",
    "x$(marked)": "not expanded",
    f"{NAME}={KEY}": "characters that keys do not have",
    f"{KEY[:30]} {KEY[30:]}": "characters that keys do not have",
    f"{KEY}é": "characters that keys do not have",
    f"{KEY}\n{OTHER}": "characters that keys do not have",
    "hcamk_01marked" + "k" * 18 + ":" + "s" * 32: "is a management key",
    "hcaik_01marked" + "k" * 18: "is the ID of a key",
    KEY[:60]: "is not 64 characters long",
    f"{KEY}0": "is not 64 characters long",
    "marked": "is too short",
}
VALID = (
    KEY,
    "markedmarkedmarkedMARK",
    "hcaic_" + "marked00" * 7 + "00",
    "0123456789abcdef" * 2,
    "of_a_shape_to_come" * 2,
)


@pytest.mark.parametrize("key", INVALID, ids=INVALID.values())
def test_set_and_load_reject_the_same_keys_with_reasons(machine: Machine, key: str) -> None:
    machine.dotenv.write_text(f"{NAME}={OTHER}\n")
    assert INVALID[key] in machine.key("set", typed=f"{key}\n" if key else "", exit=1)
    assert not key or INVALID[key] in machine.key("load", **{NAME: key})
    assert machine.dotenv.read_text() == f"{NAME}={OTHER}\n"


@pytest.mark.parametrize("key", VALID)
def test_set_and_load_accept_the_same_keys(machine: Machine, key: str) -> None:
    for typed in (None, key, f"{key}\r\n", f"\ufeff{key}\n"):
        machine.dotenv.unlink(missing_ok=True)
        machine.key("set", typed=typed) if typed else machine.key("load", **{NAME: key})
        assert machine.dotenv.read_text() == f"{NAME}={key}\n"
        assert re.search(r"^\.env +well-formed$", machine.key("status"), re.MULTILINE)


def test_the_backend_accepts_the_same_keys(honeycomb: SimpleNamespace) -> None:
    key = pytest.importorskip("traced_flask.key")
    for each in [*INVALID, *VALID]:
        assert bool(key.problem_with_key(each)) is bool(honeycomb.problem_with_key(each)) is (each in INVALID)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "HONEYCOMB_API_KEY={}\n"),
        ("PORT=1", "PORT=1\nHONEYCOMB_API_KEY={}\n"),
        ("PORT=1\r\nA=2", "PORT=1\r\nA=2\r\nHONEYCOMB_API_KEY={}\r\n"),
        ("#HONEYCOMB_API_KEY=\n", "#HONEYCOMB_API_KEY=\nHONEYCOMB_API_KEY={}\n"),
        ("A=1\r\nHONEYCOMB_API_KEY=old\r\nB=2\r\n", "A=1\r\nHONEYCOMB_API_KEY={}\r\nB=2\r\n"),
        ("\texport HONEYCOMB_API_KEY = 'old' # mine\nB=2", "\texport HONEYCOMB_API_KEY = {} # mine\nB=2"),
        ('HONEYCOMB_API_KEY="old" \n', "HONEYCOMB_API_KEY={} \n"),
        ("HONEYCOMB_API_KEY= # none\n", "HONEYCOMB_API_KEY= {} # none\n"),
        ("HONEYCOMB_API_KEY='old'# mine\n", "HONEYCOMB_API_KEY={} # mine\n"),
        ("HONEYCOMB_API_KEY=1\nA=1\n HONEYCOMB_API_KEY=2\nB=2\n", "A=1\n HONEYCOMB_API_KEY={}\nB=2\n"),
        ("A='1\nHONEYCOMB_API_KEY=x\n'\n", "A='1\nHONEYCOMB_API_KEY=x\n'\nHONEYCOMB_API_KEY={}\n"),
        ('A="1\nHONEYCOMB_API_KEY=x\n"y\n', 'A="1\nHONEYCOMB_API_KEY=x\n"y\nHONEYCOMB_API_KEY={}\n'),
        ("A='not closed\nHONEYCOMB_API_KEY=old\n", "A='not closed\nHONEYCOMB_API_KEY={}\n"),
        ("\ufeffHONEYCOMB_API_KEY=old\nÄ=ö\n", "\ufeffHONEYCOMB_API_KEY={}\nÄ=ö\n"),
    ],
)
def test_all_other_lines_are_unchanged(machine: Machine, before: str, after: str) -> None:
    machine.dotenv.write_bytes(before.encode())
    machine.key("set", typed=KEY)
    assert machine.dotenv.read_bytes().decode() == after.format(KEY)
    assert dotenv_values(machine.dotenv)[NAME] == KEY
    machine.dotenv.chmod(0o644)
    machine.key("load")
    assert stat.S_IMODE(machine.dotenv.stat().st_mode) == 0o600
    machine.key("unset")
    left = machine.dotenv.read_bytes().decode()
    assert [line for line in after.splitlines() if "{}" not in line] == left.lstrip("\ufeff").splitlines()
    assert sorted(path.name for path in machine.project.iterdir()) == [".env", "bin"]


PIECES = (
    *("HONEYCOMB_API_KEY", "HONEYCOMB_API_KEY=", "A", "A='", "\nA=", "\nexport ", "export", " = ", " ", "\t", "=", "'"),
    *("'\n", '"', "\\", "#", " # ", "\n", "\r\n", "old", "${A}", "x y", "é", "\x0b"),
)
TEXTS = st.builds(
    str.__add__, st.sampled_from(["", "\ufeff"]), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
)


def values(text: str) -> dict[str, str | None]:
    return dotenv_values(stream=io.StringIO(text.replace("\r\n", "\n")), interpolate=False)


@given(TEXTS)
def test_setting_and_removing_a_key_keeps_the_rest_of_any_dotenv(honeycomb: SimpleNamespace, text: str) -> None:
    if "\\" not in text and "\r" not in text and not re.search(rf"{NAME}\s*$", text, re.MULTILINE):
        assert honeycomb.key_in(text) == (values(text).get(NAME) or None)
    try:
        changed = honeycomb.with_key(text, KEY)
        without = honeycomb.with_key(changed, None)
    except honeycomb.Problem:
        return
    others = {name: value for name, value in values(text).items() if name != NAME}
    assert values(changed) == {**others, NAME: KEY}
    assert {name: value for name, value in values(without).items() if name != NAME} == others
    assert KEY not in without


def test_a_link_stays_a_link_and_its_target_keeps_its_owner(machine: Machine, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("A=1\n")
    os.chown(target, *((1234, 1235) if os.geteuid() == 0 else (-1, -1)))
    owner = target.stat().st_uid
    machine.dotenv.symlink_to(target)
    machine.key("set", typed=KEY)
    assert machine.dotenv.is_symlink()
    assert target.read_text() == f"A=1\n{NAME}={KEY}\n"
    assert target.stat().st_uid == owner


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="there is no /proc here")
def test_a_file_that_cannot_be_written_is_named(machine: Machine) -> None:
    machine.dotenv.symlink_to("/proc/version")
    assert ".env cannot be written: " in machine.key("set", typed=KEY, exit=1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", None])
def test_an_unreadable_dotenv_is_reported_and_not_changed(machine: Machine, encoding: str | None) -> None:
    content = f"A=ä\n{NAME}={OTHER}\n".encode(encoding or "utf-8")
    machine.dotenv.write_bytes(content) if encoding else machine.dotenv.mkdir()
    for verb, code in (("set", 1), ("load", 0), ("unset", 1), ("status", 1)):
        assert ("not UTF-8" if encoding else "Is a directory") in machine.key(verb, typed=KEY, exit=code)
    assert encoding is None or machine.dotenv.read_bytes() == content


def test_a_named_pipe_is_read_once_with_a_timeout_and_never_written(machine: Machine) -> None:
    os.mkfifo(machine.dotenv)
    machine.program.write_text(machine.program.read_text().replace("PIPE_TIMEOUT = 10 ", "PIPE_TIMEOUT = 3 "))
    assert "no program finished writing it within 3 s" in machine.key("load")
    assert "named pipe" in machine.key("set", typed=KEY, exit=1)
    written: list[int] = []
    writer = threading.Thread(target=lambda: written.append(machine.dotenv.write_text(f"A=1\n{NAME}={KEY}\n")))
    writer.start()
    assert "Found a Honeycomb API key in .env" in machine.key("load")
    writer.join(30)
    assert len(written) == 1
    assert machine.dotenv.is_fifo()


@pytest.mark.parametrize(
    ("typed", "code"), [([f'"{KEY}"\n', f"{KEY}\n"], 0), (["\n"], 0), (["\x04"], 0), (["\x03"], 130)]
)
def test_the_terminal_prompts_without_echo_until_a_key_is_valid_or_skipped(
    machine: Machine, typed: list[str], code: int
) -> None:
    log = io.BytesIO()
    terminal = pexpect.spawn(sys.executable, [str(machine.program), "key", "set"], env=machine.env)
    terminal.logfile_read = log
    for each in typed:
        terminal.expect("Enter to skip: ")
        terminal.send(each)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == code, log.getvalue()
    assert b"marked" not in log.getvalue()
    assert (b"is in quotes. Try again." in log.getvalue()) is (len(typed) == 2)
    assert machine.dotenv.exists() is (len(typed) == 2)


@pytest.mark.parametrize("arguments", [["set", KEY], ["set", "--key", KEY], [KEY], ["set", f"--key={KEY}"], ["marked"]])
def test_a_key_on_the_command_line_is_rejected_and_not_repeated(machine: Machine, arguments: list[str]) -> None:
    assert "revoke it" in machine.key(*arguments, typed=KEY, exit=2)
    assert not machine.dotenv.exists()


def test_key_alone_prints_help_without_a_warning_about_typed_keys(machine: Machine) -> None:
    assert machine.key(exit=2).startswith("The Honeycomb API key of this project")


def test_help_fits_a_screen(machine: Machine) -> None:
    for arguments in (["--help"], ["key", "--help"], ["key", "set", "-h"]):
        output = machine.run(*arguments)
        assert "key load" in output
        assert len(output.splitlines()) <= 24


def test_other_commands_need_an_installed_project_and_say_so(machine: Machine) -> None:
    machine.flags = ["-I", "-S"]  # without what is installed here
    assert "Install it: make install" in machine.run("check", exit=1)
    folder = machine.project / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "traced-flask").touch()
    assert "make clean install" in machine.run("check", exit=1)
    (folder / "python").write_text('#!/bin/sh\necho "$@" in "$PWD"\nexit 3\n')
    (folder / "python").chmod(0o755)
    assert machine.run("check", "--json", exit=3) == f"-m traced_flask check --json in {machine.project}\n"


def test_gitpod_stores_it_for_the_next_workspace(gitpod: Machine, tmp_path: Path) -> None:
    assert "with `gp env`" in gitpod.key("set", typed=KEY)
    assert json.loads(gitpod.gp_store.read_text()) == {NAME: KEY}
    second = Machine(tmp_path / "second")
    second.install_gp((gitpod.programs / "gp").read_text())
    second.env["GP_STAND_IN_STORE"] = str(gitpod.gp_store)
    assert re.search(r"^gp env +well-formed$", second.key("status"), re.MULTILINE)  # so the workspace asks nobody
    assert "Copied the Honeycomb API key from `gp env` to .env" in second.key("load")
    holders = {path for path in tmp_path.rglob("*") if path.is_file() and KEY in path.read_text()}
    assert holders == {gitpod.dotenv, second.dotenv, gitpod.gp_store}
    assert "Removed" in second.key("unset")
    assert json.loads(gitpod.gp_store.read_text()) == {}


def test_the_most_recent_key_wins(gitpod: Machine) -> None:
    keys = [KEY[:-1] + letter for letter in "abc"]
    gitpod.dotenv.write_text(f"{NAME}={keys[0]}\n")
    assert "another HONEYCOMB_API_KEY" not in gitpod.key("load")
    gitpod.key("load", **{NAME: keys[1]})  # from when this terminal was opened
    assert keys[1] in gitpod.dotenv.read_text()
    gitpod.gp_store.write_text(json.dumps({"OTHER": "1", NAME: keys[2]}))  # since then, in another workspace
    assert "These keys differ" in gitpod.key("status", **{NAME: keys[1]})
    gitpod.key("load", **{NAME: keys[1]})
    assert gitpod.dotenv.read_text() == f"{NAME}={keys[2]}\n"


def test_another_variable_that_looks_like_the_key_is_ignored(gitpod: Machine) -> None:
    gitpod.gp_store.write_text(json.dumps({"A": f'1\n{NAME}={KEY}\nexport {NAME}={KEY}\nexport {NAME}="{KEY}"\n2'}))
    assert "No Honeycomb API key yet" in gitpod.key("load")


def test_a_failing_or_unrelated_gp_never_gets_the_key(machine: Machine) -> None:
    log = machine.install_gp('echo "$@" >>"$0.log"; exit 1').with_suffix(".log")
    for verb, code in (("set", 1), ("load", 0), ("status", 0), ("unset", 1)):
        machine.key(verb, typed=KEY, exit=code)
    machine.install_gp('echo "$@" >>"$0.log"; echo "    GP/PARI CALCULATOR Version 2.17.0 (released)"')
    machine.key("set", typed=KEY)
    assert set(log.read_text().splitlines()) == {"env -e"}
    assert machine.dotenv.read_text() == f"{NAME}={KEY}\n"


@pytest.mark.parametrize("variable", ["CODESPACES", "GITPOD_ENVIRONMENT_ID"])
def test_manual_steps_are_printed(machine: Machine, variable: str) -> None:
    place = {"CODESPACES": "https://github.com/settings/codespaces"}.get(variable, "your user settings, Secrets")
    assert place in machine.key("set", typed=KEY, **{variable: "true"})
    assert place in machine.key("unset", **{variable: "true"})
    assert "still has another HONEYCOMB_API_KEY" in machine.key("set", typed=KEY, **{NAME: OTHER})
    assert "still has the key" in machine.key("unset", **{NAME: OTHER})


def test_status_names_every_place(gitpod: Machine, tmp_path: Path) -> None:
    assert "No Honeycomb API key yet" in gitpod.key("status", exit=1)
    (tmp_path / "secret").write_text(f"{KEY}\n")
    gitpod.dotenv.write_text(f"{NAME}='${{X}}'\n{NAME}_FILE='../secret'\n")  # from the project's folder
    env = {NAME: '"x"'}
    assert [re.split(r"  +", line) for line in gitpod.key("status", **env).splitlines()] == [
        ["environment", "not valid: it is in quotes"],
        ["HONEYCOMB_API_KEY_FILE", "well-formed"],
        [".env", "not valid: it is the name of a variable that was not expanded"],
        ["gp env", "none"],
    ]
    assert "HONEYCOMB_API_KEY_FILE  well-formed" in gitpod.key("status", **{f"{NAME}_FILE": str(tmp_path / "secret")})
