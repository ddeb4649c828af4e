"""Dates as people write them, in the locales of CLDR, which babel brings along; and read back.

A `Writing` is one locale's way to write a date ("EEEE, d. MMMM y"). A `Book` holds several, and
knows for any text which dates it can mean: 3/4/25 is a day in March in one locale and in April in
another.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Any

from ogive.errors import ArgumentTypeError, DataError, UnknownName

FORMATS = ("short", "medium", "long", "full")
_FIELD = re.compile(r"%\((\w+)\)s")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Writing:
    """One way to write a date.

    Attributes:
        locale, format: in CLDR's words ("de", "long").
        template: text with fields such as `%(MMMM)s`.
        years: the first and the last year; two digits of a year mean the one between them.
        names: for each field that is a word, its words by month − 1 or by weekday.
    """

    locale: str
    format: str
    template: str
    years: tuple[int, int]
    names: dict[str, tuple[str, ...]]

    def write(self, date: datetime.date) -> str:
        """The date in this writing."""
        return _FIELD.sub(lambda field: self._field(field[1], date), self.template)

    def _field(self, name: str, date: datetime.date) -> str:
        if name in self.names:
            words = self.names[name]
            return words[date.weekday() if _is_weekday(name) else (date.month - 1) % len(words)]
        if name == "yy":
            return f"{date.year % 100:02}"
        amount = {"y": date.year, "M": date.month, "L": date.month, "d": date.day}[name[0]]
        return str(amount).zfill(len(name))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of its fields, in order."""
        return tuple(_FIELD.findall(self.template))

    def skeletons(self) -> Iterator[tuple[str, Skeleton]]:
        """What its texts look like with every number as one 0, for each choice of words."""
        words = [name for name in self.fields if name in self.names]
        for chosen in product(*(enumerate(self.names[name]) for name in words)):
            said = dict(zip(words, chosen, strict=True))
            month = [place for name, (place, _) in said.items() if name[0] in "ML"]
            pieces, numbers = [], []
            for at, piece in enumerate(_FIELD.split(self.template)):
                counts = at % 2 and piece not in said  # odd pieces are names of fields
                pieces.append("0" if counts else said[piece][1] if at % 2 else piece)
                numbers += [piece] if counts else [None] * len(_DIGITS.findall(pieces[-1]))
            skeleton = Skeleton(self, tuple(numbers), month[0] + 1 if month else None)
            yield _DIGITS.sub("0", "".join(pieces)), skeleton


@dataclass(frozen=True)
class Skeleton:
    """How to read one kind of text: which number is which field, and which month its word is.

    `numbers` has None where the number belongs to a word ("3월"), which decides nothing more.
    """

    writing: Writing
    numbers: tuple[str | None, ...]
    month: int | None

    def read(self, text: str) -> datetime.date | None:
        """The one date that this writing writes like the text, if there is one."""
        found: dict[str, int] = {} if self.month is None else {"M": self.month}
        for name, number in zip(self.numbers, _DIGITS.findall(text), strict=True):
            if name is not None:
                found["M" if name[0] == "L" else name[0]] = int(number)
        year = found["y"]
        if "yy" in self.numbers:
            first = self.writing.years[0]
            year = first + (year - first) % 100
        try:
            date = datetime.date(year, found["M"], found["d"])
        except ValueError:
            return None
        return date if self.writing.write(date) == text else None


class Book:
    """Ways to write a date, and what a text can mean in them.

    Args:
        locales: CLDR's names ("de", "pt_BR"), each once.
        years: the first and the last year that can be meant; at most 100 years.

    Raises:
        DataError: babel is not installed, or a locale writes a date in a way that is not known.
        UnknownName: no such locale; the message names near ones.
        ArgumentTypeError: a locale that is no text.
    """

    def __init__(self, locales: Sequence[str], years: tuple[int, int]) -> None:
        self.writings = [
            [_writing(locale, each, years) for each in FORMATS] for locale in known_locales(locales)
        ]
        self.years = years
        self._skeletons: dict[str, list[Skeleton]] = {}
        for ways in self.writings:
            for writing in ways:
                for text, skeleton in writing.skeletons():
                    self._skeletons.setdefault(text, []).append(skeleton)

    def readings(self, text: str) -> set[datetime.date]:
        """The dates that the text means, in any of the writings."""
        known = self._skeletons.get(_DIGITS.sub("0", text), ())
        dates = {skeleton.read(text) for skeleton in known}
        low, high = self.years
        return {date for date in dates if date is not None and low <= date.year <= high}

    @cached_property
    def characters(self) -> str:
        """Every character that a text can hold, in order."""
        found = set("0123456789")
        for writing in (each for ways in self.writings for each in ways):
            found.update(_FIELD.sub("", writing.template), *chain(*writing.names.values()))
        return "".join(sorted(found))

    @cached_property
    def longest(self) -> int:
        """An upper bound on the characters of a text."""
        spare = {name: len(name) - 1 for name in ("yy", "dd", "MM")} | {"y": 3, "d": 1, "M": 1}
        return max(
            len(text) + sum(spare.get(name or "", 1) for name in skeleton.numbers)
            for text, skeletons in self._skeletons.items()
            for skeleton in skeletons
        )


def babel() -> Any:
    """babel's module of dates; `DataError` where it is not installed."""
    try:
        import babel.dates
    except ImportError:
        raise DataError(
            "the locales of CLDR come with babel, which is not installed: pip install "
            "'ogive[data]' brings it"
        ) from None
    return babel.dates


def known_locales(locales: Sequence[str]) -> Sequence[str]:
    """The locales, checked to be known to babel."""
    babel()
    from babel.localedata import locale_identifiers

    known = locale_identifiers()
    for name in locales:
        if not isinstance(name, str):
            raise ArgumentTypeError(f"a locale is a name such as 'de' or 'pt_BR', not {name!r}")
        if name not in known:
            near = difflib.get_close_matches(name.replace("-", "_"), known, n=5, cutoff=0.5)
            hint = f"near: {', '.join(near)}" if near else "such as de, en, pt_BR, zh_Hant"
            raise UnknownName(f"unknown locale {name!r} ({hint}; babel knows {len(known):,})")
    return locales


def _writing(locale: str, kind: str, years: tuple[int, int]) -> Writing:
    dates = babel()
    template = dates.get_date_format(kind, locale=locale).format
    names = {}
    for field in set(_FIELD.findall(template)):
        if _is_weekday(field):  # 2024 begins on a Monday
            days = [datetime.date(2024, 1, day) for day in range(1, 8)]
        elif (field[0] in "ML" and len(field) > 2) or field[0] == "G":
            days = [datetime.date(2024, month, 1) for month in range(1, 13)]
        elif field in ("y", "yy", "yyyy", "M", "MM", "L", "LL", "d", "dd"):
            continue
        else:
            raise DataError(f"the locale {locale} writes {kind} dates with {field!r}: not known")
        words = tuple(dates.DateTimeFormat(day, locale)[field] for day in days)
        names[field] = words[:1] if field[0] == "G" else words
    return Writing(locale, kind, template.replace("%%", "%"), years, names)


def _is_weekday(field: str) -> bool:
    return field[0] in "Ec"
