"""Linear attention: Q (Kᵀ V) instead of (Q Kᵀ) V, where the parts allow it.

With weights that are the scores themselves (`identity`, `linear`), the sum over keys may be taken
before the query is known. Time and memory are then linear in length: queries + keys times
width · value width, in place of queries · keys times width + value width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ogive.kernels import compiled, finite
from ogive.kernels.auxiliary import Aux
from ogive.kernels.call import Call
from ogive.kernels.entrance import HOOKED, hooked
from ogive.kernels.linear_library import apply
from ogive.kernels.reassociated import Reassociated, counts, seeing
from ogive.kernels.reference import full_precision
from ogive.parts import scores, weights

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_SCORES = (weights.Linear, weights.Identity)
"""Weight functions whose weights are the scores."""
_ROW = 48
"""Keys beside each query of a causal call that are taken pair by pair."""
_ENOUGH = 2**14
"""Pairs below which the definition takes less time than calling a kernel."""


def lacks(call: Call) -> str | None:
    """Why the sum cannot be taken over keys first, or None where it can."""
    if compiled.missing:
        return compiled.missing
    if type(call.weight) not in _SCORES:
        return f"it needs weights that are the scores (linear, identity), not {call.weight}"
    if type(call.score) not in (scores.Dot, scores.Bilinear):
        return f"it needs scores that are products (dot, bilinear), not {call.score}"
    if call.bias is not None:
        return "a bias belongs to a pair, and it never meets pairs"
    if call.dropout_p:
        return "dropout belongs to a pair, and it never meets pairs"
    if call.aux is not None:
        return "it returns no statistics of its rows"
    if call.visibility.sides[0] is not None:
        return "a window that hides earlier keys belongs to pairs, and it never meets pairs"
    if not _hides_whole_keys(call):
        return "its mask must hide keys from all queries and all heads of a group alike"
    if call.query.device.type != "cpu":
        return f"it runs on a CPU, not on {call.query.device}"
    if call.query.dtype not in _DTYPES:
        return f"it has no {call.query.dtype}"
    if hooked(call.score, call.weight):
        return HOOKED
    if finite.transforming():
        return "torch.func transforms and forward-mode derivatives need the definition"
    return None


def cheaper(call: Call) -> bool:
    """Whether summing over keys first costs less than meeting all pairs.

    Multiplications are counted; a state's are a little cheaper than a pair's, as was measured.
    """
    queries, keys = call.query.shape[-2], call.key.shape[-2]
    width, value_width = call.query.shape[-1], call.value.shape[-1]
    pairs = queries * keys * (width + value_width)
    states = (queries + keys) * width * value_width
    if call.visibility.sides[1] is not None:
        pairs = pairs // 2
        states += queries * _ROW // 2 * (width + value_width)
    return 4 * states <= 5 * pairs


def sooner(call: Call) -> bool:
    """Whether the weights are the scores, and summing over keys first costs less."""
    return type(call.weight) in _SCORES and cheaper(call)


def worthwhile(call: Call) -> bool:
    """Whether "auto" takes this way: it is cheaper, and saves more than a call costs."""
    batch, heads, queries, _ = call.query.shape
    return sooner(call) and batch * heads * queries * call.key.shape[-2] >= _ENOUGH


def linear(call: Call) -> tuple[Tensor, Aux | None]:
    """Linear attention; half precision is computed in float32 and rounded once, at the end."""
    with full_precision(call.query.device):
        dtype = torch.promote_types(call.query.dtype, torch.float32)
        query, key, value = (t.to(dtype) for t in (call.query, call.key, call.value))
        right = call.visibility.sides[1]
        problem = Reassociated(
            query,
            key,
            value,
            constant=None,
            keep=_kept_keys(call),
            offsets=None if right is None else _offsets(call),
            normalise=isinstance(call.weight, weights.Linear) and call.weight.normalise,
            bounded=right is not None,
            scale=float(call.score.resolve_scale(query.shape[-1], call.scale)),
            right=0 if right is None else right,
        )
        out = apply(_with_constant(call, _folded(call, problem)))
    return out.to(call.query.dtype), None


def _hides_whole_keys(call: Call) -> bool:
    mask = call.visibility.mask
    if mask is None:
        return True
    heads, shared = call.query.shape[1], call.key.shape[1]
    axes = (*[1] * (4 - mask.dim()), *mask.shape)
    return axes[2] == 1 and (axes[1] == 1 or heads == shared)


def _kept_keys(call: Call) -> Tensor | None:
    """The mask as bool (1 or b, 1 or g, j)."""
    mask = call.visibility.mask
    if mask is None:
        return None
    mask = mask.view(*[1] * (4 - mask.dim()), *mask.shape)
    return mask.expand(*mask.shape[:3], call.key.shape[-2]).squeeze(2)


def _offsets(call: Call) -> Tensor:
    offset = torch.as_tensor(call.visibility.offset, device=call.query.device)
    return offset.to(torch.int64).expand(call.query.shape[0])


def _folded(call: Call, problem: Reassociated) -> Reassociated:
    """A bilinear score's matrix multiplied into the queries.

    A query that sees nothing is left out, so that a NaN there stays out of the matrix's gradient.
    """
    if not isinstance(call.score, scores.Bilinear):
        return problem
    query = problem.query
    if call.visibility.hides:
        query = query.masked_fill(~seeing(problem)[..., None], 0)
    folded = query @ call.score.weight.to(query.dtype)
    return problem.with_inputs(folded, problem.key, problem.value)


def _with_constant(call: Call, problem: Reassociated) -> Reassociated:
    """With 1/n^p for each row, n being how many keys it sees, where the weight has a power."""
    power = getattr(call.weight, "length_power", 0)
    if not power:
        return problem
    if problem.keep is None and not problem.bounded:
        return replace(problem, scale=problem.scale / max(problem.key.shape[-2], 1) ** power)
    group = problem.query.shape[1] // max(problem.key.shape[1], 1)
    seen = counts(problem).clamp_min(1).to(problem.query.dtype)
    constant = (seen**-power).repeat_interleave(group, 1) if seen.shape[1] != 1 else seen**-power
    return replace(problem, constant=constant)
