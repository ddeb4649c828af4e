"""Attention over edges as the compiled kernels see it: tensors and numbers, no parts.

out_i = Σ_e w_e v_source(e) over the sorted edges e of target i, w = curve of their scores.
`definition` says the same in torch, by the dense definition for targets of one degree: it computes
targets that see values which are not finite, and second derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ogive.kernels import dense, edge_compiled, finite
from ogive.kernels.dropout import kept

GRADED = (
    "query",
    "key",
    "value",
    "constant",
    "bias",
    "vectors",
    "query_weight",
    "key_weight",
)
"""The inputs that have gradients."""


@dataclass(frozen=True)
class Segments:
    """One call over edges.

    Attributes:
        query: (t, h, d). key: (s, h, d). value: (s, h, v).
        constant: (1 or t, 1 or h): c of an elementwise curve, or a sink's logit, or None.
        bias: (sorted edges, 1 or h), added to the scores, −∞ hides; or None.
        vectors: (h, d) of an additive score Σ_d v_d act(q_d + k_d), scale included, or None.
        query_weight, key_weight: (h, d) of GAT, whose q and k are Σ_d w_d x_d of the rows: one
            number a head; vectors are then (h, 1). None: the rows themselves.
        target_start, order, source, source_start, by_source, target: of an `EdgeList`.
        seed: int64 (), of dropout; None without.
        score: a name in `compiled.APART`, "" for dot products and additive scores.
        curve: a name in `dense.ELEMENTWISE` or `dense.SHARING`.
        act: a name in `dense.ACTS`, "" for dot products.
        act_constant: the slope of leaky_relu.
        scale, cap: numbers; cap 0 is no softcap.
        dropout: probability.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    constant: Tensor | None
    bias: Tensor | None
    vectors: Tensor | None
    query_weight: Tensor | None
    key_weight: Tensor | None
    target_start: Tensor
    order: Tensor
    source: Tensor
    source_start: Tensor
    by_source: Tensor
    target: Tensor
    seed: Tensor | None
    score: str
    curve: str
    act: str
    act_constant: float
    scale: float
    cap: float
    dropout: float

    def replaced(self, **changes: object) -> Segments:
        """The same call with some inputs changed."""
        return Segments(**{**vars(self), **changes})  # type: ignore[arg-type]


