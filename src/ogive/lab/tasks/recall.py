"""The recall task: multi-query associative recall (MQAR), small enough for one core.

A causal model reads pairs of key and value, then keys it has seen, and must answer each with
its value. It needs two layers that work together: one to tie a value to the key before it, one
to find the key again. Linear attention and recurrent models differ most from softmax here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from ogive.errors import ArgumentError
from ogive.lab.keys import stream
from ogive.lab.tasks.lookup import is_held_out
from ogive.lab.tasks.task import IGNORE, Accuracy, Batch, Oracle, Task, whole

_AT_ONCE = 256


class Recall(Accuracy, Task):
    """`pairs` distinct keys with values (k₁ v₁ k₂ v₂ …), then every key once, shuffled.

    Every question can be answered from what stands before it, and nothing overwrites a pair
    (in one public generator random fillers do, which makes a part unsolvable). Keys are the
    tokens 0 … keys − 1, values the next `values` tokens, drawn with repetition. Held out are
    the sequences whose Σ i·value(i) is divisible by 11. Guessing scores 1/values.
    """

    name = "recall"
    summary = "answer each key with the value that followed it earlier in the sequence"
    source = "multi-query associative recall, Arora 2024 (2312.04927)"
    default_model: ClassVar = {"width": 64, "depth": 2, "heads": 4, "hidden": 128}
    default_train: ClassVar = {
        "steps": 500,
        "batch": 32,
        "lr": 3e-3,
        "warmup": 40,
        "evaluations": 3,
    }
    quick_train: ClassVar = {"steps": 400, "evaluations": 1}
    learning_rates = (1.5e-3, 3e-3, 6e-3)

    def __init__(
        self, *, pairs: int = 4, keys: int = 16, values: int = 16, sequences: int = 512
    ) -> None:
        self.pairs = whole("recall option pairs", pairs, 2, 256)
        self.keys = whole("recall option keys", keys, 2, 4096)
        self.values = whole("recall option values", values, 2, 4096)
        self.sequences = whole("recall option sequences", sequences, 1, 10**6)
        if pairs > keys:
            raise ArgumentError(f"recall option pairs is at most the keys, {keys}, not {pairs}")
        self.vocabulary = keys + values
        self.length = 3 * pairs

    def batch(self, seed: int, step: int, size: int) -> Batch:
        return self._sequences(stream("recall", seed, step), size, held=False)

    def held_out(self) -> Iterator[Batch]:
        random = stream("recall", "held out")
        for start in range(0, self.sequences, _AT_ONCE):
            yield self._sequences(random, min(_AT_ONCE, self.sequences - start), held=True)

    def oracle(self) -> Oracle:
        """Remembers every pair it reads and answers keys from memory."""
        return _MemoryOracle(self.vocabulary, self.keys, self.pairs)

    def _sequences(self, random: torch.Generator, size: int, *, held: bool) -> Batch:
        keys = torch.rand(size, self.keys, generator=random).argsort(1)[:, : self.pairs]
        values = self._assignments(random, size, held=held) + self.keys
        order = torch.rand(size, self.pairs, generator=random).argsort(1)
        shown = torch.stack([keys, values], 2).flatten(1)
        tokens = torch.cat([shown, keys.gather(1, order)], 1)
        targets = torch.cat([torch.full_like(shown, IGNORE), values.gather(1, order)], 1)
        return Batch(tokens, targets)

    def _assignments(self, random: torch.Generator, size: int, *, held: bool) -> Tensor:
        """(size, pairs) values from one side of the split, by drawing until there are enough."""
        found = torch.empty(0, self.pairs, dtype=torch.int64)
        while len(found) < size:
            many = 16 * size if held else 2 * size
            drawn = torch.randint(self.values, (many, self.pairs), generator=random)
            found = torch.cat([found, drawn[is_held_out(drawn) == held]])
        return found[:size]


class _MemoryOracle(Oracle):
    def __init__(self, vocabulary: int, keys: int, pairs: int) -> None:
        super().__init__(vocabulary)
        self.keys, self.pairs = keys, pairs

    def answer(self, tokens: list[int]) -> list[int]:
        shown, asked = tokens[: 2 * self.pairs], tokens[2 * self.pairs :]
        memory = dict(zip(shown[::2], shown[1::2], strict=True))
        return [0] * len(shown) + [memory[key] for key in asked]
