"""Linear attention as the compiled kernels see it: out_i = factor_i q_i Σ_j k_j v_jᵀ.

factor_i is scale · constant_i, or one over Σ_j q_i · k_j. Query i sees keys up to i + offset +
right, or all of them, and `keep` hides keys from every query alike, so the sums are states that a
walk along the keys carries: time and memory are linear in length. `definition` says the same in
torch with all pairs; it computes rows that see values which are not finite, and second derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ogive.kernels import finite
from ogive.kernels.compiled import run_linear
from ogive.kernels.visible import Visibility
from ogive.parts.scores import Dot
from ogive.parts.weights import over_sum

GRADED = ("query", "key", "value")
"""The inputs that have gradients."""
_COMMON = (2.0**-20, 2.0**20)
"""Largest numbers between these need no scaling: no product of three can leave the range."""


@dataclass(frozen=True)
class Reassociated:
    """One call of linear attention.

    Attributes:
        query: (b, h, i, d). key: (b, g, j, d). value: (b, g, j, v); g divides h.
        constant: (1 or b, 1 or h, 1 or i), or None for 1; unused where rows are normalised.
        keep: bool (1 or b, 1 or g, j), or None.
        offsets: int64 (b,), where each first query stands among the keys; None where unbounded.
        normalise: whether a row is divided by its sum; a row whose sum is 0 gives 0.
        bounded: whether query i sees no key after i + offset + right.
        scale: factor on q · k.
        right: as said.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    constant: Tensor | None
    keep: Tensor | None
    offsets: Tensor | None
    normalise: bool
    bounded: bool
    scale: float
    right: int

    def with_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> Reassociated:
        """The same call of other inputs."""
        return replace(self, query=query, key=key, value=value)


# --- who sees how many -----------------------------------------------------------------------


def _ends(call: Reassociated) -> Tensor:
    """How many of the first keys position lets each query see: int64 (1 or b, i)."""
    queries, keys = call.query.shape[-2], call.key.shape[-2]
    if not call.bounded:
        return torch.full((1, queries), keys, device=call.key.device)
    at = torch.arange(queries, device=call.key.device) + call.offsets.view(-1, 1)  # type: ignore[union-attr]
    return (at + call.right + 1).clamp(0, keys)


def seen_sums(terms: Tensor, call: Reassociated) -> Tensor:
    """Σ over the keys that position lets each query see: (1 or b, 1 or g, j) → (b, 1 or g, i)."""
    ends = _ends(call)[:, None]
    sums = torch.nn.functional.pad(terms.cumsum(-1), (1, 0))
    sums = sums.expand(call.key.shape[0], *sums.shape[1:])
    return sums.gather(-1, ends.expand(*sums.shape[:2], -1))


def counts(call: Reassociated) -> Tensor:
    """How many keys each query sees: int64 (1 or b, 1 or g, i)."""
    if call.keep is None:
        return _ends(call)[:, None]
    return seen_sums(call.keep.to(torch.int64), call)


def seeing(call: Reassociated) -> Tensor:
    """Which queries see any key: bool, broadcastable to (b, h, i)."""
    found = counts(call) > 0
    group = call.query.shape[1] // max(call.key.shape[1], 1)
    return found if found.shape[1] == 1 else found.repeat_interleave(group, 1)


# --- the definition --------------------------------------------------------------------------


def definition(call: Reassociated) -> Tensor:
    """The operation in torch, with (b, h, i, j) tensors; differentiable to any order."""
    group = call.query.shape[1] // max(call.key.shape[1], 1)
    key, value = (t.repeat_interleave(group, 1) for t in (call.key, call.value))
    keep = _pairs(call, group)
    if keep is None:
        return _weights(call, Dot()(call.query, key, call.scale)) @ value
    scores = finite.pair_scores(Dot(), call.query, key, call.scale, keep)
    weights = _weights(call, scores.masked_fill(~keep, 0)).masked_fill(~keep, 0)
    return finite.guarded_mix(weights, value, keep)


def _weights(call: Reassociated, scores: Tensor) -> Tensor:
    if call.normalise:
        return over_sum(scores)
    return scores if call.constant is None else scores * call.constant[..., None]


def _pairs(call: Reassociated, group: int) -> Tensor | None:
    """Bool, broadcastable to (b, h, i, j); None where all pairs are visible."""
    keep = call.keep
    if keep is not None:
        keep = keep.repeat_interleave(group, 1) if keep.shape[1] != 1 else keep
        keep = keep[:, :, None]
    sides = (None, call.right if call.bounded else None)
    offset = 0 if call.offsets is None else call.offsets
    seen = Visibility(keep, False, sides, offset)
    return seen.keep(call.query.shape[-2], call.key.shape[-2], call.query.device)


# --- the kernels, and what they must not meet --------------------------------------------------


