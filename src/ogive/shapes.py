"""The project's alphabet of axes, and tensor types annotated with them.

    b  batch          i  query position      d  width of queries and keys
    h  head           j  key position        v  width of values
    g  key/value head t  position in a sequence            w  width of the model

Annotations are read by people, and checked by beartype under the tests only.
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Float
from torch import Tensor

Query: TypeAlias = Float[Tensor, "b h i d"]
Key: TypeAlias = Float[Tensor, "b h j d"]
Value: TypeAlias = Float[Tensor, "b h j v"]
Mixed: TypeAlias = Float[Tensor, "b h i v"]
Scores: TypeAlias = Float[Tensor, "b h i j"]
Weights: TypeAlias = Float[Tensor, "b h i j"]
Keep: TypeAlias = Bool[Tensor, "#b #h #i #j"]
Bias: TypeAlias = Float[Tensor, "#b #h #i #j"]
Sequence: TypeAlias = Float[Tensor, "b t w"]
Heads: TypeAlias = Float[Tensor, "b t h d"]
