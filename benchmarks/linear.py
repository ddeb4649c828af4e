"""How fast linear attention is, plain and causal, forward and with the backward pass.

    python benchmarks/linear.py [--quick] [--isa avx2] [--only causal]

Batch 1, 8 heads, float32, weights that are positive scores over their sum. Beside ours stand eager
code that sums keys first, Q (KᵀV), the same under torch.compile, and code that builds all pairs.
Causal eager code does as libraries do: chunks of 64 queries, with the sum of what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Asked, Case, Contender, MemoryCase, compiled_peer, forward, main, training
from torch import Tensor

from ogive.kernels import attention
from ogive.lab.bench import HEADS

LENGTHS = (256, 1024, 4096)
WIDTHS = (32, 64, 128)
CHUNK = 64
COMPILED_AT = (1024,)
PAIRS_AT_MOST = 1024
MEMORY_LENGTHS = (1024, 4096, 16384)
Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def inputs(length: int, width: int) -> list[Tensor]:
    """query and key as a positive feature map leaves them, and value."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, length, width, generator=draw) for _ in range(3))
    return [q.abs() + 0.1, k.abs() + 0.1, v]


def ours(causal: bool) -> Run:
    """Our operation."""
    return partial(attention, weight="linear(normalise=true)", is_causal=causal, impl="linear")


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Keys first."""
    return (q @ (k.mT @ v)) / (q @ k.sum(-2, keepdim=True).mT)


def causal_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Chunks of queries: all pairs within one, and the sum of what came before it."""
    q, k, v = (t.unflatten(2, (-1, CHUNK)) for t in (q, k, v))
    products, sums = k.mT @ v, k.sum(-2, keepdim=True)
    before, total = products.cumsum(2) - products, sums.cumsum(2) - sums
    near = (q @ k.mT).tril()
    over = q @ before + near @ v
    return (over / (q @ total.mT + near.sum(-1, keepdim=True))).flatten(2, 3)


def all_pairs(causal: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scores of all pairs over their sums."""
    scores = q @ k.mT
    scores = scores.tril() if causal else scores
    return scores @ v / scores.sum(-1, keepdim=True)


def contenders(causal: bool, length: int, compiles: bool) -> dict[str, Run]:
    """By name; ours first."""
    eager = causal_chunks if causal else plain
    runs = {"ogive linear": ours(causal), "eager": eager}
    if length <= PAIRS_AT_MOST:
        runs["all pairs"] = partial(all_pairs, causal)
    if compiles:
        runs["eager compiled"] = compiled_peer(eager)
    return runs


def products(length: int, width: int, causal: bool, work: str) -> float:
    """Useful operations: two products with a state, and half of each chunk's pairs, twice."""
    pairs = 2 * length * CHUNK * width / 2 if causal else 0
    forward_only = 2 * HEADS * (2 * length * width**2 + pairs)
    return forward_only * (3 if work == "training" else 1)


def speed_cases(asked: Asked) -> Iterator[Case]:
    """Widths and lengths, plain and causal."""
    for width in WIDTHS if not asked.quick else (32,):
        for length in asked.lengths(*LENGTHS, quick=(128,)):
            for causal in (False, True):
                for work, make in (("forward", forward), ("training", training)):
                    compiles = not asked.quick and length in COMPILED_AT
                    runs = contenders(causal, length, compiles)
                    tensors = inputs(length, width)
                    labels = {"mask": "causal" if causal else "none", "work": work}
                    yield Case(
                        {**labels, "width": width, "length": length},
                        {name: make(run, *tensors) for name, run in runs.items()},
                        products(length, width, causal, work),
                    )


def memory_call(contender: str, causal: bool, length: int) -> Contender:
    """Forward and backward; made in the process that is measured."""
    return training(contenders(causal, length, False)[contender], *inputs(length, 64))


def memory_cases(asked: Asked) -> Iterator[MemoryCase]:
    """The peak of forward and backward as rows grow."""
    for causal in (False, True):
        for length in asked.lengths(*MEMORY_LENGTHS, quick=(1024,)):
            for contender in ("ogive linear", "eager"):
                labels = {"mask": "causal" if causal else "none", "work": "memory"}
                arguments, small = ((contender, causal, n) for n in (length, CHUNK))
                labels = {**labels, "width": 64, "length": length}
                yield MemoryCase(labels, contender, memory_call, arguments, small)


def cases(asked: Asked) -> Iterator[Case | MemoryCase]:
    """Time, then memory."""
    yield from speed_cases(asked)
    yield from memory_cases(asked)


if __name__ == "__main__":
    main(__doc__, cases)
