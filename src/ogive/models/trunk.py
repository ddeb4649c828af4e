"""What the transformers share: a stack of blocks, and the embedding of tokens before it."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.kernels.checks import check_dropout, check_flag
from ogive.layers.block import Block, norm_from
from ogive.layers.cache import Cache
from ogive.layers.checks import whole
from ogive.layers.positions import Absolute, build_position
from ogive.models.saving import Saved
from ogive.parts.part import Sizes


class Stack(nn.Module):
    """Positions, blocks, and a last norm where the blocks are pre-norm: states to states.

    Args:
        width, heads: of `Block`, with `norm`, `norm_first`, `dropout` and everything in `block`.
        depth: blocks.
        positions: `rope`, `alibi`, `relative` (in each block), `learned`, `sinusoidal` (added to
            what comes in), in written form, or None.
        max_length: longest sequence accepted; None for no limit. `learned` needs it.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        positions: str | None,
        max_length: int | None,
        dropout: float,
        norm: str,
        norm_first: bool,
        **block: object,
    ) -> None:
        super().__init__()
        self.max_length = None if max_length is None else whole("max_length", max_length)
        part = build_position(positions)
        absolute = isinstance(part, Absolute)
        self.positions = part.setup(Sizes(width, 1, width), max_length) if absolute else None
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                positions=None if absolute else positions,
                dropout=dropout,
                norm=norm,
                norm_first=norm_first,
                **block,  # type: ignore[arg-type]
            )
            for _ in range(whole("depth", depth, 0))
        )
        self.norm = norm_from(norm, width) if check_flag("norm_first", norm_first) else None
        self.dropout = nn.Dropout(check_dropout(dropout))

    def run(
        self,
        x: Float[Tensor, "b t w"],
        *,
        key_mask: Bool[Tensor, "b s"] | None = None,
        is_causal: bool = False,
        cache: Sequence[Cache] | None = None,
        memory: Float[Tensor, "b j m"] | None = None,
        memory_mask: Bool[Tensor, "b j"] | None = None,
        memory_cache: Sequence[Cache] | None = None,
    ) -> Float[Tensor, "b t w"]:
        """The states after the last block.

        Args:
            x: (batch, length, width), embedded.
            key_mask, is_causal, memory, memory_mask: of every block.
            cache, memory_cache: one for each block.

        Raises:
            ArgumentError: a length beyond max_length, or caches that do not fit.
        """
        start = self._start(x.shape[1], cache)
        if self.positions is not None:
            x = x + self.positions.vectors(x, start).to(x.dtype)
        x = self.dropout(x) if self.dropout.p else x
        for at, block in enumerate(self.blocks):
            x = block(
                x,
                memory,
                key_mask=key_mask,
                memory_mask=memory_mask,
                is_causal=is_causal,
                cache=None if cache is None else cache[at],
                memory_cache=None if memory_cache is None else memory_cache[at],
            )
        return x if self.norm is None else self.norm(x)

    def new_cache(self) -> list[Cache]:
        """An empty cache for each block, for one batch of sequences."""
        return [Cache() for _ in self.blocks]

    def _start(self, length: int, cache: Sequence[Cache] | None) -> int:
        """The position of the first of `length` new states; raises where they do not fit."""
        start = 0 if cache is None else self._check_cache(cache)
        if self.max_length is not None and start + length > self.max_length:
            raise ArgumentError(
                f"tokens reach a length of {start + length}, beyond max_length={self.max_length}"
            )
        return start

    def _check_cache(self, cache: Sequence[Cache]) -> int:
        lengths = {own.length for own in cache}
        if len({id(own) for own in cache}) != len(self.blocks) or len(lengths) > 1:
            raise ArgumentError(
                f"cache takes {len(self.blocks)} caches of equal length, one per block "
                f"(model.new_cache()), not {len(cache)} with lengths {sorted(lengths)}"
            )
        return max(lengths, default=0)


class Trunk(Saved, Stack):
    """What decoder and encoder share: an embedding of tokens before the stack.

    Embeddings are multiplied by √width, as in Attention Is All You Need, which lets one matrix
    serve as embedding and, tied, as the last projection.

    Args:
        vocabulary: how many tokens there are.
        width, depth, heads, stack: of `Stack`.
    """

    def __init__(
        self, vocabulary: int, width: int, depth: int, heads: int, **stack: object
    ) -> None:
        super().__init__(whole("width", width), depth, heads, **stack)
        self.vocabulary = whole("vocabulary", vocabulary)
        self.embedding = Embedding(vocabulary, width)

    def states(
        self,
        tokens: Int64[Tensor, "b t"],
        *,
        key_mask: Bool[Tensor, "b s"] | None = None,
        is_causal: bool = False,
        cache: Sequence[Cache] | None = None,
    ) -> Float[Tensor, "b t w"]:
        """The states after the last block (batch, length, width) of tokens (batch, length)."""
        check_tokens("tokens", tokens)
        x = self.embedding(tokens)
        return self.run(x, key_mask=key_mask, is_causal=is_causal, cache=cache)


def check_tokens(name: str, tokens: object) -> None:
    """Raise unless tokens are whole numbers (batch, length)."""
    if not isinstance(tokens, Tensor):
        raise ArgumentTypeError(f"{name} takes a tensor, not {type(tokens).__name__}")
    if tokens.dtype not in (torch.int64, torch.int32):
        raise ArgumentTypeError(f"{name} takes whole numbers (int64), not {tokens.dtype}")
    if tokens.dim() != 2:
        raise ArgumentError(f"{name} takes (batch, length), not shape {tuple(tokens.shape)}")


class Embedding(nn.Embedding):
    """A vector for each token, read times √width.

    It starts with standard deviation 1/√width, so that what is read has variance 1. Tied to the
    last projection, a fresh model then leans towards answering each token with itself; it unlearns
    that within a few steps, and on `text` smaller starts ended with more loss and more noise.
    """

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.embedding_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, length) → (batch, length, width); `ArgumentError` for tokens out of range."""
        try:
            return super().forward(tokens) * math.sqrt(self.embedding_dim)
        except IndexError:
            came = (int(tokens.min()), int(tokens.max()))
            raise ArgumentError(
                f"tokens range from {came[0]} to {came[1]}, and the vocabulary holds 0 … "
                f"{self.num_embeddings - 1}"
            ) from None
