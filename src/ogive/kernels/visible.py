"""Who may attend to whom: masks, causality and windows, resolved to one boolean tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ogive.kernels import finite

Window = tuple[int | None, int | None]


@dataclass(frozen=True)
class Visibility:
    """Which pairs are visible, not yet materialised.

    Attributes:
        mask: bool, broadcastable to (batch, heads, queries, keys), or None.
        is_causal: key j is visible to query i only if j ≤ i + offset.
        window: (left, right): i + offset − left ≤ j ≤ i + offset + right; None is no limit.
        offset: int, or a tensor (batch,), added to the query's index.
    """

    mask: Tensor | None = None
    is_causal: bool = False
    window: Window = (None, None)
    offset: int | Tensor = 0

    @property
    def hides(self) -> bool:
        """Whether any pair may be hidden."""
        return self.mask is not None or self.is_causal or self.window != (None, None)

    @property
    def plain_causal(self) -> bool:
        """Whether causality from offset zero is all there is."""
        if not self.is_causal or self.mask is not None or self.window != (None, None):
            return False
        # Two steps, so that a symbolic offset is decided while tracing and never handed on.
        if isinstance(self.offset, int) and self.offset == 0:  # noqa: SIM103
            return True
        return False

    def keep(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """bool (1 or batch, 1 or heads, 1 or queries, keys), True where visible; None for all."""
        keep = self.mask
        if keep is not None:
            keep = keep.view(*[1] * (4 - keep.dim()), *keep.shape)
            keep = keep.expand(*keep.shape[:-1], keys)
        for bound in self._bounds(queries, keys, device):
            keep = bound if keep is None else keep & bound
        return keep

    @property
    def sides(self) -> Window:
        """The window (left, right) with causality in it: no neighbour to the right."""
        left, right = self.window
        if self.is_causal:
            right = 0 if right is None else min(right, 0)
        return left, right

    def count(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """How many keys each query sees: int (1 or batch, 1 or heads, 1 or queries)."""
        if self.mask is not None:
            keep = self.keep(queries, keys, device)
            return keep.sum(-1)  # type: ignore[union-attr]
        left, right = self.sides
        offset = torch.as_tensor(self.offset, device=device).view(-1, 1)
        at = (torch.arange(queries, device=device) + offset)[:, None]
        low = torch.zeros_like(at) if left is None else (at - left).clamp(0, keys)
        high = torch.full_like(at, keys) if right is None else (at + right + 1).clamp(0, keys)
        return (high - low).clamp_min(0)

    def _bounds(self, queries: int, keys: int, device: torch.device) -> list[Tensor]:
        left, right = self.sides
        if left is None and right is None:
            return []
        ahead = self._ahead(queries, keys, device)
        bounds = []
        if right is not None:
            bounds.append(ahead <= right)
        if left is not None:
            bounds.append(ahead >= -left)
        return bounds

    def _ahead(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """How far each key lies ahead of each query: (1 or batch, 1, queries, keys)."""
        at_query = torch.arange(queries, device=device).view(1, 1, -1, 1)
        at_key = torch.arange(keys, device=device).view(1, 1, 1, -1)
        offset = self.offset
        if isinstance(offset, Tensor):
            offset = offset.view(-1, 1, 1, 1)
        return at_key - (at_query + offset)


def split_float_mask(mask: Tensor) -> tuple[Tensor | None, Tensor]:
    """A float mask as (bool keep, float bias); None for a keep that hides nothing.

    Entries at or below half of the dtype's most negative number hide their pair; the rest are
    added to the score. NaN entries are visible and make their scores NaN.
    """
    lowest = torch.finfo(mask.dtype).min / 2
    if _all_above(mask, lowest):
        return None, mask
    hidden = mask <= lowest
    return ~hidden, mask.masked_fill(hidden, 0)


def split_bias(bias: Tensor) -> tuple[Tensor | None, Tensor]:
    """A bias as (bool keep, finite bias): −∞ hides its pair, for every weight function.

    None for a keep that hides nothing.
    """
    if _all_above(bias, -torch.inf):
        return None, bias
    hidden = torch.isneginf(bias)
    return ~hidden, bias.masked_fill(hidden, 0)


def _all_above(pairs: Tensor, low: float) -> bool:
    """Whether Python may look, and sees every number above `low`: one pass, nothing is copied."""
    if not pairs.numel() or not finite.may_look(pairs):
        return False
    return bool(pairs.detach().amin() > low)
