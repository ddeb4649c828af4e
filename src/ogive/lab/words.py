"""A comparison in words: one sentence that an asker can act on and an expert can check."""

from __future__ import annotations

import math

from ogive.lab import stats
from ogive.lab.verdict import FEWEST_SEEDS, Comparison


def sentence(one: Comparison) -> str:
    """Effect, interval, seeds, pairing correlation, parameters, time, verdict, and what it lacks.

    Numbers are variant minus baseline, in the metric's units.
    """
    name = f"{one.variant} (control)" if one.control else one.variant
    if one.n < 2:
        return f"{name} on {one.task}: undecided: {_too_few(one)}{_failures(one)}."
    interval = f"95 % interval {_signed(one, one.low)} to {_signed(one, one.high)}"
    paired = f"{one.n} paired seeds, pairing correlation {_correlation(one)}"
    return (
        f"{name} on {one.task}: {_verdict(one)}: {_effect(one)} ({interval}, {paired}); "
        f"{_parameters(one)}, {_time(one)}{_undecided(one)}{_failures(one)}{_weak(one)}."
    )


def _too_few(one: Comparison) -> str:
    if one.untrained:
        return f"no learning rate of the ladder trained ({one.reasons[0]})"
    if one.n == 0:
        return "no pair of trials has ended well yet, and an interval takes two"
    return "only one pair of trials has ended well yet, and an interval takes two"


def _verdict(one: Comparison) -> str:
    if one.verdict != "equivalent":
        return one.verdict
    small = " (the difference is measurable, but too small to matter)" if one.measurable else ""
    return f"equivalent within ±{one.margin:g} {one.metric}{small}"


def _effect(one: Comparison) -> str:
    size = f"{_signed(one, one.effect)} {one.metric}"
    if one.effect == 0:
        return f"{size} against the baseline"
    side = "higher" if one.effect > 0 else "lower"
    return (
        f"{size}, {side} than the baseline, where {side} is {'better' if one.improves else 'worse'}"
    )


def _signed(one: Comparison, value: float) -> str:
    """A number in the metric's units, to two digits of whatever is smaller: margin or interval."""
    width = one.high - one.low
    digits = 1 - math.floor(math.log10(min(one.margin, width) if width > 0 else one.margin))
    text = f"{value:+.{min(9, max(2, digits))}f}"
    if float(text) == 0.0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _correlation(one: Comparison) -> str:
    return (
        "undefined" if math.isnan(one.correlation) else f"{one.correlation:.2f}".replace("-", "−")
    )


def _parameters(one: Comparison) -> str:
    if not one.parameters or not one.baseline_parameters:
        return "parameters unknown"
    change = f"{one.parameters / one.baseline_parameters - 1:+.2%}"
    same = one.parameters == one.baseline_parameters
    against = "the baseline's number" if same else change.replace("-", "−").replace("%", " %")
    return f"{one.parameters:,} parameters ({against})"


def _time(one: Comparison) -> str:
    return (
        "time unknown" if math.isnan(one.cost) else f"{one.cost:.2f} × the baseline's time per step"
    )


def _undecided(one: Comparison) -> str:
    if one.verdict != "undecided":
        return ""
    short = one.excludes_zero and one.p_holm >= stats.LEVEL
    why = "; the interval excludes 0, but not after Holm's correction" if short else ""
    if one.more_seeds is None:
        return f"{why}; more than {stats.MOST_SEEDS} seeds would be needed to decide"
    seeds = "seed" if one.more_seeds == 1 else "seeds"
    return f"{why}; about {one.more_seeds} more {seeds} would decide"


def _failures(one: Comparison) -> str:
    if not one.failed:
        return ""
    lost = f"{one.failed} of {one.planned} seeds failed and are left out"
    return f"; {lost} ({one.reasons[0]})"


def _weak(one: Comparison) -> str:
    if one.n < FEWEST_SEEDS:
        return f"; a weak verdict: {one.n} seeds are fewer than {FEWEST_SEEDS}"
    return "; a weak verdict, from a quick study" if one.weak else ""
