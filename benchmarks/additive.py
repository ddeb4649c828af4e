"""How fast scores that are sums are, forward and with the backward pass, beside what users write.

    python benchmarks/additive.py [--quick] [--isa avx2] [--only tanh]

Batch 1, 8 heads, width 64, float32, softmax. Eager code builds queries × keys × width numbers;
torch.compile fuses the sum, and then computes an activation for each of them. The fair peer of
additive(tanh) is the same under torch.compile with exponentials that are computed once a row,
tanh(q + k) = 1 − 2 / (1 + e^2q e^2k): what a user who knows the identity gets, with its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Asked, Case, Contender, MemoryCase, compiled_peer, forward, main, training
from torch import Tensor
from torch.nn import functional as F

from ogive.kernels import attention
from ogive.lab.bench import HEADS, WIDTH
from ogive.parts import Sizes, score_from

LENGTHS = (64, 128, 256, 512)
MEMORY_LENGTHS = (256, 512, 1024, 2048, 4096)
EAGER_AT_MOST = 512
"""Longer, what eager code keeps for its gradients is gigabytes."""
LEAKY = partial(F.leaky_relu, negative_slope=0.2)
ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "additive(tanh)": torch.tanh,
    "additive(sigmoid)": torch.sigmoid,
    "gatv2": LEAKY,
}
Run = Callable[..., Tensor]


def inputs(form: str, length: int) -> list[Tensor]:
    """query, key, value and the score's vectors, one or two of (heads, width)."""
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, HEADS, length, WIDTH, generator=draw) for _ in range(3)]
    vectors = [torch.randn(HEADS, WIDTH, generator=draw) / 8 for _ in range(1 + (form == "gat"))]
    return [*tensors, *vectors]


def ours(form: str) -> Run:
    """Our operation of query, key, value and vectors."""
    score = score_from(form).setup(Sizes(HEADS * WIDTH, HEADS, WIDTH))
    names = [name for name, _ in score.named_parameters()]
    for name in names:
        delattr(score, name)  # a parameter; what stands in its place may be any tensor

    def run(q: Tensor, k: Tensor, v: Tensor, *vectors: Tensor) -> Tensor:
        for name, vector in zip(names, vectors, strict=True):
            setattr(score, name, vector)
        return attention(q, k, v, score=score, impl="native")

    return run


def eager(act: Callable[[Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """What a user writes."""
    each = act(q.unsqueeze(-2) + k.unsqueeze(-3)) * w[:, None, None]
    return each.sum(-1).softmax(-1) @ v


def identity(q: Tensor, k: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """What a user writes who knows how tanh of a sum comes from two exponentials."""
    of_query, of_key = (2 * q).exp().unsqueeze(-2), (2 * k).exp().unsqueeze(-3)
    each = w[:, None, None] / (1 + of_query * of_key)
    return (w.sum(-1)[:, None, None] - 2 * each.sum(-1)).softmax(-1) @ v


def static(q: Tensor, k: Tensor, v: Tensor, of_query: Tensor, of_key: Tensor) -> Tensor:
    """gat: two sums for each head, and an activation of all pairs of them."""
    sums = q @ of_query.unsqueeze(-1) + (k @ of_key.unsqueeze(-1)).mT
    return LEAKY(sums).softmax(-1) @ v


def contenders(form: str, compiles: bool) -> dict[str, Run]:
    """By name; ours first."""
    plain = static if form == "gat" else partial(eager, ACTS[form])
    runs = {"ogive native": ours(form), "eager": plain}
    if form == "additive(tanh)":
        runs["identity"] = identity
    if compiles:
        runs["eager compiled"] = compiled_peer(plain)
        if form == "additive(tanh)":
            runs["identity compiled"] = compiled_peer(identity)
    return runs


def speed_cases(asked: Asked) -> Iterator[Case]:
    """Every score, forward and with the backward pass."""
    for form in (*ACTS, "gat"):
        for length in asked.lengths(*(LENGTHS if "tanh" in form else LENGTHS[-1:]), quick=(64,)):
            for work, make in (("forward", forward), ("training", training)):
                runs = contenders(form, compiles=not asked.quick)
                tensors = inputs(form, length)
                yield Case(
                    {"score": form, "work": work, "length": length},
                    {name: make(run, *tensors) for name, run in runs.items()},
                )


def memory_call(contender: str, length: int) -> Contender:
    """Forward and backward of additive(tanh); made in the process that is measured."""
    form = "additive(tanh)"
    return training(contenders(form, compiles=False)[contender], *inputs(form, length))


def memory_cases(asked: Asked) -> Iterator[MemoryCase]:
    """The peak of forward and backward as rows grow."""
    for length in asked.lengths(*MEMORY_LENGTHS, quick=(256,)):
        for contender in ("ogive native", "eager"):
            if contender == "eager" and length > EAGER_AT_MOST:
                continue
            labels = {"score": "additive(tanh)", "work": "memory", "length": length}
            yield MemoryCase(labels, contender, memory_call, (contender, length), (contender, 16))


def cases(asked: Asked) -> Iterator[Case | MemoryCase]:
    """Time, then memory."""
    yield from speed_cases(asked)
    yield from memory_cases(asked)


if __name__ == "__main__":
    main(__doc__, cases)
