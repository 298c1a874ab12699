"""What the sections of all parts share: ratios in words, tables, plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MARGIN = 0.05  # differences up to this say nothing

# Told apart by those who see fewer colours too (Okabe and Ito), and dark enough for letters on white.
COLOURS = {"untraced": "#666666", "plain": "#D55E00", "zero-code": "#A8558A", "ours": "#0072B2"}
NAMES = {"untraced": "untraced", "plain": "the plain way", "zero-code": "zero-code", "ours": "this template"}


def percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Between them lies the middle half; of fewer than four values, all of them."""
    if len(values) < 4:
        return min(values), max(values)
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


@dataclass(frozen=True)
class Ratio:
    """What something costs beside a baseline: the median of the rounds, and the quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], baseline: Sequence[float]) -> Ratio:
        """Round by round, so that whatever slows a whole round down changes nothing."""
        ratios = [mine / theirs for mine, theirs in zip(values, baseline, strict=True)]
        return cls(statistics.median(ratios), *quartiles(ratios))

    @classmethod
    def of_medians(cls, values: Sequence[float], baseline: Sequence[float]) -> Ratio:
        """For what was not measured in rounds; without quartiles."""
        middle = statistics.median(values) / statistics.median(baseline)
        return cls(middle, middle, middle)

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.median:.2f}"
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"

    def verdict(self, more_is_better: bool = False) -> str:
        """`better`, `within 5 %` or `worse`; `unclear` where a quartile of the rounds has it the other way round."""
        if abs(self.median - 1) <= MARGIN:
            return f"within {percent(MARGIN)}"
        if self.low <= 1 <= self.high:
            return "unclear"
        return "worse" if (self.median > 1) != more_is_better else "better"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown; the first `left` columns hold words, the others figures."""
    lines = [header, *rows]
    rule = ["---" if number < left else "---:" for number in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:])) + "\n"


def plot(width: float = 8, height: float = 3.6, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `columns` plots side by side, in inches; white, so that it can be read on any page."""
    matplotlib.rcParams.update(
        {
            "font.size": 10,
            "font.family": "DejaVu Sans",  # comes with matplotlib
            "svg.hashsalt": "bench",  # the same ids each time
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
        }
    )
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def save(figure: Figure, path: Path) -> None:
    """As an SVG that is the same whenever it is drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib ends some lines with blanks.
    text = path.read_text(encoding="utf-8")
    path.write_text("".join(line.rstrip() + "\n" for line in text.splitlines()), encoding="utf-8")
