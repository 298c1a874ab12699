"""Refuse, before any file is written, prompts that the project could not live with."""

import json
import re
import sys
import unicodedata
from collections.abc import Callable

# JSON in a raw string: whatever a person typed stays data (tojson escapes the apostrophe, and
# JSON never has three double quotes in a row).
PROMPTS = r"""{{ cookiecutter | tojson }}"""

DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
OTHER_SERVICES = ("profiles", "viewer", "jaeger")
LONGEST_NAME = 63  # a DNS label, which Compose makes of it
LONGEST_TEXT = 500


def folder(project: str) -> str:
    r"""Say why this cannot be a folder on Linux, macOS and Windows alike.

    Valid: cruddur, my-app, con-app. Invalid: con, NUL, com1.txt, a/b, a\b, a:b, app., ..
    """
    if DEVICES.fullmatch(project):
        return "is the name of a device on Windows"
    if project.endswith((".", " ")):
        return "ends with a dot or a blank, which Windows drops"
    if found := re.search(r'[<>:"/\\|?*]', project):
        return f"has a {found[0]} in it, which no folder can have on every system"
    return ""


def compose_project(project: str) -> str:
    """Say why Docker Compose would not take this as a project name.

    Valid: cruddur, my-app, my_app, 3d. Invalid: Cruddur, my app, -app, _app, пример.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project):
        return ""
    return "is no Compose project name: a to z, 0 to 9, - and _, with a letter or digit first"


def distribution(project: str) -> str:
    """Say why this cannot be the name in pyproject.toml.

    Valid: cruddur, my-app. Invalid: app-, app_.
    """
    if project.endswith(("-", "_")):
        return "is no Python distribution name: those end with a letter or digit"
    return ""


def service(name: str) -> str:
    """Say why no service can be called this in Compose and in traces.

    Valid: backend-flask, Api.v2. Invalid: profiles, viewer, my service, -api.
    """
    if name.lower() in OTHER_SERVICES:
        return "is the name of another service of the project"
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return ""
    return "is no service name: letters, digits, ., _ and -, with a letter or digit first"


def short_name(name: str) -> str:
    """Say if this is longer than a name may be.

    Valid: up to 63 characters. Invalid: 64 and more.
    """
    length = len(name)
    return f"has {length} characters, {LONGEST_NAME} at most" if length > LONGEST_NAME else ""


def short_text(text: str) -> str:
    """Say if this is longer than one line of text should be.

    Valid: up to 500 characters. Invalid: 501 and more.
    """
    length = len(text)
    return f"has {length} characters, {LONGEST_TEXT} at most" if length > LONGEST_TEXT else ""


def printable(text: str) -> str:
    r"""Say which character TOML, YAML or UTF-8 has no place for.

    Valid: "It's {{ 7 }} \ $(x)", Привет, emoji. Invalid: \x00, \x1b, \x7f, half a surrogate pair.
    """
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") or character in "\ufffe\uffff":
            return f"has a character that cannot be shown (U+{ord(character):04X})"
    return ""


CHECKS: tuple[tuple[str, str, tuple[Callable[[str], str], ...]], ...] = (
    ("project", "my-app", (folder, compose_project, distribution, short_name)),
    ("service_name", "backend-flask", (service, short_name)),
    ("project_name", "Cruddur", (short_text, printable)),
    ("description", "Short messages for busy people", (short_text, printable)),
    ("author", "Ada Lovelace", (short_text, printable)),
)


def problems(prompts: dict[str, str]) -> list[str]:
    """Say what is wrong with each prompt, in one line with an example of what is right."""
    found = []
    for prompt, example, checks in CHECKS:
        value = prompts[prompt]
        if wrong := ", and ".join(filter(None, (check(value) for check in checks))):
            found.append(f"  {prompt} {value[:80]!r} {wrong}. For example: {example}")
    return found


def main() -> None:
    """Stop cookiecutter if there are problems; it removes the folder that it has just made."""
    prompts = json.loads(PROMPTS)
    # cookiecutter.json keeps what was given as __project and never makes a folder of a bad one.
    if found := problems({**prompts, "project": prompts["__project"]}):
        sys.exit("\n".join(("", "Nothing was made, because:", *found, "")))


if __name__ == "__main__":
    main()
