"""A time axis that leaves long idle times out, so that what happened fills the plot."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from otlp_viewer.query.parse import STEPS

MOST_COLUMNS = 120
MOST_TICKS = 6
SHORTEST = 5.0
"""Seconds that an axis covers at least."""
MOST_PERIODS = 6
IDLE_SHARE = 0.2
"""A time without events is left out when it takes more than this share of what remains."""
IDLE_SECONDS = 10
DAY = 86400


@dataclass(frozen=True, slots=True)
class Period:
    """A part of the time that is on the axis."""

    start: float
    columns: int
    first: int
    """Its first column among those of all periods."""
    x: float
    """Where it begins, in columns; times that are left out take `Axis.gap` columns each."""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    """Percent from the left."""
    value: float
    """Seconds since 1970."""
    wide: bool
    """Drawn where there is room for six of them; the others where there is room for three too."""


@dataclass(frozen=True, slots=True)
class Axis:
    periods: Sequence[Period]
    step: float
    """Seconds that a column stands for."""
    gap: float
    ticks: Sequence[Tick]
    tick_step: float
    """Seconds between ticks."""
    days: bool
    """Ticks need their date."""

    @property
    def columns(self) -> int:
        return self.periods[-1].first + self.periods[-1].columns

    @property
    def width(self) -> float:
        """Of the whole, in columns."""
        return self.periods[-1].x + self.periods[-1].columns

    @property
    def start(self) -> float:
        return self.periods[0].start

    @property
    def end(self) -> float:
        return self.periods[-1].start + self.periods[-1].columns * self.step

    def column(self, time: float) -> int | None:
        """Return the column of a time in seconds since 1970, None where the axis leaves it out."""
        number = bisect.bisect_right(self.periods, time + self.step * 1e-6, key=lambda period: period.start) - 1
        if number < 0:
            return None
        period = self.periods[number]
        column = math.floor((time - period.start) / self.step + 1e-6)
        return period.first + column if column < period.columns else None

    def x(self, column: float) -> float:
        """Return where a column begins, in columns from the left."""
        number = max(bisect.bisect_right(self.periods, column, key=lambda period: period.first) - 1, 0)
        return self.periods[number].x + column - self.periods[number].first

    def gaps(self) -> list[float]:
        """Return where times are left out: the middle of each, in percent from the left."""
        return [round((period.x - self.gap / 2) / self.width * 100, 3) for period in self.periods[1:]]


def make(seconds: Sequence[int], start: float, end: float, step: float | None = None) -> Axis:
    """Return the axis for events in these whole seconds (ascending) between `start` and `end`.

    `step` is how long a column is, where that is not for the axis to choose.
    """
    busy = _busy([second for second in seconds if start - 1 < second < end + 1] or [math.floor(end) - 1])
    length = sum(to - at for at, to in busy)
    if length < SHORTEST:
        busy[-1] = busy[-1][0], busy[-1][1] + math.ceil(SHORTEST - length)
        length = sum(to - at for at, to in busy)
    step = step or _step(length, MOST_COLUMNS)
    aligned: list[tuple[int, int]] = []  # in steps since 1970
    for at, to in busy:
        first, last = math.floor(at / step + 1e-6), math.ceil(to / step - 1e-6)
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
    whole = periods[-1].start + periods[-1].columns * step - periods[0].start
    tick_step = _step(columns * step, MOST_TICKS)
    return Axis(periods, step, gap, _ticks(periods, step, width, tick_step), tick_step, whole >= DAY / 2)


def _step(length: float, most: int) -> float:
    """Return the shortest round time of which at most so many make a length; whole days where it is very long."""
    return next((one for one in STEPS if one * most >= length), math.ceil(length / most / DAY) * DAY)


def _busy(seconds: Sequence[int]) -> list[tuple[int, int]]:
    """Return from when to when there were events, without the longest times in which there were none."""
    gaps = [(after - before - 1, number) for number, (before, after) in enumerate(itertools.pairwise(seconds))]
    remaining = seconds[-1] + 1 - seconds[0]
    cuts = []
    for length, number in sorted(gaps, reverse=True)[: MOST_PERIODS - 1]:
        if length < IDLE_SECONDS or length < IDLE_SHARE * remaining:
            break
        cuts.append(number)
        remaining -= length
    found, first = [], seconds[0]
    for number in sorted(cuts):
        found.append((first, seconds[number] + 1))
        first = seconds[number + 1]
    return [*found, (first, seconds[-1] + 1)]


def _ticks(periods: Sequence[Period], step: float, width: float, tick_step: float) -> list[Tick]:
    """Return round times, and the starts of periods without one near; none so near another that they would touch."""
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
