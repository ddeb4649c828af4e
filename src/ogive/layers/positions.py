"""Positions: how a model knows where a token stands. A family of parts, written like the others.

Three ways, by where they act: `Rotary` turns queries and keys, `PairBias` adds to the scores,
`Absolute` adds to the embeddings. The first two belong to an attention layer, the last to a model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError
from ogive.parts.form import Form
from ogive.parts.part import Part, Sizes, build, number


class Position(Part):
    """Head of the family; a member belongs to one of the three kinds below."""

    family = "position"


class Rotary(Position):
    """Turns queries and keys by their position; a member writes `turn`."""

    def turn(self, heads: Tensor, start: int) -> Tensor:
        """heads (batch, length, heads, width) turned, the first of the length at `start`."""
        raise NotImplementedError


class PairBias(Position):
    """Adds to the score of each pair; a member writes `bias`."""

    def bias(self, query: Tensor, keys: int, offset: int, is_causal: bool) -> Tensor:
        """(1, heads, queries, keys) for query (batch, queries, heads, width).

        Query i stands at key i + offset.
        """
        raise NotImplementedError


class Absolute(Position):
    """Adds a vector for each position to the embeddings; a member writes `vectors`."""

    def setup(self, sizes: Sizes, max_length: int | None = None) -> Absolute:
        return self

    def vectors(self, embedded: Tensor, start: int) -> Tensor:
        """(length, width) for embedded (batch, length, width), the first token at `start`."""
        raise NotImplementedError


class Rope(Rotary):
    """Each pair of features turns by position / base^(2i/d), so q·k depends on the distance.

    Feature i pairs with feature i + d/2 (the half-split layout of Llama checkpoints in Hugging
    Face's format), not with its neighbour as in the paper.
    """

    name = "rope"
    formula = r"(h_i, h_{i+d/2}) \leftarrow R(t\, b^{-2i/d})\,(h_i, h_{i+d/2})"
    source = "RoFormer (Su 2021, 2104.09864)"

    def __init__(self, base: float = 10000) -> None:
        super().__init__()
        self.base = number("rope(base)", base, above=0)

    def setup(self, sizes: Sizes) -> Rope:
        if sizes.head_width % 2:
            raise ArgumentError(
                f"{self} turns pairs of features, and queries and keys have an odd width per head, "
                f"{sizes.head_width}"
            )
        self.width = sizes.head_width
        self._frequencies = frequencies(self.base, self.width)
        return self

    def turn(self, heads: Tensor, start: int) -> Tensor:
        cosine, sine = waves(heads, start, self._frequencies)
        cosine = torch.cat([cosine, cosine], -1)[:, None]
        sine = torch.cat([-sine, sine], -1)[:, None]
        swapped = heads.roll(self.width // 2, -1)
        return (heads * cosine + swapped * sine).to(heads.dtype)


class Alibi(PairBias):
    """Scores fall with the distance, in each head with another slope; nothing is learned.

    Slopes are the paper's, also where heads are not a power of two. The paper is causal; where
    keys ahead are visible they fall with the distance too.
    """

    name = "alibi"
    formula = r"s_{ij} - m_h\,|i - j|"
    source = "Train Short, Test Long (Press 2021, 2108.12409)"

    def setup(self, sizes: Sizes) -> Alibi:
        self._slopes = alibi_slopes(sizes.heads)
        return self

    def bias(self, query: Tensor, keys: int, offset: int, is_causal: bool) -> Tensor:
        slopes = torch.tensor(self._slopes, device=query.device, dtype=_at_least_float32(query))
        return -slopes.view(1, -1, 1, 1) * _ahead(query, keys, offset).abs()


class Relative(PairBias):
    """A learned number for each head and each bucket of distances, added to the score.

    Near distances have a bucket each, far ones share buckets that grow as a geometric series up
    to `max_distance`, beyond which all share the last. Where keys ahead are visible (not
    causal) half of the buckets are theirs. Each layer learns its own, from zero; in T5 all layers
    share one.
    """

    name = "relative"
    formula = r"s_{ij} + b_{h,\,\mathrm{bucket}(j - i)}"
    source = "T5 (Raffel 2019, 1910.10683)"
    needs_setup = True

    def __init__(self, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.buckets = _whole("relative(buckets)", buckets, 4)
        self.max_distance = _whole("relative(max_distance)", max_distance, buckets + 1)
        if buckets % 4:
            raise ArgumentError(f"relative(buckets) takes a multiple of 4, not {buckets}")

    def setup(self, sizes: Sizes) -> Relative:
        self.weight = nn.Parameter(torch.empty(self.buckets, sizes.heads))
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def bias(self, query: Tensor, keys: int, offset: int, is_causal: bool) -> Tensor:
        ahead = _ahead(query, keys, offset)
        return F.embedding(self.bucket(ahead, is_causal), self.weight).permute(2, 0, 1)[None]

    def bucket(self, ahead: Tensor, is_causal: bool) -> Tensor:
        """The bucket of each distance (key's position minus query's)."""
        side = self.buckets if is_causal else self.buckets // 2
        starts = torch.tensor(bucket_starts(side, self.max_distance), device=ahead.device)
        behind = ahead.neg().clamp_min(0) if is_causal else ahead.abs()
        bucket = torch.bucketize(behind, starts, right=True)
        return bucket if is_causal else bucket + side * (ahead > 0)


class Learned(Absolute):
    """A trained vector for each position up to the model's `max_length`."""

    name = "learned"
    formula = r"x_t + p_t"
    source = "ConvS2S (Gehring 2017, 1705.03122); BERT and GPT"
    needs_setup = True

    def setup(self, sizes: Sizes, max_length: int | None = None) -> Learned:
        if max_length is None:
            raise ArgumentError("positions='learned' needs max_length: how many positions to learn")
        self.weight = nn.Parameter(torch.empty(max_length, sizes.width))
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)

    def vectors(self, embedded: Tensor, start: int) -> Tensor:
        return self.weight[start : start + embedded.shape[1]]


