"""Measure a part's facts: what f does to numbers in double precision, whatever the part declares.

A fact is a statement about all inputs. Each is put to inputs that would break it: magnitudes from
1e-3 to 1e3 for identities, up to 1e150 and down to 1e-150 for bounds, dense sweeps of one argument
for monotonicity, and several draws of what the part learns. What a floor such as l2norm's 1e-12
does below those magnitudes is not seen.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ogive.errors import ArgumentTypeError
from ogive.parts.facts import Facts
from ogive.parts.part import Part, Sizes
from ogive.parts.projections import Projection
from ogive.parts.scores import ScoreMap

SIZES = Sizes(width=12, heads=2, head_width=6)
LENGTH = 5
PAIRS = (SIZES.heads, LENGTH, LENGTH + 1)
PARAMETER_DRAWS = 4
MAGNITUDES = (1e-3, 0.1, 1.0, 10.0, 1e3)
FACTORS = (0.3, 1.7, 10.0)
TOLERANCE = 1e-9
"""Of a sample's largest number: far above rounding, far below a deviation worth a name."""

ANY_DEGREE = math.inf
"""What zero has: parameters that shut f off in one draw say nothing about its degree."""


def measure(part: Part) -> Facts:
    """The facts of a part, measured on a copy with learned parameters drawn at random.

    Args:
        part: of any family, set up or not; it stays as it is.

    Returns:
        Facts that held in every draw. What has no meaning for a family is False: only weights
        can sum to one, only maps can fold, and a score of a query and a key has no order to
        keep (a map of scores has).

    Raises:
        ArgumentTypeError: not a part.
    """
    if not isinstance(part, Part) or part.family not in ("map", "score", "weight"):
        raise ArgumentTypeError(f"measure takes a part of a family, not {part!r}")
    with torch.no_grad():
        learns = any(True for _ in copy.deepcopy(part).setup(SIZES).parameters())
        draws = PARAMETER_DRAWS if learns else 1
        return _common([_measured(_subject(part, draw)) for draw in range(draws)])


def _common(found: list[Facts]) -> Facts:
    """What all draws agree on."""
    flags = [field.name for field in fields(Facts) if field.name != "degree"]
    held = {name: all(getattr(facts, name) for facts in found) for name in flags}
    degrees = {facts.degree for facts in found} - {ANY_DEGREE}
    return Facts(degree=degrees.pop() if len(degrees) == 1 else None, **held)


@dataclass(frozen=True)
class _Subject:
    """A part as a function of tensors (samples, a, b, c), and of the layer's input where it reads.

    The last two axes are places that go out as they come in: head and feature of a map, query
    and key of a weight function. Of the axis before them, monotonicity looks at the last.
    """

    family: str
    call: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    generator: torch.Generator

    @property
    def rises_place_by_place(self) -> bool:
        """Whether the numbers that come in and go out stand at the same places."""
        return self.family != "score" or self.shapes == (PAIRS,)

    def draw(self, samples: int, magnitude: float = 1.0) -> list[Tensor]:
        return [magnitude * self.normal((samples, *shape)) for shape in self.shapes]

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)


def _subject(part: Part, draw: int) -> _Subject:
    """Every other draw takes the parameters of the one before with the other sign."""
    generator = torch.Generator().manual_seed(draw // 2)
    part = copy.deepcopy(part).setup(SIZES).double()
    for parameter in part.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(-values if draw % 2 else values)
    call, shapes = _as_function(part, generator)
    return _Subject(part.family, call, shapes, generator)


def _as_function(
    part: Part, generator: torch.Generator
) -> tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]:
    heads = (LENGTH, SIZES.heads, SIZES.head_width)
    if isinstance(part, Projection):
        return (lambda x: part(x.flatten(-2))), (heads,)
    if part.family == "map":
        return part, (heads, (LENGTH, SIZES.width))
    if part.family == "weight":
        return part, (PAIRS,)
    if isinstance(part, ScoreMap):
        return part.value, (PAIRS,)
    key_shape = (1, SIZES.heads, LENGTH + 1, SIZES.head_width)
    keys = torch.randn(key_shape, generator=generator, dtype=torch.float64)
    queries = (SIZES.heads, LENGTH, SIZES.head_width)
    return (lambda query: part(query, keys.expand(len(query), -1, -1, -1))), (queries,)


def _measured(subject: _Subject) -> Facts:
    return Facts(
        nonnegative=_nonnegative(subject),
        rows_sum_to_one=subject.family == "weight" and _rows_sum_to_one(subject),
        bounded=_bounded(subject),
        odd=_odd(subject),
        degree=_degree(subject),
        monotone=subject.rises_place_by_place and _monotone(subject),
        zero_at_zero=_zero_at_zero(subject),
        linear=_linear(subject),
        fold_safe=subject.family == "map" and _fold_safe(subject),
    )


def _nonnegative(subject: _Subject) -> bool:
    drawn = [subject.call(*subject.draw(16, magnitude)) for magnitude in MAGNITUDES]
    if not all(bool((out >= 0).all()) for out in drawn):
        return False
    return all(bool((out >= 0).all()) for out, _, _ in _sweeps(subject))


def _rows_sum_to_one(subject: _Subject) -> bool:
    """Over all keys, and over those that a mask leaves to rows that see anything."""
    for magnitude in MAGNITUDES:
        (scores,) = subject.draw(16, magnitude)
        # Positive rows add up without cancelling, which a ratio of sums needs to be accurate.
        for row in (scores, scores.abs()):
            keep = subject.normal(tuple(scores.shape)) > 0
            keep[..., 0] = True
            for weights in (subject.call(row), subject.call(row, keep)):
                total = weights.sum(-1)
                size = weights.abs().sum(-1).clamp_min(1)
                if not bool(((total - 1).abs() <= TOLERANCE * size).all()):
                    return False
    return True


