"""Statistics of rows beside a kernel's output, without a (queries, keys) tensor.

Kernels make lse and sums of weights. Maxima and entropies the definition computes for a block of
queries at a time, and again in the backward pass, from values of no width: nothing is mixed. Rows
of weights that are asked for are computed alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ogive.kernels import chunked, finite
from ogive.kernels.auxiliary import Aux, AuxRequest
from ogive.kernels.blocks import part_of
from ogive.kernels.call import Call
from ogive.kernels.dense import Dense, wide_dtype
from ogive.kernels.library import apply, apply_with_lse
from ogive.kernels.reference import reference


def lacks(request: AuxRequest) -> str | None:
    """Why statistics cannot be computed here, or None where they can."""
    if fused(request) and request.weights_rows is None:
        return None
    if torch.compiler.is_compiling() or finite.transforming():
        return "statistics of rows under torch.compile or torch.func need the definition"
    return None


def fused(request: AuxRequest) -> bool:
    """Whether the kernels compute all sums over rows that are asked for."""
    return not (request.max_score or request.entropy or request.weights)


def statistics(call: Call, dense: Dense, lse: Tensor | None) -> Aux:
    """The answers to `call.aux`, differentiable as the reference's are.

    dense: the same call as the kernels see it. lse: the answer where it is there already.
    """
    request = call.aux or AuxRequest()
    narrow = replace(call, value=call.value[..., :0], dropout_p=0.0, seed=None)
    if request.weights:
        return reference(narrow)[1] or Aux()
    rows = request.weights_rows
    if fused(request):
        aux = Aux(
            lse=(_lse(dense) if lse is None else lse) if request.lse else None,
            row_sum=_row_sum(dense) if request.row_sum else None,
        )
    else:
        sums = replace(request, weights_rows=None)
        aux = chunked.chunked(replace(narrow, aux=sums))[1] or Aux()
    return aux if rows is None else aux._replace(weights_rows=_rows(narrow, rows))


def _lse(dense: Dense) -> Tensor:
    """log Σ exp(score), which softmax of the same scores leaves when it mixes nothing."""
    none = {"value": dense.value[..., :0], "seed": None, "dropout": 0.0}
    return apply_with_lse(replace(dense, curve="softmax", constant=None, **none))[1]


def _row_sum(dense: Dense) -> Tensor:
    """Sums of weights: what they make of values that are all one."""
    dtype = wide_dtype(dense)
    query, key, ones = dense.query.to(dtype), dense.key.to(dtype), dense.value.new_ones(())
    ones = ones.to(dtype).expand(*key.shape[:3], 1)
    return apply(replace(dense.with_inputs(query, key, ones), seed=None, dropout=0.0))[..., 0]


def _rows(call: Call, rows: Tensor | list[int] | tuple[int, ...]) -> Tensor:
    """Weights (b, h, rows, keys) of chosen queries, a run of neighbours at a time."""
    call = replace(call, aux=AuxRequest(weights=True))
    wanted = torch.as_tensor(rows).long().tolist()
    examples = slice(0, call.query.shape[0])
    runs = [part_of(call, (examples, slice(*run))) for run in _runs(wanted)]
    pieces = [chunked.chunked(run)[1].weights for run in runs]  # type: ignore[union-attr]
    if not pieces:
        shape = (*call.query.shape[:2], 0, call.key.shape[-2])
        return call.query.new_empty(
            shape, dtype=torch.promote_types(call.query.dtype, torch.float32)
        )
    return torch.cat(pieces, -2)  # type: ignore[arg-type]


def _runs(rows: list[int]) -> list[tuple[int, int]]:
    """Ends (start, stop) of runs in which each row follows the one before."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1] = runs[-1][0], row + 1
        else:
            runs.append((row, row + 1))
    return runs
