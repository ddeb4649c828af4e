"""One checked call of the operation: what every implementation receives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ogive.kernels.auxiliary import AuxRequest
from ogive.kernels.visible import Visibility
from ogive.parts.scores import Score
from ogive.parts.weights import Weight


@dataclass(eq=False)
class Call:
    """Arguments of `attention`, checked and resolved.

    Nothing changes one; freezing it would cost every call a microsecond.

    Attributes:
        query: (batch, heads, queries, width).
        key: (batch, key/value heads, keys, width); heads is a multiple of key/value heads.
        value: (batch, key/value heads, keys, value width).
        score, weight: parts, set up for these heads.
        visibility: which pairs may be seen.
        bias: float, finite where visible, broadcastable to (batch, heads, queries, keys), or None.
        scale: factor on the score, None for the score's own.
        dropout_p: probability in [0, 1).
        seed: of dropout, int64 (), or None without dropout.
        aux: what to return beside the output, or None.
        first_query, first_example: which query and which example of the whole call the first ones
            are (dropout counts from there).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    score: Score
    weight: Weight
    visibility: Visibility
    bias: Tensor | None
    scale: float | None
    dropout_p: float
    seed: Tensor | None
    aux: AuxRequest | None
    first_query: int = 0
    first_example: int = 0
