"""Maps: tensor to tensor at a site. Here the family's head, the activations and the norms.

Gates and controls are in `gates.py`, projections in `projections.py`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError
from ogive.parts.facts import Facts
from ogive.parts.part import Part, Sizes, build, choice, flag, number


class Map(Part):
    """h ← map(h, x): h (batch, length, heads, head width) on the path, x the layer's input.

    x has shape (batch, length, width). Activations and norms look at h alone; gates and the
    additive control read x. At the output site there is one head as wide as the layer.
    """

    family = "map"
    kind: str = ""
    """Heading in the catalogue: activation, norm, gate, control or projection."""
    history: int = 0
    """How many earlier positions of h the map looks at (a cache keeps them)."""

    def width_in(self, width: int) -> int:
        """The width per head that must come in, where `width` is asked for nominally."""
        return width

    def width_out(self, width: int) -> int:
        """The width per head that goes out when `width` comes in."""
        return width

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError


class Activation(Map):
    """A function of each number of h on its own; a member writes `value`."""

    kind = "activation"

    def value(self, h: Tensor) -> Tensor:
        """f(h), any shape to the same shape."""
        raise NotImplementedError

    def forward(self, h: Tensor, x: Tensor | None = None) -> Tensor:
        return self.value(h)


def activation(written: object) -> Activation:
    """The activation inside another part, such as the sigmoid of `gate(sigmoid)`."""
    part = build("map", written)  # type: ignore[arg-type]
    if not isinstance(part, Activation):
        fits = ", ".join(sorted(c.name for c in Activation.__subclasses__() if c.listed))
        raise ArgumentError(f"{written} is a {part.kind}, where an activation fits ({fits})")
    return part


class Relu(Activation):
    """Zero below zero, itself above."""

    name = "relu"
    formula = r"\max(h, 0)"
    source = "Nair and Hinton 2010; after Q, K and V in DrQA (2017), Kyubyong/transformer (2017)"
    facts = Facts(nonnegative=True, degree=1, monotone=True, zero_at_zero=True)

    def value(self, h: Tensor) -> Tensor:
        return F.relu(h)


class LeakyRelu(Activation):
    """A small slope below zero, 1 above."""

    name = "leaky_relu"
    formula = r"\max(h, a\,h)"
    source = "Maas 2013; inside the score of GAT (1710.10903) with a = 0.2"
    facts = Facts(degree=1, monotone=True, zero_at_zero=True)

    def __init__(self, slope: float = 0.2) -> None:
        super().__init__()
        self.slope = number("leaky_relu(slope)", slope)
        if not 0 < self.slope < 1:
            raise ArgumentError(f"leaky_relu(slope) takes a slope in (0, 1), not {slope!r}")

    def value(self, h: Tensor) -> Tensor:
        return F.leaky_relu(h, self.slope)


class Relu2(Activation):
    """The square of relu."""

    name = "relu2"
    formula = r"\max(h, 0)^2"
    source = "Primer (So 2021, 2109.08668)"
    facts = Facts(nonnegative=True, degree=2, monotone=True, zero_at_zero=True)

    def value(self, h: Tensor) -> Tensor:
        return F.relu(h).square()


class Gelu(Activation):
    """h times the normal distribution's probability of a smaller number (exact, by erf)."""

    name = "gelu"
    formula = r"h\,\Phi(h)"
    source = "Hendrycks and Gimpel 2016 (1606.08415)"
    facts = Facts(zero_at_zero=True)

    def value(self, h: Tensor) -> Tensor:
        return F.gelu(h)


class Silu(Activation):
    """h times its own sigmoid; also called swish."""

    name = "silu"
    formula = r"h\,\sigma(h)"
    source = "Elfwing 2017; after Q, K and V in HSTU (2402.17152), DeltaNet (2406.06484)"
    facts = Facts(zero_at_zero=True)

    def value(self, h: Tensor) -> Tensor:
        return F.silu(h)


class Tanh(Activation):
    """The hyperbolic tangent."""

    name = "tanh"
    formula = r"\tanh(h)"
    source = "inside the additive score of Bahdanau 2014 (1409.0473)"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def value(self, h: Tensor) -> Tensor:
        return torch.tanh(h)


class Sigmoid(Activation):
    """The logistic curve, the ogive itself."""

    name = "sigmoid"
    formula = r"\sigma(h) = 1/(1 + e^{-h})"
    source = "gates of AlphaFold 2 (2021) and gated attention (Qiu 2025, 2505.06708)"
    facts = Facts(nonnegative=True, bounded=True, monotone=True)

    def value(self, h: Tensor) -> Tensor:
        return torch.sigmoid(h)


class Softplus(Activation):
    """A smooth relu: log(1 + e^h)."""

    name = "softplus"
    formula = r"\log(1 + e^{h})"
    source = "on Q and K in PoPE (2509.10534)"
    facts = Facts(nonnegative=True, monotone=True)

    def value(self, h: Tensor) -> Tensor:
        return F.softplus(h, threshold=40)


class Elu(Activation):
    """h above zero, e^h − 1 below."""

    name = "elu"
    formula = r"\max(h, 0) + \min(e^{h} - 1, 0)"
    source = "Clevert 2015 (1511.07289)"
    facts = Facts(monotone=True, zero_at_zero=True)

    def value(self, h: Tensor) -> Tensor:
        return F.elu(h)


class Elu1(Activation):
    """elu plus one: the positive feature map of linear attention."""

    name = "elu1"
    formula = r"\mathrm{elu}(h) + 1"
    source = "Katharopoulos 2020 (2006.16236)"
    facts = Facts(nonnegative=True, monotone=True)

    def value(self, h: Tensor) -> Tensor:
        return F.elu(h) + 1


