"""Scores that are dot products of something else: what becomes of query and key, and the way back.

    cosine:    (g q/|q|) · (k/|k|)        g one gain for each head, or a number in the scale
    bilinear:  (q W) · k

The kernels run on what query and key become. Each row of it comes from one row alone, so what is
wild in a row stays in that row. Gradients are written out: an operator is no place for autograd.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ogive.parts.scores import Score

SHORTEST = 1e-12
"""A length below this counts as this, as in torch's normalize."""


class Reduction:
    """A score as a dot product of what query and key become."""

    @staticmethod
    def operands(query: Tensor, key: Tensor, parameter: Tensor | None) -> tuple[Tensor, Tensor]:
        """What (b, h, i, d) and (b, g, j, d) become, given the score's parameter (h, …) or None."""
        raise NotImplementedError

    @staticmethod
    def gradients(
        query: Tensor, key: Tensor, parameter: Tensor | None, to_query: Tensor, to_key: Tensor
    ) -> dict[str, Tensor]:
        """Gradients of query, key and parameter from those of what they became."""
        raise NotImplementedError


class Cosine(Reduction):
    """Unit vectors, the query's times a gain for each head where there is one."""

    @staticmethod
    def operands(query: Tensor, key: Tensor, parameter: Tensor | None) -> tuple[Tensor, Tensor]:
        """Unit vectors."""
        unit = normalize(query, dim=-1)
        return unit if parameter is None else unit * parameter, normalize(key, dim=-1)

    @staticmethod
    def gradients(
        query: Tensor, key: Tensor, parameter: Tensor | None, to_query: Tensor, to_key: Tensor
    ) -> dict[str, Tensor]:
        """What points along a vector changes nothing."""
        if parameter is None:
            return {"query": _through_unit(query, to_query), "key": _through_unit(key, to_key)}
        gain = (normalize(query, dim=-1) * to_query).sum((0, 2, 3)).view_as(parameter)
        through = _through_unit(query, to_query * parameter)
        return {"query": through, "key": _through_unit(key, to_key), "parameter": gain}


class Bilinear(Reduction):
    """The matrix goes into the query."""

    @staticmethod
    def operands(query: Tensor, key: Tensor, parameter: Tensor | None) -> tuple[Tensor, Tensor]:
        """The query times its head's matrix."""
        return query @ parameter, key  # type: ignore[operator]

    @staticmethod
    def gradients(
        query: Tensor, key: Tensor, parameter: Tensor | None, to_query: Tensor, to_key: Tensor
    ) -> dict[str, Tensor]:
        """Those of a product of matrices."""
        matrix = (query.mT @ to_query).sum(0)
        return {"query": to_query @ parameter.mT, "key": to_key, "parameter": matrix}  # type: ignore[union-attr]


REDUCTIONS: dict[str, type[Reduction]] = {"cosine": Cosine, "bilinear": Bilinear}


class Reduced(Score, listed=False):
    """The score with a parameter that is given, not learned: its definition."""

    def __init__(self, name: str, parameter: Tensor | None) -> None:
        super().__init__()
        self.reduction, self.parameter = REDUCTIONS[name], parameter

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of all pairs."""
        left, right = self.reduction.operands(query, key, self.parameter)
        return left @ right.transpose(-2, -1)


def _through_unit(rows: Tensor, grads: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    unit = rows / length.clamp_min(SHORTEST)
    along = unit * (unit * grads).sum(-1, keepdim=True)
    return (grads - along.masked_fill(length < SHORTEST, 0)) / length.clamp_min(SHORTEST)
