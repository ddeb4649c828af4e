"""Options of PyTorch Geometric's attention layers that ours says otherwise, or has no say in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ogive.errors import ArgumentError, ArgumentTypeError, unknown
from ogive.kernels.checks import check_flag
from ogive.parts.form import Form
from ogive.parts.presets import sites_from
from ogive.parts.scores import Gat, GatV2
from ogive.parts.sites import Sites

# What fits, where our layer does one thing only, and what to do instead.
_FIXED: dict[str, tuple[tuple[object, ...], str]] = {
    "aggr": (("add", "sum"), "what sites=weight gives the edges is summed"),
    "aggr_kwargs": ((None, {}), "a sum takes none"),
    "flow": (("source_to_target",), "turn the edges round: edge_index.flip(0)"),
    "node_dim": ((0, -2), "nodes are the first axis"),
    "decomposed_layers": ((1,), "nothing is held between edges and nodes that could be split"),
    "beta": ((False,), "residual=True adds the input's projection without a gate"),
}
_READ = ("negative_slope", "share_weights", "root_weight", "fill_value")


class Chosen(NamedTuple):
    """What PyG's options say of the settings of ours."""

    sites: Sites
    share: str
    residual: bool


def chosen(
    options: Mapping[str, Any], sites: Sites | str, share: str, residual: bool, *, fills: bool
) -> Chosen:
    """The settings that honour PyG's options exactly.

    Args:
        options: by PyG's names. `negative_slope`: of the leaky_relu in the score gat or gatv2.
            `share_weights`: queries are projected as keys are. `root_weight`: residual.
        sites, share, residual: what the layer was given beside them.
        fills: whether self loops are added that need features, which `fill_value` speaks of.

    Raises:
        UnknownName: no option of PyG's layers.
        ArgumentError, ArgumentTypeError: an option that the layer cannot honour.
    """
    for name, came in options.items():
        if name in _FIXED:
            _must_be(name, came, *_FIXED[name])
        elif name not in _READ:
            raise unknown("option of AttentionConv", name, [*_FIXED, *_READ])
    if fills:
        what = "a self loop that is added has the mean of the features of its node's edges"
        _must_be("fill_value", options.get("fill_value", "mean"), ("mean",), what)
    sites = sites_from(sites)
    if "negative_slope" in options:
        sites = _sloped(sites, options["negative_slope"])
    if "share_weights" in options and check_flag("share_weights", options["share_weights"]):
        if share == "none":
            raise ArgumentError(
                "share_weights=True projects queries as keys, and share='none' projects each "
                "apart: leave one out"
            )
        share = "all"
    if "root_weight" in options:
        residual = check_flag("root_weight", options["root_weight"]) or residual
    return Chosen(sites, share, residual)


def _must_be(name: str, came: object, fits: tuple[object, ...], instead: str) -> None:
    if not any(type(came) is type(value) and came == value for value in fits):
        listed = " or ".join(map(repr, fits))
        raise ArgumentError(
            f"AttentionConv cannot honour {name}={came!r}, only {listed}: {instead}"
        )


def _sloped(sites: Sites, slope: object) -> Sites:
    """The sites with this slope in the leaky_relu of their score."""
    if isinstance(slope, bool) or not isinstance(slope, int | float):
        raise ArgumentTypeError(f"negative_slope takes a number from 0 and below 1, not {slope!r}")
    if not 0 <= slope < 1:
        raise ArgumentError(f"negative_slope takes a number from 0 and below 1, not {slope!r}")
    first, *then = sites.chain("score")
    if first.name in (Gat.name, GatV2.name):
        act = f"leaky_relu({float(slope)!r})" if slope else "relu"
        wanted = sites.replace(score=",".join(map(str, (f"{first.name}({act})", *then))))
        if first == Form(first.name) or sites.score == wanted.score:
            return wanted
    raise ArgumentError(
        f"negative_slope={slope!r} is the slope of leaky_relu in the score gat or gatv2, and the "
        f"sites have score={sites.score}, which says its own: leave negative_slope out"
    )
