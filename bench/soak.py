"""Minutes at a steady rate, through an outage and back: memory, threads, files, CPU, and what arrives.

This template, the plain way and the untraced application run side by side, each with two workers, a client and a
collector of its own, so that whatever else happens on the machine happens to all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import report as shared
from outages import KEYS, SPANS, Arrivals, Collector, Traffic, Trouble, became, collecting, fared, hanging
from report import COLOURS, NAMES, table
from subjects import UNTRACED, Server, Subject, project, serving

from receiver import eventually  # isort: skip

RATE: Final = 50.0  # requests a second, to each
WORKERS: Final = 2
CAPACITY: Final = 2048  # spans that a worker keeps: backend.delivery's, and the SDK's own queue
BATCH: Final = 512  # spans in one request at most, as in the SDK

BURST: Final = 500.0  # requests a second

# Of a sample of one worker:
RSS, USS, THREADS, FILES, CPU = range(5)


@dataclass(frozen=True)
class Plan:
    """When what happens, in seconds from the first request."""

    seconds: float
    every: float  # between two samples
    rate: float = RATE

    @property
    def warm(self) -> float:
        return self.seconds * 0.15

    @property
    def outage(self) -> tuple[float, float, float]:
        """It begins with a collector that refuses, which hangs then, and is well in the end."""
        return self.seconds * 0.3, self.seconds * 0.5, self.seconds * 0.6

    @property
    def calm(self) -> float:
        """When what was kept through the outage has long arrived."""
        return self.seconds * 0.65


TEN_MINUTES: Final = Plan(600, every=5)
QUICK: Final = Plan(20, every=0.5)


def measure(quick: bool) -> dict[str, Any]:
    return soak(QUICK if quick else TEN_MINUTES)


def soak(plan: Plan) -> dict[str, Any]:
    project()  # rendered before anything needs it
    refuses, hangs, well = plan.outage
    troubles = (
        Trouble("refusing", closed=True, after=refuses, lasts=hangs - refuses),
        Trouble("hanging", hanging, after=hangs, lasts=well - hangs),
    )
    with contextlib.ExitStack() as stack:
        runs = []
        for subject in KEYS:
            collector = stack.enter_context(collecting(*troubles))
            server = stack.enter_context(serving(subject, f"http://127.0.0.1:{collector.port}"))
            runs.append(Run(subject, server, collector, plan))
        for run in runs:
            run.begin()
        psutil.cpu_percent()
        sample_all(runs, plan)
        machine = psutil.cpu_percent()
        return {
            "seconds": plan.seconds,
            "rate": plan.rate,
            "warm": plan.warm,
            "outage": plan.outage,
            "calm": plan.calm,
            "machine_cpu_percent": machine,
            **{KEYS[run.subject]: run.end() for run in runs},
        }


class Run:
    """One subject, its traffic and its samples."""

    def __init__(self, subject: Subject, server: Server, collector: Collector, plan: Plan) -> None:
        self.subject, self.plan = subject, plan
        self.samples: list[dict[str, Any]] = []
        self._server, self._collector = server, collector
        self._arrivals = Arrivals(collector)
        self._traffic = Traffic(server.base, subject, plan.rate, plan.seconds, clients=4)
        master = psutil.Process(server.process.process.pid)
        self._workers: list[psutil.Process] = eventually(
            lambda: workers if len(workers := master.children()) == WORKERS else []
        )

    def begin(self) -> None:
        """After a burst, for which a worker starts every thread that it may have."""
        burst = Traffic(self._server.base, self.subject, BURST, 1)
        burst.start()
        burst.join()
        self._collector.begin()
        self._traffic.start()

    def sample(self) -> None:
        at = time.monotonic() - self._traffic.began
        workers = [figures for worker in self._workers if (figures := self._of(worker))]
        arrived = self._arrivals.look() if self.subject is not UNTRACED else 0
        answered = self._traffic.outcomes()["answered"]
        self.samples.append({"at": at, "workers": workers, "answered": answered, "arrived": arrived})

    def _of(self, worker: psutil.Process) -> list[float] | None:
        try:
            with worker.oneshot():
                memory, cpu = worker.memory_full_info(), worker.cpu_times()
                return [memory.rss, memory.uss, worker.num_threads(), worker.num_fds(), cpu.user + cpu.system]
        except psutil.NoSuchProcess:
            return None

    def end(self) -> dict[str, Any]:
        """Everything, after a SIGTERM that lets the workers send what they still have."""
        self._traffic.join()
        self._collector.signalled()
        stopped = self._server.process.stop(signal.SIGTERM, wait=60)
        found = {**fared(self._traffic), "slices": self._slices(), "samples": self.samples, "stop_seconds": stopped}
        if self.subject is UNTRACED:
            return found
        eventually(lambda: self._arrivals.look() >= len(self._traffic.answered()) * SPANS, 3)
        made = [each.trace_id for each in self._traffic.answers if each.outcome == "answered" and self._away(each.due)]
        sizes = self._arrivals.by_trace()
        return {
            **found,
            **became(self._traffic, self._arrivals, self._server.process.output()),
            "made_in_outage": len(made) * SPANS,
            "kept_in_outage": sum(sizes[trace_id] for trace_id in made),
        }

    def _away(self, due: float) -> bool:
        begins, _, ends = self.plan.outage
        return begins <= due < ends

    def _slices(self) -> list[dict[str, Any]]:
        """How requests fared in each tenth of the time."""
        found = []
        length = self.plan.seconds / 10
        for number in range(10):
            mine = [each for each in self._traffic.answers if number * length <= each.due < (number + 1) * length]
            took = sorted(each.seconds * 1000 for each in mine if each.outcome == "answered")
            failed = len(mine) - len(took)
            found.append({"asked": len(mine), "failed": failed, "p50_ms": part(took, 0.5), "p99_ms": part(took, 0.99)})
        return found


def part(ordered: Sequence[float], share: float) -> float:
    """What this share of the values does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def sample_all(runs: Sequence[Run], plan: Plan) -> None:
    """Until the last request is due."""
    began = time.monotonic()
    for number in itertools.count():
        at = number * plan.every
        if at > plan.seconds:
            return
        time.sleep(max(0.0, began + at - time.monotonic()))
        for run in runs:
            run.sample()


