"""Graph attention: chains, attention over edges, chains; every site takes a part."""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ogive.errors import ArgumentError, unknown
from ogive.kernels import EdgeList, edge_attention, edge_impls
from ogive.kernels.checks import check_dropout, check_flag
from ogive.kernels.finite import may_look
from ogive.layers import checks, graph_edges
from ogive.layers.chain import Chain, install, plan, run, walk
from ogive.parts.part import Sizes, build
from ogive.parts.presets import sites_from
from ogive.parts.scores import score_from
from ogive.parts.sites import Sites
from ogive.parts.weights import Weight

COMBINE = ("concat", "mean")
SHARE = {"none": (), "key_value": ("value",), "all": ("query", "value")}


class GraphAttention(nn.Module):
    """Multi-head attention of nodes over their neighbours.

    `layer(x, edge_index)` attends among nodes, `layer(x, edge_index, sources=y)` from targets x to
    sources y of another kind. A node without edges attends to nothing, and zero goes on into the
    mixed and output chains.

    The published layers are sites and settings:

    - GAT: `sites="score=gat output=identity", share="all", combined_bias=True, self_loops=True`.
    - GATv2: `sites="score=gatv2 output=identity", share="key_value", bias=True,
      combined_bias=True, self_loops=True`.

    Their σ is a map: `mixed=elu` acts in each head, `output=identity,elu` on the combined heads and
    their bias. The presets `gat2018` and `gatv2_2022` learn a projection at every site.

    With `share="none"` the parameters are those of `ogive.Attention` of the same sites, and on a
    complete graph so are the numbers.

    Args:
        width: features of x.
        heads: how many.
        head_width: features per head; None for width/heads.
        source_width: features of the sources in a bipartite graph; None for width.
        out_width: features of the output; None for those of the combined heads.
        sites: what sits where: `Sites`, its written form, or a preset's name.
        share: which projections are one. "key_value": values are the keys, as in GATv2; "all":
            queries too, as in GAT. The key site says what they are.
        combine: "concat" joins the heads, "mean" averages them.
        self_loops: whether every node has one edge to itself and no more, whatever comes; such an
            edge has the mean of the features of the node's other edges.
        edge_width: features of each edge, which the layer then takes; None for none. Projected,
            they add to the key before the score, and for `gat` inside the activation, as published.
        edge_values: whether they add to the values too, as in the graph transformer.
        root: whether a projection of x is added to the combined heads.
        bias: whether the projections at sites add a bias.
        combined_bias: whether a learned vector is added to the combined heads.
        dropout: probability of dropping a weight, in training.
        impl: what runs the operation, "auto" or a name from `ogive.kernels.edge_impls()`.

    Raises:
        UnknownName, ArgumentError: a site, part or size that does not fit.
    """

    edge_proj: nn.Linear | None
    edge_weight: Tensor | None
    combined_bias: Tensor | None

    __prepare_scriptable__ = checks.refuse_script  # torch.jit.script asks for it

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        head_width: int | None = None,
        source_width: int | None = None,
        out_width: int | None = None,
        sites: Sites | str = "gatv2_2022",
        share: str = "none",
        combine: str = "concat",
        self_loops: bool = False,
        edge_width: int | None = None,
        edge_values: bool = False,
        root: bool = False,
        bias: bool = False,
        combined_bias: bool = False,
        dropout: float = 0.0,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.width = checks.whole("width", width)
        self.heads = checks.whole("heads", heads)
        per_head = checks.share(width, heads) if head_width is None else head_width
        self.head_width = checks.whole("head_width", per_head)
        reads = width if source_width is None else source_width
        self.source_width = checks.whole("source_width", reads)
        self.edge_width = None if edge_width is None else checks.whole("edge_width", edge_width)
        self.sites = sites_from(sites)
        self.share = _one_of("share", share, tuple(SHARE))
        self.combine = _one_of("combine", combine, COMBINE)
        self.self_loops = check_flag("self_loops", self_loops)
        self.edge_values = check_flag("edge_values", edge_values)
        self.dropout = check_dropout(dropout)
        self.impl = _one_of("impl", impl, (*edge_impls(), "auto"))
        self._check_settings()
        flags = {"bias": bias, "root": root, "combined_bias": combined_bias}
        self._build(out_width, **{name: check_flag(name, came) for name, came in flags.items()})
        self.reset_parameters()

    def _check_settings(self) -> None:
        for site in SHARE[self.share]:
            if getattr(self.sites, site) != "linear":
                raise ArgumentError(
                    f"share={self.share!r} takes what the key site says, but "
                    f"{site}={getattr(self.sites, site)!r} says otherwise: leave it out"
                )
        if self.share == "all" and self.source_width != self.width:
            raise ArgumentError(
                f"share='all' projects x ({self.width} wide) and sources ({self.source_width} "
                "wide) alike: they must be equally wide, or share='key_value'"
            )
        if self.edge_values and self.edge_width is None:
            raise ArgumentError("edge_values=True adds features of edges: say their edge_width")

    def _build(self, out_width: int | None, bias: bool, root: bool, combined_bias: bool) -> None:
        """Walk the widths, then make the parts in the order in which forward runs them."""
        sites, x, heads = self.sites, self.width, self.heads
        key, mixed = plan(sites, "key", self.head_width), plan(sites, "mixed", self.head_width)
        query = key if self.share == "all" else plan(sites, "query", self.head_width)
        value = key if self.share != "none" else plan(sites, "value", mixed.projected)
        if query.final != key.final:
            raise ArgumentError(
                f"query={sites.query!r} ends {query.final} wide per head and key={sites.key!r} "
                f"{key.final}: they must end equally wide"
            )
        joined = walk(mixed.parts, value.final) * (heads if self.combine == "concat" else 1)
        self.out_width = checks.whole("out_width", joined if out_width is None else out_width)
        output = plan(sites, "output", self.out_width)
        if output.final != self.out_width:
            raise ArgumentError(
                f"output={sites.output!r} ends {output.final} wide, and out_width is "
                f"{self.out_width}"
            )
        source, met = self.source_width, Sizes(x, heads, key.final, bias)
        self._query = self._value = None
        if self.share != "all":
            sizes = Sizes(x, heads, query.projected, bias)
            self._query = install(self, "query", query.parts, x, sizes)
        sizes = Sizes(source, heads, key.projected, bias)
        self._key = install(self, "key", key.parts, source, sizes)
        if self.share == "none":
            sizes = Sizes(source, heads, value.projected, bias)
            self._value = install(self, "value", value.parts, source, sizes)
        self.score = score_from(sites.score).setup(met)
        self.weight = cast(Weight, build("weight", sites.weight).setup(met))
        graph_edges.add_parameters(self, key.final, value.final)
        self._mixed = install(self, "mixed", mixed.parts, x, Sizes(x, heads, value.final, bias))
        self.root_proj = nn.Linear(x, joined, bias=False) if root else None
        vector = nn.Parameter(torch.zeros(joined)) if combined_bias else None
        self.register_parameter("combined_bias", vector)
        sizes = Sizes(x, 1, output.projected, bias)
        self._output = install(self, "output", output.parts, joined, sizes)
        for module in self.modules():
            if getattr(module, "history", 0):
                raise ArgumentError(f"{module} looks at earlier positions, and nodes have none")

    def reset_parameters(self) -> None:
        """Start the parameters that are the layer's own anew; parts start theirs."""
        if self.edge_weight is not None:
            bound = math.sqrt(6 / (self.edge_weight.shape[1] + 1))  # as the score's own vectors
            nn.init.uniform_(self.edge_weight, -bound, bound)
        if self.combined_bias is not None:
            nn.init.zeros_(self.combined_bias)

    def forward(
        self,
        x: Float[Tensor, "t w"],
        edge_index: EdgeList | Tensor,
        edge_features: Tensor | None = None,
        *,
        sources: Tensor | None = None,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend from every node of x to the sources of its edges.

        Args:
            x: (targets, width).
            edge_index: (2, edges) whole numbers, row 0 sources and row 1 targets, or an `EdgeList`
                of them, sorted once for all layers. An edge that comes twice counts twice.
            edge_features: (edges, edge width), or (edges,) where that is 1.
            sources: (sources, source width) in a bipartite graph; None: x.
            return_attention_weights: also return the edges, self loops with them, and their
                weights. The kernels hold no weights, so the definition computes this.

        Returns:
            (targets, out width); with `return_attention_weights` a pair of that and a pair of
            edge_index (2, edges) and weights (edges, heads), before dropout.

        Raises:
            ArgumentError, ArgumentTypeError: an argument that does not fit.
        """
        source = x if sources is None else sources
        checks.check_nodes("x", x, self.width, self)
        if source is not x or self.source_width != self.width:
            checks.check_nodes("sources", source, self.source_width, self)
        features = graph_edges.check_features(edge_features, edge_index, self)
        nodes = (source.shape[0], x.shape[0])
        listed, features = graph_edges.list_edges(edge_index, features, nodes, self.self_loops)
        query, key, value = self._read(x, source, listed)
        query, key, more = graph_edges.scored(self, query, key, features)
        found = edge_attention(
            query,
            key,
            value,
            listed,
            weight=self.weight,
            dropout_p=self.dropout if self.training else 0.0,
            return_weights=return_attention_weights,
            impl=self.impl,
            **more,
        )
        mixed, weights = found if return_attention_weights else (found, None)
        out = self._write(cast(Tensor, mixed), x)
        return out if weights is None else (out, (listed.index, weights))

    def _read(self, x: Tensor, source: Tensor, edges: EdgeList) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (nodes, heads, width) of nodes that have edges."""
        starts = edges.source_start, edges.target_start
        if self._query is None and source is x:
            query = key = self._heads(self._key, graph_edges.seen(x, *starts))
        else:
            key = self._heads(self._key, graph_edges.seen(source, starts[0]))
            chain = self._key if self._query is None else self._query
            query = self._heads(chain, graph_edges.seen(x, starts[1]))
        value = key
        if self._value is not None:
            value = self._heads(self._value, graph_edges.seen(source, starts[0]))
        # They differ under autocast, where a norm gives float32 and a projection half precision.
        dtype = torch.promote_types(torch.promote_types(query.dtype, key.dtype), value.dtype)
        return query.to(dtype), key.to(dtype), value.to(dtype)

    def _heads(self, chain: Chain, nodes: Tensor) -> Tensor:
        batched = nodes.unsqueeze(0)
        return run(self, chain, batched, batched).squeeze(0)

    def _write(self, mixed: Tensor, x: Tensor) -> Tensor:
        """(targets, heads, v) combined, with bias and root, through the output chain."""
        batched, bias = x.unsqueeze(0), self.combined_bias
        if bias is not None and self._takes_bias(mixed):
            mixed, bias = mixed.add_(bias.unflatten(0, mixed.shape[1:])), None
        heads = run(self, self._mixed, mixed.unsqueeze(0), batched)
        combined = heads.flatten(2) if self.combine == "concat" else heads.mean(2)
        if self.root_proj is not None:
            combined = combined + self.root_proj(batched)
        if bias is not None:
            combined = combined + bias
        return run(self, self._output, combined, batched).squeeze(2).squeeze(0)

    def _takes_bias(self, mixed: Tensor) -> bool:
        """Whether the bias may go into what attention gave, which spares a tensor of its size."""
        plain = not self._mixed.maps and self.combine == "concat" and self.root_proj is None
        bias = cast(Tensor, self.combined_bias)
        return plain and mixed.dtype == bias.dtype and may_look(mixed, bias)

    def extra_repr(self) -> str:
        """Sizes and sites, as a reader would write them."""
        return f"{self.width}, {self.heads}, sites={str(self.sites)!r}, share={self.share!r}"


def _one_of(name: str, came: object, fits: tuple[str, ...]) -> str:
    if came not in fits:
        raise unknown(name, str(came), fits)
    return str(came)
