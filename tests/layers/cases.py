"""What the layer and model batteries walk: every part in the catalogue, at every site it fits."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ogive.parts import Projection, Sites, catalogue, parse_chain
from ogive.parts.sites import MAP_SITES

WIDTH, HEADS = 24, 4

WEIGHTS = (
    *(part.example or name for name, part in catalogue("weight").items()),
    "sigmoid(bias=0.5)",
    "relu(length_power=0)",
    "linear(normalise=false)",
)
SCORES = (
    *(part.example or name for name, part in catalogue("score").items()),
    "cosine(learned=true)",
    "distance(power=1)",
    "additive(tanh),softcap(5)",
)
MAPS = (
    *(part.example or name for name, part in catalogue("map").items()),
    "glu(gelu,width=split)",
    "glu(tanh,width=match)",
    "gate(sigmoid,granularity=head)",
    "constant_gate(sigmoid,granularity=head)",
    "rmsnorm(gain=true)",
    "l2norm(gain=true)",
    "scale(learned)",
    "conv(1)",
    "rmsnorm,gelu,rmsnorm",
    "conv(2),silu,conv(3)",
)
POSITIONS = ("rope", "rope(base=100)", "alibi", "relative(buckets=8,max_distance=20)", None)
ABSOLUTE = ("learned", "sinusoidal")
KEEP_WIDTH = ("identity", "residual_mlp")  # as many heads as the width holds, so no sharing


def chain_at(site: str, chain: str) -> str | None:
    """The Sites in which the chain sits at the site and the layer fits together; None where not."""
    if site == "mixed" and issubclass(catalogue("map")[parse_chain(chain)[0].name], Projection):
        return None
    if site == "output" and "width=" in chain:
        return None  # those give another width than the layer's
    if site in ("query", "key") and "width=" in chain:
        return f"query={chain} key={chain}"  # both must end equally wide
    return f"{site}={chain}"


MAPS_AT_SITES = tuple(
    dict.fromkeys(
        text for chain in MAPS for site in MAP_SITES if (text := chain_at(site, chain)) is not None
    )
)


class Mixture(NamedTuple):
    """One model's choices; a mixture of what its seed drew."""

    weight: str
    maps: str
    score: str
    positions: str | None
    kv_heads: int | None
    window: tuple[int | None, int | None] | None

    @property
    def sites(self) -> Sites:
        return Sites.parse(self.maps).replace(weight=self.weight, score=self.score)


def mixture(weight: str, maps: str) -> Mixture:
    """The rest drawn from what fits these two."""
    pick = random.Random(f"{weight} {maps}")
    keeps_width = any(f"{site}={name}" in maps for site in ("key", "value") for name in KEEP_WIDTH)
    odd = "query=glu" in maps and "width=" in maps
    return Mixture(
        weight,
        maps,
        pick.choice(SCORES),
        pick.choice((*POSITIONS[2 if odd else 0 :], *ABSOLUTE)),
        None if keeps_width else pick.choice((None, 2, 1)),
        pick.choice((None, (3, None), (0, 0), (2, 2))),
    )


MIXTURES = tuple(mixture(weight, maps) for weight in WEIGHTS for maps in MAPS_AT_SITES)


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64, started from the seed, with every parameter off its start.

    A start of zeros or an identity would let a part that does nothing pass.
    """
    module.double()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in module.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return module


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(came: Tensor, wanted: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(came, wanted, rtol=tolerance, atol=tolerance)
