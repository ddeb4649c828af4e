"""Numbers of 64 bits of mantissa that the oracle's formulas run on, with their gradients.

Judged against the oracle in float64, a right kernel in float64 meets the oracle's own roundings,
which are as large as its own. `Wide` holds numpy's long double and answers to the functions of
torch that the formulas call, so the same formulas give a truth with three more digits. Slopes
that cancel in their usual form (of tanh and the logistic curve) are written so that they do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

LONG = np.longdouble
WIDER = bool(np.finfo(LONG).nmant > 60)
"""Whether this machine's long double has more digits than float64 at all."""
_count = itertools.count()


class Wide:
    """An array of long doubles that remembers what it was made of."""

    dtype = torch.float64  # what the formulas ask for when they make a tensor of their own

    def __init__(self, data: Any, parents: Iterable[tuple[Any, Callable]] = ()) -> None:
        self.data = np.asarray(data, dtype=LONG)
        self.parents = [(p, back) for p, back in parents if isinstance(p, Wide)]
        self.born, self.grad = next(_count), None

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return FUNCTIONS[function.__name__](*args, **(kwargs or {}))

    def backward(self, grad: Any) -> None:
        """Adds ∂/∂x to `grad` of every x that this was made of."""
        self.grad = np.asarray(grad, dtype=LONG)
        waiting, order = {self}, []
        while waiting:
            one = waiting.pop()
            order.append(one)
            waiting |= {p for p, _ in one.parents}
        for one in sorted(set(order), key=lambda w: -w.born):
            for parent, back in one.parents if one.grad is not None else ():
                more = _fit(back(one.grad), parent.shape)
                parent.grad = more if parent.grad is None else parent.grad + more

    def halves(self) -> tuple[Tensor, Tensor]:
        """Two float64 tensors whose sum this is."""
        return halves(self.data)

    # --- shapes -------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def detach(self) -> Wide:
        return Wide(self.data)

    def to(self, _dtype: Any) -> Wide:
        return self

    def reshape(self, *shape: int) -> Wide:
        return Wide(self.data.reshape(shape), [(self, lambda g: g.reshape(self.shape))])

    view = reshape

    def expand(self, *shape: int) -> Wide:
        return Wide(np.broadcast_to(self.data, shape), [(self, lambda g: g)])

    def unsqueeze(self, axis: int) -> Wide:
        return Wide(np.expand_dims(self.data, axis), [(self, lambda g: g.reshape(self.shape))])

    def squeeze(self, axis: int) -> Wide:
        return Wide(np.squeeze(self.data, axis), [(self, lambda g: g.reshape(self.shape))])

    def __getitem__(self, at: Any) -> Wide:
        at = tuple(_raw(x) for x in at) if isinstance(at, tuple) else _raw(at)

        def back(grad):
            whole = np.zeros_like(self.data)
            np.add.at(whole, at, grad)
            return whole

        return Wide(self.data[at], [(self, back)])

    def index_copy(self, axis: int, at: Tensor, rows: Wide) -> Wide:
        assert axis == 0
        whole = self.data.copy()
        whole[at.numpy()] = rows.data
        return Wide(whole, [(rows, lambda g: g[at.numpy()])])

    def new_zeros(self, *shape: int) -> Wide:
        return Wide(np.zeros(shape))

    def new_full(self, shape: Any, number: float) -> Wide:
        return Wide(np.full(shape, number))

    # --- arithmetic ---------------------------------------------------------------------------

    def __neg__(self) -> Wide:
        return Wide(-self.data, [(self, lambda g: -g)])

    def __add__(self, other: Any) -> Wide:
        return Wide(self.data + _raw(other), [(self, lambda g: g), (other, lambda g: g)])

    def __mul__(self, other: Any) -> Wide:
        mine, its = self.data, _raw(other)
        return Wide(mine * its, [(self, lambda g: g * its), (other, lambda g: g * mine)])

    def __truediv__(self, other: Any) -> Wide:
        its = _raw(other)
        made = self.data / its
        return Wide(made, [(self, lambda g: g / its), (other, lambda g: -g * made / its)])

    def __rtruediv__(self, other: Any) -> Wide:
        return Wide(_raw(other)) / self

    def __sub__(self, other: Any) -> Wide:
        return self + -_lift(other)

    def __rsub__(self, other: Any) -> Wide:
        return -self + other

    __radd__, __rmul__ = __add__, __mul__

    def __matmul__(self, other: Wide) -> Wide:
        mine, its = self.data, other.data
        back = [
            (self, lambda g: g @ its.swapaxes(-1, -2)),
            (other, lambda g: mine.swapaxes(-1, -2) @ g),
        ]
        return Wide(mine @ its, back)

    def __gt__(self, other: Any) -> Tensor:
        return torch.from_numpy(self.data > _raw(other))

    def __lt__(self, other: Any) -> Tensor:
        return torch.from_numpy(self.data < _raw(other))

    def __ge__(self, other: Any) -> Tensor:
        return torch.from_numpy(self.data >= _raw(other))

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(self.data == _raw(other))

    __hash__ = object.__hash__

    # --- along rows ---------------------------------------------------------------------------

    def sum(self, axis: int, keepdim: bool = False) -> Wide:
        def back(grad):
            return np.broadcast_to(grad if keepdim else np.expand_dims(grad, axis), self.shape)

        return Wide(self.data.sum(axis, keepdims=keepdim), [(self, back)])

    def max(self, axis: int, keepdim: bool = False) -> SimpleNamespace:
        assert keepdim
        return SimpleNamespace(values=self._taken(self.data.argmax(axis, keepdims=True), axis))

    def sort(self, axis: int, descending: bool = False) -> SimpleNamespace:
        assert descending
        return SimpleNamespace(values=self._taken((-self.data).argsort(axis, kind="stable"), axis))

    def cumsum(self, axis: int) -> Wide:
        def back(grad):
            return np.flip(np.flip(grad, axis).cumsum(axis), axis)

        return Wide(self.data.cumsum(axis), [(self, back)])

    def _taken(self, index: np.ndarray, axis: int) -> Wide:
        def back(grad):
            whole = np.zeros_like(self.data)
            np.put_along_axis(whole, index, grad, axis)
            return whole

        return Wide(np.take_along_axis(self.data, index, axis), [(self, back)])

    # --- functions ----------------------------------------------------------------------------

    def _curve(self, value: np.ndarray, slope: Callable[[], np.ndarray] | np.ndarray) -> Wide:
        return Wide(value, [(self, lambda g: g * (slope() if callable(slope) else slope))])

    def exp(self) -> Wide:
        value = np.exp(self.data)
        return self._curve(value, value)

    def expm1(self) -> Wide:
        return self._curve(np.expm1(self.data), lambda: np.exp(self.data))

    def log(self) -> Wide:
        return self._curve(np.log(self.data), lambda: 1 / self.data)

    def log1p(self) -> Wide:
        return self._curve(np.log1p(self.data), lambda: 1 / (1 + self.data))

    def sqrt(self) -> Wide:
        value = np.sqrt(self.data)
        return self._curve(value, lambda: 1 / (2 * value))

    def square(self) -> Wide:
        return self._curve(self.data * self.data, lambda: 2 * self.data)

    def abs(self) -> Wide:
        return self._curve(np.abs(self.data), lambda: np.sign(self.data))

    def sign(self) -> Wide:
        return Wide(np.sign(self.data))

    def clamp_min(self, low: float) -> Wide:
        return self._curve(np.maximum(self.data, low), lambda: (self.data >= low).astype(LONG))

    def relu(self) -> Wide:
        return self._curve(np.maximum(self.data, 0), lambda: (self.data > 0).astype(LONG))

    def tanh(self) -> Wide:
        e = np.exp(-2 * np.abs(self.data))
        return self._curve(np.tanh(self.data), 4 * e / (1 + e) ** 2)

    def sigmoid(self) -> Wide:
        e = np.exp(-np.abs(self.data))
        return self._curve(np.where(self.data < 0, e, 1) / (1 + e), e / (1 + e) ** 2)

    def erf(self) -> Wide:
        slope = 2 / np.sqrt(LONG(np.pi) + LONG(1.2246467991473532e-16)) * np.exp(-(self.data**2))
        return self._curve(_erf(self.data, slope), slope)


