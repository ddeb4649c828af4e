"""Where nonlinearity lives in attention, whether it pays there, and what it costs.

The names below are all of the root; everything else lives one level down, where you would look.
They load on first use, so that `import ogive` never waits for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ogive import errors, parts
    from ogive.errors import OgiveError
    from ogive.kernels import Aux, AuxRequest, attention, impls, last_impl
    from ogive.layers import Attention, GraphAttention, MultiheadAttention
    from ogive.models import Decoder, Encoder
    from ogive.parts import Sites, presets

__version__ = "0.1.0"

__all__ = [
    "Attention",
    "Aux",
    "AuxRequest",
    "Decoder",
    "Encoder",
    "GraphAttention",
    "MultiheadAttention",
    "OgiveError",
    "Sites",
    "attention",
    "errors",
    "impls",
    "last_impl",
    "parts",
    "presets",
]

# Where each name comes from. A name that is not here is a package one level down.
_HOMES = {
    "Attention": "ogive.layers",
    "Aux": "ogive.kernels",
    "AuxRequest": "ogive.kernels",
    "Decoder": "ogive.models",
    "Encoder": "ogive.models",
    "GraphAttention": "ogive.layers",
    "MultiheadAttention": "ogive.layers",
    "OgiveError": "ogive.errors",
    "Sites": "ogive.parts",
    "attention": "ogive.kernels",
    "impls": "ogive.kernels",
    "last_impl": "ogive.kernels",
    "presets": "ogive.parts",
}
_PACKAGES = ("errors", "shapes", "parts", "kernels", "layers", "models", "lab", "report", "cli")


def __getattr__(name: str) -> Any:
    """Load a name of the root, or a package one level down, on its first use (PEP 562)."""
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"ogive.{name}")
    else:
        message = f"module 'ogive' has no attribute {name!r} (it has: {', '.join(__all__)})"
        raise AttributeError(message, name=name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
