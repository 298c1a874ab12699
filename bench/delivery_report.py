"""What bench/delivery.py found, in words, tables and plots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import report as shared
from outages import KEYS, SPANS
from report import COLOURS, NAMES, percent, table

Row = dict[str, Any]

SAME_SHARE: Final = 0.01  # of the traces, and of the requests
SAME_STOP: Final = 0.5  # seconds, and half as much again
SAME_WAIT: Final = 0.25  # the same for the slowest request


# How good a row is.


def share(cell: Row) -> float:
    return float(cell["complete"] / cell["answered"]) if cell["answered"] else 0.0


def beside_the_plain_way(row: Row) -> tuple[list[str], list[str]]:
    """In what a row is worse than the plain way, and in what it is better; what could be chance is neither."""
    plain, ours = row["plain"], row["ours"]
    worse: list[str] = []
    better: list[str] = []

    def note(mine: float, theirs: float, same: float, text: str) -> None:
        """Less is better."""
        if abs(mine - theirs) > same:
            (worse if mine > theirs else better).append(text)

    arrived = f"{percent(share(ours))} of the traces complete, not {percent(share(plain))}"
    note(-share(ours), -share(plain), SAME_SHARE, arrived)
    note(ours["duplicates"], plain["duplicates"], 0, f"{ours['duplicates']:,} spans twice, not {plain['duplicates']:,}")
    silent = f"{ours['silent']:,} spans lost without a word, not {plain['silent']:,}"
    note(ours["silent"], plain["silent"], 0, silent)
    failed = f"{ours['failed']:,} requests failed, not {plain['failed']:,}"
    chance = max(cell["failed"] for cell in (plain, row.get("untraced", plain))) ** 0.5
    note(ours["failed"], plain["failed"], max(SAME_SHARE * ours["asked"], chance), failed)
    mine, theirs = ours["slowest_ms"] / 1000, plain["slowest_ms"] / 1000
    waited = f"the slowest request took {in_words(mine)}, not {in_words(theirs)}"
    note(mine, theirs, SAME_WAIT + min(mine, theirs) / 2, waited)
    mine, theirs = ours["stop_seconds"], plain["stop_seconds"]
    note(mine, theirs, SAME_STOP + min(mine, theirs) / 2, f"stopped after {in_words(mine)}, not {in_words(theirs)}")
    return worse, better


def in_words(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.1 else f"{value * 1000:.0f} ms"


def verdict(row: Row) -> str:
    worse, better = beside_the_plain_way(row)
    if worse:
        if row["ours"]["duplicates"] > row["plain"]["duplicates"]:
            better = [*better, "nobody knows whether a request without an answer has arrived, so it is sent again"]
        return f"**worse**: {'; '.join(worse)}. What that buys: {'; '.join(better) or 'nothing'}"
    return f"better: {'; '.join(better)}" if better else "as good"


def in_one_line(rows: list[Row]) -> str:
    """How many rows are how good."""
    found = [beside_the_plain_way(row) for row in rows]
    worse = sum(bool(bad) for bad, _ in found)
    better = sum(bool(good) and not bad for bad, good in found)
    return f"in {better} of {len(rows)} situations better, in {len(rows) - better - worse} as good, in {worse} worse"


# Tables.


def seconds(value: float) -> str:
    return f"{value:.1f}"


def what(row: Row) -> str:
    more = [", preloaded"] if row.get("preload") else []
    more += [f", requests take {row['requests_take']:.1f} s"] if row.get("requests_take") else []
    return "".join([row["ending"], *more])


def each(row: Row, form: Callable[[Row], str]) -> str:
    """A figure of every subject that the row has."""
    return " / ".join(form(row[key]) for key in KEYS.values() if key in row)


def complete(cell: Row) -> str:
    return f"{cell['complete']:,} of {cell['answered']:,}"


def missing(cell: Row) -> int:
    return int(cell["answered"] * SPANS - cell["spans"])


def counted(cell: Row) -> int:
    return int(cell["said_lost"] + cell["said_unanswered"])


def counted_of_missing(cell: Row) -> str:
    """What is sent without an answer may have arrived all the same."""
    in_doubt = max(0, counted(cell) - missing(cell))
    text = f"{counted(cell) - in_doubt:,} of {missing(cell):,}"
    return f"{text}, {in_doubt:,} in doubt" if in_doubt else text


def both(row: Row, form: Callable[[Row], str]) -> list[str]:
    return [form(row["plain"]), form(row["ours"])]


VERDICT: Final = "Beside the plain way"
REQUESTS_AND_END: Final = ("failed requests", "slowest, ms", "stopped after, s")


def requests_and_end(row: Row) -> list[str]:
    return [
        each(row, lambda cell: str(cell["failed"])),
        each(row, lambda cell: f"{cell['slowest_ms']:.0f}"),
        each(row, lambda cell: seconds(cell["stop_seconds"])),
    ]


def always_table(rows: list[Row]) -> str:
    lines = [[what(row), verdict(row), *both(row, complete), *requests_and_end(row)] for row in rows]
    return table(["What happens", VERDICT, "traces complete, plain", "here", *REQUESTS_AND_END], lines, left=2)


def never_table(rows: list[Row]) -> str:
    lines = [
        [
            row["collector"],
            what(row),
            verdict(row),
            *both(row, counted_of_missing),
            " / ".join(both(row, lambda cell: str(cell["lines"]))),
            *requests_and_end(row),
        ]
        for row in rows
    ]
    header = ["Collector", "What happens", VERDICT, "lost spans counted, plain", "here", "lines of log"]
    return table([*header, *REQUESTS_AND_END], lines, left=3)


def in_the_end_table(rows: list[Row]) -> str:
    lines = [
        [
            row["collector"] + (f", {row['rate']:.0f} requests/s" if row["away"] else ""),
            what(row),
            verdict(row),
            *both(row, complete),
            " / ".join(both(row, counted_of_missing)),
            " / ".join(both(row, lambda cell: str(cell["duplicates"]))),
            *requests_and_end(row),
        ]
        for row in rows
    ]
    header = ["Collector", "What happens", VERDICT, "traces complete, plain", "here", "lost spans counted"]
    return table([*header, "spans twice", *REQUESTS_AND_END], lines, left=3)


def docker_table(rows: list[Row]) -> str:
    lines = [
        [
            what(row),
            row["collector"],
            verdict(row),
            *both(row, complete),
            " / ".join(both(row, counted_of_missing)),
            each(row, lambda cell: seconds(cell["seconds_without_answer"])),
            *requests_and_end(row),
        ]
        for row in rows
    ]
    header = ["What happens", "Collector", VERDICT, "traces complete, plain", "here", "lost spans counted"]
    return table([*header, "without an answer, s", *REQUESTS_AND_END], lines, left=3)


# Plots.


def draw_outage(row: Row, path: Path) -> None:
    """Spans of answered requests, and spans that arrived, over time."""
    figure, (axes,) = shared.plot(height=3.2)
    begins, lasts = row["away"]
    axes.axvspan(begins, begins + lasts, color="#e8e8e8", label="the collector is away")
    axes.plot([made for made, _ in row["ours"]["series"]], color="black", linestyle=":", label="made")
    for key in ("plain", "ours"):
        axes.plot([came for _, came in row[key]["series"]], color=COLOURS[key], label=f"arrived, {NAMES[key]}")
    axes.set_title(f"Spans, at {row['rate']:.0f} requests a second")
    axes.set_xlabel("seconds")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper left")
    shared.save(figure, path)


def draw_stops(rows: list[Row], path: Path) -> None:
    """How long it takes to stop, for each row."""
    figure, (axes,) = shared.plot(height=1.2 + 0.26 * len(rows))
    for shift, key in ((-0.2, "plain"), (0.2, "ours")):
        places = [place + shift for place in range(len(rows))]
        values = [row[key]["stop_seconds"] for row in rows]
        axes.barh(places, values, height=0.36, color=COLOURS[key], label=NAMES[key])
    axes.set_yticks(range(len(rows)), [f"{what(row)}, {row['collector']}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds until it has stopped")
    axes.legend(frameon=False)
    shared.save(figure, path)


# The section.


def all_rows(figures: dict[str, Any]) -> list[Row]:
    return [*figures["rows"], *(figures["docker"] or [])]


def headline(figures: dict[str, Any]) -> list[list[str]]:
    return [["Delivery: what arrives, how requests fare, how soon it stops", in_one_line(all_rows(figures)), ""]]


def losses(rows: list[Row]) -> str:
    """What got lost without a word."""
    silent = {key: sum(row[key]["silent"] for row in rows) for key in ("plain", "ours")}
    where = dict.fromkeys(f"{what(row)}, {row['collector']}" for row in rows if row["ours"]["silent"])
    text = (
        f"Of the spans of all rows together, {silent['plain']:,} neither arrived nor were said to be lost in the plain"
        f" way, and {silent['ours']:,} here"
    )
    return f"{text} ({'; '.join(where)})." if where else f"{text}."


def outage_in_words(row: Row) -> str:
    """What an outage under load cost."""

    def kept(cell: Row) -> str:
        if not missing(cell):
            return "no span is lost"
        return f"{missing(cell):,} of {cell['answered'] * SPANS:,} spans are lost, and {counted(cell):,} said to be"

    asked = f"{row['rate']:.0f} requests a second"
    return f"Collector {row['collector']}, {asked}: {kept(row['ours'])}; in the plain way {kept(row['plain'])}."


def report(figures: dict[str, Any], plots: Path) -> str:
    rows = figures["rows"]
    by_kind = {kind: [row for row in rows if row["takes"] == kind] for kind in ("always", "never", "in the end")}
    outages = [row for row in rows if row["away"]]
    draw_outage(outages[-1], plots / "delivery-outage.svg")
    draw_stops(rows, plots / "delivery-stop.svg")
    worse = [f"- {what(row)}, {row['collector']}: {verdict(row)}." for row in all_rows(figures) if is_worse(row)]
    for_now = figures["for_now"]
    asked = ", ".join(f"{rate:.0f}" for rate in sorted({row["rate"] for row in rows}))
    sections = [
        "## Delivery",
        f"""\
