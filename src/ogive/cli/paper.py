"""What the verbs print on: a terminal, or a pipe that gets plain lines only."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200  # columns of a table that no terminal limits


def interactive() -> bool:
    """Whether somebody watches: a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def console() -> Console:
    """Where tables go. Colours are left out where NO_COLOR says so, and everywhere in a pipe."""
    from rich.console import Console

    if interactive():
        return Console(highlight=False, markup=False, emoji=False)
    return Console(
        force_terminal=False,
        color_system=None,
        width=WIDE,
        highlight=False,
        markup=False,
        emoji=False,
    )


def width() -> int:
    """Columns for text: the terminal's, up to what reads well."""
    return min(100, max(30, shutil.get_terminal_size().columns))


def say(text: str = "", mark: str = "") -> None:
    """Print a paragraph: wrapped for a terminal, one line for a pipe.

    Args:
        text: the paragraph; control characters in it are replaced.
        mark: what stands before it; lines after the first are indented as far.
    """
    from ogive.report.text import clean

    line = " ".join(clean(text).split())
    if interactive():
        line = textwrap.fill(
            line,
            width(),
            initial_indent=mark,
            subsequent_indent=" " * len(mark),
            break_on_hyphens=False,
            break_long_words=False,
        )
    else:
        line = mark + line
    print(line, flush=True)


def duration(seconds: float) -> str:
    """A length of time as one says it: 40 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def count(number: int, noun: str) -> str:
    """A number and its noun: 1 trial, 2 trials."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
