"""The parts that batteries walk over: every member of a family, and arguments that matter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ogive.parts import Part, Score, Sizes, Weight, build, catalogue, score_from

SIZES = Sizes(width=12, heads=2, head_width=6)

ARGUMENTS = {
    "map": (
        "power(1) power(1.5) power(3) scale(0.5) scale(-2) scale(learned) scale(gelu) "
        "glu(relu) glu(sigmoid) glu(tanh,width=split) glu(relu,width=match) gate(tanh) "
        "gate(relu,granularity=head) gate(power(1)) mlp(relu) mlp(tanh) mlp(sigmoid) mlp(exp) "
        "mlp(power(1)) mlp(relu,hidden=3) residual_mlp(tanh) residual_mlp(sigmoid) "
        "rmsnorm(gain=true) layernorm(gain=true) l2norm(gain=true) constant_gate(tanh) "
        "constant_gate(silu,granularity=head) leaky_relu(0.9) conv(1)"
    ),
    "score": (
        "cosine(gain=3) cosine(learned=true) distance(power=1) distance(sigma=3) "
        "distance(sigma=3,power=1) additive(relu) additive(sigmoid) gat(relu) gat(tanh) "
        "gat(sigmoid) gatv2(tanh) softcap(0.5)"
    ),
    "weight": (
        "linear(normalise=false) relu(length_power=0) relu(length_power=0.5) "
        "relu2(length_power=0.5) sigmoid(bias=2) silu(length_power=0) identity(length_power=0) "
        "gelu(length_power=2) softplus(length_power=0)"
    ),
}
CHAINS = ("dot,softcap(5)", "cosine,softcap(2)", "distance,softcap(5)", "gat(relu),softcap(5)")


def forms(family: str) -> list[str]:
    """Written forms of every member of a family, then those with other arguments."""
    members = [member.example or name for name, member in catalogue(family).items()]
    return members + ARGUMENTS[family].split()


def everything() -> list[tuple[str, str]]:
    """(family, written form) of all that can be built."""
    return [(family, form) for family in ARGUMENTS for form in forms(family)]


def built(family: str, form: str) -> Part:
    """A new part; for scores, chains too."""
    return score_from(form) if family == "score" and "," in form else build(family, form)


def ready_weight(form: str, dtype: torch.dtype = torch.float64) -> Weight:
    """A weight function set up for two heads, its learned logits at 0.5."""
    return ready(build("weight", form), dtype)  # type: ignore[return-value, arg-type]


def ready(weight: Weight, dtype: torch.dtype = torch.float64) -> Weight:
    weight.setup(SIZES).to(dtype)
    with torch.no_grad():
        for parameter in weight.parameters():
            parameter.fill_(0.5)
    return weight


def ready_score(form: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Score:
    """A score set up for two heads of width six, what it learns drawn at random."""
    score = score_from(form).setup(SIZES).to(dtype)
    return randomised(score, seed)  # type: ignore[return-value]


def randomised(part: Part, seed: int = 0) -> Part:
    """The part, with every parameter drawn from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return part


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def separated(*shape: int, seed: int = 0) -> Tensor:
    """Numbers in fp64 that keep 0.01 away from zero and from each other: no kink is near."""
    count = math.prod(shape)
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(count, generator=generator).double()
    return ((places - count / 2 + 0.37) * (4 / max(count, 1))).reshape(shape)
