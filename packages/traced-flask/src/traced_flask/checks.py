"""What the value of an environment variable may be. Each check takes a text that is not empty.

It returns the value to use, or None, and what is wrong with the given one. The words contain nothing of the value that
could be a key: a key in the wrong variable is not printed.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Final
from urllib.parse import unquote, urlsplit

LARGEST: Final = 2**31 - 1  # what the C code behind deque and wait() takes everywhere

MAX_RATE: Final = 1_000_000
DEFAULT_PROPAGATORS: Final = "tracecontext,baggage"
NOTHING_SENT: Final = "nothing is sent to it"

Checked = tuple[str | None, list[str]]
Check = Callable[[str], Checked]


def is_address(url: str) -> bool:
    """Whether `url` is one that telemetry can be sent to: http or https, a host, and a port that exists, if any."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # of a port, or of brackets
        return False


def whole_number(least: int, default: int | None = None) -> Check:
    """A whole number from `least` on; `default` says what is used instead of another, None for the SDK's own."""

    def check(text: str) -> Checked:
        try:
            if least <= int(text) <= LARGEST:
                return text, []
        except ValueError:
            pass
        return _default(default), [f"is not a whole number from {least} to {LARGEST}; {_instead(default)}"]

    return check


def number(least: float, most: float, default: float, unit: str = "") -> Check:
    """A number, in `unit`, from `least` to `most`; 0 is none where `unit` is a time."""

    def check(text: str) -> Checked:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if least <= value <= most and (value or not unit):
            return text, []
        more = "more than 0, up to" if unit else f"from {least} to"
        return _default(default), [f"is not a number{unit} {more} {most}; {_instead(default)}"]

    return check


def one_of(*allowed: str, default: str | None = None) -> Check:
    """One of `allowed`, in upper or lower case."""

    def check(text: str) -> Checked:
        if text.lower() in allowed:
            return text.lower(), []
        return default, [f"is not {_either(allowed)}; {_instead(default)}"]

    return check


def sample_rate(text: str) -> Checked:
    """A whole number of traces of which one is kept."""
    if text.isascii() and text.isdecimal() and len(text) <= 7 and 1 <= int(text) <= MAX_RATE:
        return text, []
    return None, [f"is not a whole number from 1 to {MAX_RATE}; every trace is kept. 10 keeps one in ten"]


def some_of(*allowed: str, default: str) -> Check:
    """A list of `allowed`, separated by commas; others are ignored, and `default` is used if none is left."""

    def check(text: str) -> Checked:
        asked = _items(text)
        left = [each.lower() for each in asked if each.lower() in allowed]
        if len(left) == len(asked):
            return ",".join(left) or None, []
        instead = ",".join(left) or default
        return instead, [f"names {_unknown(asked, allowed)}, which is not {_either(allowed)}; {instead} is used"]

    return check


def installed(group: str, default: str | None, *more: str) -> Check:
    """A list of names that installed packages register as entry points of `group`, or of `more`."""

    def check(text: str) -> Checked:
        asked = _items(text)
        left = [each for each in asked if each in more or entry_points(group=group, name=each)]
        if len(left) == len(asked):
            return ",".join(left) or None, []
        wrong = f"names {_unknown(asked, left)}, which is not installed; {_instead(','.join(left) or default)}"
        return ",".join(left) or None, [wrong]

    return check


def propagators(text: str) -> Checked:
    """A list of propagators that can be loaded: the SDK raises for another one while it is imported."""

    def loads(name: str) -> bool:
        try:
            return all(point.load() for point in entry_points(group="opentelemetry_propagator", name=name))
        except Exception:  # whatever a package does when it is imported
            return False

    usable, wrong = installed("opentelemetry_propagator", DEFAULT_PROPAGATORS, "none")(text)
    if usable is None or all(map(loads, _items(usable))):
        return usable, wrong
    return None, [f"names a package that cannot be imported; {DEFAULT_PROPAGATORS} is used"]


def regular_expressions(instead: str | None) -> Check:
    """A list of regular expressions; an invalid one is replaced by `instead`, or ignored."""

    def compiles(pattern: str) -> bool:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError):
            return False
        return True

    def check(text: str) -> Checked:
        items = _items(text)  # an empty one, after a last comma, would match everything
        if compiles("|".join(items)):
            return ",".join(items) or None, []
        usable = [item if compiles(item) else instead for item in items]
        used = ",".join(item for item in usable if item)
        what = f"{instead} is used" if instead else "it is ignored"
        return used or None, [f"contains an invalid regular expression; {what}"]

    return check


