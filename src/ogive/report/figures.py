"""The forest plot: one row per variant, its difference from the baseline with the 95 % interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ogive.errors import ArgumentError
from ogive.report.palette import MARKS
from ogive.report.scale import Scale, around_zero
from ogive.report.svg import INK, Canvas, Drawing, canvas
from ogive.report.text import NONE, clean, decimals_for, is_number, number, plural, shorten


@dataclass(frozen=True)
class Layout:
    """Where things sit in a forest plot, in pixels."""

    width: int
    row: int  # height of a row
    plot: tuple[int, int]  # left and right end of the axis
    middle: float  # of the interval, from the top of the row
    label: int  # characters of a label that fit
    wide: bool


WIDE = Layout(width=780, row=40, plot=(238, 548), middle=20, label=29, wide=True)
NARROW = Layout(width=370, row=70, plot=(16, 354), middle=39, label=32, wide=False)
_HEAD, _FOOT, _SECTION = 44, 58, 30


def forest(comparisons: Iterable[Any], *, standalone: bool = True, **options: Any) -> str:
    """The forest plot of one task's comparisons as SVG text; equal input gives equal bytes.

    Args:
        comparisons: what `ogive.lab.compare` gives, of one task.
        standalone: True for a file of its own that is legible in light and in dark, False for
            inlining in a page that defines the palette.
        options: what `draw_forest` takes.

    Raises:
        ArgumentError: the comparisons belong to several tasks, whose units differ.
    """
    return draw_forest(list(comparisons), standalone=standalone, **options).svg


def draw_forest(
    comparisons: list[Any],
    *,
    unit: str | None = None,
    sites: Mapping[str, str] | None = None,
    narrow: bool = False,
    key: str = "forest",
    standalone: bool = False,
) -> Drawing:
    """Draw the forest plot: candidates first, controls under a line of their own.

    Args:
        comparisons: in the order of the rows; an effect that is not a number leaves a row empty.
            Margin, direction and (unless `unit` is given) unit are those of the first.
        unit: of the effects, for the axis.
        sites: written form of each variant's sites, shown under its label.
        narrow: for a telephone: labels over the intervals instead of beside them.
        key: prefix of the figure's ids.
        standalone: a file of its own rather than part of a page.
    """
    tasks = {item.task for item in comparisons}
    if len(tasks) > 1:
        raise ArgumentError(f"a forest plot shows one task, not {', '.join(sorted(tasks))}")
    layout = NARROW if narrow else WIDE
    rows = [item for item in comparisons if not item.control]
    tops: list[float] = [_HEAD + layout.row * place for place in range(len(rows))]
    section = _HEAD + layout.row * len(rows)  # where the controls begin, if there are any
    rows += [item for item in comparisons if item.control]
    tops += [section + _SECTION + layout.row * place for place in range(len(rows) - len(tops))]
    height = (tops[-1] + layout.row if tops else _HEAD) + _FOOT
    unit = str(clean(unit or (rows[0].metric if rows else "")))
    with canvas(key, layout.width, height) as page:
        axes = page.whole()
        decimals = decimals_for(
            item.high - item.low for item in rows if is_number(item.low) and is_number(item.high)
        )
        if rows:
            scale = _scale(rows, layout)
            _frame(page, axes, scale, tops, rows[0], unit, layout)
        if rows and rows[-1].control:
            _section(page, axes, "controls", section, layout)
        for item, top in zip(rows, tops, strict=True):
            _row(
                page, axes, item, scale, top, decimals, (sites or {}).get(item.variant, ""), layout
            )
        return page.svg(
            "Difference of each variant from the baseline",
            _describe(rows, unit, decimals),
            standalone=standalone,
        )


def _scale(comparisons: list[Any], layout: Layout) -> Scale:
    intervals = [
        (item.low, item.high) if is_number(item.low) else (item.effect, item.effect)
        for item in comparisons
        if is_number(item.effect)
    ]
    return around_zero(intervals, comparisons[0].margin, *layout.plot)


def _frame(
    page: Canvas, axes: Axes, scale: Scale, tops: list[float], first: Any, unit: str, layout: Layout
) -> None:
    """Everything behind the rows: margin, grid, baseline, directions and the axis."""
    bottom, margin = tops[-1] + layout.row, first.margin
    left, right = layout.plot
    spans = (
        [(_HEAD - 6, bottom + 6)]
        if layout.wide
        else [(top + layout.middle - 10, top + layout.middle + 10) for top in tops]
    )
    band, zero = scale([-margin, margin]), float(scale(0.0))
    ticks = [(float(scale(value)), written) for value, written in scale.ticks(5)]
    for top, end in spans:
        if margin:
            axes.add_patch(
                Rectangle(
                    (band[0], top), band[1] - band[0], end - top, facecolor=INK["band"], linewidth=0
                )
            )
        for x, _ in ticks:
            axes.plot([x, x], [top, end], color=INK["grid"], linewidth=1)
        axes.plot([zero, zero], [top, end], color=INK["ink"], linewidth=1.2)
    for x, written in ticks:
        page.write(axes, x, bottom + 18, written, role="muted", size=11, anchor="center")
    page.write(axes, zero, 26, "baseline", size=11, anchor="center")
    ends = ("◀ worse", "better ▶") if first.higher_is_better else ("◀ better", "worse ▶")
    page.write(axes, left, 10, ends[0], role="muted", size=11)
    page.write(axes, right, 10, ends[1], role="muted", size=11, anchor="right")
    words = "difference from the baseline" + (f", {shorten(unit, 30)}" if unit else "")
    middle = (left + right) / 2
    page.write(axes, middle, bottom + 36, words, role="muted", size=11, anchor="center")
    if margin:
        words = f"shaded: equivalent within ±{margin:g}"
        page.write(axes, middle, bottom + 51, words, role="muted", size=10.5, anchor="center")


def _section(page: Canvas, axes: Axes, name: str, top: float, layout: Layout) -> None:
    axes.plot([0, layout.width], [top + 8, top + 8], color=INK["rule"], linewidth=0.8)
    page.write(axes, 0 if layout.wide else 16, top + 19, name, role="muted", size=11)


def _row(
    page: Canvas,
    axes: Axes,
    item: Any,
    scale: Scale,
    top: float,
    decimals: int,
    site: str,
    layout: Layout,
) -> None:
    written = _written(item, decimals)
    verdict = MARKS.get(item.verdict)
    word = f"{verdict.symbol} {verdict.word}" if verdict else "no verdict"
    tip = f"{item.variant}\n{written}\n{word}, {item.n} paired seeds"
    hit = Rectangle((0, top), layout.width, layout.row, facecolor="none", linewidth=0)
    hit.set_gid(page.tip(tip))
    axes.add_patch(hit)
    if is_number(item.effect):
        _interval(page, axes, item, scale, top + layout.middle)
    label = shorten(item.variant, layout.label)
    role = item.verdict if verdict else "muted"
    if layout.wide:
        shown = site and site != item.variant
        page.write(axes, 0, top + (13 if shown else 20), label, size=13, weight="bold")
        if shown:
            page.write(axes, 0, top + 29, shorten(site, 36), role="muted", size=10.5)
        page.write(axes, 566, top + 13, written, size=12)
        page.write(axes, 566, top + 29, f"{word} · {plural(item.n, 'seed')}", role=role, size=11)
    else:
        page.write(axes, 16, top + 18, label, size=13, weight="bold")
        page.write(axes, 354, top + 18, word, role=role, size=11, anchor="right")
        page.write(
            axes, 16, top + 57, f"{written} · {plural(item.n, 'seed')}", role="muted", size=11
        )


def _interval(page: Canvas, axes: Axes, item: Any, scale: Scale, y: float) -> None:
    """The line of an interval with its mark; an arrow head where it runs off the axis."""
    mark = MARKS.get(item.verdict, MARKS["undecided"])
    colour = INK[item.verdict if item.verdict in MARKS else "undecided"]
    if is_number(item.low) and is_number(item.high):
        low, high = scale.inside(item.low), scale.inside(item.high)
        axes.plot(scale([low, high]), [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
        for off, end, arrow in (
            (item.low < scale.low, scale.low, "<"),
            (item.high > scale.high, scale.high, ">"),
        ):
            if off:
                tip = float(scale(end))
                tail = tip + (16 if arrow == "<" else -16)
                axes.plot([tail, tip], [y, y], color=colour, linewidth=2.2)
                axes.plot(tip, y, arrow, color=colour, markersize=7, markeredgewidth=0)
    if scale.low <= item.effect <= scale.high:
        axes.plot(
            scale(item.effect),
            y,
            mark.marker,
            markersize=9.5,
            markeredgewidth=2,
            markeredgecolor=colour,
            markerfacecolor=colour if mark.filled else INK["paper"],
        )


def _written(item: Any, decimals: int) -> str:
    if not is_number(item.effect):
        return NONE
    effect = number(item.effect, decimals, signed=True)
    if not (is_number(item.low) and is_number(item.high)):
        return f"{effect}  (no interval)"
    low, high = (number(end, decimals, signed=True) for end in (item.low, item.high))
    return f"{effect}  [{low}, {high}]"


def _describe(comparisons: list[Any], unit: str, decimals: int) -> str:
    rows = "; ".join(
        f"{item.variant}: {_written(item, decimals)} {item.verdict}" for item in comparisons
    )
    return f"Difference from the baseline in {unit or 'units of the metric'}. {rows}."
