"""The lookup task: GATv2's dictionary lookup, which separates static from dynamic attention.

A dictionary gives every key a value, and every key is asked for once. One layer with few heads
and no feed-forward network must point each question at its own key. A static score (GAT) ranks
the keys the same for every question (theorem 1 of the paper), so a head can serve one question
and no other; a score that mixes query and key before its nonlinearity (GATv2, additive) or
multiplies them (dot) can serve all. A feed-forward network would find the answer in an average
over the whole dictionary, and hide the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ogive.lab.keys import stream
from ogive.lab.tasks.task import IGNORE, Accuracy, Batch, Oracle, Task, whole

_AT_ONCE = 256


class Lookup(Accuracy, Task):
    """k entries (key i, value p(i)), p a permutation, then k questions; answer p(i) for key i.

    The paper's complete bipartite graph, read by an encoder without positions: questions attend
    to the entries only (key mask), entries and questions are each shuffled. Tokens: i·k + p(i)
    is the entry (i, p(i)), k² + i asks for key i, and k² + k + p(i) answers.

    Held out are the permutations with Σ i·p(i) divisible by 11, about one in eleven; training
    draws from the others. Guessing scores 1/k.
    """

    name = "lookup"
    summary = "look every key up in a dictionary (static against dynamic attention)"
    source = "DictionaryLookup, Brody, Alon and Yahav 2022 (2105.14491), section 4.1"
    family = "encoder"
    default_model: ClassVar = {"width": 64, "depth": 1, "heads": 4, "hidden": 0, "positions": None}
    default_train: ClassVar = {
        "steps": 600,
        "batch": 16,
        "lr": 4e-3,
        "warmup": 20,
        "evaluations": 3,
    }
    quick_train: ClassVar = {"steps": 300, "evaluations": 1}
    learning_rates = (2e-3, 4e-3, 8e-3)

    def __init__(self, *, keys: int = 10, sequences: int = 512) -> None:
        self.keys = whole("lookup option keys", keys, 5, 64)
        self.sequences = whole("lookup option sequences", sequences, 1, 10**6)
        self.vocabulary = keys * keys + 2 * keys
        self.length = 2 * keys

    def batch(self, seed: int, step: int, size: int) -> Batch:
        return self._sequences(stream("lookup", seed, step), size, held=False)

    def held_out(self) -> Iterator[Batch]:
        random = stream("lookup", "held out")
        for start in range(0, self.sequences, _AT_ONCE):
            size = min(_AT_ONCE, self.sequences - start)
            yield self._sequences(random, size, held=True)

    def oracle(self) -> Oracle:
        """Reads the entries into a dict and answers from it."""
        return _DictionaryOracle(self.vocabulary, self.keys)

    def _sequences(self, random: torch.Generator, size: int, *, held: bool) -> Batch:
        values = self._permutations(random, size, held=held)
        entry_order, question_order = (_shuffles(random, size, self.keys) for _ in range(2))
        entries = entry_order * self.keys + values.gather(1, entry_order)
        questions = self.keys**2 + question_order
        answers = self.keys**2 + self.keys + values.gather(1, question_order)
        mask = torch.arange(self.length).lt(self.keys).expand(size, -1)
        return Batch(
            torch.cat([entries, questions], 1),
            torch.cat([torch.full_like(entries, IGNORE), answers], 1),
            mask,
        )

    def _permutations(self, random: torch.Generator, size: int, *, held: bool) -> Tensor:
        """(size, keys) permutations from one side of the split: draws until there are enough."""
        found = torch.empty(0, self.keys, dtype=torch.int64)
        while len(found) < size:
            drawn = _shuffles(random, 16 * size if held else 2 * size, self.keys)
            found = torch.cat([found, drawn[is_held_out(drawn) == held]])
        return found[:size]


class _DictionaryOracle(Oracle):
    def __init__(self, vocabulary: int, keys: int) -> None:
        super().__init__(vocabulary)
        self.keys = keys

    def answer(self, tokens: list[int]) -> list[int]:
        entries = dict(divmod(token, self.keys) for token in tokens if token < self.keys**2)
        first = self.keys**2 + self.keys
        return [first + entries.get(token - self.keys**2, 0) for token in tokens]


def is_held_out(values: Tensor) -> Tensor:
    """(sequences, keys) → (sequences,) bool: Σ i·value(i) divisible by 11."""
    return (values * torch.arange(values.shape[1])).sum(1) % 11 == 0


def _shuffles(random: torch.Generator, size: int, keys: int) -> Tensor:
    return torch.rand(size, keys, generator=random).argsort(1)
