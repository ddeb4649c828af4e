"""Decoder: a language model. Every position sees the past and says what comes next."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError
from ogive.kernels.checks import check_flag
from ogive.layers.cache import Cache
from ogive.layers.checks import whole
from ogive.models.trunk import Trunk
from ogive.parts.sites import Sites


class Decoder(Trunk):
    """A causal transformer from tokens to logits for the next token.

    Args:
        vocabulary: how many tokens there are.
        width, depth, heads: features, blocks, and query heads of each block.
        kv_heads: key and value heads; None for as many as heads.
        hidden: features inside the feed-forward network; None for 4·width, 0 for no such network.
        sites: what sits where in every attention layer: `Sites`, written form or a preset's name.
        activation: of the feed-forward network; `glu(silu)` is a gated one.
        norm: `layernorm` or `rmsnorm`.
        norm_first: norm before each layer (True) or after its residual sum (False).
        positions: `rope`, `alibi`, `relative`, `learned`, `sinusoidal`, or None.
        max_length: longest sequence accepted; None for no limit. `learned` needs it.
        tie_embeddings: whether the last projection is the embedding, transposed.
        dropout: probability; see `Block`.
        window_size: (left, right) neighbours that a query sees, None for no limit.
        impl: what runs the operation.

    Raises:
        UnknownName, ArgumentError: an argument that does not fit.
    """

    kind = "decoder"

    def __init__(
        self,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        hidden: int | None = None,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        activation: str = "gelu",
        norm: str = "layernorm",
        norm_first: bool = True,
        positions: str | None = "rope",
        max_length: int | None = None,
        tie_embeddings: bool = True,
        dropout: float = 0.0,
        window_size: tuple[int | None, int | None] | None = None,
        impl: str = "auto",
    ) -> None:
        super().__init__(
            vocabulary,
            width,
            depth,
            heads,
            kv_heads=kv_heads,
            hidden=hidden,
            sites=sites,
            activation=activation,
            norm=norm,
            norm_first=norm_first,
            positions=positions,
            max_length=max_length,
            dropout=dropout,
            window_size=window_size,
            impl=impl,
        )
        tied = check_flag("tie_embeddings", tie_embeddings)
        self.head = None if tied else nn.Linear(width, vocabulary, bias=False)

    def forward(
        self, tokens: Int64[Tensor, "b t"], *, cache: Sequence[Cache] | None = None
    ) -> Float[Tensor, "b t vocabulary"]:
        """Logits for the token after each one.

        Args:
            tokens: (batch, length) int64.
            cache: of `new_cache()`; tokens are then those that follow the ones read before.

        Returns:
            (batch, length, vocabulary).
        """
        states = self.states(tokens, is_causal=True, cache=cache)
        return F.linear(states, self.embedding.weight) if self.head is None else self.head(states)

    @torch.no_grad()
    def generate(
        self,
        tokens: Int64[Tensor, "b t"],
        steps: int,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Int64[Tensor, "b all"]:
        """Continue sequences, reading each token once.

        Args:
            tokens: (batch, length) int64, at least one token each.
            steps: how many tokens to add.
            temperature: 0 takes the likeliest token; above 0 draws one from softmax(logits /
                temperature).
            generator: of the draws; None for torch's global one.

        Returns:
            (batch, length + steps). Dropout acts as in any call: generate in evaluation mode.

        Raises:
            ArgumentError: no token to start from, a negative temperature, or more positions than
                max_length.
        """
        whole("steps", steps, 0)
        if not temperature >= 0:
            raise ArgumentError(f"temperature takes a number from 0, not {temperature!r}")
        if tokens.dim() != 2 or not tokens.shape[1]:
            raise ArgumentError(f"tokens takes (batch, length ≥ 1), not {tuple(tokens.shape)}")
        cache, new = self.new_cache(), tokens
        for _ in range(steps):
            new = _draw(self(new, cache=cache)[:, -1], temperature, generator)
            tokens = torch.cat([tokens, new], 1)
        return tokens


def _draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """One token (batch, 1) for logits (batch, vocabulary)."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)
