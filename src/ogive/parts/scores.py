"""Scores: queries and keys to one number for each pair.

A chain at the score site is one score followed by maps of scores: `dot,softcap(30)`. Where the
chain names no score, `dot` comes first.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError
from ogive.parts.facts import Facts
from ogive.parts.form import Form, parse_chain
from ogive.parts.maps import Activation, activation
from ogive.parts.part import Part, Sizes, build, flag, number, setup_error


class Score(Part):
    """(query, key) → scores.

    query (batch, heads, queries, width) and key (batch, heads, keys, width) give
    (batch, heads, queries, keys). `scale` multiplies the score before any softcap; None takes
    the score's own default.
    """

    family = "score"
    default_scale: float | None = 1.0
    """The scale where none is given; None stands for 1/√width."""

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        """The unscaled scores of all pairs; a member writes this."""
        raise NotImplementedError

    def forward(self, query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
        return self.pairs(query, key) * self.resolve_scale(query.shape[-1], scale)

    def resolve_scale(self, width: int, scale: float | None) -> float:
        """The factor on the scores of queries and keys of this width."""
        if scale is not None:
            return scale
        if self.default_scale is None:
            return 1 / math.sqrt(width) if width else 1.0
        return self.default_scale

    def matches_heads(self, heads: int, width: int) -> None:
        """Raise `ArgumentError` if this score was set up for other heads or another width."""


class ScoreMap(Score):
    """A map of scores, which follows a score in a chain; a member writes `value`."""

    def value(self, scores: Tensor) -> Tensor:
        raise NotImplementedError


class ScoreChain(Score):
    """A score and the maps of scores that follow it; built from `dot,softcap(30)`."""

    def __init__(self, score: Score, then: tuple[ScoreMap, ...]) -> None:
        super().__init__()
        self.score = score
        self.then = nn.ModuleList(then)

    @property
    def needs_setup(self) -> bool:  # type: ignore[override]
        return any(part.needs_setup for part in (self.score, *self.then))  # type: ignore[union-attr]

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        first: Facts = self.score.facts
        steps: list[Facts] = [step.facts for step in self.then]  # type: ignore[misc]
        keeps_sign = all(step.monotone and step.zero_at_zero for step in steps)
        return Facts(
            nonnegative=steps[-1].nonnegative or (first.nonnegative and keeps_sign),
            bounded=any(facts.bounded for facts in (first, *steps)),
            odd=all(facts.odd for facts in (first, *steps)),
            degree=_composed_degree([first.degree, *(step.degree for step in steps)]),
            zero_at_zero=all(facts.zero_at_zero for facts in (first, *steps)),
            linear=all(facts.linear for facts in (first, *steps)),
        )

    def setup(self, sizes: Sizes) -> ScoreChain:
        for part in (self.score, *self.then):
            part.setup(sizes)  # type: ignore[union-attr, operator]
        return self

    def forward(self, query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
        scores = self.score(query, key, scale)
        for step in self.then:
            scores = cast(ScoreMap, step).value(scores)
        return scores

    def resolve_scale(self, width: int, scale: float | None) -> float:
        return self.score.resolve_scale(width, scale)

    def matches_heads(self, heads: int, width: int) -> None:
        self.score.matches_heads(heads, width)

    def __str__(self) -> str:
        parts = [str(self.score)] if self.score.name != "dot" else []
        return ",".join(parts + [str(step) for step in self.then])


def score_from(written: str | Form | Part | tuple[Form, ...]) -> Score:
    """A score from its written form, which may be a chain; a `Score` is returned as it is.

    Raises:
        UnknownName, ArgumentError: a name or argument that does not fit, or a chain in which
            anything but maps of scores follows the first part.
    """
    if isinstance(written, Score) and not isinstance(written, ScoreMap):
        return written
    if isinstance(written, Part):
        steps = [build("score", written)]
    else:
        forms = parse_chain(written) if isinstance(written, str) else written
        forms = (forms,) if isinstance(forms, Form) else forms
        steps = [build("score", form) for form in forms]
    if not steps:
        raise ArgumentError("the score is empty; fits one score, such as dot")
    if isinstance(steps[0], ScoreMap):
        steps.insert(0, Dot())
    first, *then = steps
    for step in then:
        if not isinstance(step, ScoreMap):
            raise ArgumentError(
                f"{step} cannot follow {first} in a score: one score comes first, then maps of "
                "scores such as softcap(30)"
            )
    return ScoreChain(first, tuple(then)) if then else first  # type: ignore[arg-type]


class Dot(Score):
    """The dot product, scaled by 1/√width."""

    name = "dot"
    formula = r"q \cdot k / \sqrt{d}"
    source = "Vaswani 2017 (1706.03762)"
    facts = Facts(odd=True, degree=1, zero_at_zero=True, linear=True)
    default_scale = None

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ key.transpose(-2, -1)


class UnscaledDot(Score):
    """The dot product as it is: its spread grows as √width."""

    name = "unscaled_dot"
    formula = r"q \cdot k"
    source = "'dot' score of Luong 2015 (1508.04025)"
    facts = Facts(odd=True, degree=1, zero_at_zero=True, linear=True)

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ key.transpose(-2, -1)


class Cosine(Score):
    """The cosine of the angle, times a gain; `learned=true` trains one gain for each head."""

    name = "cosine"
    formula = r"g\, \hat q \cdot \hat k"
    source = "QK-norm (Henry 2020, 2010.04245)"
    facts = Facts(bounded=True, odd=True, degree=0, zero_at_zero=True)

    def __init__(self, gain: float = 10, learned: bool = False) -> None:
        super().__init__()
        self.gain = number("cosine(gain)", gain, above=0)
        self.learned = flag("cosine(learned)", learned)
        self.register_parameter("weight", None)

    @property
    def needs_setup(self) -> bool:  # type: ignore[override]
        return self.learned

    def setup(self, sizes: Sizes) -> Cosine:
        if self.learned:
            self.weight = nn.Parameter(torch.full((sizes.heads, 1, 1), float(self.gain)))
        return self

    def reset_parameters(self) -> None:
        if self.weight is not None:
            nn.init.constant_(self.weight, self.gain)

    def matches_heads(self, heads: int, width: int) -> None:
        if self.learned:
            _check_heads(self, self.weight, heads)

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        unit = nn.functional.normalize
        cosines = unit(query, dim=-1) @ unit(key, dim=-1).transpose(-2, -1)
        return cosines * (self.gain if self.weight is None else self.weight.to(query.dtype))


class Bilinear(Score):
    """A learned matrix for each head between query and key; starts as the identity."""

    name = "bilinear"
    formula = r"q^{\top} W k / \sqrt{d}"
    source = "'general' score of Luong 2015 (1508.04025)"
    facts = Facts(odd=True, degree=1, zero_at_zero=True, linear=True)
    default_scale = None
    needs_setup = True

    def setup(self, sizes: Sizes) -> Bilinear:
        self.weight = nn.Parameter(torch.empty(sizes.heads, sizes.head_width, sizes.head_width))
        self.reset_parameters()
        return self

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.eye(self.weight.shape[-1]).expand_as(self.weight))

    def matches_heads(self, heads: int, width: int) -> None:
        _check_heads(self, getattr(self, "weight", None), heads, width)

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        return (query @ self.weight.to(query.dtype)) @ key.transpose(-2, -1)


class Distance(Score):
    """Minus the squared distance over 2σ² (`power=2`), or minus the distance over σ (`power=1`).

    With σ² = √width (the default, written `sigma=match`) the cross term is q·k/√width, as in the
    scaled dot product. `scale` replaces 1/σ² (or 1/σ).
    """

    name = "distance"
    formula = r"-\lVert q - k \rVert^2 / (2\sigma^2)"
    source = "L2 attention (Kim 2021, 2006.04710); RBF kernel in Tsai 2019 (1908.11775)"
    facts = Facts()

    def __init__(self, sigma: float | str = "match", power: int = 2) -> None:
        super().__init__()
        self.sigma = sigma if sigma == "match" else number("distance(sigma)", sigma, above=0)  # type: ignore[arg-type]
        if power not in (1, 2) or isinstance(power, bool):
            raise ArgumentError(f"distance(power) takes 1 or 2, not {power!r}")
        self.power = power

    def resolve_scale(self, width: int, scale: float | None) -> float:
        if scale is not None:
            return scale
        variance = math.sqrt(max(width, 1)) if self.sigma == "match" else float(self.sigma) ** 2
        return 1 / variance if self.power == 2 else 1 / math.sqrt(variance)

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        lengths = query.square().sum(-1, keepdim=True) + key.square().sum(-1).unsqueeze(-2)
        squared = (lengths - 2 * (query @ key.transpose(-2, -1))).clamp_min(0)
        if self.power == 2:
            return squared / -2
        apart = squared > 0
        return -torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


class Additive(Score):
    """A learned vector for each head times an activation of query plus key.

    The activation acts on the sum, so a query can change which key wins: dynamic attention.
    """

    name = "additive"
    formula = r"v^{\top} f(q + k)"
    source = "Bahdanau 2014 (1409.0473), with f = tanh"
    needs_setup = True
    example = "additive(tanh)"

    def __init__(self, act: str) -> None:
        super().__init__()
        self.act = activation(act)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        return Facts(bounded=self.act.facts.bounded)

    def setup(self, sizes: Sizes) -> Additive:
        self.weight = _head_vectors(sizes)
        return self

    def reset_parameters(self) -> None:
        _start_vectors(self.weight)

    def matches_heads(self, heads: int, width: int) -> None:
        _check_heads(self, getattr(self, "weight", None), heads, width)

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        return summed_pairs(query, key, self.weight, self.act)


class GatV2(Score):
    """Additive with the LeakyReLU of graph attention: the vector comes after the activation."""

    name = "gatv2"
    formula = r"a^{\top} \mathrm{LeakyReLU}(q + k)"
    source = "Brody 2021 (2105.14491)"
    needs_setup = True

    def __init__(self, act: str = "leaky_relu") -> None:
        super().__init__()
        self.act = activation(act)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        return Facts(bounded=self.act.facts.bounded)

    def setup(self, sizes: Sizes) -> GatV2:
        self.weight = _head_vectors(sizes)
        return self

    def reset_parameters(self) -> None:
        _start_vectors(self.weight)

    def matches_heads(self, heads: int, width: int) -> None:
        _check_heads(self, getattr(self, "weight", None), heads, width)

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        return summed_pairs(query, key, self.weight, self.act)


class Gat(Score):
    """The first graph attention: the vectors come before the activation.

    A monotone function of a_q·q + a_k·k ranks the keys alike for every query: static attention.
    """

    name = "gat"
    formula = r"\mathrm{LeakyReLU}(a_q^{\top} q + a_k^{\top} k)"
    source = "Velickovic 2017 (1710.10903)"
    needs_setup = True

    def __init__(self, act: str = "leaky_relu") -> None:
        super().__init__()
        self.act = activation(act)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        return Facts(nonnegative=self.act.facts.nonnegative, bounded=self.act.facts.bounded)

    def setup(self, sizes: Sizes) -> Gat:
        self.query_weight = _head_vectors(sizes)
        self.key_weight = _head_vectors(sizes)
        return self

    def reset_parameters(self) -> None:
        _start_vectors(self.query_weight)
        _start_vectors(self.key_weight)

    def matches_heads(self, heads: int, width: int) -> None:
        _check_heads(self, getattr(self, "query_weight", None), heads, width)

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        of_query = query @ self.query_weight.to(query.dtype).unsqueeze(-1)
        of_key = key @ self.key_weight.to(key.dtype).unsqueeze(-1)
        return self.act.value(of_query + of_key.transpose(-2, -1))


class Softcap(ScoreMap):
    """Squeezes scores smoothly into (−cap, cap)."""

    name = "softcap"
    formula = r"c \tanh(s / c)"
    source = "Gemma 2 (2024) with c = 50"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)
    example = "softcap(50)"

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = number("softcap(cap)", cap, above=0)

    def value(self, scores: Tensor) -> Tensor:
        return self.cap * torch.tanh(scores / self.cap)

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        raise ArgumentError(f"{self} follows a score: write dot,{self}")


def summed_pairs(query: Tensor, key: Tensor, vectors: Tensor, act: Activation) -> Tensor:
    """Σ_d v_d f(q_id + k_jd) for all pairs; vectors (heads, width).

    Builds the (queries, keys, width) tensor a definition may build.
    """
    sums = query.unsqueeze(-2) + key.unsqueeze(-3)
    return torch.einsum("bhijd,hd->bhij", act.value(sums), vectors.to(sums.dtype))


def _composed_degree(degrees: list[float | None]) -> float | None:
    if degrees[0] == 0:  # whatever follows sees the same number for every c
        return 0
    return None if None in degrees else math.prod(degrees)  # type: ignore[arg-type]


def _head_vectors(sizes: Sizes) -> nn.Parameter:
    vectors = nn.Parameter(torch.empty(sizes.heads, sizes.head_width))
    _start_vectors(vectors)
    return vectors


def _start_vectors(vectors: Tensor) -> None:
    # Glorot's bound for a map from `width` features to one number, as graph attention starts.
    bound = math.sqrt(6 / (vectors.shape[1] + 1))
    nn.init.uniform_(vectors, -bound, bound)


def _check_heads(part: Part, weight: Tensor | None, heads: int, width: int | None = None) -> None:
    if weight is None:
        raise setup_error(part)
    made = (weight.shape[0],) if width is None else (weight.shape[0], weight.shape[-1])
    came = (heads,) if width is None else (heads, width)
    if made != came:
        raise ArgumentError(
            f"{part} was set up for (heads, width) {made}, but the query has {came}"
        )
