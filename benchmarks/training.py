"""How fast forward and backward are together, and how much memory they take as rows grow.

    python benchmarks/training.py [--quick] [--isa avx2] [--only dropout]

Batch 1, 8 heads, width 64, float32 unless said. Beside ours stand torch's own operation and eager
code, plain and under torch.compile. Dropout, a bias that learns, values of another width and
bfloat16 are where torch's operation leaves its fast path. FlexAttention has no backward pass on a
CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from harness import (
    Asked,
    Case,
    Contender,
    MemoryCase,
    compiled_peer,
    main,
    operations,
    training,
)
from torch import Tensor
from torch.nn import functional as F

from ogive.kernels import attention
from ogive.lab.bench import HEADS, WEIGHTS, WIDTH, eager

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
COMPILED_AT = (512, 2048)
MEMORY_LENGTHS = (1024, 2048, 4096, 8192, 16384)
Run = Callable[..., Tensor]


def inputs(length: int, value_width: int = WIDTH, dtype: torch.dtype = torch.float32) -> list:
    """query, key and value."""
    draw = torch.Generator().manual_seed(0)
    widths = (WIDTH, WIDTH, value_width)
    return [torch.randn(1, HEADS, length, w, generator=draw).to(dtype) for w in widths]


def ours(weight: str, impl: str = "native", **options: Any) -> Run:
    """Our operation of query, key, value and, where there is a fourth, a bias."""

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return attention(q, k, v, weight=WEIGHTS[weight], attn_bias=bias, impl=impl, **options)

    return run


def theirs(**options: Any) -> Run:
    """torch's operation."""

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, **options)

    return run


def plain_cases(asked: Asked) -> Iterator[Case]:
    """Four weight functions, plain and causal, at every length."""
    for weight in WEIGHTS if not asked.quick else ("softmax", "sigmoid"):
        for length in asked.lengths(*LENGTHS, quick=(128, 512)):
            for causal in (False, True):
                keep = torch.ones(length, length, dtype=torch.bool).tril() if causal else None
                sdpa = "F.sdpa" if weight == "softmax" else "F.sdpa (softmax)"
                plain = partial(eager, weight, keep)
                runs = {
                    "ogive native": ours(weight, is_causal=causal),
                    "ogive auto": ours(weight, "auto", is_causal=causal),
                    sdpa: theirs(is_causal=causal),
                    "eager": plain,
                }
                if length in COMPILED_AT and not asked.quick:
                    runs["eager compiled"] = compiled_peer(plain)
                labels = {"case": weight, "mask": "causal" if causal else "none", "length": length}
                yield _case(labels, runs, inputs(length), causal)


def harder_cases(asked: Asked) -> Iterator[Case]:
    """What takes torch's operation off its fast path."""
    for length in asked.lengths(256, 512, 1024, 2048, quick=(256,)):
        yield _case(
            {"case": "softmax, dropout 0.1", "mask": "none", "length": length},
            {
                "ogive native": ours("softmax", dropout_p=0.1),
                "F.sdpa (its own pattern)": theirs(dropout_p=0.1),
            },
            inputs(length),
        )
        bias = torch.randn(1, HEADS, length, length, generator=torch.Generator().manual_seed(1))
        yield _case(
            {"case": "softmax, learned bias", "mask": "none", "length": length},
            {"ogive native": ours("softmax"), "F.sdpa": theirs()},
            [*inputs(length), bias],
        )
        yield _case(
            {"case": "softmax, values of width 128", "mask": "none", "length": length},
            {"ogive native": ours("softmax"), "F.sdpa": theirs()},
            inputs(length, 128),
        )
        for causal in (False, True):
            runs = {
                "ogive native": ours("softmax", is_causal=causal),
                "F.sdpa": theirs(is_causal=causal),
            }
            mask = "causal" if causal else "none"
            labels = {"case": "softmax, bfloat16", "mask": mask, "length": length}
            yield _case(labels, runs, inputs(length, dtype=torch.bfloat16), causal)


def _case(
    labels: dict[str, Any], runs: dict[str, Run], tensors: list[Tensor], causal: bool = False
) -> Case:
    length, width = tensors[0].shape[-2], tensors[2].shape[-1]
    work = operations(length, value_width=width, causal=causal, backward=True)
    contenders = {}
    for name, run in runs.items():
        try:
            contenders[name] = training(run, *tensors)
        except RuntimeError as error:  # torch held to AVX2 cannot pack halves where AMX is
            if name.startswith("ogive"):
                raise
            print(f"{name} is left out: {error}")
    return Case(labels, contenders, work)


def memory_call(contender: str, weight: str, length: int) -> Contender:
    """Forward and backward of one contender; made in the process that is measured."""
    runs = {
        "ogive native": ours(weight),
        "F.sdpa": theirs(),
        "eager": partial(eager, weight, None),
    }
    run, tensors = runs[contender], inputs(length)
    leaves = [t.requires_grad_() for t in tensors]
    grad = torch.ones(1, HEADS, length, WIDTH)
    return lambda: torch.autograd.grad(run(*leaves), leaves, grad)


def memory_cases(asked: Asked) -> Iterator[MemoryCase]:
    """The peak of forward and backward as rows grow."""
    for length in asked.lengths(*MEMORY_LENGTHS, quick=(1024,)):
        for weight, contender in (
            ("softmax", "ogive native"),
            ("sigmoid", "ogive native"),
            ("softmax", "F.sdpa"),
            ("sigmoid", "eager"),
        ):
            labels = {"case": f"memory, {weight}", "length": length}
            arguments, small = ((contender, weight, n) for n in (length, 64))
            yield MemoryCase(labels, contender, memory_call, arguments, small)


def cases(asked: Asked) -> Iterator[Case | MemoryCase]:
    """Plain and causal, then what is harder, then memory."""
    yield from plain_cases(asked)
    yield from harder_cases(asked)
    yield from memory_cases(asked)


if __name__ == "__main__":
    main(__doc__, cases)
