"""Activations of whole tensors by compiled kernels, where those are faster than torch's on a CPU.

Values and slopes in float32 come within 2 ulp of the truth at every number, denormal ones included
(2.25 ulp on processors without fused multiply-adds; csrc/maps.h). Layers run their chains through
`run`, which leaves everything else to the part.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules import module as hooks

from ogive.kernels import compiled, finite
from ogive.kernels.map_library import apply
from ogive.parts import maps
from ogive.parts.maps import Map

NAMES: dict[type, str] = {
    maps.Elu: "elu",
    maps.Elu1: "elu1",
    maps.Mish: "mish",
    maps.Softplus: "softplus",
    maps.Tanh: "tanh",
}
"""Parts with a kernel, and the kernel's name."""
LEAST = 1 << 13
LEAST_TRAINED = 1 << 16
"""Of fewer numbers torch's own operation is as fast: a call of ours costs more.

With gradients that is more still, and torch has tanh's slope from its value for almost nothing.
"""


def lacks(part: Map, h: Tensor) -> str | None:
    """Why the part itself runs on h and no kernel does, or None where one does."""
    if compiled.missing:
        return compiled.missing
    if type(part) not in NAMES:
        return f"there is no kernel of {part}"
    trained = h.requires_grad and torch.is_grad_enabled()
    if h.numel() < (LEAST_TRAINED if trained else LEAST):
        return "too few numbers to be worth a kernel's call"  # a size written here would be fixed
    if type(h) is not Tensor or h.device.type != "cpu":
        return "kernels run on plain tensors of a CPU"
    if h.dtype not in (torch.float32, torch.float64):
        return f"there is no kernel in {h.dtype}"
    if _watched(part):
        return "hooks of the part want to run"
    if torch.compiler.is_exporting():
        return "an exported program knows torch's operations alone"
    if finite.transforming():
        return "torch.func transforms and forward-mode derivatives need torch's own operation"
    return None


def map_impl(part: Map, h: Tensor) -> str:
    """What `run` runs: "native" for a kernel, "torch" for the part's own code."""
    return "native" if lacks(part, h) is None else "torch"


def run(part: Map, h: Tensor, x: Tensor) -> Tensor:
    """part(h, x), by a kernel where there is one that is faster.

    Args:
        part: any map.
        h: the tensor on the path, any shape.
        x: the layer's input, which gates read.
    """
    return part(h, x) if lacks(part, h) is not None else apply(h, NAMES[type(part)])


def _watched(part: Map) -> bool:
    """Whether calling the part runs more than its code."""
    own = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
    return any(own) or bool(part._backward_pre_hooks) or bool(hooks._has_any_global_hook())
