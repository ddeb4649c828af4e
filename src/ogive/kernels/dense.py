"""The dense operation as the compiled kernels see it: tensors and numbers, no parts.

out_i = Σ_j w_ij v_j with w = curve(cap·tanh(scale·q·k / cap) + bias, constant) over the pairs
that keep, offsets and sides leave visible. `definition` says the same in torch: it computes rows
that see values which are not finite, and second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.kernels import finite
from ogive.kernels.compiled import APART, run
from ogive.kernels.dropout import drop
from ogive.kernels.reduced import REDUCTIONS, Reduced, group_of
from ogive.kernels.visible import Visibility
from ogive.parts.scores import Distance, Dot, Score, ScoreChain, Softcap
from ogive.parts.weights import (
    Cog,
    Entmax15,
    Linear,
    Softmax,
    Softpick,
    Sparsemax,
    over_sum,
    row_maximum,
    shifted_exp,
)

SHARING = {
    "cog": Cog,
    "entmax15": Entmax15,
    "linear": Linear,
    "softmax": Softmax,
    "softpick": Softpick,
    "sparsemax": Sparsemax,
}
ELEMENTWISE = {
    "gelu": lambda s, c: F.gelu(s) * c,
    "identity": lambda s, c: s * c,
    "relu": lambda s, c: F.relu(s) * c,
    "relu2": lambda s, c: F.relu(s).square() * c,
    "sigmoid": lambda s, c: torch.sigmoid(s + c),
    "silu": lambda s, c: F.silu(s) * c,
    "softplus": lambda s, c: F.softplus(s, threshold=40) * c,
    "tanh": lambda s, c: s.tanh() * c,
}

ACTS: dict[str, Callable[..., Tensor]] = {
    "tanh": lambda x, c: x.tanh(),
    "relu": lambda x, c: F.relu(x),
    "leaky_relu": lambda x, c: F.leaky_relu(x, c),
    "silu": lambda x, c: F.silu(x),
    "sigmoid": lambda x, c: x.sigmoid(),
    "softplus": lambda x, c: F.softplus(x, threshold=40),
    "gelu": lambda x, c: F.gelu(x),
    "relu2": lambda x, c: F.relu(x).square(),
    "elu": lambda x, c: F.elu(x),
    "elu1": lambda x, c: F.elu(x) + 1,
    "hardtanh": lambda x, c: F.hardtanh(x),
    "mish": lambda x, c: F.mish(x),
}
"""In the order of the compiled enumeration, which starts at 1."""
GRADED = ("query", "key", "value", "constant", "bias", "vectors", "parameter")
"""The inputs that have gradients."""


@dataclass(eq=False)
class Dense:
    """One call of the dense operation.

    Nothing changes one; freezing it would cost every call a microsecond.

    Attributes:
        query: (b, h, i, d). key: (b, g, j, d). value: (b, g, j, v); g divides h.
        constant: (1 or b, 1 or h, 1 or i): c of an elementwise curve, or a sink's logit, or None.
        bias: (1 or b, 1 or h, 1 or i, 1 or j), or None.
        vectors: (h, d) of an additive score Σ_d v_d act(q_d + k_d), or None for other scores.
        parameter: (h, …) of a score in REDUCTIONS, or None where it has none.
        keep: bool (1 or b, 1 or h, 1 or i, j), or None.
        offsets: int64 (b,), where each first query stands among the keys; None where no side is.
        seed: int64 (), of dropout; None without.
        score: a name in REDUCTIONS or APART, "" for dot products and additive scores.
        curve: a name in ELEMENTWISE or SHARING.
        act: a name in ACTS, of additive scores and gat, "" for others.
        act_constant: the slope of leaky_relu.
        scale, cap: numbers; cap 0 is no softcap.
        dropout: probability.
        left, right: neighbours visible on either side, −1 for no limit.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    constant: Tensor | None
    bias: Tensor | None
    vectors: Tensor | None
    parameter: Tensor | None
    keep: Tensor | None
    offsets: Tensor | None
    seed: Tensor | None
    score: str
    curve: str
    act: str
    act_constant: float
    scale: float
    cap: float
    dropout: float
    left: int
    right: int

    @property
    def hides(self) -> bool:
        """Whether any pair may be hidden."""
        return self.keep is not None or self.left >= 0 or self.right >= 0

    def with_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> Dense:
        """The same call of other inputs."""
        return Dense(**{**vars(self), "query": query, "key": key, "value": value})

    @property
    def reduces(self) -> bool:
        """Whether the score is a dot product of something else."""
        return self.score in REDUCTIONS

    def reduced(self) -> Dense:
        """The call of dot products, or of an additive score, that this one comes to."""
        if not self.reduces:
            return self
        reduction, group = REDUCTIONS[self.score], group_of(self.query, self.key)
        query, key = reduction.operands(self.query, self.key, self.parameter)
        vectors = reduction.vectors(self.parameter, group)
        simpler = {"query": query, "key": key, "parameter": None, "score": "", "vectors": vectors}
        return Dense(**{**vars(self), **simpler})