def forward(call: Reassociated) -> tuple[Tensor, Tensor]:
    """The output, and each row's sum Σ_j q_i · k_j (b, h, i) where rows are normalised.

    The kernel reports the largest number that it read. Where products of three such numbers might
    leave the range, inputs are scaled by powers of two; rows that see NaN, infinity or worse are
    computed by the definition.
    """
    out, total, peaks = run_forward(call)
    if _common(peaks):
        return out, total
    bad = _wild_rows(call)
    out = _scaled_forward(_tamed(call))[0]
    if bad.any():
        with torch.no_grad():
            out = torch.where(bad, definition(call), out)
    return out, total


def backward(
    call: Reassociated, grad_out: Tensor, out: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; every sum is taken in a fixed order."""
    grads, peaks = run_backward(call, grad_out, out, total)
    if _common(peaks):
        return grads
    bad = _wild_rows(call, grad_out)
    grads = _scaled_backward(_tamed(call), grad_out.masked_fill(bad, 0))
    if not bad.any():
        return grads
    with torch.enable_grad():
        leaves = [getattr(call, name).detach().requires_grad_() for name in GRADED]
        rows = torch.where(bad, definition(call.with_inputs(*leaves)), 0)
        more = torch.autograd.grad(rows, leaves, grad_out.masked_fill(~bad, 0))
    return tuple(g + m for g, m in zip(grads, more, strict=True))  # type: ignore[return-value]


def run_forward(call: Reassociated) -> tuple[Tensor, Tensor, list[float]]:
    """The compiled forward pass, and the largest |q|, |k| and |v| that it met."""
    query, value = call.query, call.value
    out = query.new_empty((*query.shape[:3], value.shape[-1]))
    total = query.new_empty(query.shape[:3] if call.normalise else (0,))
    peaks = run_linear(call, out=out, total=total) if out.numel() else []
    return out, total, peaks


def run_backward(
    call: Reassociated, grad_out: Tensor, out: Tensor, total: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], list[float]]:
    """The compiled backward pass, and the largest |q|, |k|, |v| and |grad_out| that it met."""
    new = call.query.new_zeros if not out.numel() else call.query.new_empty
    grads = (new(call.query.shape), new(call.key.shape), new(call.value.shape))
    peaks = []
    if out.numel() and any(grad.numel() for grad in grads):
        peaks = run_linear(call, out=out, total=total, grad_out=grad_out, grads=grads)
    return grads, peaks


def _common(peaks: list[float]) -> bool:
    low, high = _COMMON
    return all(peak == 0 or low <= peak <= high for peak in peaks)


def _wild_rows(call: Reassociated, grad_out: Tensor | None = None) -> Tensor:
    """Bool (b, h, i, 1): rows that see a wild key or value, and wild rows that see any."""
    group = call.query.shape[1] // call.key.shape[1]
    wild = finite.wild(call.key).any(-1) | finite.wild(call.value).any(-1)
    if call.keep is not None:
        wild = wild & call.keep
    met = (seen_sums(wild.to(torch.int64), call) > 0).repeat_interleave(group, 1)
    rows = finite.wild(call.query).any(-1)
    if grad_out is not None:
        rows = rows | finite.wild(grad_out).any(-1)
    return (met | (rows & seeing(call)))[..., None]


def _tamed(call: Reassociated) -> Reassociated:
    return call.with_inputs(
        *(t.masked_fill(finite.wild(t), 0) for t in (call.query, call.key, call.value))
    )


def _scaled_forward(call: Reassociated) -> tuple[Tensor, Tensor, Reassociated, list[int]]:
    """Output, row sums of the scaled call, that call, and the exponents of its inputs."""
    scaled, powers = zip(*(_unit(t) for t in (call.query, call.key, call.value)), strict=True)
    call = call.with_inputs(*scaled)
    out, total, _ = run_forward(call)
    grown = powers[2] if call.normalise else sum(powers)
    return _times_power(out, grown), total, call, list(powers)


def _scaled_backward(call: Reassociated, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _, total, call, (q, k, v) = _scaled_forward(call)
    out, _, _ = run_forward(call)
    grad_out, g = _unit(grad_out)
    grads, _ = run_backward(call, grad_out, out, total)
    grown = (v + g - q, v + g - k, g) if call.normalise else (k + v + g, q + v + g, q + k + g)
    return tuple(_times_power(t, power) for t, power in zip(grads, grown, strict=True))  # type: ignore[return-value]


def _unit(tensor: Tensor) -> tuple[Tensor, int]:
    """The tensor over a power of two that brings its largest number to 1, and the exponent."""
    top = float(tensor.abs().max()) if tensor.numel() else 0.0
    power = int(torch.frexp(torch.tensor(top, dtype=torch.float64)).exponent) if top else 0
    return _times_power(tensor, -power), power


def _times_power(tensor: Tensor, power: int) -> Tensor:
    """tensor · 2^power, in steps that are themselves numbers of the dtype."""
    step = 100 if tensor.dtype == torch.float32 else 1000
    while power:
        now = max(-step, min(step, power))
        tensor, power = tensor * 2.0**now, power - now
    return tensor