class Sinusoidal(Absolute):
    """Sines and cosines of geometrically spaced frequencies, interleaved; nothing is learned."""

    name = "sinusoidal"
    formula = r"x_t + (\sin(t\,\omega_i), \cos(t\,\omega_i))_i,\quad \omega_i = 10000^{-2i/w}"
    source = "Vaswani 2017 (1706.03762)"

    def setup(self, sizes: Sizes, max_length: int | None = None) -> Sinusoidal:
        self._frequencies = frequencies(10000, sizes.width)
        return self

    def vectors(self, embedded: Tensor, start: int) -> Tensor:
        cosine, sine = waves(embedded, start, self._frequencies)
        return torch.stack([sine, cosine], -1).flatten(1)[:, : embedded.shape[-1]]


def build_position(written: str | Form | Part | None) -> Position | None:
    """A new position part from its written form; None from None."""
    if isinstance(written, Part):
        written = written.form
    return None if written is None else build("position", written)  # type: ignore[return-value]


def position_of_layer(written: str | Form | Part | None) -> Rotary | PairBias | None:
    """A new position part that acts in an attention layer.

    Raises:
        UnknownName, ArgumentError: a name or argument that does not fit, or a kind that acts on
            embeddings, which a layer does not have.
    """
    part = build_position(written)
    if part is None or isinstance(part, Rotary | PairBias):
        return part
    raise ArgumentError(
        f"positions={str(part)!r} adds to the embeddings, which a model has and an attention "
        "layer has not; here fit rope, alibi, relative"
    )


def frequencies(base: float, width: int) -> tuple[float, ...]:
    """base^(−2i/width) in radians per position, for each pair i of features."""
    return tuple(base ** (-2 * i / width) for i in range((width + 1) // 2))


def waves(like: Tensor, start: int, radians: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, frequencies) for like (batch, length, …), at least in float32."""
    dtype = _at_least_float32(like)
    at = torch.arange(start, start + like.shape[1], device=like.device, dtype=dtype)
    angles = at[:, None] * torch.tensor(radians, device=like.device, dtype=dtype)
    return angles.cos(), angles.sin()


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """One slope per head: 2^(−8k/n), k = 1 … n, for n heads, n a power of two.

    Other numbers of heads take the slopes of the power of two below, then every second one of
    the power above, as the paper's code does.
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    between = [2 ** (-4 * k / power) for k in range(1, 2 * power + 1, 2)]
    return tuple(slopes + between[: heads - power])


def bucket_starts(side: int, max_distance: int) -> tuple[int, ...]:
    """The smallest distance of each bucket but the first, of `side` buckets in one direction.

    Half of them hold one distance each. Start t of the rest is the first distance d with
    log(d/e) / log(max_distance/e) ≥ t/m, e and m being how many they are; in whole numbers,
    d^m ≥ e^(m−t)·max_distance^t, so that no rounding moves a border.
    """
    exact = side // 2
    shared = side - exact
    starts = list(range(1, exact + 1))
    distance = exact
    for t in range(1, shared):
        bound = exact ** (shared - t) * max_distance**t
        while distance**shared < bound:
            distance += 1
        starts.append(distance)
    return tuple(starts)


def _ahead(query: Tensor, keys: int, offset: int) -> Tensor:
    """How far each key lies ahead of each query: (queries, keys)."""
    at_query = torch.arange(offset, offset + query.shape[1], device=query.device)
    return torch.arange(keys, device=query.device) - at_query[:, None]


def _at_least_float32(like: Tensor) -> torch.dtype:
    return torch.promote_types(like.dtype, torch.float32)


def _whole(name: str, came: object, least: int) -> int:
    if isinstance(came, bool) or not isinstance(came, int) or came < least:
        raise ArgumentError(f"{name} takes a whole number of at least {least}, not {came!r}")
    return came
