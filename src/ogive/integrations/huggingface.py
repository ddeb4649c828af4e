"""Hugging Face transformers: every score and weight function as an attention implementation.

    use(model, "weight=sigmoid(bias=-log_n)")   # one model, checked
    register()                                  # all of them, by name
    AutoModel.from_config(config, attn_implementation="ogive:weight=tanh")
    check(model)                                # does all of it attend by that name?

A name is registered for attention and for masks alike: without a mask of its own a registered
name silently loses the causal mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError, ArgumentTypeError, ImplUnavailable
from ogive.integrations.huggingface_attention import PARTS, AttentionFunction
from ogive.integrations.huggingface_refusals import PREFIX, refuse_deaf_config, watch_construction
from ogive.integrations.huggingface_trial import compare, dummies, refuse_own_softmax, tried
from ogive.integrations.packages import needed
from ogive.parts.part import Sizes, catalogue
from ogive.parts.presets import sites_from
from ogive.parts.sites import SITE_NAMES, Sites

_registered: dict[str, AttentionFunction] = {}


def register(*sites: Sites | str) -> list[str]:
    """Register scores and weight functions with transformers, under names that models take.

    From then on a model that never asks transformers' AttentionInterface (BLOOM, DeBERTa, XLNet)
    is refused while it is built with one of the names, or given a mask for it. Of a model that
    asks in some of its modules alone nothing can be known before it runs: see `check`. A name that
    such a model is given later, by `set_attn_implementation`, is left out with a warning of
    transformers' own.

    Args:
        sites: what to register, `Sites` or their written form; only `score` and `weight` may
            differ from the defaults. None for every weight function and every score of the
            catalogue, each with the other site at its default.

    Returns:
        The names, for `attn_implementation=`: `ogive:weight=tanh`, `ogive:weight=softmax`, …

    Raises:
        MissingPackage: transformers is not installed.
        ArgumentError, UnknownName: sites that do not read, or that hold more than score and weight.
    """
    interface = needed("transformers", "ogive[hf]")
    watch_construction()
    names = []
    for value in [_score_and_weight(s) for s in sites] or _catalogued():
        name = name_of(value)
        function = _registered.setdefault(name, AttentionFunction(value, name))
        interface.AttentionInterface.register(name, function)
        interface.AttentionMaskInterface.register(name, mask)
        names.append(name)
    return names


def name_of(sites: Sites | str) -> str:
    """The name under which transformers knows these sites: `ogive:` and their written form."""
    return PREFIX + (str(_score_and_weight(sites)) or "weight=softmax")


def calls() -> dict[str, int]:
    """How often each registered name has computed attention in this process: name → calls."""
    return {name: function.calls for name, function in _registered.items()}


def use(
    model: Any,
    sites: Sites | str,
    inputs: dict[str, Tensor] | None = None,
    *,
    verify: bool = True,
) -> Any:
    """Make a transformers model attend by these sites, and make sure that it does.

    The model is tried first, as by `check`; parts that learn parameters become submodules of the
    modules that attend, named `ogive_score` and `ogive_weight`.

    `save_pretrained` writes learned parts with the rest, and `from_pretrained` knows no place for
    them: load the model, `use` the same sites, then `load_state_dict` the file of weights.

    Args:
        model: a model of transformers, on any device.
        sites: only `score` and `weight` may differ from the defaults.
        inputs: arguments of a small forward pass without padding; None for the model's own
            `dummy_inputs`, or noise where it takes pictures. Models of sound need theirs.
        verify: whether every module must attend through the interface, and softmax give what the
            model's own attention does.

    Returns:
        The same model.

    Raises:
        ImplUnavailable: the model does not attend through the interface (BLOOM, Falcon), or not
            in all of its modules (LongT5), or its own attention does more than the interface
            shows. It is left as it was.
        ArgumentError: `inputs` are needed; or as `register`.
        MissingPackage, UnknownName: as `register`.
    """
    value = _score_and_weight(sites)
    _needs_model(model, "use")
    (name,) = register(value)
    before = model.config._attn_implementation
    try:
        seen = _checked(model, inputs, verify)
    except BaseException:
        model.set_attn_implementation(before)
        raise
    _attach(value, seen)
    model.set_attn_implementation(name)
    return model


def check(model: Any, inputs: dict[str, Tensor] | None = None) -> list[str]:
    """Make sure that a model would do all that an attention implementation tells it.

    For models that were built with a registered name: `register` cannot know what is built later,
    and a model that attends through the interface in some of its modules alone (LongT5, whose
    encoder has its own attention) would ignore the name in the others, and say nothing. Models
    that never ask the interface are refused as they are built.

    The model is run twice, in evaluation and without gradients, with softmax through the interface
    and with its own attention, and left as it was. Padding and labels stay out of it.

    Args:
        model: a model of transformers, on any device.
        inputs: as for `use`.

    Returns:
        The names of the modules that attend through the interface.

    Raises:
        ImplUnavailable: as `use`; the message names the modules that attend by themselves.
        ArgumentError: `inputs` are needed.
    """
    _needs_model(model, "check")
    before = model.config._attn_implementation
    try:
        seen = _checked(model, inputs, True)
    finally:
        model.set_attn_implementation(before)
    return [name for name, module in model.named_modules() if module in seen]


def _needs_model(model: Any, caller: str) -> None:
    if not hasattr(model, "set_attn_implementation"):
        raise ArgumentTypeError(
            f"{caller} takes a model of transformers, not {type(model).__name__}"
        )


def _checked(model: Any, inputs: dict[str, Tensor] | None, verify: bool) -> dict[nn.Module, Sizes]:
    """The modules that attend through the interface, with their sizes, or the reason to refuse.

    Leaves softmax or the model's own attention in place.
    """
    (plain,) = register(Sites())
    inputs = dummies(model) if inputs is None else inputs
    seen, own, output = tried(model, _registered[plain], inputs)
    if not seen:
        raise ImplUnavailable(
            f"{type(model).__name__} computes its attention without transformers' "
            "AttentionInterface: it would ignore what Ogive registers there"
        )
    if verify:
        refuse_own_softmax(model, own)
        compare(model, output, inputs)
    return seen


def mask(*args: Any, config: Any = None, **options: Any) -> Tensor | None:
    """The mask of every registered name: bool, True = may attend, or None for all or causal.

    Raises:
        ImplUnavailable: the config is of a model that computes its attention by itself.
    """
    if config is not None and not torch.compiler.is_compiling():
        refuse_deaf_config(config)
    from transformers.masking_utils import sdpa_mask  # torch.compile traces no import by name

    return sdpa_mask(*args, config=config, **options)


def _score_and_weight(sites: Sites | str) -> Sites:
    value = sites_from(sites)
    plain = Sites()
    for site in SITE_NAMES:
        if site not in ("score", "weight") and getattr(value, site) != getattr(plain, site):
            raise ArgumentError(
                f"an attention implementation holds score and weight, not "
                f"{site}={getattr(value, site)!r}: transformers calls it after the projections "
                "and positions"
            )
    return Sites(score=value.score, weight=value.weight)


def _catalogued() -> list[Sites]:
    found = []
    for site in ("weight", "score"):
        for name, part in catalogue(site).items():
            found.append(Sites(**{site: part.example or name}))
    return list(dict.fromkeys(found))


def _attach(sites: Sites, seen: dict[nn.Module, Sizes]) -> None:
    """Give each module that attends the parts which learn parameters."""
    for module, sizes in seen.items():
        like = next(module.parameters(), None)
        for attribute, part in PARTS.items():
            module._modules.pop(attribute, None)
            made = part(sites)
            if made.needs_setup:
                made = made.setup(sizes)
                module.add_module(attribute, made if like is None else made.to(like))
