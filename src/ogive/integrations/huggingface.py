"""Hugging Face transformers: every score and weight function as an attention implementation.

    use(model, "weight=sigmoid(bias=-log_n)")   # one model, checked
    register()                                  # all of them, by name
    AutoModel.from_config(config, attn_implementation="ogive:weight=tanh")

A name is registered for attention and for masks alike: without a mask of its own a registered
name silently loses the causal mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError, ArgumentTypeError, ImplUnavailable
from ogive.integrations.huggingface_attention import PARTS, AttentionFunction
from ogive.integrations.huggingface_refusals import PREFIX, refuse_deaf_config, watch_construction
from ogive.integrations.packages import needed
from ogive.parts.part import Sizes, catalogue
from ogive.parts.presets import sites_from
from ogive.parts.sites import SITE_NAMES, Sites

_registered: dict[str, AttentionFunction] = {}


def register(*sites: Sites | str) -> list[str]:
    """Register scores and weight functions with transformers, under names that models take.

    From then on a model that never asks transformers' AttentionInterface (BLOOM, DeBERTa, XLNet)
    is refused while it is built with one of the names, or given a mask for it. A name that such a
    model is given later, by `set_attn_implementation`, is left out with a warning of transformers'
    own.

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

    The model is run once, in evaluation and without gradients, to see which of its modules attend
    through the interface; parts that learn parameters become submodules of those, named
    `ogive_score` and `ogive_weight`. Unless told otherwise, softmax is run too and compared with
    the model's own attention, since a model may do more inside than the interface shows.

    `save_pretrained` writes learned parts with the rest, and `from_pretrained` knows no place for
    them: load the model, `use` the same sites, then `load_state_dict` the file of weights.

    Args:
        model: a model of transformers, on any device.
        sites: only `score` and `weight` may differ from the defaults.
        inputs: arguments of a small forward pass without padding; None for the model's own
            `dummy_inputs`, or noise where it takes pictures. Models of sound need theirs.
        verify: whether to compare softmax with the model's own attention.

    Returns:
        The same model.

    Raises:
        ImplUnavailable: the model does not attend through the interface (BLOOM, Falcon), or its
            own attention does more than the interface shows. It is left as it was.
        ArgumentError: `inputs` are needed; or as `register`.
        MissingPackage, UnknownName: as `register`.
    """
    if not hasattr(model, "set_attn_implementation"):
        raise ArgumentTypeError(f"use takes a model of transformers, not {type(model).__name__}")
    value = _score_and_weight(sites)
    (name, plain) = register(value, Sites())
    before = model.config._attn_implementation
    inputs = _dummies(model) if inputs is None else inputs
    try:
        seen, output = _tried(model, plain, inputs)
        if not seen:
            raise ImplUnavailable(
                f"{type(model).__name__} computes its attention without transformers' "
                f"AttentionInterface: it would ignore {name!r}"
            )
        if verify:
            _compare(model, output, inputs)
    except BaseException:
        model.set_attn_implementation(before)
        raise
    _attach(value, seen)
    model.set_attn_implementation(name)
    return model


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


def _dummies(model: Any) -> dict[str, Tensor]:
    """The model's own dummy inputs, without masks: rows that see nothing may rightly differ."""
    given: dict[str, Tensor] = dict(model.dummy_inputs)
    main = model.main_input_name
    if main in given:
        return {name: tensor for name, tensor in given.items() if "mask" not in name}
    size, channels = (getattr(model.config, n, None) for n in ("image_size", "num_channels"))
    if main != "pixel_values" or size is None or channels is None:
        raise ArgumentError(
            f"{type(model).__name__} takes {main!r}, and its dummy_inputs hold {list(given)}: pass "
            f"inputs={{{main!r}: …}}, the arguments of a small forward pass"
        )
    height, width = (size, size) if isinstance(size, int) else size
    noise = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    return {main: noise.to(model.dtype)}


def _tried(
    model: nn.Module, name: str, inputs: dict[str, Tensor]
) -> tuple[dict[nn.Module, Sizes], Any]:
    """Which modules attended under this name in one forward pass, with their sizes; the output."""
    model.set_attn_implementation(name)  # type: ignore[operator]
    with _registered[name].recording() as seen:
        output = _run(model, inputs)
    return seen, output


def _run(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    device = next(model.parameters()).device
    with _evaluating(model), torch.no_grad():
        return model(**{name: tensor.to(device) for name, tensor in inputs.items()})


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was


def _compare(model: nn.Module, output: Any, inputs: dict[str, Tensor]) -> None:
    """Raise unless softmax through the interface is what the model computes by itself."""
    model.set_attn_implementation("eager")  # type: ignore[operator]
    wanted, came = (_first(out) for out in (_run(model, inputs), output))
    allowed = 1e3 * torch.finfo(wanted.dtype).eps * wanted.abs().max().clamp_min(1).item()
    gap = (wanted - came).abs().max().item()
    if not gap <= allowed:
        raise ImplUnavailable(
            f"{type(model).__name__} does more in its own attention than it passes to the "
            f"interface: with softmax its outputs differ by {gap:.2g} (pass verify=False to use "
            "it all the same)"
        )


def _first(output: Any) -> Tensor:
    """The first floating-point tensor of a model's output."""
    values = output.values() if hasattr(output, "values") else output
    return next(v for v in values if isinstance(v, Tensor) and v.is_floating_point()).float()


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
