"""The compiled module over edges: sorting, a look at values, and the loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ogive.kernels import compiled

if TYPE_CHECKING:
    from ogive.kernels.edge_segments import Segments


# Asked for once: torch.compile cannot trace a call into the module.
_EDGE_NAMES = frozenset(() if compiled.missing else compiled._native.edge_names())


def edge_names() -> frozenset[str]:
    """Weight functions that have loops over edges."""
    return _EDGE_NAMES


def sort_edges(index: Tensor, sources: int, targets: int) -> tuple[Tensor, ...]:
    """What an `EdgeList` holds beside its index, of int64 (2, edges) that is in range."""
    edges, index = index.shape[1], index.contiguous()
    many = [index.new_empty(edges, dtype=torch.int32) for _ in range(4)]
    starts = [index.new_empty(targets + 1), index.new_empty(sources + 1)]
    sorted_ = (many[0], many[1], starts[0], many[2], many[3], starts[1])
    rows = (index[0], index[1], *sorted_)
    compiled._native.sort_edges([edges, sources, targets, *[t.data_ptr() for t in rows]])
    return sorted_


def all_within(tensor: Tensor, limit: float) -> bool:
    """Whether every number is finite and no larger than the limit."""
    wide = tensor.dtype == torch.float64
    if (
        compiled.missing
        or not tensor.is_contiguous()
        or not (wide or tensor.dtype == torch.float32)
        or tensor._is_zerotensor()
    ):
        return bool((tensor.abs() <= limit).all())
    return compiled._native.all_within(
        compiled.instruction_set, tensor.data_ptr(), tensor.numel(), wide, limit
    )


_EDGE_ROWS = [
    "query",
    "key",
    "value",
    "query_weight",
    "key_weight",
    "out",
    "constant",
    "bias",
    "vectors",
    "grad_out",
    "grad_query",
    "grad_key",
    "grad_value",
    "grad_bias",
    "grad_vectors",
    "grad_constant",
    "grad_query_weight",
    "grad_key_weight",
    "weights",
    "slopes",
]


def run_edges(call: Segments, more: dict[str, Tensor], back: bool = False) -> None:
    """Fill "out" of `more`, or backward its gradients from "grad_out"."""
    query, value = call.query, call.value
    sizes = [*query.shape[:1], *call.key.shape[:1], len(call.order), *query.shape[1:]]
    seed = 0 if call.seed is None else int(call.seed)
    hides = call.bias is not None
    numbers = [
        *sizes,
        value.shape[-1],
        torch.get_num_threads(),
        compiled.ACT_NUMBERS[call.act],
        hides,
        seed,
        compiled.APART.get(call.score, 0),
    ]
    lists = (call.target_start, call.source_start, call.order, call.source, call.by_source)
    numbers += [tensor.data_ptr() for tensor in (*lists, call.target)]
    rows: dict[str, Tensor | None] = {**vars(call), **more}
    held = [_features_together(rows.get(name)) for name in _EDGE_ROWS]
    for tensor in held:
        numbers += _node_view(tensor)
    reals = [call.scale, call.cap, call.act_constant, call.dropout]
    wide = query.dtype == torch.float64
    compiled._native.run_edges(_instructions(call), call.curve, wide, back, numbers, reals)


def _instructions(call: Segments) -> str:
    """The instruction set whose vectors a head's features fill; AVX-512 holds 16, AVX2 8."""
    best = compiled.instruction_set
    lanes = 8 if call.query.dtype == torch.float64 else 16
    half = any(0 < n % lanes <= lanes // 2 for n in (call.key.shape[2], call.value.shape[2]))
    return "avx2" if best == "avx512" and half else best


def _features_together(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or tensor.dim() != 3 or tensor.shape[2] < 2 or tensor.stride(2) == 1:
        return tensor
    return tensor.contiguous()


def _node_view(tensor: Tensor | None) -> tuple[int, int, int]:
    """Address, and strides from node to node and head to head; 0 for an axis of one element."""
    if tensor is None or not tensor.numel():
        return 0, 0, 0
    (nodes, heads), (node, head) = tensor.shape[:2], tensor.stride()[:2]
    return tensor.data_ptr(), node if nodes > 1 else 0, head if heads > 1 else 0
