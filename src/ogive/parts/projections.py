"""Projections: the first map of a chain, from the layer's input to heads; and the convolution."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError
from ogive.parts.facts import Facts
from ogive.parts.maps import Activation, Map, activation
from ogive.parts.part import Sizes


class Projection(Map):
    """x (batch, length, width) → h (batch, length, heads, head width): comes first in a chain."""

    kind = "projection"
    needs_setup = True

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        raise NotImplementedError


class Linear(Projection):
    """The projection of Attention Is All You Need: one matrix, and a bias if the layer has them."""

    name = "linear"
    formula = r"x W"
    source = "Vaswani 2017 (1706.03762)"
    facts = Facts(odd=True, degree=1, zero_at_zero=True, linear=True, fold_safe=True)
    bias: Tensor | None

    def setup(self, sizes: Sizes) -> Linear:
        self.heads = sizes.heads
        wide = sizes.heads * sizes.head_width
        self.weight = nn.Parameter(torch.empty(wide, sizes.width))
        self.register_parameter("bias", nn.Parameter(torch.empty(wide)) if sizes.bias else None)
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        bound = _linear_start(self.weight)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight, self.bias).unflatten(-1, (self.heads, -1))


class Identity(Projection):
    """W = I: the input itself, cut into heads. No parameters; heads × head width must be width."""

    name = "identity"
    formula = r"x"
    source = "W_Q = I of 2510.23912"
    facts = Facts(odd=True, degree=1, monotone=True, zero_at_zero=True, linear=True, fold_safe=True)

    def setup(self, sizes: Sizes) -> Identity:
        _must_keep_width(self.name, sizes)
        self.heads = sizes.heads
        return self

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.unflatten(-1, (self.heads, -1))


class Mlp(Projection):
    """Two matrices with an activation between them.

    `hidden=match` (the default) takes the hidden width that costs the parameters of one matrix:
    width·out / (width + out), half the width where out equals it.
    """

    name = "mlp"
    formula = r"f(x W_1) W_2"
    source = "q, k and v of Neural Attention (2310.11398)"
    example = "mlp(gelu)"

    def __init__(self, act: str, hidden: int | str = "match") -> None:
        super().__init__()
        self.act = activation(act)
        self.hidden = _hidden("mlp", hidden)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        inner = self.act.facts
        return Facts(
            bounded=inner.bounded,
            odd=inner.odd,
            degree=inner.degree,
            zero_at_zero=inner.zero_at_zero,
            linear=inner.linear,
            fold_safe=inner.fold_safe,
        )

    def setup(self, sizes: Sizes) -> Mlp:
        self.heads = sizes.heads
        wide = sizes.heads * sizes.head_width
        hidden = _matched(sizes.width, wide) if self.hidden == "match" else int(self.hidden)
        self.inner = nn.Parameter(torch.empty(hidden, sizes.width))
        self.outer = nn.Parameter(torch.empty(wide, hidden))
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        _linear_start(self.inner)
        _linear_start(self.outer)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return two_layers(x, self.inner, self.act, self.outer).unflatten(-1, (self.heads, -1))


class ResidualMlp(Projection):
    """The nonlinear query: half of the input, half of a normed two-layer network of it.

    Both norms are without learned gains. `hidden=match` costs the parameters of one matrix.
    """

    name = "residual_mlp"
    formula = r"\tfrac12\,\bigl(x + \mathrm{LN}(f(\mathrm{RMSNorm}(x)\,W_1)\,W_2)\bigr)"
    source = "Beyond Linearity in Attention Projections (Karbevski 2026, 2603.13381)"
    example = "residual_mlp(gelu)"

    def __init__(self, act: str, hidden: int | str = "match") -> None:
        super().__init__()
        self.act = activation(act)
        self.hidden = _hidden("residual_mlp", hidden)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        inner = self.act.facts
        return Facts(odd=inner.odd, zero_at_zero=inner.zero_at_zero)

    def setup(self, sizes: Sizes) -> ResidualMlp:
        _must_keep_width(self.name, sizes)
        self.heads = sizes.heads
        wide = sizes.width
        hidden = _matched(wide, wide) if self.hidden == "match" else int(self.hidden)
        self.inner = nn.Parameter(torch.empty(hidden, wide))
        self.outer = nn.Parameter(torch.empty(wide, hidden))
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        _linear_start(self.inner)
        _linear_start(self.outer)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        normed = F.rms_norm(x, x.shape[-1:], eps=1e-6)
        inner = two_layers(normed, self.inner, self.act, self.outer)
        mixed = (x + F.layer_norm(inner, inner.shape[-1:], eps=1e-5)) / 2
        return mixed.unflatten(-1, (self.heads, -1))


class Conv(Map):
    """A causal convolution over positions, one small kernel for each feature.

    Position t sees t − width + 1 … t. It starts as the identity, so that a layer with it starts
    where the plain layer starts. It follows a projection: `conv(3)` means `linear,conv(3)`.
    """

    name = "conv"
    kind = "projection"
    formula = r"\textstyle\sum_{u=0}^{w-1} c_u \odot h_{t-u}"
    source = "multi-DConv-head attention of Primer (So 2021, 2109.08668)"
    facts = Facts(odd=True, degree=1, zero_at_zero=True, linear=True)
    needs_setup = True
    example = "conv(3)"

    def __init__(self, width: int) -> None:
        super().__init__()
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ArgumentError(f"conv(width) takes a whole number of positions, not {width!r}")
        self.width = width
        self.history = width - 1
        if width == 1:  # one factor for each feature, and no neighbours
            self.facts = replace(self.facts, fold_safe=True)

    def setup(self, sizes: Sizes) -> Conv:
        self.weight = nn.Parameter(torch.empty(self.width, sizes.heads, sizes.head_width))
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            self.weight[0] = 1

    def forward(self, h: Tensor, x: Tensor | None = None) -> Tensor:
        length = h.shape[1]
        padded = F.pad(h, (0, 0, 0, 0, self.width - 1, 0))
        taps = [padded[:, self.width - 1 - u :][:, :length] * c for u, c in enumerate(self.weight)]
        return torch.stack(taps).sum(0) if len(taps) > 1 else taps[0]


def two_layers(x: Tensor, inner: Tensor, act: Activation, outer: Tensor) -> Tensor:
    """act(x W₁) W₂ with weights stored as (out, in)."""
    return F.linear(act.value(F.linear(x, inner)), outer)


def _matched(width: int, out: int) -> int:
    return max(1, round(width * out / (width + out)))


def _hidden(name: str, hidden: object) -> int | str:
    whole = isinstance(hidden, int) and not isinstance(hidden, bool)
    if hidden != "match" and not (whole and hidden >= 1):  # type: ignore[operator]
        raise ArgumentError(f"{name}(hidden) takes a whole number or 'match', not {hidden!r}")
    return hidden  # type: ignore[return-value]


def _linear_start(weight: Tensor) -> float:
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return 1 / math.sqrt(weight.shape[1])


def _must_keep_width(name: str, sizes: Sizes) -> None:
    wide = sizes.heads * sizes.head_width
    if wide != sizes.width:
        raise ArgumentError(
            f"{name} keeps the input's width, {sizes.width}, but {sizes.heads} heads of "
            f"{sizes.head_width} need {wide}"
        )