class Exp(Activation):
    """The exponential; overflows float32 beyond 88."""

    name = "exp"
    formula = r"e^{h}"
    source = "feature map in the Mamba-2 ablation (2405.21060, table 6)"
    facts = Facts(nonnegative=True, monotone=True)

    def value(self, h: Tensor) -> Tensor:
        return torch.exp(h)


class Power(Activation):
    """The p-th power that keeps the sign; p = 1 is linear, which makes it a control."""

    name = "power"
    formula = r"\mathrm{sign}(h)\,|h|^{p}"
    source = "polynomial attention (2410.18613) raises the score; here any site's features"
    example = "power(2)"

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = number("power(p)", p, above=0)
        if self.p < 1:
            raise ArgumentError(f"power(p) takes p of at least 1 (a finite slope at 0), not {p!r}")

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        straight = self.p == 1
        return Facts(
            odd=True,
            degree=self.p,
            monotone=True,
            zero_at_zero=True,
            linear=straight,
            fold_safe=straight,
        )

    def value(self, h: Tensor) -> Tensor:
        return h if self.p == 1 else h.sign() * h.abs().pow(self.p)


class Hardtanh(Activation):
    """h clipped to [−1, 1]."""

    name = "hardtanh"
    formula = r"\min(\max(h, -1), 1)"
    source = "Collobert 2004"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def value(self, h: Tensor) -> Tensor:
        return F.hardtanh(h)


class Mish(Activation):
    """h times the tanh of its softplus."""

    name = "mish"
    formula = r"h\,\tanh(\log(1 + e^{h}))"
    source = "Misra 2019 (1908.08681)"
    facts = Facts(zero_at_zero=True)

    def value(self, h: Tensor) -> Tensor:
        return F.mish(h)


class Glu(Map):
    """One half of h times the activation of the other half, head by head.

    `width=double` (the default) makes the projection twice as wide and keeps the head's width.
    `width=split` keeps the projection and halves the head's width. `width=match` chooses both so
    that the parameters of the projection in and of the output projection together stay those of
    a plain layer: the head keeps 2/3 of its width and the projection grows to 4/3 (rounded).
    """

    name = "glu"
    kind = "gate"
    formula = r"a \odot f(b),\quad (a, b) = h"
    source = "Dauphin 2016 (1612.08083); on values in GLU Attention (Wang 2025, 2507.00022)"
    example = "glu(silu)"

    def __init__(self, act: str, width: str = "double") -> None:
        super().__init__()
        self.act = activation(act)
        self.width = choice("glu width", width, ("double", "split", "match"))

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        inner = self.act.facts
        degree = None if inner.degree is None else 1 + inner.degree
        return Facts(degree=degree, zero_at_zero=True, monotone=inner.nonnegative)

    def width_in(self, width: int) -> int:
        if self.width == "double":
            return 2 * width
        if self.width == "match":
            return 2 * max(1, round(2 * width / 3))
        if width % 2:
            raise ArgumentError(f"glu(width=split) halves the head's width, and {width} is odd")
        return width

    def width_out(self, width: int) -> int:
        return width // 2

    def setup(self, sizes: Sizes) -> Glu:
        if sizes.head_width % 2:
            raise ArgumentError(f"{self} cuts a head in half, and {sizes.head_width} is odd")
        return self

    def forward(self, h: Tensor, x: Tensor | None = None) -> Tensor:
        kept, gate = h.chunk(2, dim=-1)
        return kept * self.act.value(gate)


class Norm(Map):
    """A norm over each head's features; `gain=true` learns one factor per feature."""

    kind = "norm"

    def __init__(self, gain: bool = False) -> None:
        super().__init__()
        self.gain = flag(f"{self.name}(gain)", gain)
        if gain:  # training may make a factor negative
            self.facts = replace(self.facts, monotone=False)
        self.register_parameter("weight", None)

    def setup(self, sizes: Sizes) -> Norm:
        if self.gain:
            self.weight = nn.Parameter(torch.ones(sizes.head_width))
        return self

    def reset_parameters(self) -> None:
        if self.weight is not None:
            nn.init.ones_(self.weight)


class RmsNorm(Norm):
    """h over its root mean square (plus 1e-6 under the root)."""

    name = "rmsnorm"
    formula = r"h / \sqrt{\mathrm{mean}(h^2) + 10^{-6}}"
    source = "Zhang and Sennrich 2019 (1910.07467); on q and k in Qwen3"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def forward(self, h: Tensor, x: Tensor | None = None) -> Tensor:
        # Under autocast h is narrower than the gain, which rms_norm does not take.
        weight = None if self.weight is None else self.weight.to(h.dtype)
        return F.rms_norm(h, h.shape[-1:], weight, eps=1e-6)


class LayerNorm(Norm):
    """h minus its mean, over its standard deviation (plus 1e-5 under the root)."""

    name = "layernorm"
    formula = r"(h - \bar h) / \sqrt{\mathrm{var}(h) + 10^{-5}}"
    source = "Ba 2016 (1607.06450); on q and k in ViT-22B (2302.05442)"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def forward(self, h: Tensor, x: Tensor | None = None) -> Tensor:
        return F.layer_norm(h, h.shape[-1:], self.weight, eps=1e-5)


class L2Norm(Norm):
    """h over its length; the zero vector stays zero."""

    name = "l2norm"
    formula = r"h / \lVert h \rVert_2"
    source = "QK-norm (Henry 2020, 2010.04245); keys of DeltaNet (2406.06484)"
    facts = Facts(bounded=True, odd=True, degree=0, monotone=True, zero_at_zero=True)

    def forward(self, h: Tensor, x: Tensor | None = None) -> Tensor:
        unit = F.normalize(h, dim=-1)
        return unit if self.weight is None else unit * self.weight
