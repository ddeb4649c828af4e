"""What a part declares about itself; the battery of tests measures every line of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about f, read by the tests, the docs, the probe and the kernels.

    For a map, f acts on a token's features; where it reads the layer's input x too, oddness,
    degree, linearity and the value at zero are those of the pair (h, x), and monotonicity is
    that in h. For a weight function, f takes a row of scores to a row of weights. For a score,
    f takes (query, key) to a score, and facts speak of the query at fixed keys. A fact holds
    whatever values training gives the part's parameters. `ogive.parts.measure` measures them.

    Attributes:
        nonnegative: f never returns a value below zero.
        rows_sum_to_one: weights of a row that sees anything add up to one (weights only).
        bounded: some constant bounds |f| for all inputs of a given length.
        odd: f(-x) = -f(x).
        degree: d where f(c·x) = c^d·f(x) for every c > 0 and every x; None where no d does.
        monotone: raising one argument never lowers the result at that place (for scores of a
            query and a key: not measured, False).
        zero_at_zero: f(0) = 0; for weights: a zero score weighs zero, whatever the others are.
        linear: f(a·x + b·y) = a·f(x) + b·f(y).
        fold_safe: f is linear or affine in each token's features alone and fixed once trained,
            so that it folds into the weights of a neighbouring linear map and leaves no cost at
            inference (maps only).
    """

    nonnegative: bool = False
    rows_sum_to_one: bool = False
    bounded: bool = False
    odd: bool = False
    degree: float | None = None
    monotone: bool = False
    zero_at_zero: bool = False
    linear: bool = False
    fold_safe: bool = False
