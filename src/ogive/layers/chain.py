"""Chains: the maps at one site of a layer, built from their written form and run in order.

The maps are submodules of the layer under names of their own (`q_proj`, `query_rmsnorm`), and a
chain is those names: copying, pickling and loading a layer need nothing special.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError
from ogive.kernels import maps as kernels
from ogive.layers.cache import Cache
from ogive.parts.gates import Gate
from ogive.parts.maps import Map
from ogive.parts.part import Sizes, build
from ogive.parts.projections import Projection
from ogive.parts.sites import Sites

PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}


class Chain(NamedTuple):
    """Names of a layer's submodules, in the order in which they run.

    Attributes:
        projection: the first, which makes heads of a sequence; None at the mixed site.
        maps: those after it.
    """

    projection: str | None
    maps: tuple[str, ...]


class Plan(NamedTuple):
    """A chain's parts, not yet set up, and the widths per head along it."""

    parts: list[Map]
    projected: int
    final: int


def plan(sites: Sites, site: str, width: int) -> Plan:
    """The parts at a site, and the widths that they need and give.

    Args:
        sites: what sits where.
        site: which chain to build, each part anew.
        width: the width per head that the site nominally has. Walked backwards, it says what
            the projection must give (`glu` asks for twice as much); walked forwards, what comes
            out of the last map.
    """
    parts: list[Map] = [build("map", form) for form in sites.chain(site)]  # type: ignore[misc]
    maps = [part for part in parts if not isinstance(part, Projection)]
    projected = width
    for part in reversed(maps):
        projected = part.width_in(projected)
    return Plan(parts, projected, walk(maps, projected))


def walk(maps: Sequence[Map], width: int) -> int:
    """The width per head after the maps, where `width` comes in."""
    for part in maps:
        width = part.width_out(width)
    return width


def install(layer: nn.Module, site: str, parts: Sequence[Map], reads: int, sizes: Sizes) -> Chain:
    """Set a chain's parts up and make them submodules of the layer.

    Args:
        layer: gets the submodules.
        site: names them.
        parts: of a plan.
        reads: width of the tensor that the projection reads.
        sizes: of the layer; `head_width` is the width that the projection gives.

    Raises:
        ArgumentError: a part that does not fit these sizes; the message names the site.
    """
    projection, names, width = None, [], sizes.head_width
    for part in parts:
        first = isinstance(part, Projection)
        here = Sizes(reads if first else sizes.width, sizes.heads, width, sizes.bias)
        try:
            part.setup(here)
            if not first:
                width = _tried(part, here)
        except ArgumentError as error:
            raise type(error)(f"at the site {site!r}: {error}") from None
        name = _free_name(layer, PROJECTIONS[site] if first else _map_name(site, part))
        layer.add_module(name, part)
        if first:
            projection = name
        else:
            names.append(name)
    return Chain(projection, tuple(names))


def run(
    layer: nn.Module,
    chain: Chain,
    source: Tensor,
    x: Tensor,
    visible: Tensor | None = None,
    cache: Cache | None = None,
) -> Tensor:
    """Run a chain.

    Args:
        layer: owns the parts.
        chain: which of them, in order.
        source: what the projection reads, (batch, length, width), or heads where there is none.
        x: (batch, length, width), the input that gates read.
        visible: bool (batch, length); maps that look at earlier positions do not see the others.
        cache: keeps the earlier positions that such maps need.

    Returns:
        (batch, length, heads, head width).
    """
    h = source if chain.projection is None else getattr(layer, chain.projection)(source)
    for name in chain.maps:
        part = getattr(layer, name)
        if part.history:
            h = _with_past(part, name, h, x, visible, cache)
        else:
            h = kernels.run(part, h, x)
    return h


def _with_past(
    part: Map, name: str, h: Tensor, x: Tensor, visible: Tensor | None, cache: Cache | None
) -> Tensor:
    """A map that looks back, with the cached positions before h and without hidden ones.

    A hidden position is nobody's neighbour but still sees its own.
    """
    seen = h if visible is None else h.masked_fill(~visible[..., None, None], 0)
    past = None if cache is None else cache.look_back(name, seen, part.history)
    out = _after(part, past, seen, x)
    if visible is None:
        return out
    return torch.where(visible[..., None, None], out, _after(part, past, h, x))


def _after(part: Map, past: Tensor | None, h: Tensor, x: Tensor) -> Tensor:
    if past is None:
        return part(h, x)
    return part(torch.cat([past, h], 1), x)[:, past.shape[1] :]


def _tried(part: Map, sizes: Sizes) -> int:
    """The width that one run of the part gives; raises where it disagrees with `width_out`."""
    promised = part.width_out(sizes.head_width)
    h = torch.zeros(1, 1, sizes.heads, sizes.head_width)
    try:
        with torch.no_grad():
            came = part(h, torch.zeros(1, 1, sizes.width)).shape[-1]
    except RuntimeError as error:
        raise ArgumentError(f"{part} cannot take {sizes.head_width} features: {error}") from None
    if came != promised:
        raise ArgumentError(
            f"{part} gives {came} features for {sizes.head_width}; its width_out says {promised}"
        )
    return came


def _map_name(site: str, part: Map) -> str:
    if site == "mixed" and isinstance(part, Gate):
        return "gate_proj"
    return f"{site}_{part.name}"


def _free_name(layer: nn.Module, name: str) -> str:
    taken, count = name, 1
    while hasattr(layer, taken):
        count += 1
        taken = f"{name}_{count}"
    return taken
