"""The table of verdicts, for terminals from sixty columns to wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from ogive.report.palette import MARKS
from ogive.report.text import NONE, clean, decimals_for, is_number, number

if TYPE_CHECKING:
    from ogive.lab import Comparison

COLOURS = {"better": "green", "worse": "red", "equivalent": "blue", "undecided": ""}
STRIP = 23  # columns of the forest plot, odd so that zero has one of its own
SHORTEST = 12  # columns that a variant's name gets at least
GAP = 2


class _Scale:
    """What the numbers of one task share: decimals, and how far the forest plot reaches."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.decimals = decimals_for(one.high - one.low for one in comparisons)
        # An interval from two seeds may be huge: it is cut rather than flatten the others.
        ends = [abs(end) for one in comparisons if one.n >= 3 for end in (one.low, one.high)]
        self.limit = max([one.margin for one in comparisons] + [end for end in ends if end == end])

    def place(self, value: float) -> int:
        """The column of the forest plot in which a number stands."""
        reach = STRIP // 2
        return reach + round(max(-1.0, min(1.0, value / self.limit)) * reach)


def table(comparisons: Sequence[Comparison], columns: int, rows: int | None = None) -> Table:
    """All comparisons, in the richest layout for which there is room.

    Args:
        comparisons: as `ogive.lab.compare` gives them, finished or not.
        columns: of the terminal.
        rows: lines to fill at most; what is left out is counted in the last one.
    """
    scales = {
        task: _Scale([one for one in comparisons if one.task == task])
        for task in dict.fromkeys(one.task for one in comparisons)
    }
    many = len(comparisons)
    shown = comparisons[: many if rows is None else _fitting(many, len(scales), rows)]
    longest = max(text.cell_len for one in shown for text in (_name(one), _title(one)))
    for layout in LAYOUTS:
        cells = [[CELLS[name](one, scales[one.task]) for name in layout] for one in shown]
        headings = [_heading(name, comparisons) for name in layout]
        room = columns - sum(_widths(headings, cells)) - GAP * len(layout)
        if room >= longest:
            break
    found = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),  # the box puts one more between columns
        header_style="dim",
    )
    found.add_column("variant", no_wrap=True, width=max(SHORTEST, min(room, longest)))
    for name, heading in zip(layout, headings, strict=True):
        found.add_column(heading, justify=JUSTIFY.get(name, "left"), no_wrap=True)
    _fill(found, shown, cells)
    if len(shown) < many:
        found.add_row(Text(f"… and {many - len(shown)} more", "dim"))
    return found


def _fill(found: Table, shown: Sequence[Comparison], cells: list[list[Text]]) -> None:
    task = None
    for one, line in zip(shown, cells, strict=True):
        if one.task != task:
            found.add_row(_title(one))
        task = one.task
        found.add_row(_name(one), *line)


def _fitting(comparisons: int, tasks: int, rows: int) -> int:
    """How many comparisons fit with the head, the tasks' lines and, if need be, the last line."""
    room = max(1, rows - 2 - tasks)
    return comparisons if comparisons <= room else max(1, room - 1)


def _widths(headings: list[str], cells: list[list[Text]]) -> list[int]:
    columns = zip(*cells, strict=True)
    return [
        max(len(heading), *(cell.cell_len for cell in column))
        for heading, column in zip(headings, columns, strict=True)
    ]


def _heading(name: str, comparisons: Sequence[Comparison]) -> str:
    if name != "strip":
        return {"interval": "95 % interval", "half": "±"}.get(name, name)
    ways = {one.higher_is_better for one in comparisons if one.n}
    sides = {True: "worse ←  → better", False: "better ←  → worse"}
    said = sides[ways.pop()] if len(ways) == 1 else "lower ←  → higher"
    return said.center(STRIP)


def _title(one: Comparison) -> Text:
    metric = f", {one.metric}" if one.n else ""
    return Text(clean(f"{one.task}{metric}"), "dim", overflow="ellipsis")


def _name(one: Comparison) -> Text:
    name = Text(clean(one.variant), overflow="ellipsis")
    return name.append(" control", "dim") if one.control else name


def _verdict(one: Comparison, scale: _Scale) -> Text:
    if one.n < 2:
        return Text("· waiting", "dim")
    return Text(f"{MARKS[one.verdict].symbol} {one.verdict}", COLOURS[one.verdict])


def _effect(one: Comparison, scale: _Scale) -> Text:
    return Text(number(one.effect, scale.decimals, signed=True))


def _interval(one: Comparison, scale: _Scale) -> Text:
    if not is_number(one.low):
        return Text(NONE, "dim")
    low, high = (number(end, scale.decimals, signed=True) for end in (one.low, one.high))
    return Text(f"{low} to {high}")


def _half(one: Comparison, scale: _Scale) -> Text:
    return Text(number((one.high - one.low) / 2, scale.decimals), "dim")


def _seeds(one: Comparison, scale: _Scale) -> Text:
    seeds = Text(f"{one.n}/{one.planned}")
    return seeds.append(f" {one.failed} lost", "red") if one.failed else seeds


def _time(one: Comparison, scale: _Scale) -> Text:
    return Text(f"×{one.cost:.2f}" if is_number(one.cost) else NONE)


def _strip(one: Comparison, scale: _Scale) -> Text:
    """The interval as a line, and zero: `──●──  ┊`."""
    middle = STRIP // 2
    cells = [" "] * STRIP
    cells[middle] = "┊"
    if is_number(one.low):
        low, at, high = (scale.place(value) for value in (one.low, one.effect, one.high))
        cells[low : high + 1] = "─" * (high - low + 1)
        cells[middle] = "┼" if low <= middle <= high else "┊"
        cells[at] = "●"
    return Text("".join(cells), COLOURS[one.verdict])


CELLS: dict[str, Callable[[Comparison, _Scale], Text]] = {
    "verdict": _verdict,
    "effect": _effect,
    "interval": _interval,
    "half": _half,
    "seeds": _seeds,
    "time": _time,
    "strip": _strip,
}
JUSTIFY: dict[str, Any] = {"effect": "right", "half": "right", "time": "right"}
LAYOUTS = (
    ("verdict", "effect", "interval", "seeds", "time", "strip"),
    ("verdict", "effect", "interval", "seeds", "time"),
    ("verdict", "effect", "interval", "seeds"),
    ("verdict", "effect", "half", "seeds"),
)
