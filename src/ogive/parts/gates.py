"""Gates, and the controls that a gate or an activation must beat before it is credited.

A control changes what an activation changes as a side effect (scale, extra parameters, an extra
linear path) without adding a nonlinearity.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError
from ogive.parts.facts import Facts
from ogive.parts.maps import Activation, Map, activation
from ogive.parts.part import Sizes, choice, number

GRANULARITIES = ("element", "head")


class Gate(Map):
    """h times an activation of a linear map of the layer's input x.

    `granularity=element` learns a factor for every feature, `granularity=head` one for each
    head. The linear map has no bias and starts as `torch.nn.Linear` does.
    """

    name = "gate"
    kind = "gate"
    formula = r"h \odot f(x W_g)"
    source = "AlphaFold 2 (2021); G1 to G5 of gated attention (Qiu 2025, 2505.06708)"
    needs_setup = True
    example = "gate(sigmoid)"

    def __init__(self, act: str, granularity: str = "element") -> None:
        super().__init__()
        self.act = activation(act)
        self.granularity = choice("gate granularity", granularity, GRANULARITIES)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        inner = self.act.facts
        degree = None if inner.degree is None else 1 + inner.degree
        return Facts(degree=degree, zero_at_zero=True, monotone=inner.nonnegative)

    def setup(self, sizes: Sizes) -> Gate:
        per_head = sizes.head_width if self.granularity == "element" else 1
        self.heads = sizes.heads
        self.weight = nn.Parameter(torch.empty(sizes.heads * per_head, sizes.width))
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return h * self.act.value(
            nn.functional.linear(x, self.weight).unflatten(-1, (self.heads, -1))
        )


class Scale(Map):
    """One factor for all of h: the control for "any activation changes the scale".

    `scale(0.5)` is that constant. `scale(relu)` is the constant that gives a standard normal
    number the root mean square which relu gives it (0.707): a matched-RMS control for that
    activation. `scale(learned)` is a scalar that starts at 1 and is trained.
    """

    name = "scale"
    kind = "control"
    formula = r"c\,h"
    source = "the matched-RMS linear control that evaluations of activations leave out"
    example = "scale(relu)"

    def __init__(self, by: float | str) -> None:
        super().__init__()
        self.by = by
        self.register_parameter("weight", None)
        if by == "learned":
            self.factor = 1.0
        elif isinstance(by, int | float):
            self.factor = float(number("scale(by): 'learned', an activation, or", by))
            if not self.factor:
                raise ArgumentError("scale(by) takes a factor that is not 0, which erases h")
        else:
            self.by = activation(by)
            self.factor = normal_rms(self.by)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        rises = self.by != "learned" and self.factor > 0
        return Facts(
            odd=True, degree=1, monotone=rises, zero_at_zero=True, linear=True, fold_safe=True
        )

    def setup(self, sizes: Sizes) -> Scale:
        if self.by == "learned":
            self.weight = nn.Parameter(torch.ones(()))
        return self

    def reset_parameters(self) -> None:
        if self.weight is not None:
            nn.init.ones_(self.weight)

    def forward(self, h: Tensor, x: Tensor | None = None) -> Tensor:
        return h * (self.factor if self.weight is None else self.weight)


class ConstantGate(Map):
    """A gate that does not look at the input: it folds exactly into the next weights.

    As a function it is the plain layer; only its start (×0.5 for sigmoid) and its
    parametrisation differ. What it gains, no nonlinearity has earned.
    """

    name = "constant_gate"
    kind = "control"
    formula = r"h \odot f(\theta),\quad \theta = 0 \text{ at the start}"
    source = "input-independent gate of Qiu 2025 (2505.06708, table 4)"
    needs_setup = True

    def __init__(self, act: str = "sigmoid", granularity: str = "element") -> None:
        super().__init__()
        self.act = activation(act)
        if _never_opens(self.act):
            raise ArgumentError(
                f"constant_gate({self.act}) starts closed and never opens: fits an activation "
                "with a value or a slope at 0, such as sigmoid, tanh or silu"
            )
        self.granularity = choice("constant_gate granularity", granularity, GRANULARITIES)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        return Facts(
            odd=True,
            degree=1,
            monotone=self.act.facts.nonnegative,
            zero_at_zero=True,
            linear=True,
            fold_safe=True,
        )

    def setup(self, sizes: Sizes) -> ConstantGate:
        per_head = sizes.head_width if self.granularity == "element" else 1
        self.weight = nn.Parameter(torch.zeros(sizes.heads, per_head))
        return self

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, h: Tensor, x: Tensor | None = None) -> Tensor:
        return h * self.act.value(self.weight)


class Additive(Map):
    """h plus a linear map of x: a gate's parameters and its look at the input, but linear."""

    name = "additive"
    kind = "control"
    formula = r"h + x W_a"
    source = "additive identity of Qiu 2025 (2505.06708, table 3)"
    facts = Facts(odd=True, degree=1, monotone=True, zero_at_zero=True, linear=True)
    needs_setup = True

    def setup(self, sizes: Sizes) -> Additive:
        self.heads = sizes.heads
        self.weight = nn.Parameter(torch.empty(sizes.heads * sizes.head_width, sizes.width))
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return h + nn.functional.linear(x, self.weight).unflatten(-1, (self.heads, -1))


def _never_opens(act: Activation) -> bool:
    """Whether value and slope at zero are both zero, so that no gradient moves θ from there."""
    with torch.inference_mode(False), torch.enable_grad():
        zero = torch.zeros((), device="cpu", requires_grad=True)
        value = act.value(zero)
        (slope,) = torch.autograd.grad(value, zero, materialize_grads=True)
    return not value and not slope


def normal_rms(act: Activation) -> float:
    """The root mean square of act(z), z standard normal, by a sum fine enough for kinks."""
    z = np.linspace(-16, 16, 32001)
    density = np.exp(-z * z / 2)
    with torch.no_grad():
        squares = act.value(torch.from_numpy(z)).square().numpy()
    return float(math.sqrt((density * squares).sum() / density.sum()))
