"""The masks of torch.nn.MultiheadAttention, turned into those of Ogive.

There, True in a bool mask means *may not attend*; here it means *may attend*. This module is the
only place where the two meet.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.layers import checks


class Masks(NamedTuple):
    """What a call may see.

    Attributes:
        pairs: bool (True = may attend) or float (added to the score), broadcastable to (batch,
            heads, queries, keys), or None.
        visible: bool (batch, keys), True where `key_padding_mask` lets a key be seen, or None.
        is_causal: whether causality takes the place of `pairs`.
    """

    pairs: Tensor | None = None
    visible: Tensor | None = None
    is_causal: bool = False


def read_masks(
    query: Tensor,
    key: Tensor,
    heads: int,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    is_causal: bool,
    need_weights: bool,
) -> Masks:
    """The arguments of torch.nn.MultiheadAttention's forward as `Masks`.

    Args:
        query: (batch, queries, features).
        key: (batch, keys, features).
        heads: of the layer.
        key_padding_mask, attn_mask, is_causal, need_weights: as PyTorch takes them.

    Raises:
        ArgumentError, ArgumentTypeError: a mask that does not fit.
    """
    if is_causal and attn_mask is None:
        raise ArgumentError(
            "is_causal is a hint about attn_mask, and attn_mask is missing: pass the causal mask "
            "too (torch.nn.Transformer.generate_square_subsequent_mask makes one)"
        )
    padding = _padding(key_padding_mask, query, key)
    if is_causal and padding is None and not need_weights:
        return Masks(is_causal=True)
    pairs = _pairs(attn_mask, query, key, heads)
    if padding is None:
        return Masks(pairs)
    visible = _visible(padding)
    checks.warn_if_all_hidden("key_padding_mask", visible, "may NOT attend")
    return Masks(_both(pairs, padding[:, None, None]), visible)


def check_inputs(layer: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise unless the three sequences fit each other and the layer."""
    named = {"query": query, "key": key, "value": value}
    widths = {"query": layer.embed_dim, "key": layer.kdim, "value": layer.vdim}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise ArgumentTypeError(f"{name} takes a tensor, not {type(tensor).__name__}")
        if tensor.dim() != query.dim() or tensor.dim() not in (2, 3):
            axes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in named.items())
            raise ArgumentError(f"query, key and value take 3 axes, or 2 without a batch: {axes}")
        batched = tensor if tensor.dim() == 3 else tensor.unsqueeze(0)
        checks.check_sequence(name, batched, widths[name], layer)  # type: ignore[arg-type]
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if key.shape[:-1] != value.shape[:-1]:
        raise ArgumentError(f"key and value must agree in batch and length: {shapes}")
    batch = 0 if layer.batch_first else 1
    if query.dim() == 3 and query.shape[batch] != key.shape[batch]:
        raise ArgumentError(
            f"query and key must agree in batch (axis {batch}, as batch_first="
            f"{layer.batch_first}): {shapes}"
        )


def _padding(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """key_padding_mask as (batch, keys): bool, True = may attend, or float."""
    if mask is None:
        return None
    _check_kind("key_padding_mask", mask, query)
    fits = tuple(key.shape[:2])
    if mask.dim() == 1 and fits[0] == 1:
        mask = mask.unsqueeze(0)
    if tuple(mask.shape) != fits:
        raise ArgumentError(
            f"key_padding_mask has shape {tuple(mask.shape)}, and (batch, keys) is {fits}"
        )
    return ~mask if mask.dtype == torch.bool else mask


def _pairs(mask: Tensor | None, query: Tensor, key: Tensor, heads: int) -> Tensor | None:
    """attn_mask as `Masks.pairs` holds it."""
    if mask is None:
        return None
    _check_kind("attn_mask", mask, query)
    batch, queries, keys = query.shape[0], query.shape[1], key.shape[1]
    if tuple(mask.shape) not in ((queries, keys), (batch * heads, queries, keys)):
        raise ArgumentError(
            f"attn_mask has shape {tuple(mask.shape)}, where (queries, keys) = {(queries, keys)} "
            f"or (batch · heads, queries, keys) = {(batch * heads, queries, keys)} fits"
        )
    if mask.dtype == torch.bool:
        mask = ~mask
        checks.warn_if_only_future("attn_mask", mask, "may NOT attend")
    return mask if mask.dim() == 2 else mask.unflatten(0, (batch, heads))


def _both(pairs: Tensor | None, padding: Tensor) -> Tensor:
    """Two masks as one: what either hides is hidden, and floats add up."""
    if pairs is None:
        return padding
    if pairs.dtype == padding.dtype == torch.bool:
        return pairs & padding
    if pairs.dtype == torch.bool:
        return torch.where(pairs, padding, -torch.inf)
    if padding.dtype == torch.bool:
        return torch.where(padding, pairs, -torch.inf)
    return pairs + padding


def _visible(padding: Tensor) -> Tensor:
    if padding.dtype == torch.bool:
        return padding
    return ~(padding <= torch.finfo(padding.dtype).min / 2)


def _check_kind(name: str, mask: object, query: Tensor) -> None:
    if not isinstance(mask, Tensor):
        raise ArgumentTypeError(f"{name} takes a tensor, not {type(mask).__name__}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ArgumentTypeError(
            f"{name} takes bool (True = may NOT attend) or float (added to the score), not "
            f"{mask.dtype}"
        )
    if mask.device != query.device:
        raise ArgumentTypeError(f"{name} is on {mask.device}, and query on {query.device}")
