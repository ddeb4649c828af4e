"""How a report writes strings and numbers: cleaned of control characters, typeset like a paper."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

NONE = "–"  # what a table shows where there is no number

# Characters that HTML or XML cannot hold, or that reorder their neighbours on the screen.
_BREAKS = re.compile("\r\n|[\r\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_HIDDEN = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def clean(value: Any) -> Any:
    """The value with every string in it (keys too) made safe to show; escaping comes later.

    Control characters become their pictures (␀), line separators become line breaks, and
    characters that are no text or that turn the direction of their neighbours become U+FFFD.

    Args:
        value: JSON-like data: strings, numbers, lists, tuples, dicts with string keys.
    """
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return value
        value = _BREAKS.sub("\n", value)
        value = _CONTROLS.sub(lambda match: chr(0x2400 + ord(match.group())), value)
        return _HIDDEN.sub("\ufffd", value)
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def shorten(text: str, limit: int) -> str:
    """The text on one line, cut to `limit` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def is_number(value: Any) -> bool:
    """Whether the value is a finite number (NaN, infinities, None and text are not)."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def number(value: Any, decimals: int = 3, signed: bool = False) -> str:
    """A number with a fixed count of decimals and a true minus sign; a dash when there is none."""
    if not is_number(value):
        return NONE
    if abs(value) >= 1e12:
        return general(value)
    text = f"{value:+,.{decimals}f}" if signed else f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0.0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def general(value: Any, digits: int = 3) -> str:
    """A number of any size in `digits` significant digits: 0.003, 1e−05, 300."""
    return f"{value:.{digits}g}".replace("-", "−") if is_number(value) else NONE


def decimals_for(widths: Iterable[float], floor: int = 2, ceiling: int = 6) -> int:
    """Decimals that show two digits of the narrowest of some intervals."""
    found = [width for width in widths if is_number(width) and width > 0]
    if not found:
        return 3
    return min(ceiling, max(floor, 1 - math.floor(math.log10(min(found)))))


def listed(names: list[str], limit: int = 4) -> str:
    """Names as prose: a; a and b; a, b and 3 more."""
    if len(names) > limit:
        names = [*names[: limit - 1], f"{len(names) - limit + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plural(count: int, noun: str) -> str:
    """A count and its noun: 1 seed, 2 seeds."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
