"""x-transformers' Attention ↔ ogive.Attention, with weights.

Its constructor keeps few of its options, so a module is read by what it holds: every attribute
that differs from those of a plain twin of the same sizes is either in the tables below or refused
by name.

Its grouped-query heads interleave (query head h reads key head h mod kv_heads) where Ogive's stand
in groups (h div group): query heads are reordered on the way, so the numbers agree.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.integrations.packages import needed
from ogive.integrations.state_dicts import Bridge, Heads, Row, loaded
from ogive.layers import Attention
from ogive.parts.scores import Cosine, Dot, ScoreChain, Softcap
from ogive.parts.sites import SITE_NAMES, Sites

NAME = "x_transformers.Attention"


class Bridged(NamedTuple):
    """A layer, and the keywords that every call of it needs to agree with the foreign one."""

    layer: Attention
    call: dict[str, Any]


def _order(heads: Heads) -> Tensor:
    """Which of their query heads each of ours is."""
    return torch.arange(heads.query).view(-1, heads.key).T.flatten()


def _by_head(tensor: Tensor, heads: Heads, axis: int, order: Tensor) -> Tensor:
    """The heads of an axis (heads · width) reordered."""
    each = tensor.unflatten(axis, (heads.query, -1)).index_select(axis, order.to(tensor.device))
    return each.flatten(axis, axis + 1)


def _rows(heads: Heads, tensor: Tensor) -> Tensor:
    return _by_head(tensor, heads, 0, _order(heads))


def _rows_back(heads: Heads, tensor: Tensor) -> Tensor:
    return _by_head(tensor, heads, 0, _order(heads).argsort())


def _columns(heads: Heads, tensor: Tensor) -> Tensor:
    return _by_head(tensor, heads, 1, _order(heads))


def _columns_back(heads: Heads, tensor: Tensor) -> Tensor:
    return _by_head(tensor, heads, 1, _order(heads).argsort())


BRIDGE = Bridge(
    NAME,
    (
        Row(("to_q.weight",), ("q_proj.weight",), _rows, _rows_back),
        Row(("to_k.weight",), ("k_proj.weight",)),
        Row(("to_v.weight",), ("v_proj.weight",)),
        Row(("to_out.weight",), ("o_proj.weight",), _columns, _columns_back),
        Row(("to_v_gate.weight",), ("gate_proj.weight",), _rows, _rows_back),
        Row(
            ("attend.head_attn_sink",),
            ("weight.logit",),
            lambda heads, sink: _rows(heads, sink)[:, None, None],
            lambda heads, logit: _rows_back(heads, logit.flatten()),
        ),
    ),
)

# What each option of theirs puts at our sites: attribute → (module → sites).
SITES: dict[str, Callable[[Any], dict[str, str]]] = {
    "attend.softclamp_logits": lambda m: {
        "score": f"{_score(m)},softcap({float(m.attend.logit_softclamp_value)!r})"
    },
    "qk_norm": lambda m: {"score": _score(m)},
    "attend.add_zero_kv": lambda m: {"weight": "softmax1"},
    "attend.head_learned_sink": lambda m: {"weight": "sink"},
    "attend.cog_signed": lambda m: {"weight": "cog"},
    "attend.attn_fn": lambda m: {"weight": _weight(m)},
    "to_v_gate": lambda m: {"mixed": _gate(m)},
    "to_out": lambda m: _output(m),
}
# What goes with one of the above, or with the sizes, or says how and not what to compute.
BESIDE = frozenset(
    [
        "attend.dropout",
        "attend.flash",
        "attend.flash_pack_seq",
        "attend.head_attn_sink",
        "attend.logit_softclamp_value",
        "attend.onnxable",
        "attend.qk_norm",
        "attend.scale",
        "attend.causal",
        "attend.sdp_context_manager",
        "attend.sdp_kwargs",
        "attend.create_causal_mask",
        "attend.cpu_config",
        "attend.cuda_config",
        "attend.config",
        "causal",
        "gate_values_headwise",
        "heads",
        "kv_heads",
        "groups",
        "max_attend_past",
        "qk_norm_scale",
        "scale",
        "to_v_gate_activation",
        "to_v_gate_head_space",
        "dim_head",
        "training",
        "attend.training",
        "attend.heads",
    ]
)


def from_x_transformers(module: Any) -> Bridged:
    """`Attention` with the weights of x-transformers' Attention, and its numbers.

    `sigmoid`, `softclamp_logits`, `qk_norm`, `add_zero_kv`, `head_learned_sink`, `cog_signed`,
    `gate_values`, `swiglu_values`, `kv_heads`, `dim_context`, `max_attend_past` and `dropout` are
    translated; `causal` becomes a keyword of the call. Positions are given to x-transformers at
    each call, and to Ogive's layer when it is built.

    Returns:
        The layer and the keywords of its calls: `layer(x, **call)`.

    Raises:
        ArgumentError: an option that `Attention` cannot honour; the message names its attribute.
        MissingPackage: x-transformers is not installed.
    """
    foreign = needed("x_transformers.x_transformers", "ogive[x-transformers]").Attention
    if not isinstance(module, foreign):
        raise ArgumentTypeError(f"from_x_transformers takes {NAME}, not {type(module).__name__}")
    sites = _sites(module, foreign)
    state = module.state_dict()
    width, reads = module.to_q.in_features, module.to_k.in_features
    past = module.max_attend_past
    layer = Attention(
        width,
        module.heads,
        kv_heads=module.kv_heads,
        head_width=module.to_q.out_features // module.heads,
        memory_width=reads,
        sites=sites,
        dropout=module.attend.dropout,
        window_size=None if past is None else (past, None),
    )
    turned = BRIDGE.read(state, Heads(layer.heads, layer.kv_heads))
    layer = loaded(layer, turned, NAME).train(module.training)
    return Bridged(layer, {"is_causal": True} if module.causal else {})


def to_x_transformers(layer: Attention, *, causal: bool = False) -> nn.Module:
    """x-transformers' Attention with the weights of ours, and its numbers.

    Raises:
        ArgumentError: what the layer has and x-transformers has no option for.
        ArgumentTypeError: not an `Attention`.
        MissingPackage: x-transformers is not installed.
    """
    foreign = needed("x_transformers.x_transformers", "ogive[x-transformers]").Attention
    if not isinstance(layer, Attention):
        raise ArgumentTypeError(f"to_x_transformers takes an ogive.Attention, not {layer!r}")
    state = layer.state_dict()
    left, right = layer.window_size
    if layer.positions is not None or "q_proj.bias" in state or right is not None:
        raise ArgumentError(
            f"{NAME} has no place for positions, biases of projections and windows to the right: "
            f"this layer has positions={layer.positions}, bias={'q_proj.bias' in state} and "
            f"window_size={layer.window_size}"
        )
    module = foreign(
        layer.width,
        dim_head=layer.head_width,
        dim_context=layer.memory_width,
        heads=layer.heads,
        kv_heads=layer.kv_heads,
        causal=causal,
        dropout=layer.dropout,
        max_attend_past=left,
        **_options(layer),
    )
    turned = BRIDGE.write(state, Heads(layer.heads, layer.kv_heads))
    return loaded(module, turned, NAME).train(layer.training)


# The options that put a chain at a site; those of the score carry numbers: `_score_options`.
_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "weight": {
        "softmax": {},
        "sigmoid(bias=0)": {"sigmoid": True},
        "softmax1": {"add_zero_kv": True},
        "sink": {"head_learned_sink": True},
        "cog": {"cog_signed": True},
    },
    "mixed": {
        Sites().mixed: {},
        "gate(sigmoid)": {"gate_values": True},
        "gate(silu)": {"gate_values": True, "swiglu_values": True},
        "gate(sigmoid,granularity=head)": {"gate_values": True, "gate_values_headwise": True},
        "gate(silu,granularity=head)": {
            "gate_values": True,
            "gate_values_headwise": True,
            "swiglu_values": True,
        },
    },
    "output": {"linear": {"project_out": True}, "identity": {"project_out": False}},
}


def _options(layer: Attention) -> dict[str, Any]:
    """The options of x-transformers for what sits at the layer's sites."""
    options = _score_options(layer)
    for site in SITE_NAMES:
        if site == "score":
            continue
        chain = getattr(layer.sites, site)
        written = _OPTIONS.get(site, {getattr(Sites(), site): {}})
        if chain not in written:
            fits = " or ".join(repr(name) if name else "nothing" for name in written)
            raise ArgumentError(f"{NAME} cannot hold {site}={chain!r}, only {fits}")
        options |= written[chain]
    return options


