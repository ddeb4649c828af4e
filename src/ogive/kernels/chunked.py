"""The definition, a block of queries at a time: any score and weight, memory linear in length.

Each block is computed by the reference and computed again in the backward pass, so at most one
block's (batch, heads, block, keys) tensors exist at a time.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ogive.kernels import finite
from ogive.kernels.auxiliary import Aux
from ogive.kernels.call import Call
from ogive.kernels.reference import reference
from ogive.parts.scores import Additive, GatV2, Score, ScoreChain

BUDGET = 2**20
"""Numbers in the largest tensor of a block."""


def lacks(call: Call) -> str | None:
    """Why blocks cannot run this call, or None where they can."""
    if call.aux is not None and (call.aux.weights or call.aux.weights_rows is not None):
        return "it does not return weights, which it never holds at once"
    if torch.compiler.is_compiling() or finite.transforming():
        return "torch.compile and torch.func transforms need the definition in one piece"
    return None


def chunked(call: Call) -> tuple[Tensor, Aux | None]:
    """The reference's numbers, block by block."""
    queries, block = call.query.shape[-2], _block(call)
    if block >= queries:
        return reference(call)
    pieces = [piece(call, start, min(start + block, queries)) for start in range(0, queries, block)]
    out = torch.cat([out for out, _ in pieces], -2)
    if call.aux is None:
        return out, None
    return out, Aux(*[_joined(parts) for parts in zip(*[aux for _, aux in pieces], strict=True)])  # type: ignore[arg-type]


def piece(call: Call, start: int, stop: int) -> tuple[Tensor, Aux | None]:
    """The reference's answer for queries start … stop − 1, computed again in the backward pass."""

    def run(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None):
        part = replace(
            call,
            query=query,
            key=key,
            value=value,
            bias=bias,
            visibility=call.visibility.rows(start, stop),
            first_query=call.first_query + start,
        )
        return reference(part)

    bias = call.bias
    if bias is not None and bias.dim() > 1 and bias.shape[-2] > 1:
        bias = bias[..., start:stop, :]
    inputs = (call.query[..., start:stop, :], call.key, call.value, bias)
    if not torch.is_grad_enabled():
        return run(*inputs)
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)  # type: ignore[return-value]


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    return None if parts[0] is None else torch.cat(parts, -1)  # type: ignore[arg-type]


def _block(call: Call) -> int:
    """Queries in a block: as many as the budget allows, at least one."""
    batch, heads, _, width = call.query.shape
    a_row = max(1, batch * heads * call.key.shape[-2])
    if _sums_features(call.score):
        a_row *= max(1, width)
    return max(1, BUDGET // a_row)


def _sums_features(score: Score) -> bool:
    inner = score.score if isinstance(score, ScoreChain) else score
    return isinstance(inner, Additive | GatV2)