# What it says.

FLAT: Final = 60.0  # KB a minute: 40 bytes for each request that a worker answers
END: Final = float("inf")

Figures = dict[str, Any]
Points = list[tuple[float, float]]  # when, in seconds, and how much


def of_workers(figures: Figures, what: int, begins: float, ends: float = END) -> list[Points]:
    """A figure of each worker, from the samples of this time."""
    chosen = [each for each in figures["samples"] if begins <= each["at"] < ends]
    count = min((len(each["workers"]) for each in chosen), default=0)
    return [[(each["at"], each["workers"][worker][what]) for each in chosen] for worker in range(count)]


def values(figures: Figures, what: int, begins: float, ends: float = END) -> list[float]:
    """The same without when and whose."""
    return [value for points in of_workers(figures, what, begins, ends) for _, value in points]


def kilobytes_a_minute(figures: Figures, begins: float) -> float:
    """How fast the memory of a worker's own (USS) grows from then on: least squares, and the mean of the workers."""
    slopes = [
        statistics.linear_regression([at for at, _ in points], [value for _, value in points]).slope
        for points in of_workers(figures, USS, begins)
    ]
    return statistics.mean(slopes) * 60 / 1024


def least_and_most(found: Sequence[float]) -> str:
    return f"{min(found):.0f}" if min(found) == max(found) else f"{min(found):.0f} to {max(found):.0f}"


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"


def told(subject: Figures) -> int:
    """Spans that the log counts as lost, or as sent without an answer."""
    return int(subject["said_lost"] + subject["said_unanswered"])


