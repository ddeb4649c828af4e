"""The dense operation as the compiled kernels see it: tensors and numbers, no parts.

out_i = Σ_j w_ij v_j with w = curve(cap·tanh(scale·q·k / cap) + bias, constant) over the pairs
that keep, offsets and sides leave visible. `definition` says the same in torch: it computes rows
that see values which are not finite, and second derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.kernels import finite
from ogive.kernels.compiled import run
from ogive.kernels.visible import Visibility
from ogive.parts.scores import Dot, Score, ScoreChain, Softcap
from ogive.parts.weights import Cog, Softmax, Softpick, over_sum, row_maximum, shifted_exp

SHARING = {"softmax": Softmax, "softpick": Softpick, "cog": Cog}
ELEMENTWISE = {
    "gelu": lambda s, c: F.gelu(s) * c,
    "identity": lambda s, c: s * c,
    "relu": lambda s, c: F.relu(s) * c,
    "relu2": lambda s, c: F.relu(s).square() * c,
    "sigmoid": lambda s, c: torch.sigmoid(s + c),
    "silu": lambda s, c: F.silu(s) * c,
    "softplus": lambda s, c: F.softplus(s) * c,
    "tanh": lambda s, c: s.tanh() * c,
}


@dataclass(frozen=True)
class Dense:
    """One call of the dense operation.

    Attributes:
        query: (b, h, i, d). key: (b, g, j, d). value: (b, g, j, v); g divides h.
        constant: (1 or b, 1 or h, 1 or i): c of an elementwise curve, or a sink's logit, or None.
        keep: bool (1 or b, 1 or h, 1 or i, j), or None.
        bias: (1 or b, 1 or h, 1 or i, 1 or j), or None.
        offsets: int64 (b,), where each first query stands among the keys; None where no side is.
        curve: a name in ELEMENTWISE or SHARING.
        scale, cap: numbers; cap 0 is no softcap.
        left, right: neighbours visible on either side, −1 for no limit.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    constant: Tensor | None
    keep: Tensor | None
    bias: Tensor | None
    offsets: Tensor | None
    curve: str
    scale: float
    cap: float
    left: int
    right: int

    @property
    def hides(self) -> bool:
        """Whether any pair may be hidden."""
        return self.keep is not None or self.left >= 0 or self.right >= 0

    def with_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> Dense:
        """The same call of other inputs."""
        return Dense(**{**vars(self), "query": query, "key": key, "value": value})


def visible(call: Dense) -> Tensor | None:
    """Bool, broadcastable to (b, h, i, j); None where all pairs are visible."""
    sides = tuple(None if side < 0 else side for side in (call.left, call.right))
    offset = 0 if call.offsets is None else call.offsets
    seen = Visibility(call.keep, False, sides, offset)  # type: ignore[arg-type]
    return seen.keep(call.query.shape[-2], call.key.shape[-2], call.query.device)


def definition(call: Dense) -> Tensor:
    """The operation in torch, with (b, h, i, j) tensors; differentiable to any order."""
    group = call.query.shape[1] // call.key.shape[1]
    key, value = (t.repeat_interleave(group, 1) for t in (call.key, call.value))
    keep = visible(call)
    score: Score = ScoreChain(Dot(), (Softcap(call.cap),)) if call.cap else Dot()
    if keep is None:
        scores = score(call.query, key, call.scale)
    else:
        scores = finite.pair_scores(score, call.query, key, call.scale)
    if call.bias is not None:
        scores = scores + call.bias
    weights = _weights(call, scores, keep)
    return weights @ value if keep is None else finite.mix(weights, value, keep)


def _weights(call: Dense, scores: Tensor, keep: Tensor | None) -> Tensor:
    constant = None if call.constant is None else call.constant[..., None]
    if call.curve in SHARING and constant is None:
        return SHARING[call.curve]()(scores, keep)
    hidden = None if keep is None else ~keep
    shown = scores if hidden is None else scores.masked_fill(hidden, 0)
    if call.curve == "softmax":
        top = torch.maximum(row_maximum(shown, keep), constant.detach())  # type: ignore[union-attr]
        weights = over_sum(shifted_exp(shown, keep, top), torch.exp(constant - top))
    else:
        weights = ELEMENTWISE[call.curve](shown, constant)
    return weights if hidden is None else weights.masked_fill(hidden, 0)


