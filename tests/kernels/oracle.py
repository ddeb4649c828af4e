"""The oracle: attention from its formulas, in eager torch, without a line of Ogive.

Masks act by selection: for each query the visible keys are picked out by index, and every formula
below sees those alone. So no formula knows of masks, and what is hidden cannot be met. Run in
float64 it is the truth; run in the dtype under test it is "eager" in the rule of comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Params = dict[str, Tensor]

# --- scores: query (r, d) and visible keys (r, n, d) of r rows to (r, n), unscaled -----------


def dots(q: Tensor, k: Tensor) -> Tensor:
    return (k @ q.unsqueeze(-1)).squeeze(-1)


def unit(x: Tensor) -> Tensor:
    squared = x.square().sum(-1, keepdim=True)  # where it is 0, the slope of its root counts as 0
    length = torch.where(squared > 0, torch.where(squared > 0, squared, 1).sqrt(), 0)
    return x / length.clamp_min(1e-12)


def cosine(q: Tensor, k: Tensor, p: Params) -> Tensor:
    gain = p["weight"].reshape(-1, 1) if "weight" in p else 10
    return gain * dots(unit(q), unit(k))


def bilinear(q: Tensor, k: Tensor, p: Params) -> Tensor:
    return dots((q.unsqueeze(-2) @ p["weight"]).squeeze(-2), k)


def squared_distance(q: Tensor, k: Tensor, p: Params) -> Tensor:
    return -(q.unsqueeze(-2) - k).square().sum(-1) / 2


def plain_distance(q: Tensor, k: Tensor, p: Params) -> Tensor:
    squared = (q.unsqueeze(-2) - k).square().sum(-1)
    return -torch.where(squared > 0, torch.where(squared > 0, squared, 1).sqrt(), 0)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def of_sum(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Params], Tensor]:
    return lambda q, k, p: (f(q.unsqueeze(-2) + k) * p["weight"].unsqueeze(-2)).sum(-1)


def static_sum(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Params], Tensor]:
    def scores(q: Tensor, k: Tensor, p: Params) -> Tensor:
        of_query = (q * p["query_weight"]).sum(-1, keepdim=True)
        return f(of_query + (k * p["key_weight"].unsqueeze(-2)).sum(-1))

    return scores


def cap(limit: float) -> Callable[[Tensor], Tensor]:
    return lambda s: limit * torch.tanh(s / limit)


@dataclass(frozen=True)
class ScoreFormula:
    pairs: Callable[[Tensor, Tensor, Params], Tensor]
    scale: Callable[[int], float] = lambda width: 1.0
    then: Callable[[Tensor], Tensor] | None = None


def root(width: int) -> float:
    return 1 / math.sqrt(width) if width else 1.0


def dot(q: Tensor, k: Tensor, p: Params) -> Tensor:
    return dots(q, k)


SCORES = {
    "dot": ScoreFormula(dot, root),
    "unscaled_dot": ScoreFormula(dot),
    "dot,softcap(2)": ScoreFormula(dot, root, cap(2.0)),
    "cosine": ScoreFormula(cosine),
    "cosine(learned=true)": ScoreFormula(cosine),
    "bilinear": ScoreFormula(bilinear, root),
    "distance": ScoreFormula(squared_distance, lambda d: 1 / math.sqrt(max(d, 1))),
    "distance(power=1)": ScoreFormula(plain_distance, lambda d: max(d, 1) ** -0.25),
    "additive(tanh)": ScoreFormula(of_sum(torch.tanh)),
    "gat": ScoreFormula(static_sum(leaky)),
    "gatv2": ScoreFormula(of_sum(leaky)),
    "gatv2,softcap(2)": ScoreFormula(of_sum(leaky), then=cap(2.0)),
}

# Activations of a sum beyond those of SCORES, and how large the terms of f and f' are where f is a
# sum that cancels.


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(torch.where(x > 0, 0, x)))


def elu1(x: Tensor) -> Tensor:
    return torch.where(x > 0, x + 1, torch.exp(torch.where(x > 0, 0, x)))


def hardtanh(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 1, x, torch.sign(x))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "leaky_relu": leaky,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "silu": lambda x: x * torch.sigmoid(x),
    "softplus": lambda x: softplus(x),
    "gelu": lambda x: gelu(x),
    "relu2": lambda x: torch.relu(x).square(),
    "elu": elu,
    "elu1": elu1,
    "hardtanh": hardtanh,
    "mish": lambda x: x * torch.tanh(softplus(x)),
}
CANCELLING: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "gelu": lambda x: (x.abs(), torch.ones_like(x)),
}
ACTIVATED = {
    **{f"additive({name})": ScoreFormula(of_sum(f)) for name, f in ACTIVATIONS.items()},
    **{f"gat({name})": ScoreFormula(static_sum(f)) for name, f in ACTIVATIONS.items()},
}

# --- weights: visible scores (r, n), n ≥ 1, to weights (r, n) ---------------------------------


def softmax(s: Tensor, p: Params) -> Tensor:
    e = torch.exp(s - s.detach().max(-1, keepdim=True).values)
    return e / e.sum(-1, keepdim=True)


def with_extra(s: Tensor, logit: Tensor) -> Tensor:
    top = torch.maximum(s.detach().max(-1, keepdim=True).values, logit.detach())
    e = torch.exp(s - top)
    return e / (e.sum(-1, keepdim=True) + torch.exp(logit - top))


def softmax1(s: Tensor, p: Params) -> Tensor:
    return with_extra(s, s.new_zeros(1, 1))


def sink(s: Tensor, p: Params) -> Tensor:
    return with_extra(s, p["logit"].reshape(-1, 1))


def softpick(s: Tensor, p: Params) -> Tensor:
    top = s.detach().max(-1, keepdim=True).values.clamp_min(0)
    small = s.abs() < 1
    near = torch.expm1(torch.where(small, s, 0)) * torch.exp(-top)
    mass = torch.where(small, near, torch.exp(s - top) - torch.exp(-top))
    total = mass.abs().sum(-1, keepdim=True)
    return torch.where(total == 0, 0, mass.clamp_min(0) / torch.where(total == 0, 1, total))


def cog(s: Tensor, p: Params) -> Tensor:
    return torch.sign(s) * softmax(s.abs(), p)


def sparsemax(s: Tensor, p: Params) -> Tensor:
    z = s - s.detach().max(-1, keepdim=True).values
    count = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    thresholds = (z.sort(-1, descending=True).values.cumsum(-1) - 1) / count
    return torch.relu(z - thresholds.max(-1, keepdim=True).values)


def entmax15(s: Tensor, p: Params) -> Tensor:
    """Bisection finds who is in the support; on it the threshold solves a quadratic."""
    z = (s - s.detach().max(-1, keepdim=True).values) / 2
    low, high = torch.full_like(z[..., :1], -1.0), torch.zeros_like(z[..., :1])
    with torch.no_grad():
        for _ in range(60):
            middle = (low + high) / 2
            full = (z - middle).clamp_min(0).square().sum(-1, keepdim=True) >= 1
            low, high = torch.where(full, middle, low), torch.where(full, high, middle)
        inside = (z > low).to(z.dtype)
        count = inside.sum(-1, keepdim=True)
    mean = (z * inside).sum(-1, keepdim=True) / count
    spread = ((z - mean).square() * inside).sum(-1, keepdim=True)
    radicand = (1 - spread) / count
    root_of = torch.where(radicand > 0, torch.where(radicand > 0, radicand, 1).sqrt(), 0)
    return torch.relu((z - mean + root_of) * inside).square()


def shares(s: Tensor, p: Params) -> Tensor:
    total = s.sum(-1, keepdim=True)
    return torch.where(total == 0, 0, s / torch.where(total == 0, 1, total))


def gelu(s: Tensor) -> Tensor:
    return s * 0.5 * (1 + torch.erf(s / math.sqrt(2)))


def softplus(s: Tensor) -> Tensor:
    # max(s, 0) twice: torch's slopes at 0 are 1 and 0, and softplus has a half there.
    ramp = (s.clamp_min(0) + s.relu()) / 2
    return ramp + torch.log1p(torch.exp(-s.abs()))


@dataclass(frozen=True)
class Elementwise:
    """value(scores, n): each score on its own, n the number of visible keys.

    `terms` says how large the terms of f and f' are where f is a sum that cancels (gelu below 0).
    """

    value: Callable[[Tensor, Tensor], Tensor]
    terms: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def __call__(self, s: Tensor, p: Params) -> Tensor:
        return self.value(s, s.new_full((), float(s.shape[-1])))


ELEMENTWISE = {
    "sigmoid(bias=-log_n)": Elementwise(lambda s, n: torch.sigmoid(s - n.log())),
    "sigmoid(bias=-1)": Elementwise(lambda s, n: torch.sigmoid(s - 1)),
    "tanh": Elementwise(lambda s, n: torch.tanh(s) / n),
    "relu(length_power=1)": Elementwise(lambda s, n: torch.relu(s) / n),
    "relu(length_power=0)": Elementwise(lambda s, n: torch.relu(s)),
    "relu2(length_power=1)": Elementwise(lambda s, n: torch.relu(s).square() / n),
    "silu(length_power=1)": Elementwise(lambda s, n: s * torch.sigmoid(s) / n),
    "gelu(length_power=1)": Elementwise(
        lambda s, n: gelu(s) / n, lambda s, n: (s.abs() / n, 1 / n)
    ),
    "softplus(length_power=1)": Elementwise(lambda s, n: softplus(s) / n),
    "softplus(length_power=0.5)": Elementwise(lambda s, n: softplus(s) / n.sqrt()),
    "identity(length_power=1)": Elementwise(lambda s, n: s / n),
    "linear(normalise=false)": Elementwise(lambda s, n: s),
}
ROWWISE = {
    "softmax": softmax,
    "softmax1": softmax1,
    "sink": sink,
    "softpick": softpick,
    "cog": cog,
    "sparsemax": sparsemax,
    "entmax15": entmax15,
    "linear(normalise=true)": shares,
}
WEIGHTS: dict[str, Callable[[Tensor, Params], Tensor]] = {**ROWWISE, **ELEMENTWISE}


# --- attention --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    out: Tensor  # (b, h, i, v)
    scores: Tensor | None = None  # (b, h, i, j) with the bias, 0 where hidden
    weights: Tensor | None = None  # (b, h, i, j), 0 where hidden


def visible_pairs(
    shape: tuple[int, int, int, int],
    *,
    causal: bool = False,
    offset: int | Tensor = 0,
    window: tuple[int | None, int | None] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """bool (b, h, i, j): who may see whom, from the sentences of the contract."""
    batch, heads, queries, keys = shape
    offsets = torch.as_tensor(offset).reshape(-1)
    place = torch.arange(queries).view(1, -1, 1) + offsets.view(-1, 1, 1)
    ahead = torch.arange(keys).view(1, 1, -1) - place
    seen = torch.ones(1, queries, keys, dtype=torch.bool).expand(len(offsets), -1, -1).clone()
    if causal:
        seen &= ahead <= 0
    left, right = window or (None, None)
    if left is not None:
        seen &= ahead >= -left
    if right is not None:
        seen &= ahead <= right
    seen = seen[:, None].expand(batch, heads, queries, keys)
    return seen.clone() if mask is None else seen & mask


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score: ScoreFormula,
    weight: Callable[[Tensor, Params], Tensor],
    keep: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    score_params: Params | None = None,
    weight_params: Params | None = None,
    dropped: Tensor | None = None,
    dense: bool = False,
) -> Answer:
    """Attention over visible pairs alone.

    Rows are taken together by the number of keys that they see; `dropped` (b, h, i, j) multiplies
    the weights. `dense` also gives scores and weights of all pairs.
    """
    batch, heads, queries, _ = query.shape
    group = heads // key.shape[1] if key.shape[1] else 1
    factor = score.scale(query.shape[-1]) if scale is None else scale
    full = None if bias is None else bias.expand(*query.shape[:3], key.shape[-2])
    out = query.new_zeros(batch * heads * queries, value.shape[-1])
    tables = [query.new_zeros(len(out), key.shape[-2]) for _ in range(2)] if dense else []
    counts = keep.sum(-1)
    found: list[tuple[Tensor, Tensor]] = []
    for count in sorted(set(counts.flatten().tolist()) - {0}):
        b, h, i = (counts == count).nonzero(as_tuple=True)
        j = keep[b, h, i].nonzero()[:, 1].view(-1, count)
        rows = (b * heads + h) * queries + i
        at = (b[:, None], (h // group)[:, None], j)
        s = score.pairs(query[b, h, i], key[at], _of_heads(score_params, h)) * factor
        if score.then is not None:
            s = score.then(s)
        if full is not None:
            s = s + full[b[:, None], h[:, None], i[:, None], j]
        w = weight(s, _of_heads(weight_params, h))
        if dense:
            for table, part in zip(tables, (s, w), strict=True):
                table[rows[:, None], j] = part.detach()
        if dropped is not None:
            w = w * dropped[b[:, None], h[:, None], i[:, None], j]
        found.append((rows, (w.unsqueeze(-2) @ value[at]).squeeze(-2)))
    if found:
        rows, parts = zip(*found, strict=True)
        out = out.index_copy(0, torch.cat(rows), torch.cat(parts))
    return Answer(*(t.view(batch, heads, queries, t.shape[-1]) for t in (out, *tables)))


def _of_heads(params: Params | None, heads: Tensor) -> Params:
    return {name: tensor[heads] for name, tensor in (params or {}).items()}
