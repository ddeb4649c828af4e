"""Second opinions on weights and scores: loops over single numbers, in fifty digits.

Written from the formulas alone; nothing here imports the parts.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

import mpmath
from mpmath import mpf

mpmath.mp.dps = 50

Row = Sequence[mpf]


def softmax(row: Row) -> list[mpf]:
    powers = [mpmath.exp(s - max(row)) for s in row]
    return [p / sum(powers) for p in powers]


def softmax_with_sink(row: Row, logit: float) -> list[mpf]:
    return softmax([*row, mpf(logit)])[:-1]


def softpick(row: Row) -> list[mpf]:
    top = max(*row, mpf(0)) if row else mpf(0)
    # expm1 from a power series that mpmath evaluates exactly, times e^-top.
    lifted = [mpmath.expm1(s) * mpmath.exp(-top) for s in row]
    total = sum(abs(p) for p in lifted)
    return [max(p, mpf(0)) / total if total else mpf(0) for p in lifted]


def cog(row: Row) -> list[mpf]:
    return [mpmath.sign(s) * w for s, w in zip(row, softmax([abs(s) for s in row]), strict=True)]


def sparsemax(row: Row) -> list[mpf]:
    """The threshold τ at which Σ max(s − τ, 0) is 1, among those that each support size gives."""
    row = [s - max(row) for s in row]  # fifty digits cannot hold 1 beside the largest double
    ordered = sorted(row, reverse=True)
    for size in range(len(row), 0, -1):
        threshold = (sum(ordered[:size]) - 1) / size
        if ordered[size - 1] > threshold:
            break
    return [max(s - threshold, mpf(0)) for s in row]


def entmax15(row: Row) -> list[mpf]:
    """Bisection on τ: Σ max(s/2 − τ, 0)² falls from at least 1 to 0 over [top/2 − 1, top/2]."""
    half = [(s - max(row)) / 2 for s in row]
    low, high = max(half) - 1, max(half)
    for _ in range(160):
        middle = (low + high) / 2
        total = sum(max(s - middle, mpf(0)) ** 2 for s in half)
        low, high = (middle, high) if total > 1 else (low, middle)
    return [max(s - low, mpf(0)) ** 2 for s in half]


def linear(row: Row) -> list[mpf]:
    return [s / sum(row) if sum(row) else mpf(0) for s in row]


def each(curve: Callable[[mpf, int], mpf]) -> Callable[[Row], list[mpf]]:
    return lambda row: [curve(s, len(row)) for s in row]


def sigmoid(s: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-s))


def normal_probability(s: mpf) -> mpf:
    if abs(s) > 1e6:  # beyond the digits that mpmath spends on erfc
        return mpf(s > 0)
    return mpmath.erfc(-s / mpmath.sqrt(2)) / 2


WEIGHTS: dict[str, Callable[[Row], list[mpf]]] = {
    "softmax": softmax,
    "softmax1": lambda row: softmax_with_sink(row, 0),
    "sink": lambda row: softmax_with_sink(row, 0.5),
    "softpick": softpick,
    "cog": cog,
    "sparsemax": sparsemax,
    "entmax15": entmax15,
    "linear(normalise=true)": linear,
    "linear(normalise=false)": each(lambda s, n: s),
    "sigmoid(bias=-log_n)": each(lambda s, n: sigmoid(s - mpmath.log(n))),
    "sigmoid(bias=2)": each(lambda s, n: sigmoid(s + 2)),
    "tanh": each(lambda s, n: mpmath.tanh(s) / n),
    "relu(length_power=1)": each(lambda s, n: max(s, mpf(0)) / n),
    "relu(length_power=0.5)": each(lambda s, n: max(s, mpf(0)) / mpmath.sqrt(n)),
    "relu2(length_power=1)": each(lambda s, n: max(s, mpf(0)) ** 2 / n),
    "silu(length_power=1)": each(lambda s, n: s * sigmoid(s) / n),
    "silu(length_power=0)": each(lambda s, n: s * sigmoid(s)),
    "gelu(length_power=1)": each(lambda s, n: s * normal_probability(s) / n),
    "softplus(length_power=1)": each(
        lambda s, n: (max(s, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(s)))) / n
    ),
    "identity(length_power=1)": each(lambda s, n: s / n),
}
"""By written form; a row holds visible scores only. A sink's learned logit is 0.5 here."""

SINK_LOGIT = 0.5


def _dot(query: Row, key: Row) -> mpf:
    return functools.reduce(operator.add, (a * b for a, b in zip(query, key, strict=True)), mpf(0))


def _length(vector: Row) -> mpf:
    return mpmath.sqrt(_dot(vector, vector))


def _apart(query: Row, key: Row) -> mpf:
    return _length([a - b for a, b in zip(query, key, strict=True)])


def _leaky(s: mpf) -> mpf:
    return s if s > 0 else s * mpf(0.2)


def _weighted(vector: Row, query: Row, key: Row, curve: Callable[[mpf], mpf]) -> mpf:
    return _dot(vector, [curve(a + b) for a, b in zip(query, key, strict=True)])


def _capped(score: mpf, cap: float) -> mpf:
    return cap * mpmath.tanh(score / cap)


Score = Callable[[Row, Row, dict[str, list]], mpf]
SCORES: dict[str, Score] = {
    "dot": lambda q, k, p: _dot(q, k) / mpmath.sqrt(len(q)),
    "unscaled_dot": lambda q, k, p: _dot(q, k),
    "cosine": lambda q, k, p: 10 * _dot(q, k) / (_length(q) * _length(k)),
    "cosine(gain=3)": lambda q, k, p: 3 * _dot(q, k) / (_length(q) * _length(k)),
    "cosine(learned=true)": lambda q, k, p: (
        p["weight"][0][0] * _dot(q, k) / (_length(q) * _length(k))
    ),
    "bilinear": lambda q, k, p: (
        sum(q[a] * p["weight"][a][b] * k[b] for a in range(len(q)) for b in range(len(k)))
        / mpmath.sqrt(len(q))
    ),
    "distance": lambda q, k, p: -(_apart(q, k) ** 2) / (2 * mpmath.sqrt(len(q))),
    "distance(sigma=3)": lambda q, k, p: -(_apart(q, k) ** 2) / 18,
    "distance(power=1)": lambda q, k, p: -_apart(q, k) / mpmath.root(len(q), 4),
    "distance(sigma=3,power=1)": lambda q, k, p: -_apart(q, k) / 3,
    "additive(tanh)": lambda q, k, p: _weighted(p["weight"], q, k, mpmath.tanh),
    "additive(relu)": lambda q, k, p: _weighted(p["weight"], q, k, lambda s: max(s, mpf(0))),
    "gatv2": lambda q, k, p: _weighted(p["weight"], q, k, _leaky),
    "gat": lambda q, k, p: _leaky(_dot(p["query_weight"], q) + _dot(p["key_weight"], k)),
    "gat(tanh)": lambda q, k, p: mpmath.tanh(_dot(p["query_weight"], q) + _dot(p["key_weight"], k)),
    "softcap(0.5)": lambda q, k, p: _capped(_dot(q, k) / mpmath.sqrt(len(q)), 0.5),
    "cosine,softcap(2)": lambda q, k, p: _capped(10 * _dot(q, k) / (_length(q) * _length(k)), 2),
    "gatv2,softcap(0.3)": lambda q, k, p: _capped(_weighted(p["weight"], q, k, _leaky), 0.3),
}
"""By written form; p holds one head's learned numbers by the name of the parameter."""
