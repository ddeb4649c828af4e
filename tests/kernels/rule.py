"""Rule R1: how far from the truth a result may be, tensor by tensor.

    err(ours) ≤ 2 · err(eager, same dtype) + c · eps(dtype) · nat

Errors are maxima over a tensor against the oracle in float64; c is 1, and 0.25 in half precision.
In float64 the oracle is no truer than what it judges: there err(eager) reads 0. What the oracle in
float64 would condemn, in any dtype, is judged again by the oracle in wider numbers (wide.py), from
which err(eager) is then measured too. docs/design/0003 says why.
NaN and infinities must stand where the oracle has them: a comparison that skips NaN is deaf.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FACTOR = {torch.float64: 1.0, torch.float32: 1.0, torch.bfloat16: 0.25, torch.float16: 0.25}

Tensors = dict[str, Tensor]


def same_specials(ours: Tensor, truth: Tensor) -> bool:
    """Whether NaN and infinities of ours stand where the truth has them, rounded to our dtype."""
    truth = truth.to(ours.dtype)
    return bool(
        (ours.isnan() == truth.isnan()).all()
        and (ours.isposinf() == truth.isposinf()).all()
        and (ours.isneginf() == truth.isneginf()).all()
    )


def error(ours: Tensor, truth: Tensor, rest: Tensor | None = None) -> float:
    """The largest difference where the truth is finite in our dtype; infinite where ours is not.

    `rest` is what the truth has beyond the digits of float64.
    """
    finite = truth.to(ours.dtype).isfinite()
    gap = (ours.double() - truth)[finite]
    gap = (gap if rest is None else gap - rest[finite]).abs()
    return float(gap.nan_to_num(nan=torch.inf).max()) if gap.numel() else 0.0


def violations(
    ours: Tensors,
    eager: Tensors,
    truth: Tensors,
    nat: dict[str, float],
    dtype: torch.dtype,
    wider: Callable[[], dict[str, tuple[Tensor, Tensor]]] | None = None,
) -> list[str]:
    """What breaks R1, one line for each tensor that does; empty where all is well.

    `wider` gives each tensor of the truth as a sum of two, from numbers wider than float64.
    """
    broken = []
    if ours.keys() != truth.keys():
        broken.append(f"tensors {sorted(ours)} came where {sorted(truth)} fit")
    for name in truth.keys() & ours.keys():
        mine, true = ours[name], truth[name]
        if mine.shape != true.shape:
            broken.append(f"{name}: shape {tuple(mine.shape)}, not {tuple(true.shape)}")
            continue
        if not same_specials(mine, true):
            broken.append(f"{name}: NaN or infinities elsewhere than the oracle's")
            continue
        known = 0.0 if dtype == torch.float64 else error(eager[name], true)
        known = known if known < torch.inf else 0.0
        allowed = 2 * known + FACTOR[dtype] * torch.finfo(dtype).eps * nat[name]
        gap = error(mine, true)
        if not gap <= allowed and wider is not None:
            better = wider()[name]
            known, gap = error(eager[name], *better), error(mine, *better)
            allowed = 2 * known + FACTOR[dtype] * torch.finfo(dtype).eps * nat[name]
        if not gap <= allowed:
            broken.append(f"{name}: error {gap:.3g}, allowed {allowed:.3g} (eager {known:.3g})")
    return broken