def judgements(figures: Figures) -> list[tuple[bool, str]]:
    """What must hold: whether it does, and a sentence with the figures."""
    ours, warm, calm = figures["ours"], figures["warm"], figures["calm"]
    found: list[tuple[bool, str]] = []

    grows = {key: kilobytes_a_minute(figures[key], calm) for key in KEYS.values()}
    flat = grows["ours"] <= FLAT
    text = f"Memory {'is flat' if flat else 'grows'} after the outage: {grows['ours']:+.0f} KB a minute for a worker"
    text += f" (untraced {grows['untraced']:+.0f}, the plain way {grows['plain']:+.0f}); {FLAT:.0f} is the bound."
    found.append((flat, text))

    begins, ends = figures["outage"][0], figures["seconds"]
    before, threads = values(ours, THREADS, warm, begins), values(ours, THREADS, calm)
    constant = min(threads) == max(threads) == max(before)
    text = f"There are {'as' if constant else 'not as'} many threads as before the outage: {max(before):.0f} then,"
    found.append((constant, f"{text} {least_and_most(threads)} now."))

    middle = (calm + ends) / 2
    once, first, last = (min(values(ours, FILES, *span)) for span in ((warm, begins), (calm, middle), (middle, ends)))
    more = last > first or last > once + 1
    text = f"The number of file descriptors {'grows' if more else 'does not grow'}: {first:.0f} after the outage and"
    text += f" {last:.0f} at the end, when no request is under way; {once:.0f} before any log line went out."
    found.append((not more, text))

    bound = WORKERS * (CAPACITY + BATCH)
    bounded = ours["kept_in_outage"] <= bound
    text = f"The queue is {'bounded' if bounded else 'not bounded'}: of {ours['made_in_outage']:,} spans made in the"
    text += f" outage, {ours['kept_in_outage']:,} were kept until its end; {bound:,} is the bound."
    found.append((bounded, text))

    made = ours["answered"] * SPANS
    exact = ours["spans"] + told(ours) == made
    text = f"The accounts {'add up' if exact else 'do not add up'}: of {made:,} spans {ours['spans']:,} arrived, and"
    found.append((exact, f"{text} {told(ours):,} were said to be lost."))

    failed = ours["asked"] - ours["answered"]
    found.append((failed == 0, f"{failed:,} of {ours['asked']:,} requests failed."))
    return found


def headline(figures: Figures) -> list[list[str]]:
    found = judgements(figures)
    holds = sum(good for good, _ in found)
    return [[f"Soak: {clock(figures['seconds'])} through an outage", f"{holds} of {len(found)} promises hold", ""]]