def _score_options(layer: Attention) -> dict[str, Any]:
    score = layer.score
    first, *then = (score.score, *score.then) if isinstance(score, ScoreChain) else (score,)
    options: dict[str, Any] = {}
    if isinstance(first, Cosine) and not first.learned:
        options = {"qk_norm": True, "qk_norm_scale": first.gain}
    fits = type(first) is Dot or bool(options)
    if then and isinstance(then[0], Softcap):
        options |= {"softclamp_logits": True, "logit_softclamp_value": then.pop(0).cap}
    if then or not fits:
        raise ArgumentError(
            f"{NAME} cannot hold score={layer.sites.score!r}, only 'dot' or 'cosine' (its gain not "
            "learned), and 'softcap' after it"
        )
    return options


def _sites(module: Any, foreign: type) -> Sites:
    """What sits where, from every way in which the module differs from a plain one."""
    plain = foreign(
        module.to_q.in_features,
        dim_head=module.to_q.out_features // module.heads,
        dim_context=module.to_k.in_features,
        heads=module.heads,
        kv_heads=module.kv_heads,
        project_out=True,
    )
    if module.to_v.out_features != module.to_k.out_features:
        raise ArgumentError(f"{NAME} has value_dim_head, which ogive.Attention cannot honour")
    different = _differences(module, plain)
    refused = sorted(different - SITES.keys() - BESIDE)
    if refused:
        raise ArgumentError(f"ogive.Attention cannot honour these options of {NAME}: {refused}")
    chosen: dict[str, str] = {}
    for option in [name for name in SITES if name in different]:
        for site, chain in SITES[option](module).items():
            if site == "weight" and chain != chosen.get(site, chain):
                raise ArgumentError(f"{NAME} has {chosen[site]} and {chain} at once")
            chosen.setdefault(site, chain)
    return Sites(**chosen)


