"""A time axis without long idle times, so that activity fills the plot."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from otlp_viewer.query.parse import STEPS

MAX_COLUMNS = 120
MAX_TICKS = 6
MIN_LENGTH = 5.0
"""Minimum length of an axis in seconds."""
MAX_PERIODS = 6
IDLE_SHARE = 0.2
"""An idle time is left out if it takes more than this share of the remaining axis."""
IDLE_SECONDS = 10
DAY = 86400


@dataclass(frozen=True, slots=True)
class Period:
    """A continuous part of the axis."""

    start: float
    columns: int
    first: int
    """Its first column, counted over all periods."""
    x: float
    """Where it starts, in columns. Each idle time that is left out takes `Axis.gap` columns."""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    """Percent from the left."""
    value: float
    """Seconds since 1970."""
    wide: bool
    """Drawn only on an axis wide enough for six ticks; the others also where three fit."""


@dataclass(frozen=True, slots=True)
class Axis:
    periods: Sequence[Period]
    step: float
    """Seconds per column."""
    gap: float
    ticks: Sequence[Tick]
    tick_step: float
    """Seconds between ticks."""
    days: bool
    """Whether ticks need a date."""

    @property
    def columns(self) -> int:
        return self.periods[-1].first + self.periods[-1].columns

    @property
    def width(self) -> float:
        """Total width in columns."""
        return self.periods[-1].x + self.periods[-1].columns

    @property
    def start(self) -> float:
        return self.periods[0].start

    @property
    def end(self) -> float:
        return self.periods[-1].start + self.periods[-1].columns * self.step

    def column(self, time: float) -> int | None:
        """Return the column of a time in seconds since 1970, or None if the axis leaves it out."""
        number = bisect.bisect_right(self.periods, time + self.step * 1e-6, key=lambda period: period.start) - 1
        if number < 0:
            return None
        period = self.periods[number]
        column = math.floor((time - period.start) / self.step + 1e-6)
        return period.first + column if column < period.columns else None

    def x(self, column: float) -> float:
        """Return where a column starts, in columns from the left."""
        number = max(bisect.bisect_right(self.periods, column, key=lambda period: period.first) - 1, 0)
        return self.periods[number].x + column - self.periods[number].first

    def gaps(self) -> list[float]:
        """Return the middle of each gap, in percent from the left."""
        return [round((period.x - self.gap / 2) / self.width * 100, 3) for period in self.periods[1:]]


def make(seconds: Sequence[int], start: float, end: float, step: float | None = None) -> Axis:
    """Return the axis for events in these whole seconds (ascending) between `start` and `end`.

    `step` is the length of a column in seconds; by default the axis chooses it.
    """
    busy = _busy([second for second in seconds if start - 1 < second < end + 1] or [math.floor(end) - 1])
    length = sum(busy_end - busy_start for busy_start, busy_end in busy)
    if length < MIN_LENGTH:
        busy[-1] = busy[-1][0], busy[-1][1] + math.ceil(MIN_LENGTH - length)
        length = sum(busy_end - busy_start for busy_start, busy_end in busy)
    step = step or _step(length, MAX_COLUMNS)
    aligned: list[tuple[int, int]] = []  # in steps since 1970
    for busy_start, busy_end in busy:
        first = math.floor(busy_start / step + 1e-6)
        last = max(math.ceil(busy_end / step - 1e-6), first + 1)  # a long step may round both to one border
        if aligned and first <= aligned[-1][1]:
            aligned[-1] = aligned[-1][0], max(last, aligned[-1][1])
        else:
            aligned.append((first, last))
    columns = sum(last - first for first, last in aligned)
    gap = max(columns * 0.03, 0.5)
    periods, done = [], 0
    for number, (first, last) in enumerate(aligned):
        periods.append(Period(first * step, last - first, done, done + gap * number))
        done += last - first
    width = periods[-1].x + periods[-1].columns
    span = periods[-1].start + periods[-1].columns * step - periods[0].start
    tick_step = _step(columns * step, MAX_TICKS)
    return Axis(periods, step, gap, _ticks(periods, step, width, tick_step), tick_step, span >= DAY / 2)


def _step(length: float, max_steps: int) -> float:
    """Return the shortest round step that divides `length` into at most `max_steps`; whole days for a long one."""
    return next((step for step in STEPS if step * max_steps >= length), math.ceil(length / max_steps / DAY) * DAY)


def _busy(seconds: Sequence[int]) -> list[tuple[int, int]]:
    """Return the start and end of each busy period, split at the longest idle times."""
    gaps = [(after - before - 1, number) for number, (before, after) in enumerate(itertools.pairwise(seconds))]
    remaining = seconds[-1] + 1 - seconds[0]
    cuts = []
    for length, number in sorted(gaps, reverse=True)[: MAX_PERIODS - 1]:
        if length < IDLE_SECONDS or length < IDLE_SHARE * remaining:
            break
        cuts.append(number)
        remaining -= length
    periods, first = [], seconds[0]
    for number in sorted(cuts):
        periods.append((first, seconds[number] + 1))
        first = seconds[number + 1]
    return [*periods, (first, seconds[-1] + 1)]


def _ticks(periods: Sequence[Period], step: float, width: float, tick_step: float) -> list[Tick]:
    """Return round times and the starts of periods that have none, far enough apart not to touch."""
    candidates: list[tuple[float, float]] = []
    for period in periods:
        end = period.start + period.columns * step
        first = math.ceil(period.start / tick_step - 1e-9)
        times = [number * tick_step for number in range(first, math.floor(end / tick_step + 1e-9) + 1)]
        if len(periods) > 1 and (not times or times[0] - period.start > tick_step / 2):
            times.insert(0, period.start)
        candidates += [((period.x + (time - period.start) / step) / width * 100, time) for time in times]
    ticks: list[Tick] = []
    last, last_wide = -100.0, -100.0
    for at, time in candidates:
        if at - last < 11 or at > 97:
            continue
        wide = at - last_wide < 34
        ticks.append(Tick(round(at, 3), time, wide))
        last = at
        last_wide = last_wide if wide else at
    return ticks
