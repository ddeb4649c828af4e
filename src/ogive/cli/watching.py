"""While trials run: the table of verdicts above one bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ogive.cli.paper import console, duration, interactive

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ogive.lab import Progress

EVERY = 20.0  # seconds between plain lines
LAST_LINES = 6  # what stands below the table: the bar, its lines, and room to breathe
TUNING = "First every variant tunes its learning rate; verdicts follow, seed by seed."


@contextmanager
def watching() -> Iterator[Callable[[Progress], None]]:
    """Something to call with each `Progress`; shows it as the output allows."""
    if not interactive():
        yield _Lines()
        return
    from rich.live import Live

    paper = console()
    with Live(console=paper, auto_refresh=False, vertical_overflow="ellipsis") as live:
        last: list[Progress] = []

        def show(progress: Progress) -> None:
            last[:] = [progress]
            live.update(picture(progress, paper), refresh=True)

        try:
            yield show
        finally:
            # The bar has served; the table stays for those who scroll back.
            live.update(picture(last[0], paper, bar=False) if last else "", refresh=True)


def picture(progress: Progress, paper: Console, *, bar: bool = True) -> RenderableType:
    """The table, and below it how far the study is, in the room that the terminal has."""
    from rich.console import Group

    from ogive.cli.verdicts import table

    columns, rows = paper.size
    parts: list[RenderableType] = []
    if progress.comparisons:
        parts.append(table(progress.comparisons, columns, rows - LAST_LINES))
    return Group(*parts, "", _bar(progress, columns)) if bar else Group(*parts)


def _bar(progress: Progress, columns: int) -> RenderableType:
    from rich.text import Text

    if progress.phase == "planning":
        return Text(f"planning: data, sizes of the models … {duration(progress.elapsed)}", "dim")
    width = min(columns - 1, 100)
    over = progress.done + progress.failed
    filled = round(width * over / max(1, progress.total))
    bar = Text("━" * filled, "green").append("─" * (width - filled), "dim")
    words = Text(_words(progress))
    if progress.failed:
        words.highlight_words([f"{progress.failed} failed"], "red")
    lines = [bar, words] + ([Text(TUNING, "dim")] if _tuning(progress) else [])
    return Text("\n").join(lines)


def _tuning(progress: Progress) -> bool:
    """Whether there are rungs to try and no comparison has begun."""
    begun = {row.role for row in progress.rows if row.state != "pending"}
    return "compare" not in begun and any(row.role == "tune" for row in progress.rows)


def _words(progress: Progress) -> str:
    """`41 of 99 done · 2 running · 0 failed · about 4 min left`."""
    parts = [
        f"{progress.done} of {progress.total} done",
        f"{progress.running} running",
        f"{progress.failed} failed",
    ]
    if progress.eta is not None and progress.phase == "running":
        parts.append(f"about {duration(progress.eta)} left")
    return " · ".join(parts)


class _Lines:
    """A line when something begins, then one every so often: what a log can use."""

    def __init__(self) -> None:
        self.phase, self.said, self.words = "", float("-inf"), ""

    def __call__(self, progress: Progress) -> None:
        now, words = time.monotonic(), _words(progress)
        if progress.phase == "planning":
            words = "planning: data, sizes of the models"
        turned = progress.phase != self.phase
        if words != self.words and (turned or now - self.said >= EVERY):
            print(words, flush=True)
            self.phase, self.said, self.words = progress.phase, now, words
