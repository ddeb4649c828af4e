"""This machine: our operation beside what PyTorch has, in one run.

For softmax that is `torch.nn.functional.scaled_dot_product_attention`; for other weight functions,
which it does not have, eager code as a user writes it. `benchmarks/` asks the same at length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.errors import ArgumentError
from ogive.kernels import attention, compiled, last_impl
from ogive.lab.machine import environment
from ogive.lab.races import Contender, Race, probe, race

Run = Callable[[Tensor, Tensor, Tensor], Tensor]
HEADS, WIDTH = 8, 64
LENGTHS = (128, 512, 1024)
WEIGHTS = {
    "softmax": "softmax",
    "sigmoid": "sigmoid(bias=-log_n)",
    "tanh": "tanh",
    "relu": "relu(length_power=1)",
}
"""What `eager` computes, and how it is written as a part."""


@dataclass(frozen=True)
class Line:
    """One comparison.

    Attributes:
        weight, mask, length, work: of the call; work is "forward" or "training" (with backward).
        impl: what `auto` chose.
        peer: what stands beside it: "sdpa" or "eager".
        ours_ms, peer_ms: medians.
        ratio: how many times as fast ours is, as (lower quartile, median, upper quartile).
        share: useful operations per second over the measured peak of multiply-adds; None where
            no kernels were compiled and the peak is not known.
    """

    weight: str
    mask: str
    length: int
    work: str
    impl: str
    peer: str
    ours_ms: float
    peer_ms: float
    ratio: tuple[float, float, float]
    share: float | None

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def machine(threads: int) -> dict[str, object]:
    """The processor, versions, our instruction set, and its peak in GFLOP/s on these threads."""
    peak = max(probe(threads) for _ in range(5))
    missing = compiled.missing
    return {
        **environment(),
        "threads": threads,
        "instruction_set": compiled.instruction_set,
        "peak_gflops": None if missing else round(peak / 1e9, 1),
        "missing": missing,
    }


def bench(
    lengths: Sequence[int] = LENGTHS, *, rounds: int = 7, threads: int | None = None
) -> Iterator[Line]:
    """Race four weight functions, plain and causal, forward and with the backward pass.

    Batch 1, 8 heads, width 64, float32. The number of threads is torch's unless given, and torch's
    again afterwards.

    Raises:
        ArgumentError: a length, a number of rounds or of threads below 1.
    """
    for name, numbers in (("lengths", lengths), ("rounds", [rounds]), ("threads", [threads or 1])):
        if not numbers or min(numbers) < 1:
            raise ArgumentError(f"{name} of a bench are at least 1, not {list(numbers)}")
    return _lines(lengths, rounds, torch.get_num_threads() if threads is None else threads)


def _lines(lengths: Sequence[int], rounds: int, threads: int) -> Iterator[Line]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for weight in WEIGHTS:
            for causal in (False, True):
                for length in lengths:
                    for work in ("forward", "training"):
                        yield _line(weight, causal, length, work, rounds)
    finally:
        torch.set_num_threads(before)


def _line(weight: str, causal: bool, length: int, work: str, rounds: int) -> Line:
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, HEADS, length, WIDTH, generator=draw) for _ in range(3)]
    keep = torch.ones(length, length, dtype=torch.bool).tril() if causal else None
    peer = "sdpa" if weight == "softmax" else "eager"
    theirs: Run = partial(eager, weight, keep)
    if peer == "sdpa":
        theirs = partial(F.scaled_dot_product_attention, is_causal=causal)
    ours: Run = partial(attention, weight=WEIGHTS[weight], is_causal=causal)  # type: ignore[assignment]
    make = forward if work == "forward" else training
    found = race({"ours": make(ours, *tensors), peer: make(theirs, *tensors)}, rounds=rounds)
    ours(*tensors)  # alone: a peer that calls the operation would be the last one otherwise
    size = operations(length, causal=causal, backward=work == "training")
    return Line(
        weight,
        "causal" if causal else "none",
        length,
        work,
        last_impl() or "",
        peer,
        *_told(found, peer, size),
    )


def _told(
    found: Race, peer: str, size: float
) -> tuple[float, float, tuple[float, float, float], float | None]:
    ratio, share = found.ratio("ours", peer), found.share("ours", size)
    return (
        round(1e3 * found.time("ours").middle, 4),
        round(1e3 * found.time(peer).middle, 4),
        (round(ratio.low, 3), round(ratio.middle, 3), round(ratio.high, 3)),
        None if math.isnan(share) else round(share, 3),
    )


def eager(weight: str, keep: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What a user writes: scores, the weight function, then the mask where it belongs.

    Args:
        weight: a name in `WEIGHTS`.
        keep: the lower triangle, True = may attend, or None.
        q, k, v: (b, h, l, d).
    """
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if weight == "softmax":
        hidden = scores if keep is None else scores.masked_fill(~keep, -torch.inf)
        return hidden.softmax(-1) @ v
    length = k.shape[-2]
    seen = length if keep is None else torch.arange(1, length + 1).unsqueeze(-1)
    if weight == "sigmoid":
        weights = torch.sigmoid(scores - (math.log(length) if keep is None else seen.log()))  # type: ignore[union-attr]
    else:
        weights = (scores.tanh() if weight == "tanh" else scores.relu()) / seen
    return (weights if keep is None else weights.masked_fill(~keep, 0)) @ v


def forward(run: Callable[..., Tensor], *tensors: Tensor) -> Contender:
    """The forward pass alone, without a graph."""

    def call() -> Tensor:
        with torch.no_grad():
            return run(*tensors)

    return call


def training(run: Callable[..., Tensor], *tensors: Tensor) -> Contender:
    """Forward and backward: gradients of every tensor, from a gradient that is not constant."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    with torch.no_grad():
        out = run(*leaves)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)

    def call() -> tuple[Tensor, ...]:
        return torch.autograd.grad(run(*leaves), leaves, grad)

    return call


def operations(
    length: int,
    *,
    batch: int = 1,
    heads: int = HEADS,
    keys: int | None = None,
    width: int = WIDTH,
    value_width: int | None = None,
    causal: bool = False,
    backward: bool = False,
) -> float:
    """Useful operations of attention's products; a causal call counts half.

    Two products forward, and five more backward, the scores computed again included: the usual
    count for kernels that do not keep the weights (3.5 × forward).
    """
    pairs = 2.0 * batch * heads * length * (length if keys is None else keys)
    scores, values = pairs * width, pairs * (width if value_width is None else value_width)
    total = scores + values + (3 * scores + 2 * values if backward else 0)
    return total / 2 if causal else total
