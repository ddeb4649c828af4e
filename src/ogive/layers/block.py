"""Block: attention and a feed-forward network, each with its norm and its residual path."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ogive.errors import ArgumentError, unknown
from ogive.kernels.checks import check_flag
from ogive.layers.attention import Attention
from ogive.layers.cache import Cache
from ogive.layers.checks import whole
from ogive.layers.feedforward import FeedForward
from ogive.parts.sites import Sites

NORMS = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm}


class Residual(nn.Module):
    """Base of blocks: paths with a norm before or after each, the last a feed-forward network.

    A member sets `norm_first`, makes its other paths, and calls `_finish` last.
    """

    norm_first: bool
    feedforward: FeedForward | None
    feedforward_norm: nn.Module | None

    def _finish(
        self,
        width: int,
        hidden: int | None,
        activation: str,
        norm: str,
        *,
        bias: bool,
        dropout: float,
    ) -> None:
        """Make the feed-forward network, unless it has no hidden features, and the dropout."""
        self.feedforward = self.feedforward_norm = None
        hidden = 4 * width if hidden is None else whole("hidden", hidden, 0)
        if hidden:
            self.feedforward = FeedForward(width, hidden, activation, bias=bias, dropout=dropout)
            self.feedforward_norm = norm_from(norm, width)
        self.dropout = nn.Dropout(dropout)

    def _fed(self, x: Tensor) -> Tensor:
        """x (b, i, w) after the feed-forward path."""
        if self.feedforward is None:
            return x
        y = self.feedforward(self._before(self.feedforward_norm, x))
        return self._after(self.feedforward_norm, x, y)

    def _before(self, norm: nn.Module | None, x: Tensor) -> Tensor:
        return norm(x) if norm is not None and self.norm_first else x

    def _after(self, norm: nn.Module | None, x: Tensor, y: Tensor) -> Tensor:
        x = x + (self.dropout(y) if self.dropout.p else y)
        return x if norm is None or self.norm_first else norm(x)


class Block(Residual):
    """A transformer block: self-attention, cross-attention if asked for, feed-forward network.

    Pre-norm is x + f(norm(x)), post-norm (the paper's) norm(x + f(x)).

    Args:
        width, heads, kv_heads, sites, positions, bias, window_size, impl: of `Attention`.
        hidden: of `FeedForward`; None for 4·width, 0 for no feed-forward network.
        activation: of `FeedForward`.
        norm: `layernorm` or `rmsnorm`.
        norm_first: pre-norm if True, post-norm if False.
        memory_width: features of the memory of a cross-attention layer; None for none.
        memory_sites: what sits where in the cross-attention layer.
        dropout: probability, in training, of dropping a weight of attention, a hidden feature
            and a feature of each path before it joins the residual.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        hidden: int | None = None,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        activation: str = "gelu",
        norm: str = "layernorm",
        norm_first: bool = True,
        positions: str | None = None,
        memory_width: int | None = None,
        memory_sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        bias: bool = False,
        dropout: float = 0.0,
        window_size: tuple[int | None, int | None] | None = None,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        shared = {"kv_heads": kv_heads, "bias": bias, "dropout": dropout, "impl": impl}
        self.norm_first = check_flag("norm_first", norm_first)
        self.attention = Attention(
            width, heads, sites=sites, positions=positions, window_size=window_size, **shared
        )
        self.attention_norm = norm_from(norm, width)
        self.cross_attention = self.cross_attention_norm = None
        if memory_width is not None:
            self.cross_attention = Attention(
                width, heads, memory_width=memory_width, sites=memory_sites, **shared
            )
            self.cross_attention_norm = norm_from(norm, width)
        self._finish(width, hidden, activation, norm, bias=bias, dropout=dropout)

    def forward(
        self,
        x: Float[Tensor, "b i w"],
        memory: Float[Tensor, "b j m"] | None = None,
        *,
        key_mask: Bool[Tensor, "b s"] | None = None,
        memory_mask: Bool[Tensor, "b j"] | None = None,
        is_causal: bool = False,
        cache: Cache | None = None,
        memory_cache: Cache | None = None,
    ) -> Float[Tensor, "b i w"]:
        """Run the block.

        Args:
            x: (batch, length, width).
            memory: (batch, keys, memory width), where the block has cross-attention.
            key_mask, is_causal, cache: of self-attention.
            memory_mask, memory_cache: key mask and cache of cross-attention.

        Returns:
            (batch, length, width).
        """
        self._check(memory, memory_cache)
        h = self._before(self.attention_norm, x)
        y = self.attention(h, key_mask=key_mask, is_causal=is_causal, cache=cache)
        x = self._after(self.attention_norm, x, y)
        if self.cross_attention is not None:
            h = self._before(self.cross_attention_norm, x)
            y = self.cross_attention(h, memory, key_mask=memory_mask, cache=memory_cache)
            x = self._after(self.cross_attention_norm, x, y)
        return self._fed(x)

    def _check(self, memory: Tensor | None, memory_cache: Cache | None) -> None:
        held = memory_cache is not None and memory_cache.memory is not None
        if self.cross_attention is None and (memory is not None or memory_cache is not None):
            raise ArgumentError("memory came, but the block was built without memory_width")
        if self.cross_attention is not None and memory is None and not held:
            raise ArgumentError("memory is missing: the block has cross-attention")


def norm_from(name: str, width: int) -> nn.Module:
    """A norm of the model's width, with learned gain, by name."""
    if name not in NORMS:
        raise unknown("norm", str(name), NORMS)
    return NORMS[name](width)
