"""From numbers to pixels: a linear scale, its ticks, and limits that one outlier cannot spoil."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from ogive.report.text import number

TOO_FAR = 5.0  # how many times the typical reach an interval may reach before it is cut


@dataclass(frozen=True)
class Scale:
    """Maps low…high to start…stop (pixels, in either direction)."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value):
        """Pixels of a value or an array of values."""
        share = (np.asarray(value, float) - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def inside(self, value: float) -> float:
        """The value, or the nearest end of the scale."""
        return min(max(value, self.low), self.high)

    def ticks(self, count: int = 4) -> list[tuple[float, str]]:
        """Round values within the scale, about `count` of them, with how they are written."""
        locator = MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10])
        values = np.asarray(locator.tick_values(self.low, self.high))
        decimals = _decimals(values)
        slack = 1e-9 * (self.high - self.low)
        kept = [value for value in values if self.low - slack <= value <= self.high + slack]
        return [(float(value), number(float(value), decimals)) for value in kept]


def _decimals(values: np.ndarray) -> int:
    for decimals in range(12):
        if np.allclose(values, np.round(values, decimals), rtol=0, atol=1e-9 * np.ptp(values)):
            return decimals
    return 12


def around(values: Iterable[float], start: float, stop: float, room: float = 0.06) -> Scale:
    """A scale that holds all finite values with some room at both ends."""
    found = np.array([value for value in values if np.isfinite(value)] or [0.0, 1.0])
    low, high = float(found.min()), float(found.max())
    extra = room * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - extra, high + extra, start, stop)


def around_zero(
    intervals: list[tuple[float, float]], margin: float, start: float, stop: float
) -> Scale:
    """A scale that shows zero, the margin on both sides, and all but the farthest intervals.

    An interval that reaches `TOO_FAR` times farther than the median one (and the margin) does is
    left to run off the edge: the others would be points otherwise.
    """
    reach = [max(abs(low), abs(high)) for low, high in intervals if np.isfinite(low + high)]
    limit = TOO_FAR * max(float(np.median(reach)) if reach else 0.0, margin)
    kept = [end for pair in intervals for end in pair if np.isfinite(end) and abs(end) <= limit]
    return around(
        [*kept, -1.25 * margin, 1.25 * margin, 0.0] if margin else [*kept, 0.0], start, stop
    )
