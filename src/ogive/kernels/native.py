"""The compiled CPU kernels: what they take, why not the rest, and the call into them.

Memory grows with queries + keys, forward and backward. The scores that reduce to dot products
(cosine, bilinear, distance) are reduced here, in torch, so that autograd differentiates the
reduction; a softcap, a float bias, masks, windows and grouped heads go into the kernel.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ogive.kernels import compiled, finite
from ogive.kernels.auxiliary import Aux
from ogive.kernels.call import Call
from ogive.kernels.dense import Dense
from ogive.kernels.library import apply
from ogive.parts import maps, scores, weights
from ogive.parts.scores import Score

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
    weights.Softpick: "softpick",
    weights.Cog: "cog",
}
_ONE_EACH = {weights.Sigmoid: "sigmoid", weights.Tanh: "tanh", weights.Linear: "identity"}
_CURVES = {**_PER_LENGTH, **_SHARING, **_ONE_EACH}
_SCORES = (scores.Dot, scores.Cosine, scores.Bilinear, scores.Distance)
_SUMS = (scores.Additive, scores.GatV2, scores.Gat)
_ACTS = {
    maps.Tanh: "tanh",
    maps.Relu: "relu",
    maps.LeakyRelu: "leaky_relu",
    maps.Silu: "silu",
    maps.Sigmoid: "sigmoid",
    maps.Softplus: "softplus",
    maps.Gelu: "gelu",
}


def lacks(call: Call) -> str | None:
    """Why the kernels cannot run this call, or None where they can."""
    if compiled.missing:
        return compiled.missing
    score, _ = split_softcap(call.score)
    if score is None or type(score) not in (*_SCORES, *_SUMS):
        return f"they have no score {call.score}"
    if isinstance(score, _SUMS) and type(score.act) not in _ACTS:
        return f"they have no additive score with {score.act}"
    if isinstance(score, scores.Distance) and score.power != 2:
        return "they compute the squared distance, not its root"
    if type(call.weight) not in _CURVES:
        return f"they have no {call.weight}"
    if call.query.device.type != "cpu":
        return f"they run on a CPU, not on {call.query.device}"
    if call.query.dtype not in _DTYPES:
        return f"they have no {call.query.dtype}"
    if call.dropout_p and isinstance(call.weight, weights.Linear) and call.weight.normalise:
        return f"they have no dropout with {call.weight}"
    if call.aux is not None:
        return "they return no statistics of their rows"
    if not torch.compiler.is_compiling() and finite.transforming():
        return "torch.func transforms and forward-mode derivatives need the definition"
    return None


def native(call: Call) -> tuple[Tensor, Aux | None]:
    """The compiled kernels; half precision is computed in float32 and rounded once, at the end."""
    with torch.autocast(call.query.device.type, enabled=False):
        dtype = torch.promote_types(call.query.dtype, torch.float32)
        query, key, value = (t.to(dtype) for t in (call.query, call.key, call.value))
        score, cap = split_softcap(call.score)
        factor = cast(Score, score).resolve_scale(query.shape[-1], call.scale)
        act, act_constant, vectors = "", 0.0, None
        if isinstance(score, _SUMS):
            act = _ACTS[type(score.act)]
            act_constant = getattr(score.act, "slope", 0.0)
            query, key, vectors = _as_sum(score, query, key)
            if key.shape[1] != value.shape[1]:
                value = value.repeat_interleave(key.shape[1] // value.shape[1], 1)
        else:
            query, key = _as_dot(cast(Score, score), query, key)
        normalised = isinstance(call.weight, weights.Linear) and call.weight.normalise
        if normalised:  # the row sum comes out as one more column of value
            value = torch.cat((value, torch.ones_like(value[..., :1])), -1)
        left, right = call.visibility.sides
        out = apply(
            Dense(
                query,
                key,
                value,
                constant=_constant(call, dtype),
                bias=None if call.bias is None else _four_axes(call.bias.to(dtype)),
                vectors=vectors,
                keep=_four_axes(call.visibility.mask),
                offsets=_offsets(call) if left is not None or right is not None else None,
                seed=call.seed,
                curve=_CURVES[type(call.weight)],
                act=act,
                act_constant=act_constant,
                scale=float(factor),
                cap=cap,
                dropout=call.dropout_p,
                left=-1 if left is None else left,
                right=-1 if right is None else right,
            )
        )
        if normalised:
            out, total = out[..., :-1], out[..., -1:]
            nothing = total == 0
            out = (out / total.masked_fill(nothing, 1)).masked_fill(nothing, 0)
    return out.to(call.query.dtype), None


def split_softcap(score: Score) -> tuple[Score | None, float]:
    """A score and the cap of the one softcap after it (0 for none); (None, 0) for other chains."""
    if not isinstance(score, scores.ScoreChain):
        return score, 0.0
    steps = list(score.then)
    if len(steps) != 1 or not isinstance(steps[0], scores.Softcap):
        return None, 0.0
    return score.score, float(steps[0].cap)


def _as_dot(score: Score, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """query' and key' whose dot products are the unscaled scores."""
    if isinstance(score, scores.Cosine):
        unit = torch.nn.functional.normalize
        gain = score.gain if score.weight is None else score.weight.to(query.dtype)
        return unit(query, dim=-1) * gain, unit(key, dim=-1)
    if isinstance(score, scores.Bilinear):
        return query @ score.weight.to(query.dtype), key
    if isinstance(score, scores.Distance):  # −‖q − k‖²/2 = q·k − ‖q‖²/2 − ‖k‖²/2
        ones_query, ones_key = torch.ones_like(query[..., :1]), torch.ones_like(key[..., :1])
        half_query = query.square().sum(-1, keepdim=True) / -2
        half_key = key.square().sum(-1, keepdim=True) / -2
        query = torch.cat((query, half_query, ones_query), -1)
        return query, torch.cat((key, ones_key, half_key), -1)
    return query, key


def _as_sum(score: Score, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """query', key' and vectors (h, d) with Σ_d v_d act(q'_d + k'_d) the unscaled scores."""
    if isinstance(score, scores.Gat):  # act(a·q + a·k): one feature, whose vector is 1
        ones = query.new_ones(query.shape[1], 1)
        group = query.shape[1] // key.shape[1]
        key = key.repeat_interleave(group, 1) if group != 1 else key
        of_query = query @ score.query_weight.to(query.dtype).unsqueeze(-1)
        return of_query, key @ score.key_weight.to(key.dtype).unsqueeze(-1), ones
    return query, key, score.weight.to(query.dtype)  # type: ignore[union-attr]


def _four_axes(pairs: Tensor | None) -> Tensor | None:
    return None if pairs is None else pairs.view(*[1] * (4 - pairs.dim()), *pairs.shape)


def _offsets(call: Call) -> Tensor:
    offset = torch.as_tensor(call.visibility.offset, device=call.query.device)
    return offset.to(torch.int64).expand(call.query.shape[0])


def _constant(call: Call, dtype: torch.dtype) -> Tensor | None:
    """The weight function's number for each row (b, h, i), or the sink's logit, or None."""
    weight, query = call.weight, call.query
    if isinstance(weight, weights.Sink):
        return weight.logit.to(dtype).view(1, -1, 1)
    if isinstance(weight, weights.Softmax1):
        return query.new_zeros((1, 1, 1), dtype=dtype)
    if type(weight) in _SHARING:
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
    return count ** -power if power else torch.ones_like(count)
