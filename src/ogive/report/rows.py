"""Rows of attention: for each token of an answer, what it took from each of the question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ogive.report.evidence import Evidence, Trial
from ogive.report.svg import INK, Canvas, Drawing, canvas
from ogive.report.text import is_number, number, shorten

CELL = 15
_LEFT, _TOP = 70, 62
_FAINTEST = 0.02  # of the strongest weight: fainter cells are left blank
_MOST = (24, 64)  # rows and columns drawn


def pictured(evidence: Evidence, variant: str) -> Trial | None:
    """The variant's first trial of the comparison that holds a picture which can be drawn."""
    trials = evidence.compared(variant)
    for seed in sorted(trials, key=str):
        if _fits(trials[seed].result.get("picture")):
            return trials[seed]
    return None


def draw_rows(trial: Trial, *, key: str, standalone: bool = False) -> Drawing:
    """One answer's rows of weights as squares, the darker the heavier; a negative one in rust.

    Args:
        trial: a finished trial with `picture` in its result: {"columns": tokens of the question,
            "rows": tokens of the answer, "weights": a number for each pair}; see `pictured`.
        key: prefix of the figure's ids.
        standalone: a file of its own rather than part of a page.
    """
    picture = trial.result["picture"]
    rows, columns = picture["rows"][: _MOST[0]], picture["columns"][: _MOST[1]]
    weights = [row[: len(columns)] for row in picture["weights"][: len(rows)]]
    most = max((abs(weight) for row in weights for weight in row), default=0.0) or 1.0
    width = max(_LEFT + CELL * len(columns) + 10, 260)
    with canvas(key, width, _TOP + CELL * len(rows) + 8) as page:
        axes = page.whole()
        page.write(axes, 10, 13, shorten(trial.variant, 60), size=12.5, weight="bold")
        page.write(axes, _LEFT, 32, "read", role="muted", size=10.5)
        page.write(axes, 10, _TOP + CELL / 2, "written", role="muted", size=10.5)
        for at, token in enumerate(columns):
            _token(page, axes, _LEFT + CELL * (at + 0.5), _TOP - 11, token)
        for at, (token, row) in enumerate(zip(rows, weights, strict=True)):
            top = _TOP + CELL * at
            _token(page, axes, _LEFT - 11, top + CELL / 2, token)
            _row(page, axes, columns, token, row, most, top)
        words = "; ".join(_strongest(*pair, columns) for pair in zip(rows, weights, strict=True))
        return page.svg(f"{trial.variant}: rows of attention", f"{words}.", standalone=standalone)


def _row(
    page: Canvas,
    axes: Axes,
    columns: list[str],
    token: str,
    row: list[float],
    most: float,
    top: float,
) -> None:
    for at, weight in enumerate(row):
        share = abs(weight) / most
        if share >= _FAINTEST:
            axes.add_patch(
                Rectangle(
                    (_LEFT + CELL * at + 0.5, top + 0.5),
                    CELL - 1,
                    CELL - 1,
                    facecolor=INK["better" if weight > 0 else "worse"],
                    alpha=round(share, 3),
                    linewidth=0,
                )
            )
    base = top + CELL
    right = _LEFT + CELL * len(row)
    axes.plot([_LEFT, right], [base, base], color=INK["grid"], linewidth=1)
    hit = Rectangle((_LEFT - 20, top), right - _LEFT + 20, CELL, facecolor="none", linewidth=0)
    hit.set_gid(page.tip(_strongest(token, row, columns)))
    axes.add_patch(hit)


def _token(page: Canvas, axes: Axes, x: float, y: float, token: str) -> None:
    blank = not token.strip()
    shown = "␣" if blank else shorten(token, 3)
    size = 12 if len(shown) == 1 else 9
    page.write(axes, x, y, shown, role="muted" if blank else "ink", size=size, anchor="center")


def _strongest(token: str, row: list[float], columns: list[str]) -> str:
    """`0 from 0 0.83, 9 0.11`: the three tokens that weigh most in a row."""
    order = sorted(range(len(row)), key=lambda at: -abs(row[at]))[:3]
    found = [f"{columns[at]} {number(row[at], 2)}" for at in order if row[at]]
    return f"{token} from {', '.join(found) or 'nothing'}"


def _fits(picture: Any) -> bool:
    """Whether a picture, which a store hands over, has the form that it should have."""
    if not isinstance(picture, Mapping):
        return False
    rows, columns, weights = (picture.get(name) or [] for name in ("rows", "columns", "weights"))
    texts = all(
        isinstance(tokens, list) and tokens and all(isinstance(one, str) for one in tokens)
        for tokens in (rows, columns)
    )
    return (
        texts
        and isinstance(weights, list)
        and len(weights) == len(rows)
        and all(
            isinstance(row, list) and len(row) == len(columns) and all(map(is_number, row))
            for row in weights
        )
    )
