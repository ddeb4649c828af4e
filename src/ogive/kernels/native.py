"""The compiled CPU kernels: what they take, why not the rest, and the call into them.

Memory grows with queries + keys, forward and backward. A softcap, a float bias with gradients,
masks, windows, grouped heads and dropout go into the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ogive.kernels import compiled, finite, linear, statistics
from ogive.kernels.auxiliary import Aux
from ogive.kernels.call import Call
from ogive.kernels.dense import Dense, gives_lse
from ogive.kernels.entrance import HOOKED, hooked
from ogive.kernels.library import apply, apply_with_lse
from ogive.kernels.reference import full_precision
from ogive.parts import maps, scores, weights
from ogive.parts.scores import Score
from ogive.parts.weights import Weight

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_PER_LENGTH = {
    weights.Relu: "relu",
    weights.Relu2: "relu2",
    weights.Silu: "silu",
    weights.Gelu: "gelu",
    weights.Softplus: "softplus",
    weights.Identity: "identity",
}
_SHARING = {
    weights.Softmax: "softmax",
    weights.Softmax1: "softmax",
    weights.Sink: "softmax",
    weights.Cog: "cog",
    weights.Softpick: "softpick",
    weights.Sparsemax: "sparsemax",
    weights.Entmax15: "entmax15",
}
_ONE_EACH = {weights.Sigmoid: "sigmoid", weights.Tanh: "tanh"}
_CURVES: dict[type, str] = {**_PER_LENGTH, **_SHARING, **_ONE_EACH}
_CURVED = frozenset({*_CURVES, weights.Linear})
_PAIRS = (scores.Dot, scores.UnscaledDot, scores.Distance)
_REDUCED = {scores.Cosine: "cosine", scores.Bilinear: "bilinear", scores.Gat: "gat"}
_ENOUGH, _FEW = 2**21, 4
"""Multiplications of an example from which on a call is faster here than by torch's softmax; and
queries up to which any is."""
_ENOUGH_TWICE = {"avx2": (2**22, 2**25), "avx512": (2**22, 2**22), "amx": (2**25, 3 * 2**26)}
_ENOUGH_ASKED = {"avx2": (2**28, 2**28), "avx512": (2**28, 2**26), "amx": (2**29, 2**28)}
_ENOUGH_SUMMED = (2**23, 2**20)
"""The same, without and with gradients, where statistics of rows are asked for: where kernels
compute scores a second time, where the definition does, and where it does of additive scores."""
_MULTIPLIES_TILES = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
"""Whether torch multiplies tiles of halves (AMX); asked here, since a compiler cannot trace it.
Such processors are Intel's, on which torch's products of floats are faster too."""
_SUMS = (scores.Additive, scores.GatV2)
_ACTING = (*_SUMS, scores.Gat)
_SCORED = frozenset({*_PAIRS, *_SUMS, *_REDUCED})
ACTS = {
    maps.Tanh: "tanh",
    maps.Relu: "relu",
    maps.LeakyRelu: "leaky_relu",
    maps.Silu: "silu",
    maps.Sigmoid: "sigmoid",
    maps.Softplus: "softplus",
    maps.Gelu: "gelu",
    maps.Relu2: "relu2",
    maps.Elu: "elu",
    maps.Elu1: "elu1",
    maps.Hardtanh: "hardtanh",
    maps.Mish: "mish",
}


def lacks(call: Call) -> str | None:
    """Why the kernels cannot run this call, or None where they can."""
    if compiled.missing:
        return compiled.missing
    score, _ = split_softcap(call.score)
    if type(score) not in _SCORED:
        return f"they have no score {call.score}"
    if isinstance(score, _ACTING) and type(score.act) not in ACTS:
        return f"they have no {score.name} score with {score.act}"
    if curve_of(call.weight) is None:
        return f"they have no {call.weight}"
    if call.query.device.type != "cpu":
        return f"they run on a CPU, not on {call.query.device}"
    if call.query.dtype not in _DTYPES:
        return f"they have no {call.query.dtype}"
    if call.aux is not None and statistics.lacks(call.aux):
        return statistics.lacks(call.aux)
    if hooked(call.score, call.weight):
        return HOOKED
    if finite.transforming():
        return "torch.func transforms and forward-mode derivatives need the definition"
    return None


def fastest(call: Call, surrounded: Callable[[Call], bool]) -> bool:
    """Whether "auto" takes the kernels: where they were measured to be the fastest, or near it.

    Args:
        call: any.
        surrounded: says whether small work is less than what surrounds it, and another way could be
            taken instead. Then sizes decide, without the batch: a slice of it is the same call.
    """
    if type(call.weight) not in _CURVED:
        return False
    if torch.compiler.is_compiling():  # sizes are symbols there, and less surrounds a call
        exported = torch.compiler.is_exporting()  # a graph that should not need this library
        return not exported and best(call.query.dtype, call.weight)
    if not best(call.query.dtype, call.weight):
        return False
    enough = _enough(call)
    return not (enough and _work(call) < enough and surrounded(call))


def _work(call: Call) -> int:
    """Multiplications of an example."""
    _, heads, queries, width = call.query.shape
    return heads * queries * call.key.shape[-2] * (width + call.value.shape[-1])


def _enough(call: Call) -> int:
    """From how many multiplications on a call that could go elsewhere is taken; 0 takes any."""
    if call.aux is None:
        return 0 if call.query.shape[-2] <= _FEW else _ENOUGH
    summed = isinstance(split_softcap(call.score)[0], _SUMS)
    tiles = _MULTIPLIES_TILES and compiled.instruction_set == "avx512"
    kind = "amx" if tiles else compiled.instruction_set
    if not statistics.fused(call.aux):
        return (_ENOUGH_SUMMED if summed else _ENOUGH_ASKED[kind])[graded(call)]
    once = type(call.weight) is weights.Softmax and not call.aux.row_sum
    return 0 if once or summed else _ENOUGH_TWICE[kind][graded(call)]


def graded(call: Call) -> bool:
    """Whether gradients of query, key, value or bias are wanted."""
    if not torch.is_grad_enabled():
        return False
    bias = call.bias is not None and call.bias.requires_grad
    return bias or call.query.requires_grad or call.key.requires_grad or call.value.requires_grad


def best(dtype: torch.dtype, weight: object) -> bool:
    """Whether the kernels were measured, and were best, for calls of this kind.

    Not on a processor without wide vectors, nor for torch's own softmax where the processor
    multiplies tiles of halves (AMX).
    """
    if compiled.instruction_set not in ("avx2", "avx512"):
        return False
    if not _MULTIPLIES_TILES or type(weight) is not weights.Softmax:
        return True
    return dtype not in (torch.bfloat16, torch.float16)


def native(call: Call) -> tuple[Tensor, Aux | None]:
    """The compiled kernels; half precision is computed in float32 and rounded once, at the end."""
    if linear.sooner(call) and linear.lacks(call) is None:
        return linear.linear(call)
    with full_precision(call.query.device):
        dtype = torch.promote_types(call.query.dtype, torch.float32)
        query, key, value, bias = call.query, call.key, call.value, call.bias
        score, cap = split_softcap(call.score)
        factor = cast(Score, score).resolve_scale(query.shape[-1], call.scale)
        act, act_constant, vectors = "", 0.0, None
        if isinstance(score, _SUMS):
            vectors = score.weight.to(dtype)
        if isinstance(score, _ACTING):
            act, act_constant = ACTS[type(score.act)], getattr(score.act, "slope", 0.0)
        if isinstance(score, scores.Cosine) and not score.learned:
            factor *= score.gain
        if vectors is not None or type(score) in _REDUCED:
            query, key, value = (t.to(dtype) for t in (query, key, value))
        if bias is not None and (vectors is not None or bias.dtype not in _readable(dtype)):
            bias = bias.to(dtype)
        left, right = call.visibility.sides
        dense = Dense(
            query,
            key,
            value,
            constant=constant_of(call, dtype),
            bias=_four_axes(bias),
            vectors=vectors,
            parameter=_parameter(score, dtype),
            keep=_four_axes(call.visibility.mask),
            offsets=_offsets(call) if left is not None or right is not None else None,
            seed=call.seed,
            score=score_name(score),
            curve=cast(str, curve_of(call.weight)),
            act=act,
            act_constant=act_constant,
            scale=float(factor),
            cap=cap,
            dropout=call.dropout_p,
            left=-1 if left is None else left,
            right=-1 if right is None else right,
        )
        return _run(call, dense)


def _run(call: Call, dense: Dense) -> tuple[Tensor, Aux | None]:
    lse = None
    if call.aux is not None and call.aux.lse and statistics.fused(call.aux) and gives_lse(dense):
        out, lse = apply_with_lse(dense)
    else:
        out = apply(dense)
    aux = None if call.aux is None else statistics.statistics(call, dense, lse)
    return out.to(call.query.dtype), aux


def split_softcap(score: Score) -> tuple[Score | None, float]:
    """A score and the cap of the one softcap after it (0 for none); (None, 0) for other chains."""
    if not isinstance(score, scores.ScoreChain):
        return score, 0.0
    steps = list(score.then)
    if len(steps) != 1 or not isinstance(steps[0], scores.Softcap):
        return None, 0.0
    return score.score, float(steps[0].cap)


def score_name(score: Score | None) -> str:
    """The kernels' name for a score that is no dot product of query and key, "" for others."""
    if isinstance(score, scores.Distance):
        return "square" if score.power == 2 else "length"
    return _REDUCED.get(type(score), "")


