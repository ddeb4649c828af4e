"""Encoder: every position sees every other; answers for each position or for the sequence."""

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import unknown
from ogive.kernels.checks import check_flag
from ogive.layers.checks import whole
from ogive.models.trunk import Trunk
from ogive.parts.sites import Sites

POOLS = ("mean", "first")


class Encoder(Trunk):
    """A transformer from tokens to logits, without causality.

    Args:
        vocabulary, width, depth, heads, kv_heads, hidden, sites, activation, norm, norm_first,
            positions, max_length, dropout, window_size, impl: as in `Decoder`.
        tie_embeddings: whether the logits over the vocabulary come from the embedding,
            transposed; has no say where `classes` is given.
        classes: logits over these instead of over the vocabulary; None for the vocabulary.
        pool: None answers for each position; `mean` (over positions that may be attended) and
            `first` answer once for the sequence.

    Raises:
        UnknownName, ArgumentError: an argument that does not fit.
    """

    kind = "encoder"

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
        classes: int | None = None,
        pool: str | None = None,
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
        if pool is not None and pool not in POOLS:
            raise unknown("pool", str(pool), POOLS)
        self.pool = pool
        answers = vocabulary if classes is None else whole("classes", classes)
        tied = check_flag("tie_embeddings", tie_embeddings) and classes is None
        self.head = None if tied else nn.Linear(width, answers, bias=False)

    def forward(
        self, tokens: Int64[Tensor, "b t"], *, key_mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b *positions answers"]:
        """Logits for each position, or for the sequence where the encoder pools.

        Args:
            tokens: (batch, length) int64.
            key_mask: bool (batch, length), True = may be attended to.

        Returns:
            (batch, length, answers), or (batch, answers) where the encoder pools; answers are
            the classes or the vocabulary.
        """
        states = self._pooled(self.states(tokens, key_mask=key_mask), key_mask)
        return F.linear(states, self.embedding.weight) if self.head is None else self.head(states)

    def _pooled(self, states: Tensor, key_mask: Tensor | None) -> Tensor:
        if self.pool is None:
            return states
        if self.pool == "first":
            return states[:, 0]
        if key_mask is None:
            return states.mean(1)
        shown = states.masked_fill(~key_mask.unsqueeze(-1), 0)
        return shown.sum(1) / key_mask.sum(1, keepdim=True).clamp_min(1).to(shown.dtype)
