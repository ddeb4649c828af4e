"""A call cut into blocks: some queries of one example, or some whole examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ogive.kernels.call import Call
from ogive.kernels.reference import full_precision, widened
from ogive.kernels.visible import Visibility
from ogive.parts.scores import Additive, GatV2, Score, ScoreChain

BUDGET = 2**20
"""Numbers in the largest tensor of a block."""
UNCUT = 4
"""Budgets that an example may take before it is cut: small calls are faster in one piece.

How an example is cut depends on itself alone, so a slice of a batch has the same bits.
"""

_MOST_SIZES = 256

Block = tuple[slice, slice]
"""Which examples, and which of their queries."""
_sizes: dict[tuple[object, ...], int] = {}
"""`row_size` of a user's own parts, by their classes, heads, width and keys."""


class _Sizes(TorchDispatchMode):
    """Notes how many elements each operation makes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        made = func(*args, **(kwargs or {}))
        self.numbers += [t.numel() for t in tree_leaves(made) if isinstance(t, Tensor)]
        return made


def row_size(call: Call) -> int:
    """Numbers in the largest tensor that the definition makes of one query of one example."""
    pairs = max(1, call.query.shape[1] * call.key.shape[-2])
    modules = (*call.score.modules(), *call.weight.modules())
    if all(type(module).__module__.startswith("ogive.parts") for module in modules):
        return pairs * max(1, call.query.shape[-1]) if _sums_features(call.score) else pairs
    form = (*map(type, modules), *call.query.shape[1::2], *call.key.shape[1:3])
    if form not in _sizes:
        if len(_sizes) >= _MOST_SIZES:
            _sizes.clear()
        _sizes[form] = max(pairs, _tried_size(call))
    return _sizes[form]


def blocks_of(call: Call) -> list[Block]:
    """All blocks, in order."""
    batch, _, queries, _ = call.query.shape
    row = row_size(call)
    if row * queries <= UNCUT * BUDGET:
        some = max(1, BUDGET // (row * max(1, queries)))
        return [(_span(at, some, batch), slice(0, queries)) for at in range(0, batch, some)]
    rows = max(1, BUDGET // row)
    return [
        (slice(at, at + 1), _span(first, rows, queries))
        for at in range(batch)
        for first in range(0, queries, rows)
    ]


def part_of(call: Call, block: Block) -> Call:
    """The call of one block alone."""
    examples, queries = block
    return replace(
        call,
        query=call.query[examples, :, queries],
        key=call.key[examples],
        value=call.value[examples],
        bias=None if call.bias is None else rows_of(call.bias, block),
        visibility=_seen(call, block),
        first_query=call.first_query + queries.start,
        first_example=call.first_example + examples.start,
    )


def rows_of(pairs: Tensor, block: Block) -> Tensor:
    """A block's share of what broadcasts to (batch, heads, queries, keys)."""
    examples, queries = block
    if pairs.dim() > 1 and pairs.shape[-2] > 1:
        pairs = pairs[..., queries, :]
    return pairs[examples] if pairs.dim() == 4 and pairs.shape[0] > 1 else pairs


def _seen(call: Call, block: Block) -> Visibility:
    seen = call.visibility
    mask = None if seen.mask is None else rows_of(seen.mask, block)
    offset = seen.offset
    if isinstance(offset, Tensor) and offset.numel() > 1:
        offset = offset[block[0]]
    return replace(seen, mask=mask, offset=offset + block[1].start)


def _tried_size(call: Call) -> int:
    """What a user's own parts make of a query, which may be a number for each feature.

    Two queries and three are tried: what does not grow with their number is of all blocks alike.
    """
    if not all(call.query.shape):
        return 0
    one = part_of(call, (slice(0, 1), slice(0, 1)))
    with torch.no_grad(), torch.random.fork_rng(devices=[]), full_precision(call.query.device):
        query, key, _, _ = widened(one)
        two, three = (_sizes_of(call, query.repeat(1, 1, n, 1), key) for n in (2, 3))
    if len(two) != len(three):
        return max(two) // 2
    return max(more - less for more, less in zip(three, two, strict=True))


def _sizes_of(call: Call, query: Tensor, key: Tensor) -> list[int]:
    with _Sizes() as sizes:
        call.weight(call.score(query, key, call.scale), None)
    return sizes.numbers


def _span(start: int, size: int, end: int) -> slice:
    return slice(start, min(start + size, end))


def _sums_features(score: Score) -> bool:
    inner = score.score if isinstance(score, ScoreChain) else score
    return isinstance(inner, Additive | GatV2)