@dataclass(frozen=True)
class Given:
    """What a backward pass is given beside the call's inputs."""

    grad_out: Tensor
    grad_lse: Tensor | None
    out: Tensor
    lse: Tensor

    def without(self, bad: Tensor, hides: bool) -> Given:
        """The same where rows that are bad (b, h, i, 1) have no gradient.

        hides: whether those rows' lse may be anything; the kernels then get one that leaves their
        weights nothing.
        """
        rows = bad[..., 0]
        return Given(
            self.grad_out.masked_fill(bad, 0),
            None if self.grad_lse is None else self.grad_lse.masked_fill(rows, 0),
            self.out.masked_fill(bad, 0),
            self.lse.masked_fill(rows, torch.inf) if hides else self.lse,
        )


def visible(call: Dense) -> Tensor | None:
    """Bool, broadcastable to (b, h, i, j); None where all pairs are visible."""
    sides = tuple(None if side < 0 else side for side in (call.left, call.right))
    offset = 0 if call.offsets is None else call.offsets
    seen = Visibility(call.keep, False, sides, offset)  # type: ignore[arg-type]
    return seen.keep(call.query.shape[-2], call.key.shape[-2], call.query.device)


def definition(call: Dense) -> Tensor:
    """The operation in torch, with (b, h, i, j) tensors; differentiable to any order."""
    scores, keep = _scores(call)
    value = call.value.to(wide_dtype(call)).repeat_interleave(group_of(call.query, call.key), 1)
    weights = _weights(call, scores, keep)
    if call.seed is not None:
        weights = drop(weights, call.seed, call.dropout)
    out = weights @ value if keep is None else finite.guarded_mix(weights, value, keep)
    return out.to(call.query.dtype)


def definitions(call: Dense, given: Given) -> tuple[list[Tensor], list[Tensor]]:
    """What has a gradient, by the definition, and those gradients.

    Values of no width leave the output out: through a softmax, its gradients of nothing would be
    NaN where scores are infinite.
    """
    made, into = [], []
    if call.value.shape[-1] or given.grad_lse is None:
        made, into = [definition(call)], [given.grad_out]
    if given.grad_lse is not None:
        made, into = [*made, definition_lse(call)], [*into, given.grad_lse]
    return made, into


def definition_lse(call: Dense) -> Tensor:
    """log Σ exp(score) over what each row sees, (b, h, i), in torch."""
    scores, keep = _scores(call)
    return torch.logsumexp(scores if keep is None else scores.masked_fill(~keep, -torch.inf), -1)


def _scores(call: Dense) -> tuple[Tensor, Tensor | None]:
    """Scores of all pairs, bias included, and which are visible."""
    dtype, keep, score = wide_dtype(call), visible(call), _score(call)
    key = call.key.to(dtype).repeat_interleave(group_of(call.query, call.key), 1)
    query = call.query.to(dtype)
    if keep is None:
        scores = score(query, key, call.scale)
    else:
        scores = finite.pair_scores(score, query, key, call.scale, keep)
    return scores if call.bias is None else scores + call.bias.to(dtype), keep


def wide_dtype(call: Dense) -> torch.dtype:
    """The dtype that is computed with: float32 for halves, which are rounded once, at the end."""
    return torch.promote_types(call.query.dtype, torch.float32)


