"""How fast the forward pass is, for every weight function, beside what PyTorch's users have.

    python benchmarks/attention.py [--quick] [--isa avx2] [--only relu]

Batch 1, 8 heads, width 64, float32, plain and causal. Beside ours stand torch's own operation
(softmax, whatever our weight is: what attention costs today), eager code, the same and
FlexAttention under torch.compile, x-transformers, and the entmax package.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Asked, Case, compiled_peer, forward, main, operations
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import ogive
from ogive.kernels import attention
from ogive.lab.bench import HEADS, WIDTH, eager
from ogive.parts import Sizes, build, catalogue
from ogive.parts.part import Part

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
FULL = ("softmax", "sigmoid", "tanh", "relu")
"""These race at every length, the other weight functions at two."""
ROWS = ("sparsemax", "entmax15")
LINEAR = ("identity", "linear")
"""They need not compute all pairs: a share of peak would count work that nobody did."""
COMPILED_AT = (512, 2048)
"""torch.compile takes 5 to 20 seconds a shape."""
Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def inputs(length: int) -> list[Tensor]:
    """query, key and value."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(1, HEADS, length, WIDTH, generator=draw) for _ in range(3)]


def _flex(length: int, causal: bool) -> Run:
    """FlexAttention, which has no weight function but softmax."""
    if not causal:
        return flex_attention
    below = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device="cpu")
    return partial(flex_attention, block_mask=below)


def _cross(causal: bool) -> Run:
    """x-transformers' attention core by its own eager code; its fast path is F.sdpa."""
    from x_transformers.attend import Attend

    core = Attend(causal=causal, heads=HEADS, dropout=0.0, flash=False).eval()
    return lambda q, k, v: core(q, k, v)[0]


def _package(weight: str, keep: Tensor | None) -> Run:
    """The entmax package's row-wise functions on eager scores."""
    import entmax

    rows = getattr(entmax, weight)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if keep is not None:
            scores = scores.masked_fill(~keep, -1e9)  # all the package takes
        return rows(scores, dim=-1) @ v

    return run


def weights() -> dict[str, Part]:
    """Every weight function of the catalogue, set up for these heads."""
    found = {}
    for name, member in catalogue("weight").items():
        if member.__module__.startswith("ogive.parts"):
            part = build("weight", name if name == "sigmoid" else member.example or name)
            found[name] = part.setup(Sizes(HEADS * WIDTH, HEADS, WIDTH))
    return found


def contenders(
    name: str, part: Part, tensors: list[Tensor], causal: bool, compiles: bool
) -> dict[str, Callable]:
    """By name; ours first."""
    length = tensors[0].shape[-2]
    keep = torch.ones(length, length, dtype=torch.bool).tril() if causal else None
    options = {"weight": part, "is_causal": causal}
    runs: dict[str, Run] = {}
    if _takes(tensors, options, "native"):
        runs["ogive native"] = lambda q, k, v: attention(q, k, v, impl="native", **options)
    runs["ogive auto"] = lambda q, k, v: attention(q, k, v, **options)
    sdpa = "F.sdpa" if name == "softmax" else "F.sdpa (softmax)"
    runs[sdpa] = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    if name in FULL:
        plain = partial(eager, name, keep)
        runs["eager"] = plain
        if compiles:
            runs["eager compiled"] = compiled_peer(plain)
    if name == "softmax" and compiles:
        runs["FlexAttention compiled"] = compiled_peer(_flex(length, causal))
    if name == "softmax" and importlib.util.find_spec("x_transformers"):
        runs["x-transformers"] = _cross(causal)
    if name in ROWS and importlib.util.find_spec("entmax"):
        runs["entmax"] = _package(name, keep)
    return {peer: forward(run, *tensors) for peer, run in runs.items()}


def _takes(tensors: list[Tensor], options: dict, impl: str) -> bool:
    try:
        attention(*tensors, impl=impl, **options)
    except ogive.OgiveError:
        return False
    return True


def cases(asked: Asked) -> Iterator[Case]:
    """Every weight function, plain and causal."""
    for name, part in weights().items():
        some = name in FULL
        lengths = asked.lengths(*(LENGTHS if some else (512, 2048)), quick=(64, 512))
        if asked.quick and not some:
            continue
        for length in lengths:
            tensors = inputs(length)
            for causal in (False, True):
                compiles = some and not asked.quick and length in COMPILED_AT
                yield Case(
                    {"weight": str(part), "mask": "causal" if causal else "none", "length": length},
                    contenders(name, part, tensors, causal, compiles),
                    None if name in LINEAR else operations(length, causal=causal),
                )


if __name__ == "__main__":
    main(__doc__, cases)