def forward(call: Dense) -> tuple[Tensor, Tensor]:
    """The output, and log of each row's mass (b, h, i) for curves that share (else empty).

    Rows that see a value which is not finite are computed by the definition.
    """
    if _all_finite(call):
        return run_forward(call)
    out, lse = run_forward(_cleaned(call))
    bad = bad_rows(call)
    if bad.any():
        with torch.no_grad():
            out = torch.where(bad, definition(call), out)
    return out, lse


def backward(
    call: Dense, grad_out: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and of a sink's logit (empty where there is none)."""
    if _all_finite(call):
        return run_backward(call, grad_out, out, lse)
    bad = bad_rows(call)
    clean = _cleaned(call)
    grads = run_backward(clean, grad_out.masked_fill(bad, 0), out.masked_fill(bad, 0), lse)
    if not bad.any():
        return grads
    inputs = [call.query, call.key, call.value]
    inputs += [call.constant] if grads[3].numel() else []  # type: ignore[list-item]
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in inputs]
        again = Dense(**{**vars(call), **dict(zip(_NAMES, leaves, strict=False))})
        rows = torch.where(bad, definition(again), 0)
        more = torch.autograd.grad(rows, leaves, grad_out.masked_fill(~bad, 0))
    return tuple(a + b for a, b in zip(grads, more, strict=False)) + grads[len(more) :]  # type: ignore[return-value]


_NAMES = ("query", "key", "value", "constant")


def bad_rows(call: Dense) -> Tensor:
    """Bool (b, h, i, 1): rows that see a NaN or an infinity, or hold one and see anything."""
    group = call.query.shape[1] // call.key.shape[1]
    wrong_key = ~(call.key.isfinite().all(-1) & call.value.isfinite().all(-1))
    wrong_key = wrong_key.repeat_interleave(group, 1)[:, :, None]
    wrong_query = ~call.query.isfinite().all(-1, keepdim=True)
    wrong = wrong_key | wrong_query
    if call.bias is not None:
        wrong = wrong | ~call.bias.isfinite()
    keep = visible(call)
    return (wrong if keep is None else wrong & keep).any(-1, keepdim=True)


def run_forward(call: Dense) -> tuple[Tensor, Tensor]:
    """The compiled forward pass; inputs must be finite where anything is hidden."""
    query, value = call.query, call.value
    out = query.new_empty((*query.shape[:3], value.shape[-1]))
    rows = query.shape[:3] if call.curve in SHARING else (0,)
    lse = query.new_empty(rows)
    if out.numel():
        run(call, out=out, lse=lse if lse.numel() else None)
    return out, lse


def run_backward(
    call: Dense, grad_out: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The compiled backward pass."""
    shares = call.curve in SHARING
    delta = (grad_out * out).sum(-1) if shares else None
    grads = tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in
                  (call.query, call.key, call.value))
    if any(grad.numel() for grad in grads):
        run(call, lse=lse if shares else None, delta=delta, grad_out=grad_out, grads=grads)
    if not shares or call.constant is None:
        return *grads, call.query.new_empty(0)  # type: ignore[return-value]
    share = torch.exp(call.constant - lse) * -delta  # type: ignore[operator]
    return *grads, share.sum_to_size(call.constant.shape)  # type: ignore[return-value]


def _all_finite(call: Dense) -> bool:
    extra = () if call.bias is None else (call.bias,)
    return finite.all_finite(call.query, call.key, call.value, *extra)


def _cleaned(call: Dense) -> Dense:
    cleaned = call.with_inputs(*(finite.cleaned(t) for t in (call.query, call.key, call.value)))
    if call.bias is None:
        return cleaned
    return Dense(**{**vars(cleaned), "bias": finite.cleaned(call.bias)})