def _bounded(subject: _Subject) -> bool:
    """Going further out does not raise the largest number: to infinity, zero, and cancellation."""
    start = subject.draw(64)
    start += [torch.where(subject.normal(tuple(t.shape)) > 0, t, t * 1e-3) for t in start]
    inputs = len(subject.shapes)
    for directions in (start[:inputs], start[inputs:]):
        for near, far in _journeys(directions):
            outs = subject.call(*near), subject.call(*far)
            if not all(bool(out.isfinite().all()) for out in outs):
                return False
            if outs[1].abs().max() > 1.01 * outs[0].abs().max():
                return False
    return True


def _journeys(directions: list[Tensor]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    for near, far in ((1e75, 1e150), (1e-75, 1e-150)):
        yield [near * d for d in directions], [far * d for d in directions]
    # Rows whose sum all but vanishes, which is where a quotient by the sum explodes.
    centred = [d - d.mean(-1, keepdim=True) for d in directions]
    yield [d + 1e-3 for d in centred], [d + 1e-6 for d in centred]


def _odd(subject: _Subject) -> bool:
    drawn = (subject.draw(16, magnitude) for magnitude in MAGNITUDES)
    return all(_same(subject.call(*[-t for t in x]), -subject.call(*x)) for x in drawn)


def _degree(subject: _Subject) -> float | None:
    """Estimated from one doubling, then held to other factors at every magnitude."""
    x = subject.draw(16)
    once, twice = subject.call(*x).norm(), subject.call(*[2 * t for t in x]).norm()
    if once == twice == 0:
        return ANY_DEGREE
    if not (0 < once < math.inf and 0 < twice < math.inf):
        return None
    degree = round(math.log2(float(twice / once)), 9) + 0.0
    for magnitude in MAGNITUDES:
        x = subject.draw(16, magnitude)
        here = subject.call(*x)
        for factor in FACTORS:
            if not _same(subject.call(*[factor * t for t in x]), factor**degree * here):
                return None
    return degree


def _monotone(subject: _Subject) -> bool:
    """No sweep of one argument, the others fixed, falls at that argument's place."""
    for out, row, column in _sweeps(subject):
        path = out[..., -1, row, column]
        fall = path[:, :-1] - path[:, 1:]
        slack = 1e-12 * (path[:, :-1].abs() + path[:, 1:].abs()) + 1e-300
        if bool((fall > slack).any()):
            return False
    return True


def _sweeps(subject: _Subject) -> Iterator[tuple[Tensor, int, int]]:
    """(samples, steps, a, b, c) outputs as the argument at place (row, column) rises, by place."""
    near, far = torch.linspace(-12, 12, 481), torch.logspace(-4, 2, 61)
    steps = torch.cat([near, far, -far]).double().sort().values
    x = [torch.cat(t) for t in zip(*(subject.draw(2, m) for m in (0.1, 1.0, 10.0)), strict=True)]
    *_, columns_out = subject.call(*x).shape
    _, _, rows, columns = x[0].shape
    for row in range(rows):
        for column in range(min(columns, columns_out)):
            moved = [t.repeat_interleave(len(steps), 0) for t in x]
            moved[0][:, -1, row, column] = steps.repeat(len(x[0]))
            yield subject.call(*moved).unflatten(0, (len(x[0]), -1)), row, column


def _zero_at_zero(subject: _Subject) -> bool:
    if subject.family != "weight":
        return not bool(subject.call(*[torch.zeros_like(t) for t in subject.draw(4)]).any())
    for magnitude in MAGNITUDES:
        (scores,) = subject.draw(16, magnitude)
        zero = subject.normal(tuple(scores.shape)) > 0.5
        if bool(subject.call(scores.masked_fill(zero, 0))[zero].any()):
            return False
    return True


def _linear(subject: _Subject) -> bool:
    return _combines(subject, 0.7, -1.9)


def _combines(subject: _Subject, a: float, b: float) -> bool:
    """Whether f(a·x + b·y) = a·f(x) + b·f(y) at every magnitude."""
    for magnitude in MAGNITUDES:
        x, y = subject.draw(16, magnitude), subject.draw(16, magnitude)
        mixed = subject.call(*[a * s + b * t for s, t in zip(x, y, strict=True)])
        if not _same(mixed, a * subject.call(*x) + b * subject.call(*y)):
            return False
    return True


def _fold_safe(subject: _Subject) -> bool:
    """Affine; a token's result hangs on that token's h alone, and is the same at every call."""
    h, *layer_input = subject.draw(16)
    elsewhere, *other_input = subject.draw(16)
    elsewhere[:, 2] = h[:, 2]
    here = subject.call(h, *layer_input)
    alone = _same(subject.call(elsewhere, *other_input)[:, 2], here[:, 2])
    repeats = bool(torch.equal(subject.call(h, *layer_input), here))
    return alone and repeats and _combines(subject, -0.8, 1.8)


def _same(left: Tensor, right: Tensor) -> bool:
    """Equal to within the tolerance of each sample's largest number; infinities match exactly."""
    left, right = left.flatten(1), right.flatten(1)
    finite = left.isfinite() & right.isfinite()
    if not bool(((left == right) | finite).all()):
        return False
    size = torch.maximum(left.abs(), right.abs()).where(finite, 0).amax(1, keepdim=True)
    apart = (left - right).where(finite, 0).abs()
    return bool((apart <= TOLERANCE * size).all())
