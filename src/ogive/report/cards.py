"""Small figures, one per variant: every seed beside its baseline, and the learning curves."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ogive.report.evidence import BASELINE, Evidence, Trial
from ogive.report.palette import MARKS
from ogive.report.scale import Scale, around
from ogive.report.svg import INK, Canvas, Drawing, canvas
from ogive.report.text import decimals_for, general, number, plural, shorten

WIDTH = 260
SEEDS_DRAWN = 40  # more lines than this say nothing more
_LEFT, _RIGHT, _TOP = 52, 248, 34


def draw_pairs(
    evidence: Evidence, variant: str, comparison: Any, scale: Scale, *, key: str
) -> Drawing:
    """A line from the baseline's score to the variant's for each seed that both finished.

    Args:
        evidence: the task's trials.
        variant: whose card this is.
        comparison: the variant's comparison (for its verdict), or None.
        scale: of the scores; see `score_scales`.
        key: prefix of the figure's ids.
    """
    pairs = evidence.pairs(variant)
    drawn = pairs[:: -(-len(pairs) // SEEDS_DRAWN)] if pairs else []
    with canvas(key, WIDTH, 224) as page:
        axes = page.whole()
        _heading(page, axes, variant, comparison)
        _score_axis(page, axes, scale)
        ends = (_LEFT + 34, _RIGHT - 34)
        won = sum(_gain(evidence, pair) > 0 for pair in pairs)
        decimals = decimals_for([abs(_gain(evidence, pair)) for pair in drawn])
        for pair in drawn:
            _slope(page, axes, evidence, pair, scale, ends, decimals)
        for x, name in zip(ends, ("baseline", "variant"), strict=True):
            page.write(axes, x, 191, name, role="muted", size=11, anchor="center")
        words = f"better with {won} of {plural(len(pairs), 'seed')}" if pairs else "no pair yet"
        words += f"; {len(drawn)} drawn" if len(drawn) < len(pairs) else ""
        page.write(axes, WIDTH / 2, 212, words, size=11, anchor="center")
        return page.svg(f"{variant}: scores of each seed", f"{words.capitalize()}.")


def score_scales(evidence: Evidence, variants: Iterable[str]) -> dict[str, Scale]:
    """A scale of scores per variant: one for all, and its own for a variant that lies far off."""
    base = [trial.score for trial in evidence.compared(BASELINE).values()]
    middle = statistics.fmean(base) if base else 0.0
    scores = {name: [pair[2].score for pair in evidence.pairs(name)] for name in variants}
    return _shared(scores, middle, base, (168, _TOP + 14))


def difference_scales(evidence: Evidence, variants: Iterable[str]) -> dict[str, Scale]:
    """The same for the held-out differences under the learning curves."""
    curves = {name: _held_out(evidence, name) for name in variants}
    ends = {
        name: [*(curve[1] - curve[2]), *(curve[1] + curve[2])] for name, curve in curves.items()
    }
    return _shared(ends, 0.0, [0.0], (232, 170))


def _shared(
    values: dict[str, list[float]], middle: float, always: list[float], ends: tuple[float, float]
) -> dict[str, Scale]:
    reach = {
        name: max((abs(value - middle) for value in found), default=0.0)
        for name, found in values.items()
    }
    limit = 4 * float(np.median(list(reach.values()) or [0.0]))
    near = [value for name, found in values.items() if reach[name] <= limit for value in found]
    common = around([*always, *near], *ends)
    return {
        name: common if reach[name] <= limit else around([*always, *found], *ends)
        for name, found in values.items()
    }


def _held_out(evidence: Evidence, variant: str) -> np.ndarray:
    """Held-out score minus the baseline's within each seed: step, mean and deviation."""
    series = [
        {
            step: value - theirs.held_out[step]
            for step, value in ours.held_out.items()
            if step in theirs.held_out
        }
        for _, theirs, ours in evidence.pairs(variant)
    ]
    return _over_seeds([points for points in series if points])


def _gain(evidence: Evidence, pair: tuple[Any, Trial, Trial]) -> float:
    """How much better than the baseline's the variant's score is."""
    difference = pair[2].score - pair[1].score
    return difference if evidence.higher_is_better else -difference


def _slope(
    page: Canvas,
    axes: Axes,
    evidence: Evidence,
    pair: tuple[Any, Trial, Trial],
    scale: Scale,
    ends: Sequence[float],
    decimals: int,
) -> None:
    seed, theirs, ours = pair
    better = _gain(evidence, pair) > 0
    heights = scale([theirs.score, ours.score])
    difference = number(ours.score - theirs.score, decimals, signed=True)
    tip = (
        f"seed {seed}: {difference} {evidence.unit}\nbaseline "
        f"{number(theirs.score, decimals)}, variant {number(ours.score, decimals)}"
    )
    axes.plot(
        ends,
        heights,
        color=INK["better" if better else "worse"],
        linewidth=1.5,
        linestyle="-" if better else (0, (3, 2)),
        marker="o",
        markersize=5,
        markeredgewidth=0,
        gid=page.tip(tip),
    )


def _heading(page: Canvas, axes: Axes, variant: str, comparison: Any) -> None:
    page.write(axes, 10, 13, shorten(variant, 27), size=12.5, weight="bold")
    mark = MARKS.get(getattr(comparison, "verdict", ""))
    if mark:
        page.write(
            axes, WIDTH - 10, 13, mark.symbol, role=comparison.verdict, size=12.5, anchor="right"
        )


