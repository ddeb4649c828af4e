"""The static score gat over all pairs, compiled: act(a_q·q + a_k·k), additive of one number.

Heads that share keys have vectors of their own for them, which is where a reduction goes wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import cases, oracle
from kernels.cases import Case, build_call, random_case
from ogive.errors import ImplUnavailable
from ogive.kernels import attention, compiled
from ogive.parts import Score, Sizes, build

pytestmark = pytest.mark.skipif(bool(compiled.missing), reason=str(compiled.missing))


def gat_case(seed: int, act: str, **fixed) -> Case:
    pick = random.Random(seed)
    drawn = {"dtype": torch.float32, **fixed}
    case = random_case(seed, score=f"gat({act})", **drawn)
    weight = case.weight.split("(")[0]
    # A sum of scores of both signs may nearly vanish; what is divided by it is beyond float16 in
    # truth, and infinite in the definition as well.
    too_large = weight == "linear" and case.dtype == torch.float16
    if not too_large:
        return case
    return random_case(seed, score=f"gat({act})", weight=pick.choice(("softmax", "tanh")), **drawn)


@pytest.mark.parametrize("act", oracle.ACTIVATIONS)
def test_every_activation_keeps_the_rule(act, count, nan_memory):
    first = 3_200_000 + 1_000 * list(oracle.ACTIVATIONS).index(act)
    lines = []
    for seed in range(first, first + 16):
        lines += cases.broken_by(build_call(gat_case(seed, act)), ("native",))
    assert not lines, "\n".join(lines)
    count("gat", 16)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(dtype, count):
    lines = []
    for seed in range(3_300_000, 3_300_012):
        case = gat_case(seed, ("tanh", "leaky_relu", "silu")[seed % 3], dtype=dtype)
        lines += cases.broken_by(build_call(case), ("native",))
    assert not lines, "\n".join(lines)
    count("gat", 12)


@pytest.mark.parametrize("size", [1e-20, 1e-3, 30.0, 1e6])
def test_magnitudes(size, count):
    lines = []
    for act in ("tanh", "sigmoid", "leaky_relu"):
        call = build_call(Case(36, f"gat({act})", queries=20, keys=30, width=7, group=2, heads=4))
        call.score.query_weight.data *= size
        lines += cases.broken_by(call, ("native",))
    assert not lines, "\n".join(lines)
    count("gat", 3)


def grouped() -> tuple[Score, list[Tensor]]:
    """Four query heads on two key heads, in float64."""
    score = build("score", "gat(tanh)").setup(Sizes(20, 4, 5)).double()
    draw = torch.Generator().manual_seed(2)
    shapes = ((4, 4), (2, 6), (2, 6))
    return score, [
        torch.randn(1, heads, length, 5, generator=draw, dtype=torch.float64, requires_grad=True)
        for heads, length in shapes
    ]


def test_gradients_of_the_kernels_themselves(count):
    score, tensors = grouped()
    vectors = [w.detach().clone().requires_grad_() for w in score.parameters()]
    del score.query_weight, score.key_weight

    def run(q: Tensor, k: Tensor, v: Tensor, of_query: Tensor, of_key: Tensor) -> Tensor:
        score.query_weight, score.key_weight = of_query, of_key
        return attention(q, k, v, score=score, enable_gqa=True, impl="native")

    assert torch.autograd.gradcheck(run, (*tensors, *vectors))
    assert torch.autograd.gradgradcheck(run, (*tensors, *vectors))
    count("gat", 2)


def test_bits_depend_on_no_threads(count):
    score = build("score", "gat").setup(Sizes(16, 2, 8))
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 2, 300, 8, generator=draw) for _ in range(3)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [t.clone().requires_grad_() for t in tensors]
            out = attention(*leaves, score=score, is_causal=True, impl="native")
            grads = torch.autograd.grad(out.square().sum(), [*leaves, *score.parameters()])
            found.append((out, *grads))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    count("gat", 3)


def test_what_is_refused_is_named():
    q = torch.randn(1, 2, 3, 4)
    score = build("score", "gat(power(3))").setup(Sizes(8, 2, 4))
    with pytest.raises(ImplUnavailable, match=r"gat score with power"):
        attention(q, q, q, score=score, impl="native")


class Twin(Score, listed=False):
    """gat(tanh) with something wrong."""

    def __init__(self, right: Score, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.query_weight, self.key_weight = right.query_weight, right.key_weight
        self.change = change

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        of_key = key @ self.change(self.key_weight).unsqueeze(-1)
        return torch.tanh(query @ self.query_weight.unsqueeze(-1) + of_key.mT)


WRONG = {
    "the group's first vector": lambda w: w[::2].repeat_interleave(2, 0),
    "heads the other way": lambda w: w.flip(0),
    "no gradient": torch.detach,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_score_is_caught(name, record_property):
    call = build_call(Case(37, "gat(tanh)", queries=20, keys=30, width=7, group=2, heads=4))
    assert not cases.broken_by(call, ("native",))

    def run(*, score: Score, impl: str, **rest):
        return attention(score=Twin(score, WRONG[name]), impl=impl, **rest)

    assert cases.broken(call, {"twin": cases.ours(call, "reference", run)})
    record_property("twin", f"gat: {name}")
