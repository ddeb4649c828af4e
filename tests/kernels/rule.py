"""Rule R1: how far from the truth a result may be, tensor by tensor.

    err(ours) ≤ 2 · err(eager, same dtype) + c · eps(dtype) · nat

Errors are maxima over a tensor against the oracle in float64; c is 1, and 0.25 in half precision.
In float64 the oracle is no truer than what it judges, so err(eager) reads 0 and c stays 1.
NaN and infinities must stand where the oracle has them: a comparison that skips NaN is deaf.
"""

from __future__ import annotations

import torch
from torch import Tensor

FACTOR = {torch.float64: 1.0, torch.float32: 1.0, torch.bfloat16: 0.25, torch.float16: 0.25}

Tensors = dict[str, Tensor]


def same_specials(ours: Tensor, truth: Tensor) -> bool:
    """Whether NaN and infinities of ours stand where the truth has them."""
    return bool(
        (ours.isnan() == truth.isnan()).all()
        and (ours.isposinf() == truth.isposinf()).all()
        and (ours.isneginf() == truth.isneginf()).all()
    )


def error(ours: Tensor, truth: Tensor) -> float:
    """The largest difference where the truth is finite; infinite where ours is not."""
    finite = truth.isfinite()
    gap = (ours.double() - truth)[finite].abs()
    return float(gap.nan_to_num(nan=torch.inf).max()) if gap.numel() else 0.0


def violations(
    ours: Tensors, eager: Tensors, truth: Tensors, nat: dict[str, float], dtype: torch.dtype
) -> list[str]:
    """What breaks R1, one line for each tensor that does; empty where all is well."""
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
        if not gap <= allowed:
            broken.append(f"{name}: error {gap:.3g}, allowed {allowed:.3g} (eager {known:.3g})")
    return broken
