"""Compiled maps as torch operators, and their autograd; see `library.py` for the why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.kernels import compiled
from ogive.kernels.graphed import graphed, laid_out

DEFINITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": F.elu,
    "elu1": lambda x: F.elu(x) + 1,
    "mish": F.mish,
    "softplus": lambda x: F.softplus(x, threshold=40),
    "tanh": torch.tanh,
}
"""What each map is in torch: second derivatives go through it."""

_LIBRARY = torch.library.Library("ogive_maps", "DEF")
_LIBRARY.define("value(Tensor x, str name) -> Tensor")
_LIBRARY.define("slope(Tensor x, Tensor grad, str name) -> Tensor")


def _value(x: Tensor, name: str) -> Tensor:
    result = torch.empty_like(x)
    compiled.run_map(name, laid_out(x, result), None, result)
    return result


def _slope(x: Tensor, grad: Tensor, name: str) -> Tensor:
    """The slope at x times grad."""
    result = torch.empty_like(x)
    compiled.run_map(name, laid_out(x, result), laid_out(grad, result), result)
    return result


_LIBRARY.impl("value", _value, "CPU")
_LIBRARY.impl("slope", _slope, "CPU")
torch.library.register_fake("ogive_maps::value", lambda x, name: torch.empty_like(x), lib=_LIBRARY)
torch.library.register_fake(
    "ogive_maps::slope", lambda x, grad, name: torch.empty_like(x), lib=_LIBRARY
)


class MapFunction(torch.autograd.Function):
    """Autograd of a map: x and its name."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        """The value of each number."""
        ctx.save_for_backward(x)
        ctx.name = name
        return torch.ops.ogive_maps.value(x, name)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:  # type: ignore[override]
        """The slope of each number times grad; through torch's definition where graphed."""
        (x,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return torch.ops.ogive_maps.slope(x, grad, ctx.name), None
        with torch.enable_grad():
            again = DEFINITIONS[ctx.name](x)
        return graphed(again, [x], [True], grad)[0], None


def apply(x: Tensor, name: str) -> Tensor:
    """The map of each number of x, differentiable."""
    if x.requires_grad and torch.is_grad_enabled():
        return MapFunction.apply(x, name)  # type: ignore[return-value]
    return torch.ops.ogive_maps.value(x, name)
