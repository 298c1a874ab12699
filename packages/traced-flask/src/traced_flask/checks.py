"""Checks for the values of environment variables. Each check takes a value that is not empty.

It returns the value to use, or None, and a list of problems. The problems quote nothing that could be a key, so that a
key in the wrong variable is not printed.
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

MAX_INT: Final = 2**31 - 1  # the limit of the C code behind deque and wait()

MAX_RATE: Final = 1_000_000
DEFAULT_PROPAGATORS: Final = "tracecontext,baggage"
NOTHING_SENT: Final = "nothing is sent to it"

Checked = tuple[str | None, list[str]]
Check = Callable[[str], Checked]


def is_address(url: str) -> bool:
    """Return whether telemetry can be sent to `url`: http or https, with a host and, if any, a valid port."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # an invalid port or brackets
        return False


def whole_number(minimum: int, default: int | None = None) -> Check:
    """Check for a whole number from `minimum`. `default` replaces an invalid value; None means the SDK's default."""

    def check(text: str) -> Checked:
        try:
            if minimum <= int(text) <= MAX_INT:
                return text, []
        except ValueError:
            pass
        return _default(default), [f"is not a whole number from {minimum} to {MAX_INT}; {_instead(default)}"]

    return check


def number(minimum: float, maximum: float, default: float, unit: str = "") -> Check:
    """Check for a number in `unit` from `minimum` to `maximum`. With a unit, 0 is invalid."""

    def check(text: str) -> Checked:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if minimum <= value <= maximum and (value or not unit):
            return text, []
        more = "more than 0, up to" if unit else f"from {minimum} to"
        return _default(default), [f"is not a number{unit} {more} {maximum}; {_instead(default)}"]

    return check


def one_of(*allowed: str, default: str | None = None) -> Check:
    """Check for one of `allowed`, in upper or lower case."""

    def check(text: str) -> Checked:
        if text.lower() in allowed:
            return text.lower(), []
        return default, [f"is not {_either(allowed)}; {_instead(default)}"]

    return check


def sample_rate(text: str) -> Checked:
    """Check a sample rate: one of this many traces is kept."""
    if text.isascii() and text.isdecimal() and len(text) <= 7 and 1 <= int(text) <= MAX_RATE:
        return text, []
    return None, [f"is not a whole number from 1 to {MAX_RATE}; every trace is kept. 10 keeps one in ten"]


def some_of(*allowed: str, default: str) -> Check:
    """Check a comma-separated list of `allowed` values. Others are ignored; `default` is used if none remains."""

    def check(text: str) -> Checked:
        names = _items(text)
        valid = [item.lower() for item in names if item.lower() in allowed]
        if len(valid) == len(names):
            return ",".join(valid) or None, []
        instead = ",".join(valid) or default
        return instead, [f"names {_unknown(names, allowed)}, which is not {_either(allowed)}; {instead} is used"]

    return check


def installed(group: str, default: str | None, *more: str) -> Check:
    """Check a list of names that are in `more` or that installed packages register as entry points of `group`."""

    def check(text: str) -> Checked:
        names = _items(text)
        valid = [item for item in names if item in more or entry_points(group=group, name=item)]
        if len(valid) == len(names):
            return ",".join(valid) or None, []
        problem = f"names {_unknown(names, valid)}, which is not installed; {_instead(','.join(valid) or default)}"
        return ",".join(valid) or None, [problem]

    return check


def propagators(text: str) -> Checked:
    """Check a list of propagators that can be loaded: the SDK raises for others at import."""

    def loads(name: str) -> bool:
        try:
            return all(point.load() for point in entry_points(group="opentelemetry_propagator", name=name))
        except Exception:  # a package can raise anything at import
            return False

    usable, problems = installed("opentelemetry_propagator", DEFAULT_PROPAGATORS, "none")(text)
    if usable is None or all(map(loads, _items(usable))):
        return usable, problems
    return None, [f"names a package that cannot be imported; {DEFAULT_PROPAGATORS} is used"]


def regular_expressions(instead: str | None) -> Check:
    """Check a list of regular expressions. An invalid one is replaced by `instead`, or ignored."""

    def compiles(pattern: str) -> bool:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError):
            return False
        return True

    def check(text: str) -> Checked:
        items = _items(text)  # drop empty ones (a trailing comma), which would match everything
        if compiles("|".join(items)):
            return ",".join(items) or None, []
        usable = [item if compiles(item) else instead for item in items]
        used = ",".join(item for item in usable if item)
        what = f"{instead} is used" if instead else "it is ignored"
        return used or None, [f"contains an invalid regular expression; {what}"]

    return check


