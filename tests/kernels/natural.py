"""The natural size of rounding errors: every reduction again, on absolute values, in float64.

nat(t) is what one relative rounding of each number on the way to t may add up to, to first order.
A score carries S, the sum of the absolute values of its terms. A weight carries |w| and what a
change of size S in every score may do to it:

    shares (softmax, softmax1, sink, cog):  PA = |w| (1 + S + |lse|)
    elementwise φ:                          PA = |φ| + |φ'| S
    other rows:                             PA = |w| + |J| R,     R = S + max |s| of the row

with J = ∂w/∂s by automatic differentiation, and, where D is the slope of w with the row's sum or
threshold frozen, |J| on its diagonal the terms D + |D − J|: their difference may vanish exactly,
as in a row of one key, and roundings do not. Backward, with dWa = |g||v|ᵀ, each adds what the
change in the scores does to the slope:

    shares:       dSa = PA (dWa + rowsum(|g| nat(out)))
    elementwise:  dSa = (|φ'| + |φ''| S) dWa
    other rows:   dSa = |J|ᵀ dWa + |M| R,     M = ∂²(w · dW)/∂s∂s

R has the row's largest score because thresholds and shifts of a row are computed from it. Slopes
of tanh and of the logistic curve come from e^(−|x|): 1 − tanh² is 0 in float64 from 19 on, where
no slope is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import hessian, jacrev, vmap
from torch.overrides import TorchFunctionMode

from kernels import oracle
from kernels.oracle import Params, ScoreFormula

SHARES = ("softmax", "softmax1", "sink", "cog")
FROZEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softpick": lambda s, w: _softpick_frozen(s),
    "sparsemax": lambda s, w: (w > 0).to(s.dtype),
    "entmax15": lambda s, w: w.sqrt(),
    "linear(normalise=true)": lambda s, w: 1 / s.sum(-1, keepdim=True),
}
"""∂w/∂s of these, as if the row's sum or threshold were fixed: (r, n) scores and weights."""