class _Additive(Score, listed=False):
    """The additive score with vectors that are given, not learned."""

    def __init__(self, act: Callable[[Tensor], Tensor], vectors: Tensor) -> None:
        super().__init__()
        self.act, self.vectors = act, vectors

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of all pairs; builds (b, h, i, j, d)."""
        sums = query.unsqueeze(-2) + key.unsqueeze(-3)
        return torch.einsum("bhijd,hd->bhij", self.act(sums), self.vectors)


def _score(call: Dense) -> Score:
    score: Score = Dot()
    act = partial(ACTS[call.act], c=call.act_constant) if call.act else None
    if call.reduces:
        score = Reduced(call.score, call.parameter, act)
    if call.score in APART:
        score = Distance(power=APART[call.score])
    if call.vectors is not None:
        score = _Additive(act, call.vectors)  # type: ignore[arg-type]
    return ScoreChain(score, (Softcap(call.cap),)) if call.cap else score


def _weights(call: Dense, scores: Tensor, keep: Tensor | None) -> Tensor:
    constant = None if call.constant is None else call.constant[..., None]
    if call.curve in SHARING and constant is None:
        return SHARING[call.curve]()(scores, keep)
    hidden = None if keep is None else ~keep
    shown = scores if hidden is None else scores.masked_fill(hidden, 0)
    if call.curve == "softmax":
        top = torch.maximum(row_maximum(shown, keep), constant.detach())  # type: ignore[union-attr]
        weights = over_sum(shifted_exp(shown, keep, top), torch.exp(constant - top))  # type: ignore[operator]
    else:
        weights = ELEMENTWISE[call.curve](shown, constant)
    return weights if hidden is None else weights.masked_fill(hidden, 0)


def gives_lse(call: Dense) -> bool:
    """Whether what forward leaves of each row beside the output is log Σ exp(score)."""
    return call.curve == "softmax" and call.constant is None


def forward(call: Dense) -> tuple[Tensor, Tensor]:
    """The output, and what is left of each row's mass (b, h, i) for curves that share (else empty).

    Rows that see NaN, infinity or a number whose products may overflow are computed by the
    definition.
    """
    out, lse, wild = run_forward(call.reduced())
    if not (wild or _unwatched(call)):
        return out, lse
    out, lse, _ = run_forward(_tamed(call))
    bad = wild_rows(call)
    if bad.any():
        with torch.no_grad():
            out = torch.where(bad, definition(call), out)
            if gives_lse(call):
                lse = torch.where(bad[..., 0], definition_lse(call), lse)
    return out, lse


def backward(
    call: Dense,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    out: Tensor,
    lse: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Tensor, ...]:
    """Gradients of the GRADED inputs, empty for those that `needs` leaves out.

    grad_lse: (b, h, i) of a call that `gives_lse`, or None.
    """
    given = Given(grad_out, grad_lse, out, lse)
    grads, wild = _backward(call, call.reduced(), given, needs)
    if not (wild or _unwatched(call)):
        return grads
    bad = wild_rows(call)
    grads, _ = _backward(_cleaned(call), _tamed(call), given.without(bad, gives_lse(call)), needs)
    if not bad.any():
        return grads
    names = [name for name, need in zip(GRADED, needs, strict=True) if need]
    with torch.enable_grad():
        leaves = {name: getattr(call, name).detach().requires_grad_() for name in names}
        again = Dense(**{**vars(call), **leaves})
        made, into = definitions(again, given)
        rows = [bad.view(*bad.shape[:3], *[1] * (t.dim() - 3)) for t in made]
        made = [torch.where(row, t, 0) for row, t in zip(rows, made, strict=True)]
        into = [t.masked_fill(~row, 0) for row, t in zip(rows, into, strict=True)]
        more = torch.autograd.grad(made, list(leaves.values()), into, allow_unused=True)
    extra = iter(more)
    return tuple(_plus(g, next(extra)) if need else g for g, need in zip(grads, needs, strict=True))


def _plus(grad: Tensor, more: Tensor | None) -> Tensor:
    return grad if more is None else grad + more


def _backward(
    call: Dense,
    reduced: Dense,
    given: Given,
    needs: tuple[bool, ...],
) -> tuple[tuple[Tensor, ...], bool]:
    """The gradients of a call from those of what it comes to, and whether a wild number was met."""
    found, wild = run_backward(reduced, given, needs)
    grads = dict(zip(GRADED, found, strict=True))
    if call.reduces:
        back = REDUCTIONS[call.score].gradients
        inputs = call.query, call.key, call.parameter
        grads |= back(*inputs, grads["query"], grads["key"])
        grads["vectors"] = call.query.new_empty(0)  # those of what it comes to are no input
    return tuple(grads.values()), wild


def wild_rows(call: Dense) -> Tensor:
    """Bool (b, h, i, 1): rows that see a wild key or value or a bad bias, or are wild and see.

    What query and key become counts as they do: a product with a matrix may overflow.
    """
    group = call.query.shape[1] // call.key.shape[1]
    query, key, value = _wild(call.query), _wild(call.key), _wild(call.value)
    if call.reduces:
        reduced = call.reduced()
        query, key = query | _wild(reduced.query), key | _wild(reduced.key)
    wild = (key | value).repeat_interleave(group, 1)[:, :, None] | query[..., None]
    if call.bias is not None:
        wild = wild | _bad_bias(call, call.bias)
    keep = visible(call)
    return (wild if keep is None else wild & keep).any(-1, keepdim=True)


def run_forward(call: Dense) -> tuple[Tensor, Tensor, bool]:
    """The compiled forward pass, and whether it met a wild number: then its rows may be wrong."""
    query, value = call.query, call.value
    out = query.new_empty((*query.shape[:3], value.shape[-1]))
    rows = query.shape[:3] if call.curve in SHARING else (0,)
    lse = query.new_empty(rows, dtype=wide_dtype(call))
    if not (out.numel() or lse.numel()):
        return out, lse, False
    return out, lse, run(call, out=out, lse=lse if lse.numel() else None)


def _one_pair_each(call: Dense) -> bool:
    """Whether every number of the bias belongs to one pair, and every pair is visible."""
    if call.bias is None or call.keep is not None or call.left >= 0 or call.right >= 0:
        return False
    pairs = (*call.query.shape[:3], call.key.shape[2])
    return call.bias.shape == pairs


def run_backward(
    call: Dense, given: Given, needs: tuple[bool, ...]
) -> tuple[tuple[Tensor, ...], bool]:
    """The compiled backward pass, and whether it met a wild number.

    Every gradient is summed in a fixed order.
    """
    query, shares, dtype = call.query, call.curve in SHARING, wide_dtype(call)
    out, lse, delta = (given.out, given.lse, None) if shares else (None, None, None)
    if shares:
        start = torch.zeros_like(given.lse) if given.grad_lse is None else -given.grad_lse
        delta = start.to(dtype)
    grads = {name: query.new_empty(0) for name in GRADED}  # outputs must not alias
    for name in ("query", "key", "value"):
        grads[name] = torch.empty_like(getattr(call, name))  # laid out as what it is of
    runs = any(grads[name].numel() for name in ("query", "key", "value"))
    once = runs and _one_pair_each(call)
    if needs[GRADED.index("bias")]:
        bias = cast(Tensor, call.bias)
        meet = 1 in bias.shape[2:]  # queries or keys in one number: the kernel sums them in double
        fresh = torch.empty_like if once else torch.zeros_like
        grads["bias"] = fresh(bias, dtype=torch.float64 if meet else dtype)
    sums, wild = None, False
    if call.vectors is not None:
        sums = query.new_zeros((query.shape[1], query.shape[3]))
    if runs:
        wild = run(
            call,
            out=out,
            lse=lse,
            delta=delta,
            grad_out=given.grad_out.to(query.dtype),
            grads=grads,
            sums=sums,
            bias_once=once,
        )
    if needs[GRADED.index("bias")]:
        grads["bias"] = grads["bias"].to(call.bias.dtype)  # type: ignore[union-attr]
    if sums is not None:
        grads["vectors"] = sums * call.scale
    if needs[GRADED.index("constant")]:
        share = torch.exp(call.constant - given.lse) * -delta  # type: ignore[operator]
        grads["constant"] = share.sum_to_size(call.constant.shape)  # type: ignore[union-attr]
    return tuple(grads.values()), wild


def _unwatched(call: Dense) -> bool:
    """Whether there is anything wild that the loops do not see.

    They look at all that they read; but what a reduced score makes of an input may be tame where
    the input is not, and of a bias they see no more than whether it is finite, where the sum of a
    row may not be.
    """
    if call.curve == "linear" and call.bias is not None and not finite.all_modest(call.bias):
        return True
    return call.reduces and not finite.all_modest(call.query, call.key)


def _bad_bias(call: Dense, bias: Tensor) -> Tensor:
    """Where a bias is not finite, or where rows over their sum may not bear it."""
    return finite.wild(bias) if call.curve == "linear" else ~bias.isfinite()


def _tamed(call: Dense) -> Dense:
    """What a call comes to, with zeros in place of whatever is wild."""
    cleaned = _cleaned(call).reduced()
    if not call.reduces:
        return cleaned
    query, key = (t.masked_fill(finite.wild(t), 0) for t in (cleaned.query, cleaned.key))
    return cleaned.with_inputs(query, key, cleaned.value)


def _cleaned(call: Dense) -> Dense:
    tame = [t.masked_fill(finite.wild(t), 0) for t in (call.query, call.key, call.value)]
    cleaned = call.with_inputs(*tame)
    if call.bias is None:
        return cleaned
    tame_bias = call.bias.masked_fill(_bad_bias(call, call.bias), 0)
    return Dense(**{**vars(cleaned), "bias": tame_bias})


def _wild(tensor: Tensor) -> Tensor:
    """Which rows hold anything wild."""
    return finite.wild(tensor).any(-1)
