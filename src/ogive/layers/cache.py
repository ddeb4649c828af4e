"""Cache: what one attention layer keeps between calls, so that decoding reads each token once."""

from __future__ import annotations

import torch
from torch import Tensor

from ogive.errors import ArgumentError


class Cache:
    """The past of one attention layer; start a new one for each sequence and each layer.

    In self-attention it holds the keys and values of the positions so far, as they stand after
    their chains and positions, and in cross-attention those of the memory, computed once. Maps
    that look at earlier positions (`conv(3)`) keep the few that they need.

    Attributes:
        length: how many positions the layer has read.
        keys, values: (batch, key/value heads, kept, width), or None before the first call. A
            layer with a sliding window keeps only what later queries can still see.
        memory: the memory of cross-attention that keys and values belong to, or None.
    """

    def __init__(self) -> None:
        self.length = 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.memory: Tensor | None = None
        self._tails: dict[str, Tensor] = {}
        self._new_tails: dict[str, Tensor] = {}

    @property
    def kept(self) -> int:
        """How many keys are held."""
        return 0 if self.keys is None else self.keys.shape[2]

    @property
    def dropped(self) -> int:
        """How many keys of x a sliding window has let go."""
        return 0 if self.keys is None or self.memory is not None else self.length - self.kept

    def joined(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The kept keys and values followed by new ones (batch, key/value heads, new, width)."""
        if self.keys is None or self.values is None:
            return keys, values
        for held, new in ((self.keys, keys), (self.values, values)):
            if (held.shape[1], held.shape[3]) != (new.shape[1], new.shape[3]):
                raise ArgumentError(
                    f"cache holds keys of {held.shape[1]} heads, {held.shape[3]} wide, and this "
                    f"layer makes {new.shape[1]} heads, {new.shape[3]} wide: each attention layer "
                    "needs a Cache of its own"
                )
        return torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)

    def look_back(self, name: str, h: Tensor, history: int) -> Tensor:
        """The last positions of h before this call, zeros before the first.

        Args:
            name: of the map that looks back.
            h: (batch, length, heads, width), of which `advance` will keep the last positions.
            history: how many earlier positions the map looks at.
        """
        past = self._tails.get(name)
        if past is None:
            past = h.new_zeros(h.shape[0], history, *h.shape[2:])
        self._new_tails[name] = torch.cat([past, h], 1)[:, -history:]
        return past

    def advance(
        self,
        length: int,
        keys: Tensor,
        values: Tensor,
        reach: int | None = None,
        memory: Tensor | None = None,
    ) -> None:
        """Close a call that succeeded: it read `length` positions and ended with these keys.

        Args:
            length: new positions.
            keys, values: all of them, past and new.
            reach: how many earlier positions a query can see; None for all.
            memory: what keys and values belong to in cross-attention.
        """
        start = 0 if reach is None else max(0, keys.shape[2] - reach)
        self.keys, self.values = keys[:, :, start:], values[:, :, start:]
        self._tails.update(self._new_tails)
        self._new_tails = {}
        self.memory = self.memory if memory is None else memory
        self.length += length

    def select(self, index: Tensor) -> None:
        """Keep the sequences at `index` (int64) of the batch, in that order, as a beam does."""
        for name in ("keys", "values", "memory"):
            tensor = getattr(self, name)
            setattr(self, name, None if tensor is None else tensor[index])
        self._tails = {name: tail[index] for name, tail in self._tails.items()}

    def check(self, x: Tensor, memory: bool) -> None:
        """Raise `ArgumentError` where the cache cannot continue with x (batch, length, width)."""
        if self.keys is None:
            return
        if memory != (self.memory is not None):
            held, asked = ("a memory", "x") if self.memory is not None else ("x", "a memory")
            raise ArgumentError(
                f"cache holds keys of {held}, but this call attends to {asked}: "
                "each attention layer needs a Cache of its own"
            )
        if self.keys.shape[0] != x.shape[0]:
            raise ArgumentError(
                f"cache holds a batch of {self.keys.shape[0]}, but x has a batch of {x.shape[0]}: "
                "start a new Cache() for new sequences"
            )
