"""torch.nn.MultiheadAttention ↔ ogive.Attention and ogive.MultiheadAttention, with weights."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.integrations.state_dicts import Bridge, Heads, Row, chunked, joined, loaded
from ogive.layers import Attention, MultiheadAttention
from ogive.parts.sites import Sites

Multihead = TypeVar("Multihead", nn.MultiheadAttention, MultiheadAttention)

_WEIGHTS = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
_BIASES = ("q_proj.bias", "k_proj.bias", "v_proj.bias")
_SHARED = (
    Row(("in_proj_bias",), _BIASES, chunked(3), joined),
    Row(("out_proj.weight",), ("o_proj.weight",)),
    Row(("out_proj.bias",), ("o_proj.bias",)),
)
PACKED = Bridge(
    "torch.nn.MultiheadAttention",
    (Row(("in_proj_weight",), _WEIGHTS, chunked(3), joined), *_SHARED),
)
SEPARATE = Bridge(
    "torch.nn.MultiheadAttention with kdim and vdim",
    (
        *(
            Row((theirs,), (ours,))
            for theirs, ours in zip(
                ("q_proj_weight", "k_proj_weight", "v_proj_weight"), _WEIGHTS, strict=True
            )
        ),
        *_SHARED,
    ),
)
_THEIRS = {name for bridge in (PACKED, SEPARATE) for row in bridge.rows for name in row.theirs}


def from_torch(module: nn.MultiheadAttention | MultiheadAttention) -> Attention:
    """`Attention` with the weights of a multi-head layer, and its numbers.

    `add_zero_attn`, a key of zeros that every query may see, becomes `weight=softmax1`. Attention
    is always batch-first, takes masks in which True = may attend, and returns no weights unless
    asked (`return_aux`).

    Args:
        module: `torch.nn.MultiheadAttention`, or Ogive's, whose sites are kept.

    Returns:
        A new layer, in the module's dtype, on its device and in its mode.

    Raises:
        ArgumentError: options that `Attention` has no place for: `add_bias_kv`, `kdim` other than
            `vdim`, `add_zero_attn` beside a weight function that is not softmax.
    """
    if not isinstance(module, nn.MultiheadAttention | MultiheadAttention):
        raise ArgumentTypeError(
            f"from_torch takes a MultiheadAttention of torch.nn or ogive, not {module!r}"
        )
    if module.bias_k is not None:
        raise ArgumentError("add_bias_kv has no place in Attention: use ogive.MultiheadAttention")
    if module.kdim != module.vdim:
        raise ArgumentError(
            f"kdim={module.kdim} and vdim={module.vdim} differ, and Attention reads keys and "
            "values from one memory: use ogive.MultiheadAttention"
        )
    state = module.state_dict()
    layer = Attention(
        module.embed_dim,
        module.num_heads,
        memory_width=module.kdim,
        sites=_sites(module),
        bias=module.in_proj_bias is not None,
        dropout=module.dropout,
    )
    bridge = PACKED if module.in_proj_weight is not None else SEPARATE
    turned = bridge.read({n: t for n, t in state.items() if n in _THEIRS}, _heads(module))
    turned |= {n: t for n, t in state.items() if n not in _THEIRS}
    return loaded(layer, turned, bridge.name).train(module.training)


def to_torch(
    layer: Attention, kind: type[Multihead] = nn.MultiheadAttention, *, batch_first: bool = True
) -> Multihead:
    """A multi-head layer with the weights of `Attention`, and its numbers.

    Args:
        layer: to take the weights from.
        kind: `torch.nn.MultiheadAttention`, for plain sites and for `weight=softmax1` (which
            becomes `add_zero_attn`), or `ogive.MultiheadAttention`, for all sites that keep the
            projections.
        batch_first: of the new layer.

    Raises:
        ArgumentError: what the layer has and `kind` has no place for: shared key/value heads,
            another head width, positions, a window, sites.
    """
    _check_plain(layer)
    options: dict[str, object] = {}
    if issubclass(kind, MultiheadAttention):
        options["sites"] = layer.sites
    elif layer.sites == Sites(weight="softmax1"):
        options["add_zero_attn"] = True
    elif layer.sites != Sites():
        raise ArgumentError(
            f"torch.nn.MultiheadAttention has no sites {str(layer.sites)!r}: pass "
            "kind=ogive.MultiheadAttention"
        )
    state = layer.state_dict()
    module = kind(
        layer.width,
        layer.heads,
        dropout=layer.dropout,
        bias="q_proj.bias" in state,
        kdim=layer.memory_width,
        vdim=layer.memory_width,
        batch_first=batch_first,
        **options,  # type: ignore[arg-type]
    )
    bridge = PACKED if layer.memory_width == layer.width else SEPARATE
    ours = {name for row in bridge.rows for name in row.ours}
    turned = bridge.write({n: t for n, t in state.items() if n in ours}, _heads(module))
    turned |= {n: t for n, t in state.items() if n not in ours}
    return loaded(module, turned, bridge.name).train(layer.training)


def _sites(module: nn.MultiheadAttention | MultiheadAttention) -> Sites:
    sites = module.sites if isinstance(module, MultiheadAttention) else Sites()
    if not module.add_zero_attn:
        return sites
    # A key of zeros scores 0 against every query, under dot alone and its softcaps.
    if sites.weight != "softmax" or not sites.score.startswith(("dot", "softcap")):
        raise ArgumentError(
            f"add_zero_attn beside score={sites.score!r} and weight={sites.weight!r} has no place "
            "in Attention: use ogive.MultiheadAttention"
        )
    return sites.replace(weight="softmax1")


def _heads(module: nn.MultiheadAttention | MultiheadAttention) -> Heads:
    return Heads(module.num_heads, module.num_heads)


def _check_plain(layer: Attention) -> None:
    if not isinstance(layer, Attention):
        raise ArgumentTypeError(f"to_torch takes an ogive.Attention, not {layer!r}")
    has: dict[str, tuple[object, object]] = {
        "kv_heads": (layer.kv_heads, layer.heads),
        "head_width": (layer.head_width, layer.width // layer.heads),
        "positions": (layer.positions, None),
        "window_size": (layer.window_size, (None, None)),
    }
    wrong = [f"{name}={came}" for name, (came, fits) in has.items() if came != fits]
    if wrong:
        raise ArgumentError(f"a multi-head layer of torch.nn has no place for {', '.join(wrong)}")