What becomes of spans when processes end and collectors fail. Two workers of gunicorn answer the home feed, whose trace
has {SPANS} spans, to clients that ask at a steady rate ({asked} requests a second). A trace is complete when each of
its spans has arrived. What a request took counts from when it was due. Three figures side by side are the untraced
application's, the plain way's and this template's; two are the latter two's.""",
        f"""\
Beside the plain way, this template is **{in_one_line(all_rows(figures))}**. Called as good are differences of up to
{percent(SAME_SHARE)} of the traces or requests, or of requests that fail the square root of how many do, which is what
chance does; and up to half of the time, and {SAME_STOP} s, until it has stopped, or {SAME_WAIT} s for the slowest
request. A span that arrives twice, or is lost without a word, counts by itself.""",
        "\n".join(worse),
        losses(all_rows(figures)),
        "### With a healthy collector",
        f"""\
SIGTERM, SIGINT and the SIGKILL of the master come while clients ask; who asks after the signal, and is not answered any
more, is left out. SIGHUP replaces the workers under load, the master replaces a worker that is killed, and recycling is
`--max-requests {figures["recycled_after"]}`; these three end with a SIGTERM right after the last request. Rounds:
{figures["rounds"]}; what is counted is their sum, what is timed their median.""",
        always_table(by_kind["always"]),
        "### With a collector that takes nothing",
        """\
