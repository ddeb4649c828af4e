"""Models of transformers that never ask which attention to compute, refused before they are built.

A model that computes its attention by itself never looks up its `attn_implementation`, and
transformers does not mind. Here such models are known by their source, as transformers knows which
ones `set_attn_implementation` may set, and refused as the first submodule is put into them, by a
hook of torch's on the registration of modules: nothing of transformers is changed.

Models that ask in some of their modules alone pass here, and are found as they run
(`huggingface_trial`).
"""

from __future__ import annotations

import inspect
import re
import sys
from functools import cache
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from ogive.errors import ImplUnavailable
from ogive.integrations.packages import needed

PREFIX = "ogive:"
ASKS = "ALL_ATTENTION_FUNCTIONS"
"""The interface as the models of transformers know it."""

OWN_ATTENTION = re.compile(r"^class \w*Attention\w*\(nn\.Module\):", re.MULTILINE)


@cache
def watch_construction() -> None:
    """Refuse models that would ignore one of Ogive's names while they are built, from now on."""
    base = needed("transformers", "ogive[hf]").PreTrainedModel

    def refuse(parent: nn.Module, name: str, submodule: nn.Module | None) -> None:
        if isinstance(parent, base):
            refuse_deaf(type(parent), parent.__dict__.get("config"))

    register_module_module_registration_hook(refuse)


def refuse_deaf_config(config: Any) -> None:
    """As `refuse_deaf`, where only the config is known."""
    model = _model_of(type(config))
    if model is not None:
        refuse_deaf(model, config)


@cache
def _model_of(config: type) -> type | None:
    mapping = needed("transformers.models.auto.modeling_auto", "ogive[hf]").MODEL_MAPPING
    if config not in mapping:
        return None
    model = mapping[config]
    return model[0] if isinstance(model, tuple | list) else model


def refuse_deaf(model: type, config: Any) -> None:
    """Raise if the config names an attention of Ogive's that models of this class would ignore.

    Raises:
        ImplUnavailable: with the class, the name, and what to do.
    """
    name = getattr(config, "_attn_implementation", None)
    if isinstance(name, str) and name.startswith(PREFIX) and is_deaf(model):
        raise ImplUnavailable(
            f"{model.__name__} computes its attention without transformers' AttentionInterface: "
            f"it would ignore attn_implementation={name!r}. Build it with 'eager'; where it is a "
            "part of another model, give the name to the other parts alone, as in "
            f"attn_implementation={{'text_config': {name!r}}}"
        )


@cache
def is_deaf(model: type) -> bool:
    """Whether models of a class never ask the interface which attention to compute.

    As transformers reads it: the file of the class has attention of its own and never names the
    interface. So are whole models of transformers' without any attention (Mamba, FNet), where they
    are built of no others; their backbones pass, since they serve in models that attend.
    """
    code = _source(model)
    if code is None or ASKS in code:
        return False
    return bool(OWN_ATTENTION.search(code)) or _is_whole(model)


def _is_whole(model: type) -> bool:
    config = getattr(model, "config_class", None)
    return (
        model.__module__.startswith("transformers.models.")
        and "For" in model.__name__
        and not getattr(config, "sub_configs", None)
    )


def _source(model: type) -> str | None:
    """The file that defines a class; None where there is none to read, as in notebooks."""
    try:
        return inspect.getsource(sys.modules[model.__module__])
    except (KeyError, OSError, TypeError):
        return None
