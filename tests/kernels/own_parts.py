"""A weight function and a score as a user writes them: in Python, known to no kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from ogive.parts import ElementwiseWeight, Score


class Steep(ElementwiseWeight, listed=False):
    """w = σ(2s) / n."""

    name = "steep"

    def value(self, scores: Tensor, n: Tensor) -> Tensor:
        return torch.sigmoid(2 * scores) / n


class Manhattan(Score, listed=False):
    """Minus the product of the largest coordinates: any formula will do."""

    name = "manhattan"

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        return -query.amax(-1, keepdim=True) * key.amax(-1).unsqueeze(-2)