def _parameter(score: Score | None, dtype: torch.dtype) -> Tensor | None:
    """What a reduced score has learned: a matrix, a gain or two vectors for each head."""
    if isinstance(score, scores.Gat):
        return torch.stack((score.query_weight, score.key_weight), 1).to(dtype)
    if type(score) not in _REDUCED or getattr(score, "weight", None) is None:
        return None
    return score.weight.to(dtype)  # type: ignore[union-attr, operator, return-value]


def curve_of(weight: Weight) -> str | None:
    """The kernels' name for a weight function, None where they have none."""
    if isinstance(weight, weights.Linear):
        return "linear" if weight.normalise else "identity"
    return _CURVES.get(type(weight))


def _readable(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """What the loops of dot products read where they compute with `dtype`."""
    return (dtype, torch.bfloat16, torch.float16) if dtype == torch.float32 else (dtype,)


def _four_axes(pairs: Tensor | None) -> Tensor | None:
    return None if pairs is None else pairs.view(*[1] * (4 - pairs.dim()), *pairs.shape)


def _offsets(call: Call) -> Tensor:
    offset = torch.as_tensor(call.visibility.offset, device=call.query.device)
    return offset.to(torch.int64).expand(call.query.shape[0])


def constant_of(call: Call, dtype: torch.dtype) -> Tensor | None:
    """The weight function's number for each row (b, h, i), or the sink's logit, or None."""
    weight, query = call.weight, call.query
    if isinstance(weight, weights.Sink):
        return weight.logit.to(dtype).view(1, -1, 1)
    if isinstance(weight, weights.Softmax1):
        return query.new_zeros((1, 1, 1), dtype=dtype)
    if type(weight) in _SHARING or curve_of(weight) == "linear":
        return None
    if isinstance(weight, weights.Linear):
        return query.new_ones((1, 1, 1), dtype=dtype)
    if isinstance(weight, weights.Sigmoid) and weight.bias != "-log_n":
        return query.new_full((1, 1, 1), float(weight.bias), dtype=dtype)
    count = call.visibility.count(query.shape[-2], call.key.shape[-2], query.device)
    count = count.clamp_min(1).to(dtype)
    if isinstance(weight, weights.Sigmoid):
        return -count.log()
    power = weight.length_power if isinstance(weight, weights.PowerLength) else 1
    return count**-power if power else torch.ones_like(count)
