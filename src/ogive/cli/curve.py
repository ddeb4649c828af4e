"""A curve in braille: two by four dots to a character, with its axes and their ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column, from the top
BLANK = 0x2800


def draw(xs: Sequence[float], ys: Sequence[float], columns: int = 40, rows: int = 9) -> list[str]:
    """Lines of text that show y over x; points that are not finite are left out.

    Args:
        xs: ascending.
        ys: one for each x.
        columns, rows: of the drawing in characters, without the numbers beside it.
    """
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    low, high = _range([y for _, y in points])
    grid = [[0] * columns for _ in range(rows)]

    def place(x: float, y: float) -> tuple[int, int]:
        across = (x - xs[0]) / (xs[-1] - xs[0]) * (2 * columns - 1)
        down = (high - y) / (high - low) * (4 * rows - 1)
        return round(across), round(down)

    for across in range(0, 2 * columns, 4):  # the line y = 0, dotted
        _dot(grid, across, place(xs[0], 0.0)[1])
    for down in range(0, 4 * rows, 4):  # the line x = 0, if it is in the picture
        if xs[0] <= 0 <= xs[-1]:
            _dot(grid, place(0.0, low)[0], down)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        _line(grid, place(x0, y0), place(x1, y1))
    return _framed(grid, (low, high), (xs[0], xs[-1]))


def _range(ys: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest, zero included, and never nothing."""
    low, high = min([*ys, 0.0]), max([*ys, 0.0])
    return (low, high) if high > low else (-1.0, 1.0)


def _line(grid: list[list[int]], start: tuple[int, int], end: tuple[int, int]) -> None:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        part = step / steps
        _dot(
            grid,
            round(start[0] + part * (end[0] - start[0])),
            round(start[1] + part * (end[1] - start[1])),
        )


def _dot(grid: list[list[int]], across: int, down: int) -> None:
    if 0 <= down < 4 * len(grid) and 0 <= across < 2 * len(grid[0]):
        grid[down // 4][across // 2] |= DOTS[across % 2][down % 4]


def _framed(
    grid: list[list[int]], ends: tuple[float, float], sides: tuple[float, float]
) -> list[str]:
    low, high = (f"{end:.3g}".replace("-", "−") for end in ends)
    margin = max(len(low), len(high))
    labels = [high, *[""] * (len(grid) - 2), low]
    lines = [
        f"{label:>{margin}} {''.join(chr(BLANK + cell) for cell in row)}"
        for label, row in zip(labels, grid, strict=True)
    ]
    left, right = (f"{side:g}".replace("-", "−") for side in sides)
    return [*lines, " " * (margin + 1) + left + right.rjust(len(grid[0]) - len(left))]
