"""sparsemax and entmax15 in the kernels: exact thresholds, ties, rows of nothing, linear memory."""

from __future__ import annotations

import pytest
import torch

from kernels import cases, peak
from kernels.cases import Case, build_call
from ogive.kernels import attention, compiled
from ogive.parts import build

pytestmark = pytest.mark.skipif(
    compiled.missing is not None, reason=f"no kernels were compiled here: {compiled.missing}"
)
SETS = [] if compiled.missing else compiled.supported()
WEIGHTS = ("sparsemax", "entmax15")


def weights_of(scores, weight, **more):
    """The weights of rows of scores: a bias over products that are zero, and values that are one
    key each."""
    rows, keys = scores.shape
    query, key = scores.new_zeros(1, 1, rows, 1), scores.new_zeros(1, 1, keys, 1)
    value = torch.eye(keys, dtype=scores.dtype)[None, None]
    bias = scores[None, None]
    out = attention(query, key, value, weight=weight, attn_bias=bias, impl="native", **more)
    return out[0, 0]


def slopes_of(scores, weight, grads):
    scores = scores.clone().requires_grad_()
    return torch.autograd.grad((weights_of(scores, weight) * grads).sum(), scores)[0]


EXACT = {
    "all alike": ([2.0] * 8, [0.125] * 8, [0.125] * 8),
    "one alone": ([0.0, -9.0, -2.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
    "at the end of the support": ([1.0, 0.0, -1.0], [1.0, 0.0, 0.0], None),
    "two that tie, and one below": ([0.25, 0.25, -0.25], [0.5, 0.5, 0.0], None),
    "large ones": ([2.0**20, 2.0**20 - 0.5, 0.0], [0.75, 0.25, 0.0], None),
}


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("name", EXACT)
def test_thresholds_are_exact(name, instructions, monkeypatch):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    scores, flat, bent = EXACT[name]
    for dtype in (torch.float32, torch.float64):
        row = torch.tensor([scores], dtype=dtype)
        assert weights_of(row, "sparsemax").tolist() == [flat]
        if bent is not None:
            found = weights_of(row, "entmax15")[0]
            truth, near = torch.tensor(bent, dtype=dtype), torch.finfo(dtype).eps
            assert torch.equal(found > 0, truth > 0)
            torch.testing.assert_close(found, truth, rtol=2 * near, atol=0)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_long_rows_with_ties_and_holes(weight, instructions, monkeypatch):
    """Scores on a grid tie by the dozen; some are hidden by −∞, one row is hidden whole."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    draw = torch.Generator().manual_seed(4)
    scores = torch.randint(-40, 41, (67, 700), generator=draw) / 32
    scores = torch.where(torch.rand(67, 700, generator=draw) < 0.2, -torch.inf, scores)
    scores[5] = -torch.inf
    grads = torch.randn(67, 700, generator=draw)
    part, keep = build("weight", weight), ~scores.isneginf()
    exact = torch.where(keep, scores, 0).double().requires_grad_()
    truth = part(exact, keep)
    found = weights_of(scores, weight)
    assert not found[5].any()
    assert torch.equal(found > 0, truth > 0)
    torch.testing.assert_close(found.double(), truth.detach(), rtol=0, atol=3e-7)
    slopes = slopes_of(scores, weight, grads)
    right = torch.autograd.grad((truth * grads).sum(), exact)[0]
    torch.testing.assert_close(slopes.double(), right, rtol=0, atol=2e-6)
    assert not slopes[5].any()


@pytest.mark.parametrize("instructions", SETS)
def test_one_key_alone_weighs_one_backward(instructions, monkeypatch):
    """The square showed twice how a threshold below −1 was rounded: 1.24 times what R1 allows."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    draw = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        for size in (1e-3, 0.1, 1, 30):
            query, key = torch.randn(2, 1, 50, 1, 1, generator=draw, dtype=dtype) * size
            value = torch.ones(1, 50, 1, 1, dtype=dtype, requires_grad=True)
            out = attention(query, key, value, weight="entmax15", impl="native")
            (grad,) = torch.autograd.grad(out.sum(), value)
            assert torch.equal(grad, torch.ones_like(grad))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_rows_sum_to_one_and_dropping_rescales(weight):
    scores = torch.randn(30, 300, generator=torch.Generator().manual_seed(1))
    plain = weights_of(scores, weight)
    torch.testing.assert_close(plain.sum(-1), torch.ones(30))
    torch.manual_seed(0)
    dropped = weights_of(scores, weight, dropout_p=0.5)
    stay = dropped > 0
    assert torch.equal(dropped[stay], 2 * plain[stay])
    assert 0.3 < float(stay.sum() / (plain > 0).sum()) < 0.7


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", ["additive(tanh)", "additive(gelu)", "gat", "gatv2"])
def test_of_sums_they_keep_the_rule(score, weight, count):
    """Many keys, so that several tiles bring scores to a row, and few, so that ties are likely.

    Few queries meet many keys, since the oracle takes its time over each.
    """
    lines = []
    sizes = ((27, 3, 2), (27, 40, 2), (7, 129, 1), (7, 300, 1), (7, 513, 1))
    for seed, (queries, keys, heads) in enumerate(sizes):
        case = Case(seed, score, weight, queries=queries, keys=keys, heads=heads, width=9)
        lines += cases.broken_by(build_call(case), ("native",))
    assert not lines, "\n".join(lines)
    count("additive", 5)


@pytest.mark.parametrize("score", ["dot", "additive(tanh)", "gat"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_memory_is_linear(weight, score):
    """4,096 × 4,096 pairs are 64 MB in float32: neither pass holds a quarter of that."""
    grown = peak.over_baseline(score=score, weight=weight, length=4096, impl="native")
    assert grown < 16 * 2**20


# --- wrong twins ------------------------------------------------------------------------------


def test_a_mean_over_all_that_is_seen_would_be_caught():
    """Sparsemax whose gradient takes its mean over the row instead of over the support."""
    scores = torch.randn(20, 50, generator=torch.Generator().manual_seed(2))
    grads = torch.randn(20, 50, generator=torch.Generator().manual_seed(3))
    inside = weights_of(scores, "sparsemax") > 0
    right = slopes_of(scores, "sparsemax", grads)
    mean = (grads * inside).sum(-1, keepdim=True) / inside.sum(-1, keepdim=True)
    torch.testing.assert_close(right, torch.where(inside, grads - mean, 0))
    wrong = torch.where(inside, grads - grads.mean(-1, keepdim=True), 0)
    assert ((right - wrong).abs().amax(-1) > 1e-3).all()
