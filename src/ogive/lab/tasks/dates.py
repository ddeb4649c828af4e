"""The dates task: read a date as people write it in many languages, write it as ISO 8601.

The first example that many people meet of attention between two recurrent networks. Months have
names of their own, the parts stand in different orders, and the picture of the weights shows
where each digit comes from.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from ogive.errors import ArgumentError, unknown
from ogive.lab.keys import stream
from ogive.lab.tasks.cldr import FORMATS, Book
from ogive.lab.tasks.task import Batch, whole
from ogive.lab.tasks.translation import END, PairOracle, Translation, padded

LOCALES = ("de", "el", "en", "es", "fi", "fr", "it", "ja", "nl", "pl", "pt", "ru", "sv", "tr", "zh")
YEARS = (1950, 2049)
"""A hundred years, so that two digits of a year mean one of them."""
SPLITS = ("train", "validation", "test")
_SHARES = (0.8, 0.1, 0.1)
_WRITTEN = "0123456789-"  # the tokens of answers after END
_AT_ONCE = 256


class Dates(Translation):
    """`Dienstag, 4. März 2025` → `2025-03-04`, in the ways that CLDR gives for each locale.

    A text is a date, a locale and one of CLDR's formats (short to full), each drawn evenly. Texts
    that mean two dates (3/4/25 is March in one locale and April in another) are drawn again, so
    that every question has one answer. Days are split once, by a fixed shuffle, into those to train
    on (80 %), to validate on and to test on (10 % each): no day, and so no text, is in two of them.

    Args:
        locales: CLDR's names of locales.
        scored: which days score a model, `test` or `validation`.
        sequences: how many texts score a model.
        family: the kind of model, `seq2seq` or `translator`.

    Raises:
        DataError: babel is not installed.
        UnknownName, ArgumentError: an option that does not fit.
    """

    name = "dates"
    summary = "read a date as people write it in many languages, write it as ISO 8601"
    source = "CLDR's locales, through babel (Unicode licence)"
    settings: ClassVar = {
        "seq2seq": {
            "model": {"width": 64, "depth": 1, "heads": 1, "hidden": 64},
            "train": {"steps": 400, "batch": 64, "lr": 4e-3, "warmup": 40, "evaluations": 4},
            "quick": {"steps": 200, "evaluations": 1},
            "rates": (2e-3, 4e-3, 8e-3),
        },
        "translator": {
            "model": {"width": 64, "depth": 2, "heads": 4, "hidden": 128},
            "train": {"steps": 1200, "batch": 64, "lr": 2e-3, "warmup": 100, "evaluations": 4},
            "quick": {"steps": 400, "evaluations": 1},
            "rates": (1e-3, 2e-3, 4e-3),
        },
    }

    def __init__(
        self,
        *,
        locales: Sequence[str] = LOCALES,
        scored: str = "test",
        sequences: int = 1000,
        family: str = "seq2seq",
    ) -> None:
        if isinstance(locales, str) or not isinstance(locales, Sequence) or not locales:
            raise ArgumentError(f"dates option locales takes a list of names, not {locales!r}")
        if len(set(locales)) != len(locales):
            raise ArgumentError(f"dates option locales names one twice: {', '.join(locales)}")
        if scored not in SPLITS[1:]:
            raise unknown("dates option scored", str(scored), SPLITS[1:])
        self.locales, self.scored = list(locales), scored
        self.sequences = whole("dates option sequences", sequences, 1, 10**6)
        self._choose(family)
        self.book = Book(self.locales, YEARS)
        self.vocabulary = 1 + len(self.book.characters)  # 0 is padding
        self.answers = 1 + len(_WRITTEN)
        self.length, self.answer_length = self.book.longest, 11
        self._code = {character: at for at, character in enumerate(self.book.characters, 1)}

    def batch(self, seed: int, step: int, size: int) -> Batch:
        return self._pairs(stream("dates", seed, step), size, "train")

    def held_out(self) -> Iterator[Batch]:
        random = stream("dates", "held out", self.scored)
        for start in range(0, self.sequences, _AT_ONCE):
            yield self._pairs(random, min(_AT_ONCE, self.sequences - start), self.scored)

    def oracle(self) -> PairOracle:
        """Reads the text in every writing it knows, and answers with the one date it can mean."""
        return _Reader(self)

    @cached_property
    def days(self) -> dict[str, Tensor]:
        """The ordinals of the days of each split."""
        first, last = datetime.date(YEARS[0], 1, 1), datetime.date(YEARS[1], 12, 31)
        every = torch.arange(first.toordinal(), last.toordinal() + 1)
        shuffled = every[torch.randperm(len(every), generator=stream("dates", "split"))]
        sizes = [round(share * len(every)) for share in _SHARES[:-1]]
        parts = shuffled.split([*sizes, len(every) - sum(sizes)])
        return dict(zip(SPLITS, parts, strict=True))

    def encode(self, text: str) -> list[int]:
        """A text as tokens; `ArgumentError` for a character that no text of the locales holds."""
        strange = [character for character in text if character not in self._code]
        if strange or not text:
            raise ArgumentError(
                f"{text!r} holds {strange[0]!r}, which no date of these locales does"
                if strange
                else "an empty text is no date"
            )
        return [self._code[character] for character in text]

    def source_tokens(self, tokens: list[int]) -> list[str]:
        return [self.book.characters[token - 1] for token in tokens if token]

    def answer_tokens(self, tokens: list[int]) -> list[str]:
        upto = tokens.index(END) if END in tokens else len(tokens)
        return [_WRITTEN[token - 1] for token in tokens[:upto]]

    def _pairs(self, random: torch.Generator, size: int, split: str) -> Batch:
        drawn: list[tuple[str, datetime.date]] = []
        while len(drawn) < size:
            drawn += self._draw(random, size, split)
        texts = [self.encode(text) for text, _ in drawn[:size]]
        answers = [encode_answer(date) for _, date in drawn[:size]]
        lengths = torch.tensor([len(text) for text in texts])
        return Batch(
            padded(texts, self.length, 0),
            torch.tensor(answers),
            torch.arange(self.length) < lengths[:, None],
        )

    def _draw(
        self, random: torch.Generator, size: int, split: str
    ) -> list[tuple[str, datetime.date]]:
        """Texts with their dates, those left out that mean another date as well."""
        days = self.days[split]
        many = (len(days), len(self.locales), len(FORMATS))
        picks = [torch.randint(end, (size,), generator=random).tolist() for end in many]
        found = []
        for day, locale, kind in zip(*picks, strict=True):
            date = datetime.date.fromordinal(int(days[day]))
            text = self.book.writings[locale][kind].write(date)
            if self.book.readings(text) == {date}:
                found.append((text, date))
        return found


class _Reader(PairOracle):
    def __init__(self, task: Dates) -> None:
        super().__init__(task.answers)
        self.book, self.characters = task.book, task.book.characters

    def answer(self, source: list[int]) -> list[int]:
        (date,) = self.book.readings("".join(self.characters[token - 1] for token in source))
        return encode_answer(date)


def encode_answer(date: datetime.date) -> list[int]:
    """A date's ISO form as tokens, `END` last."""
    return [*(1 + _WRITTEN.index(character) for character in date.isoformat()), END]
