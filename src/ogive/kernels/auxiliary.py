"""What a caller may ask of the operation beside its output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.kernels import finite


@dataclass(frozen=True, kw_only=True)
class AuxRequest:
    """Ask `attention(…, return_aux=AuxRequest(…))` for statistics of its rows.

    Attributes:
        lse: log Σ exp(score) over what a row sees, −∞ where it sees nothing.
        row_sum: the sum of a row's weights, before dropout.
        max_score: the largest visible score, −∞ where a row sees nothing.
        entropy: entropy in nats of |weights| as shares of their row; 0 for an all-zero row.
        weights: all weights (batch, heads, queries, keys), before dropout: costs queries × keys.
        weights_rows: indices of queries whose weights to return.
    """

    lse: bool = False
    row_sum: bool = False
    max_score: bool = False
    entropy: bool = False
    weights: bool = False
    weights_rows: Tensor | list[int] | tuple[int, ...] | None = None


class Aux(NamedTuple):
    """The answers to an `AuxRequest`; None for what was not asked.

    `lse`, `row_sum`, `max_score`, `entropy` have shape (batch, heads, queries); `weights`
    (batch, heads, queries, keys); `weights_rows` (batch, heads, rows asked for, keys).
    """

    lse: Tensor | None = None
    row_sum: Tensor | None = None
    max_score: Tensor | None = None
    entropy: Tensor | None = None
    weights: Tensor | None = None
    weights_rows: Tensor | None = None


def check_request(request: object, queries: int) -> None:
    """Raise unless `request` is None or an `AuxRequest` whose rows exist."""
    if request is None:
        return
    if not isinstance(request, AuxRequest):
        raise ArgumentTypeError(f"return_aux takes an AuxRequest or None, not {request!r}")
    rows = request.weights_rows
    if rows is None:
        return
    if isinstance(rows, Tensor):
        _check_row_tensor(rows, queries)
        return
    listed: list[Any] = list(rows) if isinstance(rows, Iterable) else [None]
    if not all(isinstance(row, Integral) and not isinstance(row, bool) for row in listed):
        raise ArgumentTypeError(f"weights_rows takes a list of whole numbers, not {rows!r}")
    if not all(0 <= row < queries for row in listed):
        raise ArgumentError(f"weights_rows {listed} leaves the {queries} queries there are")


def _check_row_tensor(rows: Tensor, queries: int) -> None:
    whole = not (rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool)
    if rows.dim() != 1 or not whole:
        raise ArgumentTypeError(
            f"weights_rows takes whole numbers (rows,), not {rows.dtype} of shape "
            f"{tuple(rows.shape)}"
        )
    exist = ((rows >= 0) & (rows < queries)).all()
    if torch.compiler.is_compiling():  # which cannot branch on numbers
        torch.ops.aten._assert_async.msg(exist, "weights_rows leaves the queries there are")
    elif finite.may_look(rows) and not exist:
        raise ArgumentError(f"weights_rows {rows.tolist()} leaves the {queries} queries there are")


def answer(request: AuxRequest, scores: Tensor, weights: Tensor, keep: Tensor | None) -> Aux:
    """The statistics that were asked for, from scores and undropped weights of all pairs."""
    visible = scores if keep is None else scores.masked_fill(~keep, -torch.inf)
    rows = request.weights_rows
    return Aux(
        lse=torch.logsumexp(visible, -1) if request.lse else None,
        row_sum=weights.sum(-1) if request.row_sum else None,
        max_score=_maximum(visible) if request.max_score else None,
        entropy=_entropy(weights) if request.entropy else None,
        weights=weights if request.weights else None,
        weights_rows=None if rows is None else weights[:, :, torch.as_tensor(rows).long()],
    )


def _maximum(visible: Tensor) -> Tensor:
    if not visible.shape[-1]:
        return visible.new_full(visible.shape[:-1], -torch.inf)
    return visible.amax(-1)


def _entropy(weights: Tensor) -> Tensor:
    sizes = weights.abs()
    total = sizes.sum(-1, keepdim=True)
    shares = sizes / total.masked_fill(total == 0, 1)
    # Nothing adds nothing; its slope is infinite, and would make NaN of a gradient that is zero.
    return torch.special.entr(shares.masked_fill(shares == 0, 1)).sum(-1)
