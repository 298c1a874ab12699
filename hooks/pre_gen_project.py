"""Check the answers before any file is written."""

import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

# One line for each answer: name, whether it is a string, and its value in hexadecimal, so that it is never code.
ANSWERS = """
{%- for name, answer in cookiecutter.items() if not name.startswith('_') or name == '__folder' %}
{{ name }} {{ answer is string }} {{ (answer | string).encode('utf-8', 'surrogatepass').hex() }}
{%- endfor %}
"""

STARTED = Path(".rendering-started")  # its time tells post_gen_project.py which files are new

DEVICES = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")
OTHER_SERVICES = ("profiles", "viewer", "jaeger", "collector")
MAX_NAME = 63  # Compose uses it as a DNS label
MAX_TEXT = 500
CHOICES = {
    "python_version": ("3.14", "3.13"),
    "honeycomb_region": ("US", "EU"),
    "local_viewer": ("otlp-viewer", "jaeger"),
    "example": ("activities", "none"),
    "deployment": ("one host", "Kubernetes too"),
}


def folder(project: str) -> str:
    """Return why Windows does not allow this as the name of a folder, or "".

    Valid: cruddur, my-app, con-app. Invalid: con, nul, com1. compose_project() rejects NUL and com1.txt.
    """
    return "is the name of a device on Windows" if DEVICES.fullmatch(project) else ""


def compose_project(project: str) -> str:
    """Return why this is not a valid Docker Compose project name, or "".

    Valid: cruddur, my-app, my_app, 3d. Invalid: Cruddur, my app, a/b, -app, _app, пример.
    """
    if match := re.search(r"[^a-z0-9_-]", project):
        return f"cannot contain {match[0]!a}: use a to z, 0 to 9, - and _, and begin with a letter or digit"
    return "" if re.match(r"[a-z0-9]", project) else "must begin with a letter or digit"


def distribution(project: str) -> str:
    """Return why this is not a valid name in pyproject.toml, or "".

    Valid: cruddur, my-app. Invalid: app-, app_.
    """
    if project.endswith(("-", "_")):
        return "is not a Python distribution name: it must end with a letter or digit"
    return ""


def service(name: str) -> str:
    """Return why this is not a valid service name in Compose and in traces, or "".

    Valid: backend-flask, Api.v2. Invalid: profiles, viewer, my service, -api.
    """
    if name.lower() in OTHER_SERVICES:
        return "is the name of another service of the project"
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return ""
    return "is not a service name: use letters, digits, ., _ and -, and begin with a letter or digit"


def short_name(name: str) -> str:
    """Return why this name is too long, or "".

    Valid: up to 63 characters. Invalid: 64 and more.
    """
    return f"has {len(name)} characters; the limit is {MAX_NAME}" if len(name) > MAX_NAME else ""


def short_text(text: str) -> str:
    """Return why this text is too long, or "".

    Valid: up to 500 characters. Invalid: 501 and more.
    """
    return f"has {len(text)} characters; the limit is {MAX_TEXT}" if len(text) > MAX_TEXT else ""


def printable(text: str) -> str:
    r"""Return which character TOML, YAML or UTF-8 does not allow, or "".

    Valid: It's "quoted", \ $(x), Привет, emoji. Invalid: \n, \x00, \x1b, \x7f, half a surrogate pair.
    """
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") or character in "\u2028\u2029\ufffe\uffff":
            return f"contains a character that is not allowed (U+{ord(character):04X})"
    return ""


# cookiecutter prints one for every hook that fails, after what the hook has printed.
NOTE = "Try again with other answers. If a traceback follows, it is cookiecutter's and adds nothing."

CHECKS: tuple[tuple[str, str, tuple[Callable[[str], str], ...]], ...] = (
    ("project", "my-app", (folder, compose_project, distribution, short_name)),
    ("service_name", "backend-flask", (service, short_name)),
    ("project_name", "Cruddur", (short_text, printable)),
    ("description", "Short messages for busy people", (short_text, printable)),
    ("author", "Ada Lovelace", (short_text, printable)),
)


def problems(answers: dict[str, str]) -> list[str]:
    """Return a line for each invalid answer, with an example of a valid one."""
    lines = []
    for name, example, checks in CHECKS:
        value = answers[name]
        if reasons := ", and ".join(filter(None, (check(value) for check in checks))):
            lines.append(f"  {name} {value[:80]!a} {reasons}. For example: {example}")
    if not lines and answers["__folder"] != answers["project"]:
        lines.append(f'  __folder must be the project. In a replay file: "__folder": "{answers["project"]}"')
    for name, choices in CHOICES.items():
        if answers[name] not in choices:
            lines.append(f"  {name} {answers[name][:80]!a} is not one of: {', '.join(choices)}")
    return lines


def parse_answers(lines: str) -> tuple[dict[str, str], list[str]]:
    """Return the answers by name, and a problem for each that is not a string."""
    answers, problems_found = {}, []
    for name, is_text, value in (line.split(" ") for line in lines.splitlines() if line):
        answers[name] = bytes.fromhex(value).decode("utf-8", "surrogatepass")
        if is_text != "True":
            problems_found.append(f"  {name} {answers[name][:80]!a} is not text: write it in quotes")
    return answers, problems_found


def main() -> None:
    """Exit if there are problems; cookiecutter then removes the folder that it has just created."""
    answers, not_text = parse_answers(ANSWERS)
    if lines := not_text + problems(answers):
        sys.exit("\n".join(("", "Nothing was written, because:", *lines, "", NOTE, "")))
    STARTED.touch()


if __name__ == "__main__":
    main()