def report(figures: Figures, plots: Path) -> str:
    begins, hangs, ends = figures["outage"]
    warm, calm, keys = figures["warm"], figures["calm"], list(KEYS.values())
    draw(figures, plots / "soak.svg")
    cpu = [f"{cpu_percent(figures[key]):.1f} % ({NAMES[key]})" for key in keys]
    sections = [
        "## Soak",
        f"""\
{clock(figures["seconds"])} at {figures["rate"]:.0f} requests a second for the home feed, to each of three subjects side
by side, with {WORKERS} workers each. The collector refuses connections from {clock(begins)} to {clock(hangs)}, hangs
until {clock(ends)}, and is well again. What is before the outage begins after a warm-up of {clock(warm)}; what is after
it, at {clock(calm)}. Times are in minutes and seconds.""",
        "\n".join(f"- {text if good else f'**{text}**'}" for good, text in judgements(figures)),
        "![The memory of a worker's own over time, with the outage shaded](plots/soak.svg)",
        "A worker's own memory (USS) leaves out what it shares with its master, which has loaded telemetry too in this"
        " template.",
        table(
            ["In a worker", *(NAMES[key] for key in keys)],
            [[name, *(form(figures[key]) for key in keys)] for name, form in in_a_worker(begins, warm, calm).items()],
        ),
        table(
            ["In all", *(NAMES[key] for key in keys)],
            [[name, *(form(figures[key]) for key in keys)] for name, form in IN_ALL.items()],
        ),
        "How long requests took, as the 99th percentile in ms, and how many failed:",
        table(["From", "collector", *(NAMES[key] for key in keys)], by_slice(figures, keys), left=2),
        f"The workers used {', '.join(cpu)} of a core. Everything together, clients and collectors included, used"
        f" {figures['machine_cpu_percent']:.0f} % of the machine.",
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def in_a_worker(begins: float, warm: float, calm: float) -> dict[str, Callable[[Figures], str]]:
    return {
        "its own memory (USS) before the outage, MB": lambda each: mean_in_mb(values(each, USS, warm, begins)),
        "the most of it in the outage, MB": lambda each: megabytes(max(values(each, USS, begins, calm))),
        "after the outage, MB": lambda each: mean_in_mb(values(each, USS, calm)),
        "all of its memory (RSS) after the outage, MB": lambda each: mean_in_mb(values(each, RSS, calm)),
        "growth after the outage, KB a minute": lambda each: f"{kilobytes_a_minute(each, calm):+.0f}",
        "threads": lambda each: least_and_most(values(each, THREADS, warm)),
        "file descriptors": lambda each: least_and_most(values(each, FILES, warm)),
    }


def mean_in_mb(found: Sequence[float]) -> str:
    return megabytes(statistics.mean(found))


IN_ALL: Final[dict[str, Callable[[Figures], str]]] = {
    "requests failed": lambda each: f"{each['asked'] - each['answered']:,} of {each['asked']:,}",
    "slowest, ms": lambda each: f"{each['slowest_ms']:.0f}",
    "spans arrived": lambda each: f"{each['spans']:,} of {each['answered'] * SPANS:,}" if "spans" in each else "",
    "said to be lost": lambda each: f"{told(each):,}" if "spans" in each else "",
    "neither": lambda each: f"{each['silent']:,}" if "spans" in each else "",
    "seconds to stop": lambda each: f"{each['stop_seconds']:.1f}",
}


def by_slice(figures: Figures, keys: Sequence[str]) -> list[list[str]]:
    count = len(figures["ours"]["slices"])
    lines = []
    for number in range(count):
        begins = figures["seconds"] / count * number
        fared = [figures[key]["slices"][number] for key in keys]
        took = [f"{each['p99_ms']:.0f}" + (f", {each['failed']} failed" if each["failed"] else "") for each in fared]
        lines.append([clock(begins), collector_at(begins, figures["outage"]), *took])
    return lines


def clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def collector_at(at: float, outage: Sequence[float]) -> str:
    begins, hangs, ends = outage
    return "refuses" if begins <= at < hangs else "hangs" if hangs <= at < ends else "well"


def cpu_percent(subject: Figures) -> float:
    """Of one core, by all of its workers."""
    points = of_workers(subject, CPU, 0)
    return sum(each[-1][1] - each[0][1] for each in points) / (points[0][-1][0] - points[0][0][0]) * 100


def draw(figures: Figures, path: Path) -> None:
    """The mean of the workers' own memory."""
    figure, (axes,) = shared.plot(height=3.4)
    begins, hangs, ends = (at / 60 for at in figures["outage"])
    axes.axvspan(begins, hangs, color="#e8e8e8", label="the collector refuses")
    axes.axvspan(hangs, ends, color="#cccccc", label="it hangs")
    for key in KEYS.values():
        samples = [each for each in figures[key]["samples"] if each["workers"]]
        memory = [statistics.mean(worker[USS] for worker in each["workers"]) / 1e6 for each in samples]
        axes.plot([each["at"] / 60 for each in samples], memory, color=COLOURS[key], label=NAMES[key])
    axes.set_title("Memory of a worker's own (USS), MB")
    axes.set_xlabel("minutes")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower right")
    shared.save(figure, path)