def _score_axis(page: Canvas, axes: Axes, scale: Scale, right: float = _RIGHT) -> None:
    for value, written in scale.ticks(4):
        y = float(scale(value))
        axes.plot([_LEFT, right], [y, y], color=INK["grid"], linewidth=1)
        page.write(axes, _LEFT - 6, y, written, role="muted", size=10.5, anchor="right")


def draw_curves(
    evidence: Evidence, variant: str, comparison: Any, scale: Scale, *, key: str
) -> Drawing:
    """Training loss of baseline and variant above, the held-out score's difference below.

    Lines are means over seeds and bands one standard deviation; the difference is taken within
    each seed first.

    Args:
        evidence, variant, comparison, key: as for `draw_pairs`.
        scale: of the differences; see `difference_scales`.
    """
    role = getattr(comparison, "verdict", None)
    role = role if role in MARKS else "undecided"
    pairs = evidence.pairs(variant)
    curves = {
        "ink": _loss([theirs for _, theirs, _ in pairs]),
        role: _loss([ours for _, _, ours in pairs]),
    }
    with canvas(key, WIDTH, 268) as page:
        axes = page.whole()
        _heading(page, axes, variant, comparison)
        steps = np.concatenate([curve[0] for curve in curves.values()])
        across = Scale(0.0, float(steps.max()) if steps.size else 1.0, _LEFT, _RIGHT)
        _losses(page, axes, curves, across)
        _differences(page, axes, evidence, variant, across, scale, role)
        for value, written in across.ticks(3):
            page.write(
                axes,
                float(across(value)),
                245,
                written.split(".")[0],
                role="muted",
                size=10.5,
                anchor="center",
            )
        page.write(
            axes, (_LEFT + _RIGHT) / 2, 260, "step", role="muted", size=10.5, anchor="center"
        )
        words = _last_losses(curves, role)
        hit = Rectangle((0, _TOP - 10), WIDTH, 216, facecolor="none", linewidth=0)
        hit.set_gid(page.tip(f"{variant}\n{words}"))
        axes.add_patch(hit)
        return page.svg(f"{variant}: learning curves", words)


def _loss(trials: list[Trial]) -> np.ndarray:
    """Rows: step, mean and standard deviation over seeds of the training loss."""
    return _over_seeds([trial.losses for trial in trials if trial.losses])


def _over_seeds(series: list[dict[int, float]]) -> np.ndarray:
    """(3, points): the steps that all seeds have, with mean and standard deviation."""
    common = sorted(set.intersection(*(set(points) for points in series))) if series else []
    if not common:
        return np.empty((3, 0))
    values = np.array([[points[step] for step in common] for points in series])
    spread = values.std(axis=0, ddof=1) if len(series) > 1 else np.zeros(len(common))
    return np.stack([np.array(common, float), values.mean(axis=0), spread])


def _losses(page: Canvas, axes: Axes, curves: dict[str, np.ndarray], across: Scale) -> None:
    # The first tenth of training would flatten all that matters after it.
    late = [curve[1][curve[0] >= 0.1 * across.high] for curve in curves.values()]
    scale = around(np.concatenate(late), 140, _TOP + 16)
    page.write(axes, 10, _TOP + 2, "training loss", role="muted", size=10.5)
    if not any(part.size for part in late):
        page.write(
            axes, (_LEFT + _RIGHT) / 2, 90, "no curve yet", role="muted", size=11, anchor="center"
        )
        return
    _score_axis(page, axes, scale)
    for role, curve in curves.items():
        kept = curve[:, curve[1] <= scale.high]
        dashes = (0, (4, 2)) if role == "ink" else "-"
        _band(axes, kept, across, scale, role, dashes)


def _band(
    axes: Axes, curve: np.ndarray, across: Scale, scale: Scale, role: str, dashes: Any
) -> None:
    x, (mean, spread) = across(curve[0]), curve[1:]
    low, high = (
        scale(np.clip(end, scale.low, scale.high)) for end in (mean - spread, mean + spread)
    )
    axes.fill_between(x, low, high, color=INK[role], alpha=0.16, linewidth=0)
    axes.plot(x, scale(mean), color=INK[role], linewidth=1.7, linestyle=dashes)


def _differences(
    page: Canvas,
    axes: Axes,
    evidence: Evidence,
    variant: str,
    across: Scale,
    scale: Scale,
    role: str,
) -> None:
    curve = _held_out(evidence, variant)
    words = f"held-out difference, {shorten(evidence.unit, 18)}"
    page.write(axes, 10, 158, words, role="muted", size=10.5)
    if not curve.size:
        page.write(
            axes, (_LEFT + _RIGHT) / 2, 204, "none yet", role="muted", size=11, anchor="center"
        )
        return
    _score_axis(page, axes, scale)
    zero = float(scale(0.0))
    axes.plot([_LEFT, _RIGHT], [zero, zero], color=INK["ink"], linewidth=1.1, linestyle=(0, (4, 2)))
    x = across(curve[0])
    for at, low, high in zip(
        x, scale(curve[1] - curve[2]), scale(curve[1] + curve[2]), strict=True
    ):
        axes.plot([at, at], [low, high], color=INK[role], linewidth=1.6)
    axes.plot(
        x,
        scale(curve[1]),
        color=INK[role],
        linewidth=1.2,
        marker="o",
        markersize=4.5,
        markeredgewidth=0,
    )


def _last_losses(curves: dict[str, np.ndarray], role: str) -> str:
    parts = [
        f"{name} {general(float(curve[1, -1]), 4)} ± {general(float(curve[2, -1]), 2)}"
        for name, curve in (("baseline", curves["ink"]), ("variant", curves[role]))
        if curve.size
    ]
    return f"Last training loss: {', '.join(parts)}." if parts else "No curve yet."
