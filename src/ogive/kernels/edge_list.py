"""Edges of a graph, checked and sorted once: by target for the way there, by source for back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.kernels import compiled, edge_compiled, finite
from ogive.kernels.edge_segments import rows_by_degree


@dataclass(frozen=True, eq=False)
class EdgeList:
    """Edges source → target, sorted once and used as often as the graph stays the same.

    Build one with `EdgeList.build`. An edge that comes twice counts twice. Sources and targets may
    be different sets of nodes (a bipartite graph); nodes without edges are allowed on both sides.

    Attributes:
        index: (2, edges) int64 as it came: row 0 sources, row 1 targets.
        sources, targets: how many nodes there are on each side.
        order: int32 (edges,), the edges sorted by target; edges of one target keep their order.
        source: int32 (edges,), the source of each sorted edge.
        target_start: int64 (targets + 1,), where each target's edges start among the sorted ones.
        by_source: int32 (edges,), the sorted edges again, sorted by source.
        target: int32 (edges,), the target of each edge in `by_source`.
        source_start: int64 (sources + 1,), where each source's edges start in `by_source`.
        self_loops: whether the last edges join each node to itself, and no others do.

    `rows` and `looped` are made on their first use. Ask for `rows` before torch.compile traces what
    the compiled kernels do not take, and for `looped` where it shall be sorted once for all calls.
    While it traces, a list with self loops is as long as if no edge had been one, which is known
    then; what is left over at the end belongs to no node.
    """

    index: Tensor
    sources: int
    targets: int
    order: Tensor
    source: Tensor
    target_start: Tensor
    by_source: Tensor
    target: Tensor
    source_start: Tensor
    self_loops: bool = False

    @classmethod
    def build(
        cls,
        edge_index: Tensor,
        sources: int | None = None,
        targets: int | None = None,
        *,
        self_loops: bool = False,
    ) -> EdgeList:
        """Check and sort edges.

        Args:
            edge_index: (2, edges) whole numbers, PyG's direction: row 0 holds sources, row 1 the
                targets that attend to them.
            sources: how many source nodes there are; None takes the largest index of all plus one.
            targets: how many target nodes there are; None takes `sources`.
            self_loops: whether each node gets one edge to itself, in the place of those that come.
                Where sources and targets differ in number, node i of the ones and node i of the
                others count as one.

        Returns:
            The edges, sorted both ways, on the device of edge_index.

        Raises:
            ArgumentTypeError: not a tensor of whole numbers.
            ArgumentError: another shape, or an index outside of the nodes that there are.
        """
        with finite.beneath_transforms(edge_index):
            index = _checked(edge_index)
            if sources is None:
                sources = int(index.max()) + 1 if index.numel() else 0
            sources = _count("sources", sources)
            targets = sources if targets is None else _count("targets", targets)
            if torch.compiler.is_compiling():
                held = torch.ops.ogive_edges.listed(index, sources, targets, self_loops)
            else:
                with torch.inference_mode(False):  # a list made while only looking may train later
                    index = index.clone() if index.is_inference() else index
                    held = _listed(index, sources, targets, self_loops)
        return cls(held[0], sources, targets, *held[1:], self_loops)  # type: ignore[misc]

    @property
    def edges(self) -> int:
        """How many edges there are."""
        return self.index.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the edges are."""
        return self.index.device

    @cached_property
    def rows(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Targets taken together by their number of edges, those without edges left out.

        Pairs of targets (r,) and their edges (r, n), both int64; edges are columns of `index`.
        """
        with torch.inference_mode(False):
            order, found = self.order.long(), rows_by_degree(self.target_start)
            return tuple((rows, order[places]) for rows, places in found)

    @property
    def looped(self) -> EdgeList:
        """The list with one edge from each node to itself, sorted when first asked for.

        torch.compile cannot trace the lock in a cached property. While it traces, the list is not
        kept: it is longer there, and lasts as long as its graph.
        """
        if self.self_loops:
            return self
        held = vars(self).get("_looped")
        if held is None:
            held = EdgeList.build(self.index, self.sources, self.targets, self_loops=True)
            if not torch.compiler.is_compiling():
                object.__setattr__(self, "_looped", held)
        return held

    def sorted_for(self, self_loops: bool) -> EdgeList:
        """This list, or while torch.compile traces a copy, that holds `looped` where it is needed.

        Layers that share it then sort once between them.
        """
        if not self_loops or self.self_loops or not torch.compiler.is_compiling():
            return self
        shared = self.to(self.device)
        object.__setattr__(shared, "_looped", self.looped)
        return shared

    @cached_property
    def apart(self) -> EdgeList:
        """The same edges as if each came from a source of its own: edge e from source e."""
        number = torch.arange(self.edges, device=self.device)
        place = torch.empty_like(self.order)
        place[self.order.long()] = number.int()
        return EdgeList(
            torch.stack((number, self.index[1])),
            self.edges,
            self.targets,
            self.order,
            self.order,
            self.target_start,
            place,
            self.index[1].int(),
            torch.arange(self.edges + 1, device=self.device),
        )

    def to(self, device: torch.device | str) -> EdgeList:
        """The same edges on another device."""
        moved: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, held in moved.items():
            moved[name] = held.to(device) if isinstance(held, Tensor) else held
        return EdgeList(**moved)

    def of_targets(self, chosen: Tensor) -> tuple[EdgeList, Tensor]:
        """The edges into some targets, bool (targets,), and which columns of `index` they are."""
        columns = chosen[self.index[1]].nonzero().squeeze(1)
        return EdgeList.build(self.index[:, columns], self.sources, self.targets), columns

    def __repr__(self) -> str:
        return f"EdgeList({self.edges} edges, {self.sources} sources, {self.targets} targets)"


def with_self_loops(edge_index: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The edges between different nodes, then one edge from each node to itself.

    Args:
        edge_index: (2, edges) whole numbers.
        nodes: how many nodes get an edge to themselves.

    Returns:
        The new edges, and bool (edges,), which of the old ones stay (self loops go, so that a node
        has one and no more).
    """
    index = _checked(edge_index)
    stays = index[0] != index[1]
    loops = torch.arange(nodes, device=index.device).expand(2, -1)
    return torch.cat((index[:, stays], loops), 1), stays


def _checked(edge_index: object) -> Tensor:
    if not isinstance(edge_index, Tensor):
        raise ArgumentTypeError(
            f"edge_index takes a tensor or an EdgeList, not {type(edge_index).__name__}"
        )
    if edge_index.layout != torch.strided:
        raise ArgumentTypeError(
            f"edge_index takes a strided tensor, not {edge_index.layout}; the edges of a sparse "
            "matrix are its indices()"
        )
    whole = not (edge_index.is_floating_point() or edge_index.is_complex())
    if not whole or edge_index.dtype == torch.bool:
        raise ArgumentTypeError(f"edge_index takes whole numbers (int64), not {edge_index.dtype}")
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        turned = edge_index.dim() == 2 and edge_index.shape[1] == 2
        hint = "; write edge_index.T if each row is an edge" if turned else ""
        raise ArgumentError(
            f"edge_index takes (2, edges): sources, then targets; not "
            f"{tuple(edge_index.shape)}{hint}"
        )
    return edge_index.to(torch.int64)


def _count(name: str, came: object) -> int:
    if isinstance(came, bool) or not isinstance(came, int):
        raise ArgumentTypeError(f"{name} takes a whole number, not {came!r}")
    if came < 0:
        raise ArgumentError(f"{name} takes a number of nodes, not {came}")
    return came


def _check_range(ends: Tensor, nodes: int, row: str, side: str) -> None:
    if not ends.numel():
        return
    low, high = (int(end) for end in ends.aminmax())
    if low < 0 or high >= nodes:
        wrong = low if low < 0 else high
        fits = f"0 … {nodes - 1} fit" if nodes else "none fits"
        raise ArgumentError(
            f"edge_index has {wrong} in {row}, and there are {nodes} {side}: {fits}"
        )


def _listed(
    index: Tensor, sources: int, targets: int, self_loops: bool = False
) -> tuple[Tensor, ...]:
    """index and what sorting it gives, checked."""
    _check_range(index[0], sources, "row 0", "sources")
    _check_range(index[1], targets, "row 1", "targets")
    if self_loops:
        index, _ = with_self_loops(index, min(sources, targets))
    if max(index.shape[1], sources, targets) >= 2**31:
        raise ArgumentError(
            f"edge_index has {index.shape[1]} edges among {sources} sources and {targets} "
            "targets: an EdgeList holds fewer than 2³¹ of each"
        )
    native = index.device.type == "cpu" and not compiled.missing
    sort = edge_compiled.sort_edges if native else _sorted
    return (index, *sort(index, sources, targets))


def _sorted(index: Tensor, sources: int, targets: int) -> tuple[Tensor, ...]:
    """order, source, target_start, by_source, target, source_start; by torch."""
    order = index[1].argsort(stable=True)
    source = index[0][order]
    by_source = source.argsort(stable=True)
    target = index[1][order][by_source]
    return (
        order.int(),
        source.int(),
        _starts(index[1], targets),
        by_source.int(),
        target.int(),
        _starts(index[0], sources),
    )


def _starts(ends: Tensor, nodes: int) -> Tensor:
    counts = torch.bincount(ends, minlength=nodes)
    return torch.cat((counts.new_zeros(1), counts.cumsum(0)))


# --- under torch.compile -------------------------------------------------------------------------
# Sorting branches on values, which tracing cannot see: there it is one operator, whose results have
# lengths that follow from those of its inputs.

_LIBRARY = torch.library.Library("ogive_edges", "FRAGMENT")
_LIBRARY.define(
    "listed(Tensor index, SymInt sources, SymInt targets, bool self_loops)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _padded_list(index: Tensor, sources: int, targets: int, self_loops: bool) -> tuple[Tensor, ...]:
    """As `_listed`, in memory of its own, as long as if no edge had been a self loop."""
    length = index.shape[1] + (min(sources, targets) if self_loops else 0)
    came, order, source, target_start, by_source, target, source_start = _listed(
        index, sources, targets, self_loops
    )
    spare = length - came.shape[1]
    long = [F.pad(held, (0, spare)) for held in (order, source, by_source, target)]
    came = F.pad(came, (0, spare)) if self_loops else came.clone()
    return came, long[0], long[1], target_start, long[2], long[3], source_start


def _padded_shapes(
    index: Tensor, sources: int, targets: int, self_loops: bool
) -> tuple[Tensor, ...]:
    length: Any = index.shape[1]
    if self_loops:
        length = length + torch.sym_min(sources, targets)
    edge = [index.new_empty(length, dtype=torch.int32) for _ in range(4)]
    starts = [index.new_empty(nodes + 1) for nodes in (targets, sources)]
    return index.new_empty(2, length), edge[0], edge[1], starts[0], edge[2], edge[3], starts[1]


_LIBRARY.impl("listed", _padded_list, "CompositeExplicitAutograd")
torch.library.register_fake("ogive_edges::listed", _padded_shapes, lib=_LIBRARY)