@dataclass(frozen=True)
class Problem:
    """One call in float64: inputs, formulas by their written names, and the oracle's answer."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None
    grad: Tensor
    keep: Tensor
    scale: float
    score: str
    formula: ScoreFormula
    weight: str
    weigh: Callable[[Tensor, Params], Tensor]
    score_params: Params
    weight_params: Params
    scores: Tensor
    weights: Tensor


def natural(p: Problem) -> dict[str, float]:
    """The largest entry of nat(t) for out and for every gradient that the call has."""
    group = p.query.shape[1] // p.key.shape[1] if p.key.shape[1] else 1
    q, k, v = p.query.abs(), _heads(p.key.abs(), group), _heads(p.value.abs(), group)
    signed = (p.query, _heads(p.key, group), _heads(p.value, group))
    raw, sizes = _score_sizes(p, signed[0], signed[1])
    capped = sizes if p.formula.then is None else _through(p.formula.then, raw, sizes)
    total = capped if p.bias is None else capped + p.bias.abs()
    total = torch.where(p.keep, total, 0)
    g = p.grad.abs()
    carried, onward, sunk = _weight_sizes(p, total, g, v, p.grad @ signed[2].mT)
    found = {"out": carried @ v, "value": _shared(carried.mT @ g, group), **sunk}
    if p.bias is not None:
        found["bias"] = onward.sum_to_size(p.bias.shape)
    if p.formula.then is not None:
        onward = onward * _slopes(p.formula.then, raw, sizes)
    found |= _score_gradients(p, *signed[:2], q, k, onward, group)
    return {name: float(t.abs().max()) if t.numel() else 0.0 for name, t in found.items()}


def _heads(tensor: Tensor, group: int) -> Tensor:
    return tensor if group == 1 else tensor.repeat_interleave(group, 1)


def _shared(tensor: Tensor, group: int) -> Tensor:
    return tensor if group == 1 else tensor.unflatten(1, (-1, group)).sum(2)


def _tanh(x: Tensor) -> Tensor:
    side = torch.where(x < 0, -1.0, 1.0).to(x.dtype)
    return -side * torch.expm1(-2 * side * x) / (1 + torch.exp(-2 * side * x))


def _sigmoid(x: Tensor) -> Tensor:
    side = torch.where(x < 0, -1.0, 1.0).to(x.dtype)
    e = torch.exp(-side * x)
    return torch.where(x < 0, e, 1) / (1 + e)


class _Careful(TorchFunctionMode):
    """Inside, what autograd makes of tanh and sigmoid loses no slope to 1 − 1."""

    CURVES: ClassVar = {"tanh": _tanh, "sigmoid": _sigmoid}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.CURVES.get(func.__name__, func)(*args, **(kwargs or {}))


def _curve(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f, f' and f'' of each number, absolute."""
    with torch.enable_grad(), _Careful():
        x = x.detach().requires_grad_()
        value = f(x)
        (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        second = torch.zeros_like(x)
        if first.requires_grad:
            (second,) = torch.autograd.grad(
                first.sum(), x, allow_unused=True, materialize_grads=True
            )
    return value.detach().abs(), first.detach().abs(), second.abs()


def _through(f: Callable[[Tensor], Tensor], x: Tensor, sizes: Tensor) -> Tensor:
    value, first, _ = _curve(f, x)
    return value + first * sizes


def _slopes(f: Callable[[Tensor], Tensor], x: Tensor, sizes: Tensor) -> Tensor:
    _, first, second = _curve(f, x)
    return first + second * sizes


# --- weights ----------------------------------------------------------------------------------


def _weight_sizes(
    p: Problem, sizes: Tensor, g: Tensor, v: Tensor, dw: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    if p.weight in SHARES:
        return _of_shares(p, sizes, g, v)
    if isinstance(p.weigh, oracle.Elementwise):
        n = p.keep.sum(-1, keepdim=True).clamp_min(1).to(sizes.dtype)
        value, first, second = _curve(lambda s: p.weigh.value(s, n), p.scores)  # type: ignore[union-attr]
        if p.weigh.terms is not None:
            value, first = p.weigh.terms(p.scores, n)
        carried = torch.where(p.keep, value + first * sizes, 0)
        return carried, torch.where(p.keep, first + second * sizes, 0) * (g @ v.mT), {}
    return *_of_rows(p, sizes, g @ v.mT, dw), {}


def _of_shares(
    p: Problem, sizes: Tensor, g: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    s = p.scores.abs() if p.weight == "cog" else p.scores
    s = torch.where(p.keep, s, -torch.inf)
    if p.weight in ("softmax1", "sink"):
        z = p.weight_params["logit"] if p.weight == "sink" else torch.zeros(s.shape[1], 1, 1)
        s = torch.cat((s, z.to(s.dtype).expand(*s.shape[:3], 1)), -1)
    lse = s.logsumexp(-1, keepdim=True) if s.shape[-1] else s.new_zeros((*s.shape[:3], 1))
    lse = torch.where(lse.isfinite(), lse, 0)
    carried = p.weights.abs() * (1 + sizes + lse.abs())
    backward = (g * (carried @ v)).sum(-1, keepdim=True)
    sunk = {}
    if p.weight == "sink":
        share = torch.exp(p.weight_params["logit"] - lse)
        tall = share * (1 + p.weight_params["logit"].abs() + lse.abs()) * backward
        sunk = {"weight.logit": tall.sum((0, 2)).view(-1, 1, 1)}
    return carried, carried * (g @ v.mT + backward), sunk


def _of_rows(p: Problem, sizes: Tensor, dwa: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
    carried, onward = torch.zeros_like(sizes), torch.zeros_like(sizes)
    counts = p.keep.sum(-1)

    def row(s: Tensor) -> Tensor:
        return p.weigh(s, {})

    for count in sorted(set(counts.flatten().tolist()) - {0}):
        at = (counts == count).nonzero(as_tuple=True)
        j = p.keep[at].nonzero()[:, 1].view(-1, count)
        s, size, a, d = (t[at].gather(-1, j) for t in (p.scores, sizes, dwa, dw))
        jacobian = _terms(p.weight, vmap(jacrev(row))(s), s, p.weights[at].gather(-1, j))
        bend = vmap(hessian(lambda x, y: (row(x) * y).sum()))(s, d).abs()
        reach = size + s.abs().amax(-1, keepdim=True)
        here = p.weights[at].gather(-1, j).abs() + (jacobian @ reach.unsqueeze(-1)).squeeze(-1)
        back = (a.unsqueeze(-2) @ jacobian).squeeze(-2) + (bend @ reach.unsqueeze(-1)).squeeze(-1)
        rows = [index.unsqueeze(-1) for index in at]
        carried[*rows, j], onward[*rows, j] = here, back
    return carried, onward


def _terms(weight: str, jacobian: Tensor, s: Tensor, w: Tensor) -> Tensor:
    """|J|, with the terms of a difference on its diagonal."""
    if weight not in FROZEN:
        return jacobian.abs()
    frozen = FROZEN[weight](s, w)
    inside = frozen.abs() + (frozen - jacobian.diagonal(dim1=-2, dim2=-1)).abs()
    return jacobian.abs().diagonal_scatter(inside, dim1=-2, dim2=-1)


def _softpick_frozen(s: Tensor) -> Tensor:
    high = (s.amax(-1, keepdim=True) - 300).clamp_min(0)  # nothing overflows, nothing cancels
    mass = torch.where(high > 0, (s - high).exp() - (-high).exp(), torch.expm1(s.clamp_max(300)))
    total = mass.abs().sum(-1, keepdim=True)
    return (s > 0) * (s - high).exp() / torch.where(total > 0, total, 1)


# --- scores -----------------------------------------------------------------------------------


def _score_sizes(p: Problem, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Signed scores before any softcap, and the sizes of their terms."""
    a, b, w = q.abs(), k.abs(), {n: t.abs() for n, t in p.score_params.items()}
    factor = abs(p.scale)
    base = p.score.split(",")[0]
    if base in ("dot", "unscaled_dot"):
        signed, sizes = q @ k.mT, a @ b.mT
    elif base == "bilinear":
        signed, sizes = q @ p.score_params["weight"] @ k.mT, a @ w["weight"] @ b.mT
    elif base.startswith("cosine"):
        signed, sizes = oracle.unit(q) @ oracle.unit(k).mT, oracle.unit(a) @ oracle.unit(b).mT
        gain = p.score_params.get("weight", torch.tensor(10.0, dtype=q.dtype))
        signed, sizes = signed * gain, sizes * gain.abs()
    elif base.startswith("distance"):
        apart = (q.unsqueeze(-2) - k.unsqueeze(-3)).square().sum(-1)
        sizes = (a.unsqueeze(-2) + b.unsqueeze(-3)).square().sum(-1)
        if "power=1" in base:
            apart = apart.sqrt()
            sizes = apart + torch.where(apart > 0, sizes / (2 * apart), 0)
        signed = -apart
    elif base == "gat":
        u, big = _static(p, q, k)
        signed, sizes = oracle.leaky(u), big
    elif base.startswith("gat("):
        u, big = _static(p, q, k)
        f, (value, first, _) = _act(base), _bends(base, u)
        signed, sizes = f(u), value + first * big
    else:
        f, first, _, big, signed = _summed(p, q, k)
        sizes = ((f + first * big) * w["weight"][:, None, None]).sum(-1)
    return torch.where(p.keep, signed * p.scale, 0), sizes * factor


def _static(p: Problem, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    of_q, of_k = (p.score_params[n].unsqueeze(-1) for n in ("query_weight", "key_weight"))
    return q @ of_q + (k @ of_k).mT, q.abs() @ of_q.abs() + (k.abs() @ of_k.abs()).mT


def _summed(p: Problem, q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    """Of f(q + k): |f|, |f'|, |f''| and |q| + |k|, all (b, h, i, j, d), and the signed score."""
    f = _act(p.score)
    x = q.unsqueeze(-2) + k.unsqueeze(-3)
    big = q.abs().unsqueeze(-2) + k.abs().unsqueeze(-3)
    signed = (f(x) * p.score_params["weight"][:, None, None]).sum(-1)
    return *_bends(p.score, x), big, signed


def _act_name(score: str) -> str:
    name, _, act = score.split(",")[0].partition("(")
    return "leaky_relu" if name in ("gat", "gatv2") and not act else act.removesuffix(")")


def _act(score: str) -> Callable[[Tensor], Tensor]:
    return oracle.ACTIVATIONS[_act_name(score)]


def _bends(score: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """|f|, |f'| and |f''| of the score's activation; of terms where f is a sum that cancels."""
    value, first, second = _curve(_act(score), x)
    act = _act_name(score)
    if act in oracle.CANCELLING:
        value, first = oracle.CANCELLING[act](x)
    return value, first, second


def _score_gradients(
    p: Problem, q: Tensor, k: Tensor, a: Tensor, b: Tensor, onward: Tensor, group: int
) -> dict[str, Tensor]:
    """nat of dq, dk and of the score's parameters, from that of the scores' gradients."""
    d = onward * abs(p.scale)
    w = {n: t.abs() for n, t in p.score_params.items()}
    base = p.score.split(",")[0]
    if base in ("dot", "unscaled_dot"):
        dq, dk, more = d @ b, d.mT @ a, {}
    elif base == "bilinear":
        dq, dk = d @ (b @ w["weight"].mT), d.mT @ (a @ w["weight"])
        more = {"weight": (a.mT @ d @ b).sum(0)}
    elif base.startswith("cosine"):
        dq, dk, more = _cosine_gradients(p, a, b, d)
    elif base.startswith("distance"):
        reach = a.unsqueeze(-2) + b.unsqueeze(-3)
        if "power=1" in base:
            squared = (q.unsqueeze(-2) - k.unsqueeze(-3)).square().sum(-1)
            bent = (1 + reach.square().sum(-1) / (2 * squared)) / squared.sqrt()
            d = torch.where(squared > 0, d * bent, 0)
        each = d.unsqueeze(-1) * reach
        dq, dk, more = each.sum(-2), each.sum(-3), {}
    elif base.startswith("gat") and base != "gatv2":
        dq, dk, more = _static_gradients(p, q, k, d)
    else:
        f, first, second, big, _ = _summed(p, q, k)
        more = {"weight": (d.unsqueeze(-1) * (f + first * big)).sum((0, 2, 3))}
        each = d.unsqueeze(-1) * (first + second * big) * w["weight"][:, None, None]
        dq, dk = each.sum(-2), each.sum(-3)
    named = {f"score.{name}": t for name, t in more.items()}
    return {"query": dq, "key": _shared(dk, group), **named}


def _cosine_gradients(
    p: Problem, a: Tensor, b: Tensor, d: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    unit_q, unit_k = oracle.unit(a), oracle.unit(b)
    gain = p.score_params.get("weight", torch.tensor(10.0, dtype=a.dtype)).abs()

    def back(unit: Tensor, length: Tensor, into: Tensor) -> Tensor:
        around = into + unit * (unit * into).sum(-1, keepdim=True)
        return around / length.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)

    more = {}
    if "weight" in p.score_params:
        more["weight"] = (d * (unit_q @ unit_k.mT)).sum((0, 2, 3)).view(-1, 1, 1)
    d = d * gain
    return back(unit_q, a, d @ unit_k), back(unit_k, b, d.mT @ unit_q), more


def _static_gradients(
    p: Problem, q: Tensor, k: Tensor, d: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    u, big = _static(p, q, k)
    d = d * _slopes(_act(p.score), u, big)
    of_q, of_k = p.score_params["query_weight"].abs(), p.score_params["key_weight"].abs()
    more = {
        "query_weight": (d.sum(-1, keepdim=True) * q.abs()).sum((0, 2)),
        "key_weight": (d.mT.sum(-1, keepdim=True) * k.abs()).sum((0, 2)),
    }
    return d.sum(-1, keepdim=True) * of_q[:, None], d.mT.sum(-1, keepdim=True) * of_k[:, None], more