def _differences(module: Any, plain: Any) -> set[str]:
    """Attributes, of the module and of its `attend`, that a plain twin has otherwise."""
    found = set()
    for prefix, a, b in (("", module, plain), ("attend.", module.attend, plain.attend)):
        mine, theirs = _attributes(a), _attributes(b)
        for name in mine.keys() | theirs.keys():
            if not _alike(mine.get(name), theirs.get(name)):
                found.add(prefix + name)
    return found


def _attributes(module: nn.Module) -> dict[str, Any]:
    own = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    return own | dict(module._modules) | dict(module._parameters)


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    if isinstance(a, nn.Linear) and isinstance(b, nn.Linear):
        return a.weight.shape == b.weight.shape and (a.bias is None) == (b.bias is None)
    if isinstance(a, nn.Module) or isinstance(b, nn.Module):
        return type(a) is type(b)
    if isinstance(a, functools.partial) and isinstance(b, functools.partial):
        return a.func is b.func and a.args == b.args and _softmax(a) == _softmax(b)
    if callable(a) and callable(b):
        names = [getattr(function, "__qualname__", None) for function in (a, b)]
        if None not in names:
            return names[0] == names[1]
        return type(a) is type(b) and vars(a) == vars(b)
    return a == b


def _softmax(function: functools.partial[Any]) -> tuple[Any, Any]:
    """Its function and axis; the dtype that it rounds to is left to ours."""
    return function.func, function.keywords.get("dim")


def _score(module: Any) -> str:
    if not module.qk_norm:
        return "dot"
    if module.qk_norm_groups != 1 or module.qk_norm_dim_scale:
        raise ArgumentError(f"{NAME} has qk_norm with groups or scales, which cosine has not")
    return f"cosine(gain={float(module.qk_norm_scale)!r})"


def _weight(module: Any) -> str:
    function = module.attend.attn_fn
    if function is F.sigmoid:
        return "sigmoid(bias=0)"
    raise ArgumentError(f"ogive.Attention has no translation of attn_fn={function!r} of {NAME}")


def _output(module: Any) -> dict[str, str]:
    if isinstance(module.to_out, nn.Identity):
        return {"output": "identity"}
    raise ArgumentError(f"{NAME} has to_out={module.to_out}, which ogive.Attention cannot honour")


def _gate(module: Any) -> str:
    if not isinstance(module.to_v_gate, nn.Linear):
        raise ArgumentError(f"{NAME} has gates of low rank, which ogive.Attention cannot honour")
    act = "silu" if module.to_v_gate_activation is F.silu else "sigmoid"
    return f"gate({act},granularity={'head' if module.gate_values_headwise else 'element'})"