def address(text: str) -> Checked:
    """Check an OTLP/HTTP address. An invalid one stays set, so that telemetry does not go elsewhere."""
    if is_address(text):
        return text, []
    return text, [f"is not an address like http://localhost:4318; {NOTHING_SENT}"]


def base_address(text: str) -> Checked:
    """Check an address without the path of a signal, which the exporters append."""
    usable, problems = address(re.sub(r"/v1/(traces|logs|metrics)/?$", "", text))
    if usable != text and not problems:
        problems = ["ends in the path of a signal, which is removed, since it is appended"]
    return usable, problems


def headers(text: str) -> Checked:
    """Check comma-separated, percent-encoded `name=value` pairs. Invalid ones are reported by name only.

    The forms are those of `opentelemetry.util.re.parse_env_headers`, whose own warning contains the value.
    """
    usable, problems = [], []
    for item in _items(text):
        name, equals, value = item.partition("=")
        name, decoded = unquote(name).strip(), unquote(value).strip()
        if (
            equals
            and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
            and re.fullmatch(r"[ !#-+\--:<-\[\]-~]*", value)
            and re.fullmatch(r"[ -~\xa1-\xff]*", decoded)
        ):
            usable.append(item)
        else:
            problems.append(f"contains {_header(item)} in another form than name=value,name=value; it is not sent")
    return ",".join(usable) or None, list(dict.fromkeys(problems))


def _header(item: str) -> str:
    """Describe an invalid header: by its name, unless that could be its value."""
    match = re.match(r"\s*([A-Za-z][A-Za-z0-9-]{0,40})\s*(?:=|:|%3[dDaA])\s*(?=[^\s=])", item)
    return f"the header {match[1].lower()}" if match else "a header without a name"


def certificate(text: str) -> Checked:
    """Check a file or folder of CA certificates."""
    return _file(text, "certificates", "the default authorities are trusted", _load_authorities)


def client_file(text: str) -> Checked:
    """Check the file of a client certificate or key."""
    return _file(text, "anything", "none is used", lambda path: open(path, "rb").close())


def _file(path: str, content: str, instead: str, read: Callable[[str], object]) -> Checked:
    try:
        read(path)
    except FileNotFoundError:
        problem = "names a file that does not exist"
    except PermissionError:
        problem = "names a file that cannot be read"
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        problem = f"names a file that does not contain {content}"
    else:
        return path, []
    return None, [f"{problem}; {instead}"]


def _load_authorities(path: str) -> None:
    import ssl

    folder = os.path.isdir(path)
    ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)


def resource_attributes(text: str) -> Checked:
    """Check comma-separated `name=value` pairs. Others are ignored."""
    items = _items(text)
    usable = [item for item in items if "=" in item[1:]]
    problem = "is a list of name=value pairs separated by commas; other entries are ignored"
    return _decodable(",".join(usable), [problem] if usable != items else [])


def any_text(text: str) -> Checked:
    """Check any text: it must be UTF-8."""
    return _decodable(text, [])


def _decodable(text: str, problems: list[str]) -> Checked:
    decodable = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if decodable != text:
        problems = [*problems, "is not UTF-8; \ufffd replaces what cannot be read"]
    return decodable or None, problems


def log_format(text: str) -> Checked:
    """Check a %-style format of Python's logging."""
    try:
        logging.Formatter(text)
    except ValueError:
        return None, ["is not a valid format of Python's logging; the default is used"]
    return text, []


def all_methods(text: str) -> Checked:
    """Check a switch that the instrumentation turns on for any value, even "false"."""
    usable, problems = one_of("true", "false", "1", "0")(text)
    return (usable if usable in {"true", "1"} else None), problems


def not_followed(instead: str) -> Check:
    return lambda text: (text, [f"is not supported; {instead}"])


def id_generator(text: str) -> Checked:
    return text, [] if text == "random" else ["is not supported; random ids are used"]


# Wording of problems.


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _default(value: float | None) -> str | None:
    return None if value is None else str(value)


def _instead(value: object) -> str:
    return "it is ignored" if value is None else f"{value} is used"


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _unknown(names: Iterable[str], known: Iterable[str]) -> str:
    """List the unknown names that are too short to be a key."""
    unknown = sorted(item for item in set(names) - set(known) if re.fullmatch(r"[a-z0-9_./*-]{1,20}", item))
    return _either(unknown) if unknown else "something"
