"""What a request, a worker and a start cost: untraced, the plain way, with zero code, and as rendered."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cost_measures import (
    CHILDREN,
    CONNECTIONS,
    FOUR,
    HANDLERS,
    IN_ORDER,
    SETTINGS,
    THREE,
    Figures,
    measure,
)
from loads import needs_wrk as check
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from report import COLOURS, MARGIN, NAMES, Ratio, percent, plot, save, table

__all__ = ["check", "headline", "measure", "report"]

AIM: Final = 1.15  # of the 20 ms handler's p99 beside untraced

# What the plain way lacks where this template costs more than it. Said only where it does; by how a row's key begins.
BUYS: Final = {
    "cpu/20ms": (
        "A batch leaves every half second, not every five. At few requests in a second it holds few spans, so that each"
        " costs more to send; a trace can be seen a second after its request, and a process that is killed loses half a"
        " second of spans."
    ),
    "rates/": (
        "A batch leaves every half second, not every five: the fewer the requests, the fewer spans share the cost of"
        " one. A trace can be seen a second after its request, and a process that is killed loses half a second of it."
    ),
    "cpu/log": "Each line on the terminal names its trace and span.",
    "settings/no logs/log": "Each line on the terminal names its trace and span.",
    "settings/one in": (
        "A trace that is not kept still has its ids in the answer's headers, and one that is kept says how many it"
        " stands for (`SampleRate` and `tracestate`), so that counts stay right."
    ),
    "settings/metrics": "The same histograms with stable names (`http.server.request.duration`).",
    "bytes": "Attributes with stable names, and the resource's version, environment and instance.",
    "start/listening": (
        "gunicorn's first process looks up where telemetry goes and says so once, or what is wrong with a setting,"
        " before it listens; its workers find what it has imported."
    ),
    "start/answering": "Before the first answer the settings have been checked, and logs are set up to be sent too.",
    "memory": (
        "The log's exporter, which the plain way leaves out, and telemetry that is kept, encoded, until it is delivered"
        " (at most 2048 spans for a worker)."
    ),
}


@dataclass(frozen=True)
class Row:
    """One comparison with the plain way."""

    key: str
    what: str
    ratio: Ratio
    more_is_better: bool = False

    @property
    def verdict(self) -> str:
        return self.ratio.verdict(self.more_is_better)

    @property
    def buys(self) -> str | None:
        """What the difference buys; None where there is none to pay for, and where nobody has said."""
        if self.verdict != "worse":
            return None
        return next((text for key, text in BUYS.items() if self.key.startswith(key)), None)


def of_rounds(found: Figures, mine: str, theirs: str, what: str = "cpu") -> Ratio:
    return Ratio.of(found[mine][what], found[theirs][what])


def rows(figures: Figures) -> list[Row]:
    """Everything in which this template is compared with the plain way, as far as it was measured."""
    found: list[Row] = []
    if handlers := figures.get("in_process"):
        for key, by_variant in handlers.items():
            ratio = of_rounds(by_variant, "ours", variant_of("plain", key))
            found.append(Row(f"cpu/{key}", f"CPU for a request, {HANDLERS[key].name}", ratio))
            for setting in (*SETTINGS, "one in 1000"):
                if f"ours, {setting}" in by_variant:
                    ratio = of_rounds(by_variant, f"ours, {setting}", f"plain, {setting}")
                    what = f"CPU for a request, {HANDLERS[key].name}, {SETTING_NAMES[setting]}"
                    found.append(Row(f"settings/{setting}/{key}", what, ratio))
        for key in ("home", "log"):
            what = f"CPU for a request, {HANDLERS[key].name}, `OTEL_LOGS_EXPORTER=none`"
            found.append(Row(f"settings/no logs/{key}", what, of_rounds(handlers[key], "ours, no logs", "plain")))
        for key, mine, theirs, what in BYTES:
            home = handlers["home"]
            ratio = Ratio.of_medians([home[mine]["bytes_per_span"]], [home[theirs]["bytes_per_span"]])
            found.append(Row(key, what, ratio))
    if growth := figures.get("growth"):
        for kind, what in (
            ("spans", "CPU for one more span in a request"),
            ("attributes", "CPU for one more attribute"),
        ):
            found.append(Row(f"growth/{kind}", what, slopes(growth[kind], kind, "ours", "plain")))
    if served := figures.get("served"):
        for key, by_name in served.items():
            name = HANDLERS[key].name
            found += [
                Row(
                    f"served/rate/{key}",
                    f"Requests in a second, {name}",
                    of_rounds(by_name, "ours", "plain", "rate"),
                    True,
                ),
                Row(f"served/p50/{key}", f"p50, {name}", of_rounds(by_name, "ours", "plain", "p50")),
                Row(f"served/p99/{key}", f"p99, {name}", of_rounds(by_name, "ours", "plain", "p99")),
            ]
    for count, by_name in figures.get("workers", {}).items():
        what = f"Requests in a second, home feed, {workers(count)}"
        found.append(Row(f"workers/{count}", what, of_rounds(by_name, "ours", "plain", "rate"), True))
    for rate, by_name in figures.get("rates", {}).items():
        what = f"CPU for a request under gunicorn, home feed, {rate} in a second"
        found.append(Row(f"rates/{rate}", what, Ratio.of_medians([by_name["ours"]["cpu"]], [by_name["plain"]["cpu"]])))
    if memory := figures.get("memory"):
        for state, what in STATES.items():
            ratio = Ratio.of_medians(memory["ours"][state]["pss"], memory["plain"][state]["pss"])
            found.append(Row(f"memory/{state}", f"Memory of a worker (PSS), {what}", ratio))
    if start := figures.get("start_up"):
        found += [
            Row("start/listening", "Start until it listens", of_rounds(start, "ours", "plain", "listening")),
            Row("start/answering", "Start until the first answer", of_rounds(start, "ours", "plain", "answering")),
        ]
    return found


SETTING_NAMES: Final = {
    "one in 10": "one trace in 10 kept",
    "one in 1000": "one trace in 1000 kept",
    "off": "`OTEL_SDK_DISABLED=true`",
    "metrics": "metrics on (`OTEL_METRICS_EXPORTER=otlp`)",
}
BYTES: Final = (
    ("bytes", "ours", "plain", "Bytes on the wire for a span"),
    ("bytes/gzip", "ours, gzip", "plain, gzip", "Bytes on the wire for a span, with gzip"),
)
STATES: Final = {"idle": "just started", "load": "under load", "outage": "under load, no collector there"}


def slopes(by_number: Figures, kind: str, mine: str, theirs: str) -> Ratio:
    """Of what one more costs, round by round."""
    return Ratio.of(slope(by_number, kind, mine), slope(by_number, kind, theirs))


def slope(by_number: Figures, kind: str, name: str) -> list[float]:
    """Microseconds for one more span in a request or one more attribute, by round: the line that fits best."""
    times = 1 if kind == "spans" else CHILDREN
    numbers = [int(number) * times for number in by_number]
    rounds = zip(*(each[name] for each in by_number.values()), strict=True)
    return [statistics.linear_regression(numbers, costs).slope for costs in rounds]


def workers(count: str) -> str:
    return f"{count} worker{'' if count == '1' else 's'}"


def headline(figures: Figures) -> list[tuple[str, str, str]]:
    """What goes into the table at the top of the page."""
    top = ("cpu/home", "cpu/20ms", "served/rate/home", "bytes", "memory/load", "memory/outage", "start/answering")
    found = {row.key: row for row in rows(figures)}
    lines = [(found[key].what, str(found[key].ratio), found[key].verdict) for key in top if key in found]
    if served := figures.get("served"):
        ratio = of_rounds(served["20ms"], "ours", "untraced", "p99")
        lines.append(("p99, 20 ms, beside untraced", str(ratio), aim(ratio)))
    return lines


def aim(ratio: Ratio) -> str:
    return f"{'within' if ratio.median <= AIM else 'over'} the aim of {AIM}"


# The section.


def report(figures: Figures, plots: Path) -> str:
    """Its Markdown; draws plots/cost-*.svg."""
    parts: dict[str, Callable[[Any, Path], list[str]]] = {
        "in_process": about_requests,
        "profile": about_profile,
        "growth": about_growth,
        "served": about_gunicorn,
        "workers": about_workers,
        "rates": about_rates,
        "memory": about_memory,
        "start_up": about_start,
    }
    lines = [
        "## Cost",
        "",
        "Processes of all subjects stand side by side and take turns. A figure is the median of the rounds, a ratio",
        "the median of the rounds' own ratios; in brackets are the quartiles.",
        "",
    ]
    for name, about in parts.items():
        if name in figures:
            lines += [*about(figures[name], plots), ""]
    return "\n".join([*lines, *about_differences(rows(figures))])


def middle(values: Iterable[float], form: str = ".0f") -> str:
    return f"{statistics.median(values):{form}}"


def compared(found: Figures, mine: str, theirs: str, what: str = "cpu", more_is_better: bool = False) -> list[str]:
    ratio = of_rounds(found, mine, theirs, what)
    return [str(ratio), ratio.verdict(more_is_better)]


def about_requests(handlers: Figures, plots: Path) -> list[str]:
    home = handlers["home"]
    ratio = of_rounds(home, "ours", "plain")
    same = "the same" if home["plain"]["spans"] == home["ours"]["spans"] else "other"
    draw_requests(handlers, plots / "cost-cpu.svg")
    by_default = []
    for key, by_variant in handlers.items():
        shown = {name: variant_of(name, key) for name in FOUR if name in by_variant}
        by_default.append(
            [
                HANDLERS[key].name,
                f"{by_variant['ours']['spans']:.0f}",
                *(middle(by_variant[shown[name]]["cpu"]) if name in shown else "" for name in FOUR),
                f"{of_rounds(by_variant, 'ours', 'untraced').median:.2f}",
                *compared(by_variant, "ours", shown["plain"]),
            ]
        )
    settings = [
        with_setting(handlers[key], HANDLERS[key].name, SETTING_NAMES[setting], f"ours, {setting}", f"plain, {setting}")
        for key in ("home", "trivial")
        for setting in SETTING_NAMES
        if f"ours, {setting}" in handlers[key]
    ]
    off = "`OTEL_LOGS_EXPORTER=none`"
    settings += [
        with_setting(home, HANDLERS["home"].name, off, "ours, no logs", "plain"),
        with_setting(handlers["log"], HANDLERS["log"].name, off, "ours, no logs", "plain"),
    ]
    wire = [
        [
            NAMES[name],
            f"{home[name]['attributes_per_span']:.1f}",
            f"{home[name]['bytes_per_span']:.0f}",
            f"{home[name]['bytes_per_span'] / home['plain']['bytes_per_span']:.2f}",
            f"{home[f'{name}, gzip']['bytes_per_span']:.0f}" if f"{name}, gzip" in home else "",
        ]
        for name in ("plain", "zero-code", "ours")
    ]
    gzip = {name: of_rounds(home, f"{name}, gzip", name).median for name in ("plain", "ours")}
    return [
        "### CPU for a request",
        "",
        "In process, without a server: microseconds of CPU of everything that the process does for a request, what it"
        " encodes and sends beside it included. Spans and log records are counted at a receiver, and the run fails if"
        f" any is missing. The home feed, every trace kept, takes {ratio} times the CPU of the plain way"
        f" ({ratio.verdict()}), with {same} {home['ours']['spans']:.0f} spans arriving.",
        "",
        table(
            [
                "handler",
                "spans",
                *(f"{NAMES[name]}, µs" for name in FOUR),
                "this template / untraced",
                "this template / plain",
                "",
            ],
            by_default,
        ),
        "![CPU for a request, by handler and subject](plots/cost-cpu.svg)",
        "",
        "Four threads ask the handler that takes 20 ms, as in a worker: so its spans come slowly and in small batches."
        " Zero code sends logs and metrics too, this template logs; where there is a line of log, the plain way has"
        " OpenTelemetry's log exporter as well. The health check is never traced by this template.",
        "",
        "With less, and with more:",
        "",
        table(
            ["", "the plain way, µs", "this template, µs", "this template / plain", "", "/ this template by default"],
            settings,
        ),
        "On the wire, the spans of the home feed in batches of up to 512, HTTP's headers included:",
        "",
        table(["", "attributes of a span", "bytes for a span", "/ plain", "bytes with gzip"], wire),
        f"Compression (`OTEL_EXPORTER_OTLP_COMPRESSION=gzip`) takes {gzip['ours']:.2f} times the CPU here,"
        f" {gzip['plain']:.2f} times the plain way.",
    ]


def variant_of(name: str, handler: str) -> str:
    """What is shown as subject `name`: where there is a log, the plain way that sends it too."""
    return "plain, logs" if (name, handler) == ("plain", "log") else name


def with_setting(found: Figures, handler: str, setting: str, mine: str, theirs: str) -> list[str]:
    return [
        f"{handler}, {setting}",
        middle(found[theirs]["cpu"]),
        middle(found[mine]["cpu"]),
        *compared(found, mine, theirs),
        f"{of_rounds(found, mine, 'ours').median:.2f}",
    ]


def draw_requests(handlers: Figures, path: Path) -> None:
    figure, (axes,) = plot(height=0.45 + 0.95 * len(handlers))
    places, labels = [], []
    y = 0.0
    for key, by_variant in handlers.items():
        there = [name for name in FOUR if name in by_variant]
        for name in there:
            value = statistics.median(by_variant[variant_of(name, key)]["cpu"])
            axes.barh(y, value, 0.8, color=COLOURS[name])
            axes.annotate(
                f"{NAMES[name]} {value:.0f}", (value, y), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
            y += 1
        places.append(y - len(there) / 2 - 0.5)
        labels.append(HANDLERS[key].name.replace(", with", ",\nwith"))
        y += 0.8
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.set_title("CPU for a request, µs, all traces kept")
    save(figure, path)


def about_profile(found: Figures, plots: Path) -> list[str]:
    groups = {name: {group: mean_of(each["groups"], group) for group in IN_ORDER} for name, each in found.items()}
    there = [group for group in IN_ORDER if any(by_group[group] >= 0.5 for by_group in groups.values())]
    functions: dict[str, float] = {}
    for each in found["ours"]["functions"]:
        for name, spent in each.items():
            functions[name] = functions.get(name, 0) + spent / len(found["ours"]["functions"])
    dearest = sorted(functions.items(), key=lambda item: -item[1])[:12]
    draw_profile(groups, there, plots / "cost-profile.svg")
    return [
        "### Where the time goes",
        "",
        "The home feed's CPU, by whose work it is: stacks of the main thread, sampled up to two thousand times in a"
        " second; a function of the standard library counts for whoever called it, and one of Flask that"
        " instrumentation calls for Flask. Spans are exported in the main"
        " thread, a hundred requests at a time, so that this can be seen too; sampling itself costs some per cent.",
        "",
        table(
            ["µs for a request", *(NAMES[name] for name in found)],
            [
                *([group, *(f"{groups[name][group]:.0f}" for name in found)] for group in there),
                ["all", *(middle(found[name]["cpu"]) for name in found)],
            ],
        ),
        "![Where the time of a request goes](plots/cost-profile.svg)",
        "",
        "The functions of this template's requests that take the most, each without those it calls:",
        "",
        table(["function", "µs"], [[name, f"{spent:.1f}"] for name, spent in dearest]),
    ]


def mean_of(counts: Sequence[Figures], group: str) -> float:
    return statistics.fmean(each.get(group, 0.0) for each in counts)


# Neighbours differ in lightness too.
SHADES: Final = dict(
    zip(
        IN_ORDER,
        (
            "#555555", "#b0b0b0", "#0072B2", "#7cc4ee", "#D55E00", "#333388", "#A8558A", "#e5c02a", "#5c3d1e",
            "#59c2a0", "#007a5a",
        ),
        strict=True,
    )
)  # fmt: skip


def draw_profile(groups: dict[str, dict[str, float]], there: Sequence[str], path: Path) -> None:
    figure, (axes,) = plot(height=3.8)
    widest = max(sum(by_group.values()) for by_group in groups.values())
    for y, by_group in enumerate(groups.values()):
        left = 0.0
        for group in there:
            spent, colour = by_group[group], SHADES[group]
            axes.barh(y, spent, 0.6, left=left, color=colour, label="" if y else group)
            if spent > widest / 30:
                on = "white" if sum(to_rgb(colour)) < 1.6 else "black"
                axes.text(left + spent / 2, y, f"{spent:.0f}", ha="center", va="center", color=on, fontsize=8)
            left += spent
        axes.annotate(f"{left:.0f}", (left, y), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(groups)), [NAMES[name] for name in groups])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_title("CPU of one request to the home feed, µs")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save(figure, path)


def about_growth(growth: Figures, plots: Path) -> list[str]:
    lines = ["### How it grows", ""]
    figure, both = plot(columns=2)
    for axes, (kind, title) in zip(
        both,
        (("spans", "spans below the request's own"), ("attributes", f"attributes of each of {CHILDREN} spans")),
        strict=True,
    ):
        by_number = growth[kind]
        lines += [
            table(
                [title, *(f"{NAMES[name]}, µs" for name in THREE), "this template / plain", ""],
                [
                    [number, *(middle(each[name]) for name in THREE), *compared_lists(each["ours"], each["plain"])]
                    for number, each in by_number.items()
                ],
            )
        ]
        series(axes, by_number, lambda each: statistics.median(each), f"µs of CPU, by {title}")
    save(figure, plots / "cost-growth.svg")
    costs = {
        kind: {name: statistics.median(slope(growth[kind], kind, name)) for name in ("plain", "ours")}
        for kind in ("spans", "attributes")
    }
    lines += [
        f"One more span with five attributes costs {costs['spans']['ours']:.0f} µs here and"
        f" {costs['spans']['plain']:.0f} µs the plain way ({slopes(growth['spans'], 'spans', 'ours', 'plain')} times);"
        f" one more attribute {costs['attributes']['ours']:.1f} and {costs['attributes']['plain']:.1f} µs"
        f" ({slopes(growth['attributes'], 'attributes', 'ours', 'plain')} times).",
        "",
        "![CPU of a request against its spans and their attributes](plots/cost-growth.svg)",
    ]
    return lines


def compared_lists(mine: Sequence[float], theirs: Sequence[float]) -> list[str]:
    ratio = Ratio.of(mine, theirs)
    return [str(ratio), ratio.verdict()]


def series(axes: Axes, by_number: Figures, value: Callable[[Any], float], title: str) -> None:
    """A line for each subject, labelled at its end; labels that would touch are moved apart."""
    numbers = [int(number) for number in by_number]
    names = list(next(iter(by_number.values())))
    ends = {}
    for name in names:
        values = [value(each[name]) for each in by_number.values()]
        axes.plot(numbers, values, marker="o", color=COLOURS[name])
        ends[name] = values[-1]
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    apart = 0.045 * numbers[-1]
    axes.set_xticks(numbers, [str(n) if n - m > apart else "" for m, n in pairwise([-numbers[-1], *numbers])])
    axes.margins(x=0.05)
    apart = 0.075 * axes.get_ylim()[1]
    at = float("-inf")
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        at = max(end, at + apart)
        axes.annotate(
            NAMES[name],
            (1, at),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=COLOURS[name],
            va="center",
        )
    axes.set_title(title)


def about_gunicorn(served: Figures, plots: Path) -> list[str]:
    lines = [
        "### Under gunicorn",
        "",
        "`wrk -t1` on loopback against two workers with four threads, on the same machine, which so shares its cores"
        " with the load and the receiver:"
        f" {CONNECTIONS['home']} requests at a time, each on a connection of its own; to the handler that takes 20 ms"
        f" {CONNECTIONS['20ms']}, so that none waits for a thread. CPU is the servers' own, with what they send"
        " later.",
        "",
    ]
    found = []
    for key, by_name in served.items():
        for name in FOUR:
            each = by_name[name]
            against = [f"{of_rounds(by_name, name, 'untraced', what).median:.2f}" for what in ("rate", "p99")]
            found.append(
                [
                    HANDLERS[key].name,
                    NAMES[name],
                    middle(each["rate"]),
                    f"{each['cpu']:.0f}",
                    *(middle((value / 1000 for value in each[what]), ".2f") for what in ("p50", "p99")),
                    *against,
                    percent(each["arrived"]) if "arrived" in each else "",
                ]
            )
    header = ["handler", "", "requests/s", "CPU µs", "p50 ms", "p99 ms", "requests/s / untraced", "p99 / untraced"]
    header.append("of the spans arrived")
    ratio = of_rounds(served["20ms"], "ours", "untraced", "p99")
    errors = sum(sum(each["errors"]) for by_name in served.values() for each in by_name.values())
    lines += [
        table(header, found, left=2),
        "Beside the plain way, in the same rounds:",
        "",
        table(
            ["handler", "requests/s", "", "p50", "", "p99", ""],
            [
                [
                    HANDLERS[key].name,
                    *compared(by_name, "ours", "plain", "rate", more_is_better=True),
                    *compared(by_name, "ours", "plain", "p50"),
                    *compared(by_name, "ours", "plain", "p99"),
                ]
                for key, by_name in served.items()
            ],
        ),
        f"The p99 of the handler that takes 20 ms is {ratio} times untraced, {aim(ratio)}."
        f" {f'{errors:.0f} requests' if errors else 'No request'} failed in any round.",
    ]
    return lines


def about_workers(found: Figures, plots: Path) -> list[str]:
    figure, (axes, other) = plot(columns=2)
    series(axes, found, lambda each: statistics.median(each["rate"]), "requests in a second, by workers")
    series(other, found, lambda each: float(each["cpu"]), "µs of CPU for a request, by workers")
    save(figure, plots / "cost-workers.svg")
    return [
        "The home feed by the number of workers:",
        "",
        table(
            [
                "workers",
                *(f"{NAMES[name]}, requests/s" for name in THREE),
                *(f"CPU µs, {NAMES[name]}" for name in THREE),
                "requests/s, this template / plain",
                "",
            ],
            [
                [
                    count,
                    *(middle(by_name[name]["rate"]) for name in THREE),
                    *(f"{by_name[name]['cpu']:.0f}" for name in THREE),
                    *compared(by_name, "ours", "plain", "rate", more_is_better=True),
                ]
                for count, by_name in found.items()
            ],
        ),
        "![Throughput and CPU against the number of workers](plots/cost-workers.svg)",
    ]


def about_rates(found: Figures, plots: Path) -> list[str]:
    figure, (axes, other) = plot(columns=2)
    series(axes, found, lambda each: float(each["cpu"]), "µs of CPU for a request, by requests/s")
    series(other, found, lambda each: float(each["p99"]) / 1000, "p99, ms, by requests/s")
    save(figure, plots / "cost-rates.svg")
    failed = sum(each["errors"] for by_name in found.values() for each in by_name.values())
    return [
        "The home feed at steady rates, all three servers at the same time; a request's time begins when it is due:",
        "",
        table(
            [
                "requests/s",
                *(f"CPU µs, {NAMES[name]}" for name in THREE),
                "this template / plain",
                "",
                *(f"p50 / p99 ms, {NAMES[name]}" for name in THREE),
            ],
            [
                [
                    rate,
                    *(f"{by_name[name]['cpu']:.0f}" for name in THREE),
                    *compared_lists([by_name["ours"]["cpu"]], [by_name["plain"]["cpu"]]),
                    *(f"{by_name[name]['p50'] / 1000:.1f} / {by_name[name]['p99'] / 1000:.1f}" for name in THREE),
                ]
                for rate, by_name in found.items()
            ],
        ),
        f"Requests that failed: {failed}. What gunicorn does between requests counts too.",
        "",
        "![CPU and p99 against the rate of requests](plots/cost-rates.svg)",
    ]


def about_memory(found: Figures, plots: Path) -> list[str]:
    return [
        "### Memory",
        "",
        "Megabytes of a worker, shared pages divided by those that share them (PSS), its own alone (USS), and as `ps`"
        " shows it (RSS); under load of the home feed, with a collector that answers and with none there:",
        "",
        table(
            ["", *(f"{what}: PSS / USS / RSS" for what in STATES.values()), "PSS under load / plain", "in the outage"],
            [
                [
                    NAMES[name],
                    *(
                        " / ".join(middle(each[state][kind]) for kind in ("pss", "uss", "rss")) if state in each else ""
                        for state in STATES
                    ),
                    *(
                        f"{statistics.median(each[state]['pss']) / statistics.median(found['plain'][state]['pss']):.2f}"
                        if state in each
                        else ""
                        for state in ("load", "outage")
                    ),
                ]
                for name, each in found.items()
            ],
        ),
    ]


def about_start(found: Figures, plots: Path) -> list[str]:
    return [
        "### Start",
        "",
        "Seconds from starting gunicorn until it listens, which is when its first process is ready, and until the first"
        " answer of a worker:",
        "",
        table(
            ["", "listening", "first answer", "first answer / plain", ""],
            [
                [
                    NAMES[name],
                    middle(each["listening"], ".2f"),
                    middle(each["answering"], ".2f"),
                    *compared(found, name, "plain", "answering"),
                ]
                for name, each in found.items()
            ],
        ),
    ]


def about_differences(found: Sequence[Row]) -> list[str]:
    verdicts = [row.verdict for row in found]
    within = f"within {percent(MARGIN)}"
    lines = [
        "### What the differences buy",
        "",
        f"Of {len(found)} figures beside the plain way, {verdicts.count('better')} are better,"
        f" {verdicts.count(within)} {within}, {verdicts.count('unclear')} unclear, in that the quartiles of the rounds"
        f" lie on both sides of 1, and {verdicts.count('worse')} worse{':' if 'worse' in verdicts else '.'}",
        "",
    ]
    if unclear := [f"{row.what} ({row.ratio.median:.2f})" for row in found if row.verdict == "unclear"]:
        lines += [f"Unclear are: {'; '.join(unclear)}.", ""]
    if worse := [row for row in found if row.verdict == "worse"]:
        said = [[row.what, str(row.ratio), row.buys or "**nothing that anyone has said**"] for row in worse]
        lines.append(table(["", "this template / plain", "what it buys"], said))
    return lines
