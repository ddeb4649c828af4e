"""The ladder of learning rates: which rung an arm stands on, and when the ladder must grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """What is known of one learning rate: scores of the seeds that ended, None for a failed one."""

    scores: tuple[float | None, ...]
    expected: int

    @property
    def over(self) -> bool:
        """Whether every seed has ended."""
        return len(self.scores) >= self.expected

    def mean(self, higher_is_better: bool) -> float:
        """Mean score; the worst there is as soon as one seed failed."""
        if any(score is None for score in self.scores) or not self.scores:
            return -math.inf if higher_is_better else math.inf
        return math.fsum(score for score in self.scores if score is not None) / len(self.scores)


@dataclass(frozen=True)
class Tuned:
    """Where an arm's tuning stands: it chose a rate, needs another rung, waits, or found none."""

    best: float | None = None
    next_rung: float | None = None
    settled: bool = False


def tune(
    ladder: Sequence[float], rungs: Mapping[float, Rung], extra: int, higher_is_better: bool
) -> Tuned:
    """Decide from what has ended so far; the same rows always give the same decision.

    Args:
        ladder: the study's learning rates, ascending.
        rungs: what is known of each rate tried, the study's and those added.
        extra: how many rungs may be added at either end.
        higher_is_better: the metric's direction.

    Returns:
        `settled` with the best rate (the smaller one of equals), or with None where every rate
        failed; else `next_rung` where the best stands at an end that may still grow; else neither,
        to wait.
    """
    if len(ladder) == 1:
        return Tuned(best=ladder[0], settled=True)
    tried = sorted({*ladder, *rungs})
    if any(rate not in rungs or not rungs[rate].over for rate in tried):
        return Tuned()
    sign = -1.0 if higher_is_better else 1.0
    best = min(tried, key=lambda rate: (sign * rungs[rate].mean(higher_is_better), rate))
    if math.isinf(rungs[best].mean(higher_is_better)):
        return Tuned(settled=True)
    below, above = sum(r < ladder[0] for r in tried), sum(r > ladder[-1] for r in tried)
    if best == tried[-1] and above < extra:
        return Tuned(next_rung=_round(best * ladder[-1] / ladder[-2]))
    if best == tried[0] and below < extra:
        return Tuned(next_rung=_round(best * ladder[0] / ladder[1]))
    return Tuned(best=best, settled=True)


def _round(rate: float) -> float:
    """Three significant digits: 0.0333, not 0.03333333333333333."""
    return float(f"{rate:.3g}")
