"""GraphNetwork: nodes read their neighbours block by block, and each gives an answer."""

from jaxtyping import Float
from torch import Tensor, nn

from ogive.kernels import EdgeList
from ogive.kernels.checks import check_dropout, check_flag
from ogive.layers.block import norm_from
from ogive.layers.checks import check_nodes, whole
from ogive.layers.graph_block import GraphBlock
from ogive.models.saving import Saved
from ogive.parts.sites import Sites


class GraphNetwork(Saved):
    """Features of nodes to logits of their classes, by attention over edges.

    Args:
        features: numbers that come with each node.
        classes: how many answers there are.
        width, heads, sites, hidden, activation, norm, norm_first: of each `GraphBlock`.
        depth: blocks; a node sees as many edges far.
        self_loops: whether each node attends to itself too.
        edge_width: features of each edge; None for none.
        dropout: of each block, and the probability of dropping a feature of the projected input.
        impl: of each `GraphAttention`.

    Raises:
        UnknownName, ArgumentError: an argument that does not fit.
    """

    kind = "graph"

    def __init__(
        self,
        features: int,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        *,
        hidden: int | None = None,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        activation: str = "gelu",
        norm: str = "layernorm",
        norm_first: bool = True,
        self_loops: bool = True,
        edge_width: int | None = None,
        dropout: float = 0.0,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.features, self.edge_width = whole("features", features), edge_width
        self.self_loops = check_flag("self_loops", self_loops)
        self.embedding = nn.Linear(features, whole("width", width))
        self.blocks = nn.ModuleList(
            GraphBlock(
                width,
                heads,
                hidden=hidden,
                sites=sites,
                activation=activation,
                norm=norm,
                norm_first=norm_first,
                self_loops=self_loops,
                edge_width=edge_width,
                dropout=dropout,
                impl=impl,
            )
            for _ in range(whole("depth", depth, 0))
        )
        self.norm = norm_from(norm, width) if check_flag("norm_first", norm_first) else None
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.head = nn.Linear(width, whole("classes", classes))

    def forward(
        self,
        x: Float[Tensor, "n f"],
        edge_index: EdgeList | Tensor,
        edge_features: Tensor | None = None,
    ) -> Float[Tensor, "n classes"]:
        """Logits of every node.

        Args:
            x: (nodes, features).
            edge_index: (2, edges), row 0 sources and row 1 targets, or an `EdgeList`, which is
                sorted once for all blocks and calls.
            edge_features: (edges, edge width), where the network takes them.

        Returns:
            (nodes, classes).

        Raises:
            ArgumentError, ArgumentTypeError: an argument that does not fit.
        """
        check_nodes("x", x, self.features, self)
        if not isinstance(edge_index, EdgeList):
            edge_index = EdgeList.build(edge_index, x.shape[0])
        edge_index = edge_index.sorted_for(self.self_loops)
        x = self.dropout(self.embedding(x))
        for block in self.blocks:
            x = block(x, edge_index, edge_features)
        return self.head(x if self.norm is None else self.norm(x))
