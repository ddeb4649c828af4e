"""GraphBlock: attention over edges and a feed-forward network, each with norm and residual path."""

from jaxtyping import Float
from torch import Tensor

from ogive.kernels import EdgeList
from ogive.kernels.checks import check_flag
from ogive.layers.block import Residual, norm_from
from ogive.layers.graph import GraphAttention
from ogive.parts.sites import Sites


class GraphBlock(Residual):
    """A transformer block whose nodes see their neighbours.

    Pre-norm is x + f(norm(x)), post-norm norm(x + f(x)).

    Args:
        width, heads, sites, self_loops, edge_width, bias, impl: of `GraphAttention`.
        hidden: of `FeedForward`; None for 4·width, 0 for no feed-forward network.
        activation: of `FeedForward`.
        norm: `layernorm` or `rmsnorm`.
        norm_first: pre-norm if True, post-norm if False.
        dropout: probability, in training, of dropping a weight of attention, a hidden feature
            and a feature of each path before it joins the residual.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int | None = None,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        activation: str = "gelu",
        norm: str = "layernorm",
        norm_first: bool = True,
        self_loops: bool = True,
        edge_width: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.norm_first = check_flag("norm_first", norm_first)
        self.attention = GraphAttention(
            width,
            heads,
            out_width=width,
            sites=sites,
            self_loops=self_loops,
            edge_width=edge_width,
            bias=bias,
            dropout=dropout,
            impl=impl,
        )
        self.attention_norm = norm_from(norm, width)
        self._finish(width, hidden, activation, norm, bias=bias, dropout=dropout)

    def forward(
        self,
        x: Float[Tensor, "n w"],
        edge_index: EdgeList | Tensor,
        edge_features: Tensor | None = None,
    ) -> Float[Tensor, "n w"]:
        """The nodes after the block (nodes, width); arguments as in `GraphAttention.forward`."""
        h = self._before(self.attention_norm, x)
        x = self._after(self.attention_norm, x, self.attention(h, edge_index, edge_features))
        return self._fed(x.unsqueeze(0)).squeeze(0)