def _erf(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """e^(−x²) times a series of positive terms; beyond 7 no digit is left to find."""
    near = np.clip(x, -7, 7)
    term, total = near, near.copy()
    for k in range(1, 200):
        term = term * (2 * near * near) / (2 * k + 1)
        total = total + term
    return np.where(np.abs(x) < 7, slope * total, np.sign(x))


def _where(condition: Tensor, left: Any, right: Any) -> Wide:
    chosen, a, b = condition.numpy(), _raw(left), _raw(right)
    back = [(left, lambda g: np.where(chosen, g, 0)), (right, lambda g: np.where(chosen, 0, g))]
    return Wide(np.where(chosen, a, b), back)


def _cat(parts: Iterable[Wide]) -> Wide:
    parts = list(parts)
    ends = np.cumsum([len(p.data) for p in parts])
    cuts = [slice(end - len(p.data), end) for p, end in zip(parts, ends, strict=True)]
    back = [(p, lambda g, cut=cut: g[cut]) for p, cut in zip(parts, cuts, strict=True)]
    return Wide(np.concatenate([p.data for p in parts]), back)


def _maximum(left: Any, right: Any) -> Wide:
    return Wide(np.maximum(_raw(left), _raw(right)))  # the formulas shift by it, without gradient


def _full_like(like: Wide, number: float) -> Wide:
    return Wide(np.full(like.shape, number))


_METHODS = ("exp", "expm1", "log", "log1p", "sqrt", "sign", "relu", "tanh", "sigmoid", "erf")
FUNCTIONS: dict[str, Callable] = {
    **{name: getattr(Wide, name) for name in _METHODS},
    "where": _where,
    "cat": _cat,
    "maximum": _maximum,
    "full_like": _full_like,
    "zeros_like": lambda like: _full_like(like, 0),
    "add": lambda a, b: _lift(b) + a,
    "mul": lambda a, b: _lift(b) * a,
    "sub": lambda a, b: _lift(a) - b,
    "rsub": lambda b, a: _lift(a) - b,
    "div": lambda a, b: _lift(a) / b,
}


def halves(numbers: np.ndarray) -> tuple[Tensor, Tensor]:
    """Two float64 tensors whose sum the numbers are."""
    high = numbers.astype(np.float64)
    with np.errstate(invalid="ignore"):
        low = np.where(np.isfinite(high), numbers - high, 0).astype(np.float64)
    return torch.from_numpy(high), torch.from_numpy(low)


def _raw(x: Any) -> Any:
    if isinstance(x, Wide):
        return x.data
    return x.detach().numpy() if isinstance(x, Tensor) else x


def _lift(x: Any) -> Wide:
    return x if isinstance(x, Wide) else Wide(_raw(x))


def _fit(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of a broadcast: summed over the axes that it made."""
    grad = np.asarray(grad, dtype=LONG)
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))
    long = tuple(axis for axis, n in enumerate(shape) if n == 1 and grad.shape[axis] != 1)
    return grad.sum(long, keepdims=True) if long else grad
