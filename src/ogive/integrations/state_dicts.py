"""State-dict bridges: tables that say which tensors of another library are which of Ogive's.

A `Bridge` is a list of rows, each with names there, names here, and how to turn the ones into the
others and back. Nothing is dropped: a tensor that no row knows, or half of a row, is an error that
names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError

Layer = TypeVar("Layer", bound=nn.Module)
Tensors = Mapping[str, Tensor]


class Heads(NamedTuple):
    """What a row may need to know of the layer: its query heads and key/value heads."""

    query: int
    key: int


Turn = Callable[..., "Tensor | tuple[Tensor, ...]"]


def same(heads: Heads, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as they are."""
    return tensors


@dataclass(frozen=True)
class Row:
    """Some tensors there and the same numbers here.

    Attributes:
        theirs, ours: names, in the order in which `read` and `write` take and give tensors.
        read: (heads, *their tensors) → ours.
        write: (heads, *our tensors) → theirs.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Turn = same
    write: Turn = same


@dataclass(frozen=True)
class Bridge:
    """A table between the state dict of a foreign layer and that of `ogive.Attention`.

    Attributes:
        name: of the foreign layer, for messages.
        rows: the table.
    """

    name: str
    rows: tuple[Row, ...]

    def read(self, state: Tensors, heads: Heads) -> dict[str, Tensor]:
        """Ogive's tensors from the foreign layer's.

        Raises:
            ArgumentError: a tensor that no row knows, or one that a row misses.
        """
        table = [(row.theirs, row.ours, row.read) for row in self.rows]
        return self._turned(state, heads, table, f"the state of {self.name}")

    def write(self, state: Tensors, heads: Heads) -> dict[str, Tensor]:
        """The foreign layer's tensors from Ogive's.

        Raises:
            ArgumentError: a tensor that no row knows (the foreign layer has no place for it), or
                one that a row misses.
        """
        table = [(row.ours, row.theirs, row.write) for row in self.rows]
        return self._turned(state, heads, table, f"the state for {self.name}")

    def _turned(
        self,
        state: Tensors,
        heads: Heads,
        table: list[tuple[tuple[str, ...], tuple[str, ...], Turn]],
        what: str,
    ) -> dict[str, Tensor]:
        left = dict(state)
        turned: dict[str, Tensor] = {}
        for names, gives, turn in table:
            present = [name for name in names if name in left]
            if not present:
                continue
            missing = [name for name in names if name not in left]
            if missing:
                raise ArgumentError(f"{what} has {present} but lacks {missing}: they go together")
            made = turn(heads, *[left.pop(name) for name in names])
            made = made if isinstance(made, tuple) else (made,)
            turned |= dict(zip(gives, made, strict=True))
        if left:
            known = sorted({name for names, _, _ in table for name in names})
            raise ArgumentError(f"{what} has {sorted(left)}, which no row knows (known: {known})")
        return turned


def loaded(layer: Layer, state: Tensors, source: str) -> Layer:
    """The layer with the state loaded, in its dtype and on its device; strict, by name and shape.

    Raises:
        ArgumentError: names or shapes that do not match; the message lists them.
    """
    own = layer.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        raise ArgumentError(
            f"{source} does not fill {type(layer).__name__}: missing {missing}, left over {extra}"
        )
    wrong = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if state[name].shape != tensor.shape
    ]
    if wrong:
        raise ArgumentError(f"{source} has tensors of other shapes: {'; '.join(wrong)}")
    like = next(iter(state.values()), None)
    layer = layer if like is None else layer.to(like)
    layer.load_state_dict({name: tensor.detach() for name, tensor in state.items()})
    return layer


def chunked(parts: int) -> Turn:
    """One tensor to so many, along the first axis."""
    return lambda heads, tensor: tensor.chunk(parts)


def joined(heads: Heads, *tensors: Tensor) -> Tensor:
    """Several tensors as one, along the first axis."""
    return torch.cat(tensors)
