"""What the layers demand of their arguments, checked before anything is computed."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import NoReturn

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError, ArgumentTypeError, ImplUnavailable, MaskWarning
from ogive.kernels.finite import may_look
from ogive.layers.cache import Cache


def whole(name: str, came: object, least: int = 1) -> int:
    """`came` as an int, checked to be a whole number (numpy's too) of at least `least`."""
    if isinstance(came, bool) or not isinstance(came, Integral):
        raise ArgumentTypeError(f"{name} takes a whole number, not {came!r}")
    if came < least:
        raise ArgumentError(f"{name} takes a whole number of at least {least}, not {came}")
    return int(came)


def refuse_script(layer: nn.Module) -> NoReturn:
    """Raise: what torch.jit.script finds instead of a layer that it could read."""
    raise ImplUnavailable(
        f"torch.jit.script cannot read {type(layer).__name__}: torch.compile, torch.export and "
        "torch.jit.trace take it"
    )


def share(width: int, heads: int) -> int:
    """width / heads, where it is whole."""
    if width % heads:
        raise ArgumentError(
            f"width={width} does not divide into heads={heads}: change one, or give head_width"
        )
    return width // heads


def check_sequence(name: str, x: object, width: int, layer: nn.Module) -> None:
    """Raise unless x is (batch, length, width), in the dtype of the layer."""
    _check_features(name, x, ("batch", "length", "width"), width, layer)


def check_nodes(name: str, x: object, width: int, layer: nn.Module) -> None:
    """Raise unless x is (nodes, width), in the dtype of the layer."""
    _check_features(name, x, ("nodes", "width"), width, layer)


def _check_features(
    name: str, x: object, axes: tuple[str, ...], width: int, layer: nn.Module
) -> None:
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"{name} takes a tensor, not {type(x).__name__}")
    if x.dim() != len(axes):
        raise ArgumentError(
            f"{name} takes {len(axes)} axes ({', '.join(axes)}), not {x.dim()}: "
            f"shape {tuple(x.shape)}"
        )
    if x.shape[-1] != width:
        raise ArgumentError(
            f"{name} is {x.shape[-1]} wide, shape {tuple(x.shape)}, and the layer takes {width}"
        )
    check_kind(name, x, next(layer.parameters(), x))


def check_kind(name: str, x: Tensor, own: Tensor) -> None:
    """Raise unless x is floating point, and of the layer's dtype or autocast to it."""
    if not x.is_floating_point():
        raise ArgumentTypeError(f"{name} takes a floating-point tensor, not {x.dtype}")
    if own.dtype != x.dtype and own.is_floating_point() and not _autocast_alike(x, own):
        raise ArgumentTypeError(f"{name} has dtype {x.dtype}, and the layer's weights {own.dtype}")


def check_memory(memory: Tensor, x: Tensor, cache: Cache | None) -> None:
    """Raise unless memory goes with x and with what the cache holds."""
    if memory.shape[0] != x.shape[0]:
        raise ArgumentError(
            f"memory has a batch of {memory.shape[0]}, and x has a batch of {x.shape[0]}"
        )
    if cache is not None and cache.memory is not None and memory is not cache.memory:
        raise ArgumentError(
            "cache holds the keys of another memory tensor: pass that one or none, or start a "
            "new Cache()"
        )


def check_key_mask(key_mask: object, batch: int, keys: int) -> None:
    """Raise unless key_mask is bool (batch, keys)."""
    if not isinstance(key_mask, Tensor):
        raise ArgumentTypeError(f"key_mask takes a tensor, not {type(key_mask).__name__}")
    if key_mask.dtype != torch.bool:
        raise ArgumentTypeError(
            f"key_mask takes bool (True = may attend), not {key_mask.dtype}; write "
            "key_mask.bool() if nonzero means may attend"
        )
    if tuple(key_mask.shape) != (batch, keys):
        raise ArgumentError(
            f"key_mask has shape {tuple(key_mask.shape)}, and (batch, keys) is {(batch, keys)}"
        )


def warn_if_all_hidden(name: str, visible: Tensor, true_means: str) -> None:
    """Warn where no key of any sequence may be seen, which a mask of the other polarity causes.

    Args:
        name: of the argument, for the message.
        visible: bool (batch, keys), True = may attend.
        true_means: what True means in the caller's mask, for the message.
    """
    if visible.numel() and may_look(visible) and not visible.any():
        _warn(f"{name} hides every key of the batch, and every row gives zero", name, true_means)


def warn_if_only_future(name: str, keep: Tensor, true_means: str) -> None:
    """Warn where each position sees the later ones alone: a causal mask of the other polarity.

    Args:
        name: of the argument, for the message.
        keep: bool (…, queries, keys), True = may attend; anything else is left alone.
        true_means: what True means in the caller's mask, for the message.
    """
    if not isinstance(keep, Tensor) or keep.dtype != torch.bool or keep.dim() < 2:
        return
    queries, keys = keep.shape[-2:]
    if queries != keys or queries < 2 or not may_look(keep):
        return
    flat = keep.reshape(-1, queries, keys)
    # The first row settles it for nearly every mask; the whole is compared only where that fits.
    first = bool(flat.shape[0]) and not flat[0, 0, 0] and bool(flat[0, 0, 1:].all())
    if first and (flat == torch.ones_like(flat[0]).triu(1)).all():
        _warn(f"{name} lets each position see later ones only", name, true_means)


def _warn(what: str, name: str, true_means: str) -> None:
    text = f"{what}: here True in {name} means {true_means}. Is the mask of the other polarity?"
    warnings.warn(text, MaskWarning, stacklevel=5)


def _autocast_alike(*tensors: Tensor) -> bool:
    """Whether autocast brings them to one dtype, which float64 keeps out of."""
    kind = tensors[0].device.type
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return kind != "meta" and torch.is_autocast_enabled(kind) and not wide
