"""Formats values for pages: durations, numbers, times and text."""

import json
import math
import re
import time
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

MAX_LENGTH = 10_000
SEVERITIES = {1: "TRACE", 5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"}
"""The lowest number of each severity."""
MINUTE, HOUR, DAY = 60, 3600, 86400


def duration(milliseconds: float | None) -> str:
    """Return a duration in a suitable unit: "450 ns", "1.23 ms", "2 min 5 s", "3 h 0 min", "2 d 4 h"."""
    if milliseconds is None:
        return ""
    size = abs(milliseconds)
    if size == 0:
        return "0 ms"
    if size < 0.0009995:
        return f"{milliseconds * 1e6:.3g} ns"
    if size < 0.9995:
        return f"{_three_digits(milliseconds * 1000)} µs"
    if size < 999.5:
        return f"{_three_digits(milliseconds)} ms"
    if size < 59_950:
        return f"{_three_digits(milliseconds / 1000)} s"
    sign = "-" if milliseconds < 0 else ""
    seconds = round(size / 1000)
    if seconds < HOUR:
        return f"{sign}{seconds // MINUTE} min {seconds % MINUTE} s"
    minutes = round(size / 60_000)
    if minutes < 24 * 60:
        return f"{sign}{minutes // 60} h {minutes % 60} min"
    hours = round(size / 3_600_000)
    return f"{sign}{hours // 24:,} d {hours % 24} h"


def _three_digits(value: float) -> str:
    """Return a number with three significant digits."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def count(value: float) -> str:
    """Return a number with thousands separators and suitable precision."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return (
            f"{value:,.0f}" if abs(value) < 1e15 else f"{float(value):.6g}" if abs(value) < 1e300 else str(value)[:40]
        )
    return f"{value:,.2f}" if 0.01 <= abs(value) < 1e9 else f"{value:.3g}"


def plural(number: float, singular: str, plural_: str = "") -> str:
    """Return "1 span" or "5,917 spans"."""
    return f"{count(number)} {singular if number == 1 else plural_ or singular + 's'}"


def measured(value: Any, name: str) -> str:
    """Return the value of a calculation or field, as a duration if its name ends in _ms."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return visible(value, 200)
    if re.search(r"_ms\)?$", name) and not name.startswith("COUNT"):
        return duration(value)
    if "(" in name or name == "COUNT":
        return count(value)
    return visible(int(value) if isinstance(value, float) and value.is_integer() else value, 200)


def tick(value: float, name: str) -> str:
    """Return a round axis value without trailing zeros."""
    text = re.sub(r"\.(\d*?)0+(?=\D|$)", lambda match: f".{match[1]}" if match[1] else "", measured(value, name))
    return re.sub(r" 0 (s|min|h)$", "", text)


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a percentage; 0% and 100% are exact."""
    value = round(share * 100)
    if value == 0 and share > 0:
        return "<1%"
    if value == 100 and share < 1:
        return ">99%"
    return f"{value}%"


def visible(value: Any, limit: int = MAX_LENGTH) -> str:
    """Return a value as text of limited length, with unprintable characters escaped except line breaks and tabs."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    more = len(text) - limit
    text = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text[:limit])
    return text + (f"… ({more:,} more characters)" if more > 0 and limit > 1000 else "…" if more > 0 else "")


def capital(message: str) -> str:
    """Capitalize a message, unless it starts with a quotation or a name such as time_range."""
    return message[0].upper() + message[1:] if re.match("[a-z]+ ", message) else message


def breakable(name: str) -> Markup:
    """Return the name of a field with line breaks allowed after dots, slashes, hyphens and underscores."""
    return Markup("<wbr>").join(re.findall(r"[^._/-]*[._/-]?", visible(name, 200)))


def number(text: str) -> float:
    return finite(text) or 0.0


def moment(seconds: float, form: str = "time") -> Markup:
    """Return a time (seconds since 1970) as an element that the page's script converts to local time.

    `form` is "time" (the time of day, with the date unless it is today) or "full" (with date and zone).
    """
    iso = iso_time(seconds)
    text = f"{iso[:10]} {iso[11:23]}"
    return Markup('<time datetime="{}" data-form="{}" title="{} UTC">{}</time>').format(
        iso, form, text, text + " UTC" if form == "full" else iso[11:23]
    )


def moment_ns(nanoseconds: int, form: str = "time") -> Markup:
    return moment(nanoseconds / 1e9, form)


def iso_time(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, with milliseconds."""
    try:
        whole, rest = divmod(round(seconds * 1000), 1000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest:03}Z"
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00.000Z"


def clock(seconds: float, step: float = 1, days: bool = False) -> str:
    """Return an axis time in UTC, for ticks `step` seconds apart, with the date if `days`."""
    iso = iso_time(seconds)
    if step >= DAY:
        return iso[:10]
    text = iso[11:16] if step >= MINUTE else iso[11:19] if step >= 1 else iso[11:21]
    return f"{iso[5:10]} {text}" if days else text


def severity(number: int) -> str:
    """Return the name of a severity number; "" for 0, which means unspecified."""
    return next((name for lowest, name in sorted(SEVERITIES.items(), reverse=True) if number >= lowest), "")


def finite(text: str) -> float | None:
    """Return a parameter as a finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


UNITS = {
    "": 1.0,
    "ns": 0.000001,
    "us": 0.001,
    "µs": 0.001,
    "ms": 1.0,
    "s": 1000.0,
    "m": 60_000.0,
    "min": 60_000.0,
    "h": 3_600_000.0,
}
"""Units of durations, in milliseconds."""


def milliseconds(text: str) -> float | None:
    """Parse a duration typed by a user: "1500", "1,500", "1.5 s", "250ms", "2 min". None if it is invalid."""
    match = re.fullmatch(r"\s*([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zµ]*)\s*", text)
    if match is None or match[2] not in UNITS:
        return None
    value = finite(match[1].replace(",", ""))
    return None if value is None else value * UNITS[match[2]]


FILTERS: dict[str, Callable[..., Any]] = {
    "duration": duration,
    "count": count,
    "plural": plural,
    "measured": measured,
    "tick": tick,
    "percent": percent,
    "visible": visible,
    "breakable": breakable,
    "capital": capital,
    "number": number,
    "moment": moment,
    "moment_ns": moment_ns,
    "clock": clock,
    "severity": severity,
}