def address(text: str) -> Checked:
    """An address of OTLP over HTTP. An invalid one stays, so that telemetry does not go somewhere else."""
    if is_address(text):
        return text, []
    return text, [f"is not an address like http://localhost:4318; {NOTHING_SENT}"]


def base_address(text: str) -> Checked:
    """The same without the path of a signal, which is appended."""
    usable, wrong = address(re.sub(r"/v1/(traces|logs|metrics)/?$", "", text))
    if usable != text and not wrong:
        wrong = ["ends in the path of a signal, which is removed, since it is appended"]
    return usable, wrong


def headers(text: str) -> Checked:
    """Pairs `name=value`, separated by commas, each percent-encoded. Invalid ones are reported by name only.

    The forms are those of `opentelemetry.util.re.parse_env_headers`, whose own warning contains the value.
    """
    usable, wrong = [], []
    for item in _items(text):
        name, equals, value = item.partition("=")
        name, sent = unquote(name).strip(), unquote(value).strip()
        if (
            equals
            and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
            and re.fullmatch(r"[ !#-+\--:<-\[\]-~]*", value)
            and re.fullmatch(r"[ -~\xa1-\xff]*", sent)
        ):
            usable.append(item)
        else:
            wrong.append(f"contains {_header(item)} in another form than name=value,name=value; it is not sent")
    return ",".join(usable) or None, list(dict.fromkeys(wrong))


def _header(item: str) -> str:
    """What to call a header that cannot be sent: by its name, where that cannot be its value."""
    found = re.match(r"\s*([A-Za-z][A-Za-z0-9-]{0,40})\s*(?:=|:|%3[dDaA])\s*(?=[^\s=])", item)
    return f"the header {found[1].lower()}" if found else "a header without a name"


def certificate(text: str) -> Checked:
    """A file, or a folder, of certificates of authorities."""
    return _file(text, "certificates", "the default authorities are trusted", _load_authorities)


def client_file(text: str) -> Checked:
    """The file of a client's certificate or key."""
    return _file(text, "anything", "none is used", lambda path: open(path, "rb").close())


def _file(path: str, content: str, instead: str, read: Callable[[str], object]) -> Checked:
    try:
        read(path)
    except FileNotFoundError:
        wrong = "names a file that does not exist"
    except PermissionError:
        wrong = "names a file that cannot be read"
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        wrong = f"names a file that does not contain {content}"
    else:
        return path, []
    return None, [f"{wrong}; {instead}"]


def _load_authorities(path: str) -> None:
    import ssl

    folder = os.path.isdir(path)
    ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)


def resource_attributes(text: str) -> Checked:
    """Pairs `name=value`, separated by commas; others are ignored."""
    items = _items(text)
    usable = [item for item in items if "=" in item[1:]]
    wrong = ["is a list of name=value pairs separated by commas; other entries are ignored"] if usable != items else []
    return _decodable(",".join(usable), wrong)


def any_text(text: str) -> Checked:
    """A name of any kind."""
    return _decodable(text, [])


def _decodable(text: str, wrong: list[str]) -> Checked:
    decodable = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if decodable != text:
        wrong = [*wrong, "is not UTF-8; \ufffd replaces what cannot be read"]
    return decodable or None, wrong


def log_format(text: str) -> Checked:
    """A format of Python's logging, with % as it is the default."""
    try:
        logging.Formatter(text)
    except ValueError:
        return None, ["is not a valid format of Python's logging; the default is used"]
    return text, []


def all_methods(text: str) -> Checked:
    """A switch that the instrumentation turns on for any text, even "false"."""
    usable, wrong = one_of("true", "false", "1", "0")(text)
    return (usable if usable in {"true", "1"} else None), wrong


def not_followed(instead: str) -> Check:
    return lambda text: (text, [f"is not supported; {instead}"])


def id_generator(text: str) -> Checked:
    return text, [] if text == "random" else ["is not supported; random ids are used"]


# Words.


def _items(text: str) -> list[str]:
    return [item for each in text.split(",") if (item := each.strip())]


def _default(value: float | None) -> str | None:
    return None if value is None else str(value)


def _instead(value: object) -> str:
    return "it is ignored" if value is None else f"{value} is used"


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _unknown(asked: Iterable[str], known: Iterable[str]) -> str:
    """What is asked for and not known, where it is too short to be a key."""
    unknown = sorted(each for each in set(asked) - set(known) if re.fullmatch(r"[a-z0-9_./*-]{1,20}", each))
    return _either(unknown) if unknown else "something"
