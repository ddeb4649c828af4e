"""Scores that are simpler ones of something else: what becomes of query and key, and the way back.

    cosine:    (g q/|q|) · (k/|k|)        g one gain for each head, or a number in the scale
    bilinear:  (q W) · k
    gat:       act(a_q·q + a_k·k)         an additive score of one number each

The kernels run on what query and key become. Each row of it comes from one row alone, so what is
wild in a row stays in that row. Gradients are written out: an operator is no place for autograd.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ogive.parts.scores import Score

SHORTEST = 1e-12
"""A length below this counts as this, as in torch's normalize."""


class Reduction:
    """A score as a dot product, or an additive score, of what query and key become."""

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

    @staticmethod
    def vectors(parameter: Tensor | None, group: int) -> Tensor | None:
        """(h, …) of the additive score that it comes to, by `group_of`; None: a dot product."""
        return None

    @staticmethod
    def scores(query: Tensor, key: Tensor, act: Callable[[Tensor], Tensor] | None) -> Tensor:
        """All pairs of what (b, h, i, …) and (b, h, j, …) have become."""
        return query @ key.transpose(-2, -1)


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


class Static(Reduction):
    """Sums of a query's number and a key's, for vectors (h, 2, d) of queries and of keys.

    Heads that share keys have different vectors for them. A key head's numbers for all of its query
    heads stand side by side, and each query head's vector picks its own.
    """

    @staticmethod
    def operands(query: Tensor, key: Tensor, parameter: Tensor | None) -> tuple[Tensor, Tensor]:
        """(b, h, i, group) and (b, g, j, group), for `group` query heads on a key head."""
        of_query, of_key = parameter.unbind(1)  # type: ignore[union-attr]
        own = _own(of_query, group_of(query, key))
        return (query @ of_query.unsqueeze(-1)) * own, key @ _of_keys(of_key, key).mT

    @staticmethod
    def gradients(
        query: Tensor, key: Tensor, parameter: Tensor | None, to_query: Tensor, to_key: Tensor
    ) -> dict[str, Tensor]:
        """Those of two products with vectors."""
        of_query, of_key = parameter.unbind(1)  # type: ignore[union-attr]
        to_query = (to_query * _own(of_query, to_query.shape[-1])).sum(-1, keepdim=True)
        vectors = (to_query * query).sum((0, 2)), (to_key.mT @ key).sum(0).view_as(of_key)
        return {
            "query": to_query * of_query.unsqueeze(-2),
            "key": to_key @ _of_keys(of_key, key),
            "parameter": torch.stack(vectors, 1),
        }

    @staticmethod
    def vectors(parameter: Tensor | None, group: int) -> Tensor | None:
        """(h, group): one for a head's own number, 0 for its neighbours'."""
        return _own(parameter, group).squeeze(1)  # type: ignore[arg-type]

    @staticmethod
    def scores(query: Tensor, key: Tensor, act: Callable[[Tensor], Tensor] | None) -> Tensor:
        """The activation of a sum."""
        return act(query + key.transpose(-2, -1))  # type: ignore[misc]


REDUCTIONS: dict[str, type[Reduction]] = {"cosine": Cosine, "bilinear": Bilinear, "gat": Static}


class Reduced(Score, listed=False):
    """The score with a parameter that is given, not learned: its definition."""

    def __init__(
        self,
        name: str,
        parameter: Tensor | None,
        act: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.reduction, self.parameter, self.act = REDUCTIONS[name], parameter, act

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of all pairs."""
        left, right = self.reduction.operands(query, key, self.parameter)
        return self.reduction.scores(left, right, self.act)


def group_of(query: Tensor, key: Tensor) -> int:
    """How many query heads share a key head, 1 where there are none."""
    return max(1, query.shape[1] // max(1, key.shape[1]))


def _own(vectors: Tensor, group: int) -> Tensor:
    """(h, 1, group) with a one where a head stands in its group."""
    eye = torch.eye(group, dtype=vectors.dtype, device=vectors.device)
    return eye.repeat(vectors.shape[0] // group, 1).unsqueeze(1)


def _of_keys(vectors: Tensor, key: Tensor) -> Tensor:
    """(h, d) as (g, group, d)."""
    heads = key.shape[1]
    return vectors.view(heads, len(vectors) // max(1, heads), key.shape[-1])


def _through_unit(rows: Tensor, grads: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    unit = rows / length.clamp_min(SHORTEST)
    along = unit * (unit * grads).sum(-1, keepdim=True)
    return (grads - along.masked_fill(length < SHORTEST, 0)) / length.clamp_min(SHORTEST)