Nothing can arrive. What counts is that no request waits or fails, that the program stops soon, and that what is lost
is counted and said. The lines of the log are those that are not gunicorn's own.""",
        never_table(by_kind["never"]),
        "### With a collector that is slow, or that comes back",
        f"""\
With 429, 503 and what cuts, requests come for {for_now["load"]:.0f} s, the trouble lasts {for_now["trouble"]:.0f} s
from the first of them on, and the SIGTERM comes {for_now["pause"]:.0f} s after the last. What cuts an answer has taken
the spans before, and is sent them again. While a collector is away, requests go on.""",
        in_the_end_table(by_kind["in the end"]),
        *map(outage_in_words, outages),
        "![Spans made and arrived, by seconds, while the collector goes and comes back](plots/delivery-outage.svg)",
        "### In containers",
        *containers(figures["docker"]),
        "### How soon it stops",
        f"![Seconds from the signal to the end, at most {figures['patience']:.0f}, by row](plots/delivery-stop.svg)",
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def is_worse(row: Row) -> bool:
    return bool(beside_the_plain_way(row)[0])


def containers(rows: list[Row] | None) -> list[str]:
    if rows is None:
        return ["Not measured: there is no Docker here."]
    if not rows:
        return ["Not measured in a quick run."]
    return [
        """\
The project's own image and `compose.prod.yaml`, beside an image that `pip install` and `COPY` make and the shortest
Compose file for it. In both, profiles are looked up in the same process. `docker stop` comes right after the last
answer. A redeploy is `docker compose up --force-recreate` on one host: the old container goes before the new one comes,
and for how long nothing is answered is a column.""",
        docker_table(rows),
    ]