def rows_by_degree(target_start: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Targets taken together by their number of edges: (r,), and places of sorted edges (r, n)."""
    degree = target_start.diff()
    for count in degree.unique().tolist():
        if count:
            rows = (degree == count).nonzero().squeeze(1)
            yield rows, target_start[rows, None] + torch.arange(count, device=degree.device)


def count_seen(target_start: Tensor, bias: Tensor | None) -> Tensor:
    """How many edges each target sees: (t, 1), or (t, h) where a bias (edges, h) may hide some."""
    if bias is None:
        return target_start.diff().unsqueeze(1)
    seen = torch.cat((bias.new_zeros(1, bias.shape[1]), (~torch.isneginf(bias)).cumsum(0)))
    return seen[target_start].diff(dim=0)


def definition(call: Segments, only: Tensor | None = None) -> Tensor:
    """The operation in torch, differentiable to any order; zeros beside the targets in `only`."""
    out = call.query.new_zeros(*call.query.shape[:2], call.value.shape[-1])
    stay = None
    if call.seed is not None:
        stay = kept(call.seed, torch.Size((len(call.order), out.shape[1])), call.dropout)
    for rows, places in rows_by_degree(call.target_start):
        if only is not None:
            chosen = only[rows]
            rows, places = rows[chosen], places[chosen]
        out = out.index_add(0, rows, dense.definition(_dense(call, rows, places, stay)).squeeze(2))
    return out


def _dense(call: Segments, rows: Tensor, places: Tensor, stay: Tensor | None) -> dense.Dense:
    """Targets (r,) with edges (r, n) as dense rows; dropping a weight is dropping its value."""
    source = call.source[places].long()
    value = call.value[source].transpose(1, 2)
    if stay is not None:
        factor = stay[call.order[places].long()].transpose(1, 2).unsqueeze(-1)
        value = value * (factor / (1 - call.dropout))
    bias = keep = constant = None
    if call.bias is not None:
        bias = call.bias[places].transpose(1, 2).unsqueeze(2)
        keep = ~torch.isneginf(bias)
        bias = bias.masked_fill(~keep, 0)
    if call.constant is not None:
        own = call.constant.shape[0] > 1 or len(call.query) == 1
        constant = (call.constant[rows] if own else call.constant).unsqueeze(-1)
    query, key = call.query[rows], call.key[source]
    if call.query_weight is not None and call.key_weight is not None:
        query = (query * call.query_weight).sum(-1, keepdim=True)
        key = (key * call.key_weight).sum(-1, keepdim=True)
    return dense.Dense(
        query.unsqueeze(2),
        key.transpose(1, 2),
        value,
        constant=constant,
        bias=bias,
        vectors=call.vectors,
        parameter=None,
        keep=keep,
        offsets=None,
        seed=None,
        score=call.score,
        curve=call.curve,
        act=call.act,
        act_constant=call.act_constant,
        scale=call.scale,
        cap=call.cap,
        dropout=0.0,
        left=-1,
        right=-1,
    )


def forward(call: Segments) -> Tensor:
    """The output; targets that see a wild value are computed by the definition."""
    if _tame(call):
        return run_forward(call)
    bad = wild_targets(call)
    out = run_forward(_tamed(call))
    if bad.any():
        with torch.no_grad():
            out = torch.where(bad[:, None, None], definition(call, bad), out)
    return out


def joined(call: Segments) -> int:
    """Whose gradients are one sum with the values': 0 nobody's, 1 keys', 2 queries' too.

    They are where one tensor is given for all; of queries GAT alone makes a sum.
    """
    if call.key is not call.value:
        return 0
    return 2 if call.query is call.key and call.query_weight is not None else 1


def backward(
    call: Segments, grad_out: Tensor, needs: tuple[bool, ...], joined: int
) -> tuple[Tensor, ...]:
    """Gradients of the GRADED inputs, empty for those that `needs` leaves out.

    The gradient of values is that of keys and queries too, as far as they are `joined` to them.
    """
    if _tame(call):
        return run_backward(call, grad_out, needs, joined)
    bad = wild_targets(call)
    grads = run_backward(_tamed(call), grad_out.masked_fill(bad[:, None, None], 0), needs, joined)
    if not bad.any():
        return grads
    names = [name for name, need in zip(GRADED, needs, strict=True) if need]
    with torch.enable_grad():
        leaves = {name: getattr(call, name).detach().requires_grad_() for name in names}
        same = dict.fromkeys(("key", "query")[:joined], leaves.get("value"))
        more = torch.autograd.grad(
            definition(call.replaced(**leaves, **same), bad),
            list(leaves.values()),
            grad_out.masked_fill(~bad[:, None, None], 0),
            allow_unused=True,
            materialize_grads=True,
        )
    extra = iter(more)
    return tuple(g + next(extra) if need else g for g, need in zip(grads, needs, strict=True))


def wild_targets(call: Segments) -> Tensor:
    """Bool (t,): targets with edges that are wild, or have a wild source or a bad bias."""
    wild_source = (finite.wild(call.key).flatten(1).any(1)) | (
        finite.wild(call.value).flatten(1).any(1)
    )
    wild = wild_source[call.source.long()]
    if call.bias is not None:
        wild = wild | ~(call.bias <= torch.finfo(call.bias.dtype).max).all(1)
    seen = torch.cat((wild.new_zeros(1, dtype=torch.int64), wild.cumsum(0)))
    degree = call.target_start.diff()
    itself = finite.wild(call.query).flatten(1).any(1) & (degree > 0)
    return (seen[call.target_start].diff() > 0) | itself


def run_forward(call: Segments) -> Tensor:
    """The compiled forward pass."""
    out = call.query.new_empty(*call.query.shape[:2], call.value.shape[-1])
    edge_compiled.run_edges(call, {"out": out})
    return out


def run_backward(
    call: Segments, grad_out: Tensor, needs: tuple[bool, ...], joined: int
) -> tuple[Tensor, ...]:
    """The compiled backward pass: between its two passes it holds two numbers an edge and head."""
    query, heads, edges = call.query, call.query.shape[1], len(call.order)
    asked = [name for name, need in zip(GRADED, needs, strict=True) if need]
    shapes = {name: tuple(getattr(call, name).shape) for name in asked}
    if "bias" in shapes:
        shapes["bias"] = (edges, heads)
    if "constant" in shapes:
        shapes["constant"] = (1, heads)  # of a sink, which targets share
    grads = {name: query.new_empty(shapes.get(name, 0)) for name in GRADED}
    between = query.new_empty(edges, 2, heads)  # side by side: the pass over sources reads both
    filled = {f"grad_{name}": grad for name, grad in grads.items()}
    filled |= dict.fromkeys(("grad_key", "grad_query")[:joined], grads["value"])
    if grad_out.stride(-1) != 1:
        grad_out = grad_out.contiguous()
    edge_compiled.run_edges(
        call,
        {"grad_out": grad_out, **filled, "weights": between[:, 0], "slopes": between[:, 1]},
        back=True,
    )
    if "bias" in shapes:
        grads["bias"] = grads["bias"].sum_to_size(call.bias.shape)  # type: ignore[union-attr]
    return tuple(grads.values())


def _tame(call: Segments) -> bool:
    limit = torch.finfo(call.query.dtype).max ** 0.5 / 4
    inputs = {id(tensor): tensor for tensor in (call.query, call.key, call.value)}
    if not all(edge_compiled.all_within(tensor, limit) for tensor in inputs.values()):
        return False
    most = torch.finfo(call.query.dtype).max
    return call.bias is None or bool((call.bias <= most).all())


def _tamed(call: Segments) -> Segments:
    tame = {n: getattr(call, n) for n in ("query", "key", "value")}
    tame = {n: t.masked_fill(finite.wild(t), 0) for n, t in tame.items()}
    if call.bias is None:
        return call.replaced(**tame)
    fits = call.bias <= torch.finfo(call.bias.dtype).max
    return call.replaced(**tame, bias=call.bias.masked_fill(~fits, 0))
