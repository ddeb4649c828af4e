"""Every weight function: what a mask hides, what n counts, and the numbers of the formula."""

from __future__ import annotations

import entmax
import mpmath
import pytest
import torch
from mpmath import mpf
from torch import Tensor

from ogive.parts import catalogue
from parts import oracle
from parts.batteries import WEIGHT_BATTERY
from parts.samples import forms, normal, ready_weight
from sampling import sampled

FORMS = forms("weight")
LARGEST = torch.finfo(torch.float64).max
TINY = 5e-324  # the smallest double

ROWS = {
    "one key": [0.3],
    "two signs": [1.5, -2.25],
    "constant": [0.7] * 6,
    "zeros": [0.0] * 5,
    "ties at the top": [2.0, 2.0, -1.0, 2.0, 0.5],
    "ordinary": [0.1, -1.2, 3.4, 0.9, -0.4, 2.2, -3.0],
    "small": [1e-9, -2e-9, 3e-9, 5e-10],
    "denormal": [TINY, -TINY, 1e-310, 3e-320],
    "hundreds": [100.0, -300.0, 99.5, 98.0],
    "ten thousand": [1e4, -1e4, 9999.0, 0.5],
    "all far below zero": [-1e4, -10001.0, -2e4],
    "1e30": [1e30, -1e30, 5e29, 1.0],
    "one huge key": [1e30, 0.1, -0.2, 0.3],
    "largest": [LARGEST, -LARGEST, 1.0],
    "largest, tied": [LARGEST, LARGEST, 0.0],
    "most negative": [-LARGEST, -LARGEST],
}
# A sum of scores that overflows, and slopes beyond the largest number (1 over a denormal sum).
SUM_OVERFLOWS = {
    ("linear(normalise=true)", "largest, tied"),
    ("linear(normalise=true)", "most negative"),
}
SLOPE_OVERFLOWS = {("linear", "denormal"), ("softpick", "denormal")}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("check", WEIGHT_BATTERY, ids=lambda check: check.__name__)
def test_battery(check, form):
    check(ready_weight(form))


def test_every_weight_function_has_an_oracle():
    assert {form.partition("(")[0] for form in oracle.WEIGHTS} == set(catalogue("weight"))


NUMBERS = [(f, r) for f in oracle.WEIGHTS for r in ROWS if (f, r) not in SUM_OVERFLOWS]
SLOPES = [(f, r) for f in FORMS for r in ROWS if (f, r) not in SLOPE_OVERFLOWS]


@pytest.mark.parametrize(("form", "name"), NUMBERS)
def test_numbers_equal_fifty_digits(form, name):
    row = torch.tensor(ROWS[name], dtype=torch.float64)
    came = ready_weight(form)(row.expand(1, 2, 1, -1))[0, 0, 0]
    for index, fits in enumerate(oracle.WEIGHTS[form]([mpf(s) for s in row.tolist()])):
        assert _close(came[index].item(), fits, row), f"key {index}: {came} where {fits} fits"


def _close(came: float, fits: mpf, row: Tensor) -> bool:
    """Within some roundings of the weight, of the score in an exponent, or of the row's sum."""
    if abs(fits) > LARGEST:
        return came == float("inf") * int(mpmath.sign(fits))
    roundings = 16 * max(1.0, min(row.abs().max().item(), 745.0))
    return abs(came - fits) <= roundings * 2.0**-52 * max(abs(fits), mpf(1e-16)) + 4 * mpf(TINY)


@pytest.mark.parametrize("form", oracle.WEIGHTS)
def test_masked_rows_equal_the_oracle_over_visible_keys(form):
    scores = normal(1, 2, 6, 9, seed=3) * 2
    keep = normal(1, 2, 6, 9, seed=4) > 0
    came = ready_weight(form)(scores.masked_fill(~keep, float("nan")), keep)
    for head in range(2):
        for query in range(6):
            seen = keep[0, head, query]
            row = [mpf(s) for s in scores[0, head, query, seen].tolist()]
            fits = [float(w) for w in oracle.WEIGHTS[form](row)] if row else []
            torch.testing.assert_close(
                came[0, head, query, seen],
                torch.tensor(fits, dtype=torch.float64),
                rtol=1e-12,
                atol=1e-14,
            )


def test_softmax_has_the_bits_of_torch_up_to_rounding():
    scores = normal(2, 2, 9, 33) * 5
    torch.testing.assert_close(
        ready_weight("softmax")(scores), scores.softmax(-1), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize(
    ("form", "theirs"), [("sparsemax", entmax.sparsemax), ("entmax15", entmax.entmax15)]
)
@pytest.mark.parametrize("keys", [1, 2, 7, 64, 257])
@pytest.mark.parametrize("magnitude", [0.01, 1, 5])
def test_sparse_weights_equal_the_entmax_package(form, theirs, keys, magnitude):
    scores = (normal(2, 2, 5, keys, seed=keys) * magnitude).requires_grad_()
    upstream = normal(2, 2, 5, keys, seed=1)
    ours, other = ready_weight(form)(scores), theirs(scores, dim=-1)
    torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12)
    for mine, that in zip(
        torch.autograd.grad(ours, scores, upstream),
        torch.autograd.grad(other, scores, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, that, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("form", ["sparsemax", "entmax15"])
def test_sparse_weights_are_exactly_zero_far_below_the_top(form):
    weights = ready_weight(form)(torch.tensor([[[[3.0, 0.5, -8.0]]] * 2], dtype=torch.float64))
    assert (weights[..., 1:] == 0).all()
    assert (weights[..., 0] == 1).all()


@pytest.mark.parametrize(("form", "name"), SLOPES)
def test_gradients_are_finite_wherever_weights_are(form, name):
    row = torch.tensor(ROWS[name], dtype=torch.float64).expand(1, 2, 1, -1)
    row = row.clone().requires_grad_()
    weight = ready_weight(form)
    out = weight(row)
    grads = torch.autograd.grad(out.sum(), [row, *weight.parameters()])
    if bool(out.isfinite().all()):
        assert all(bool(g.isfinite().all()) for g in grads), (out, grads)


HALF_CASES = [(f, str(d)) for f in FORMS for d in (torch.bfloat16, torch.float16, torch.float32)]


@pytest.mark.parametrize(("form", "dtype"), sampled(HALF_CASES, 60, "dtypes of weights"))
def test_narrow_dtypes_round_once(form, dtype):
    """A long row: n, ranks and running sums pass 256, which bfloat16 cannot count beyond."""
    narrow = getattr(torch, dtype.removeprefix("torch."))
    scores = (normal(1, 2, 3, 300, seed=5) * 2).to(narrow)
    keep = normal(1, 2, 3, 300, seed=6) > -1
    came = ready_weight(form, narrow)(scores, keep)
    fits = ready_weight(form)(scores.double(), keep)
    assert came.dtype == narrow
    eps = torch.finfo(narrow).eps
    # Computed in float32, where sums of 300 cost some ulps; then rounded once.
    single = torch.finfo(torch.float32).eps * (30 * fits.abs() + 2 * fits.abs().amax(-1, True))
    rounding = eps * fits.abs() + torch.finfo(narrow).smallest_normal * eps
    error = (came.double() - fits).abs()
    excess = (error / (single + rounding)).max()
    assert excess <= 1, f"off by {excess} times the bound"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "shape", [(1, 2, 3, 0), (1, 2, 0, 4), (0, 2, 3, 4), (1, 2, 1, 1), (1, 2, 0, 0), (0, 2, 0, 0)]
)
def test_empty_and_single_rows(form, shape):
    weight, scores = ready_weight(form), normal(*shape).requires_grad_()
    masks = [None, torch.ones(shape, dtype=torch.bool), torch.ones(1, 1, 1, 1, dtype=torch.bool)]
    for keep in masks:
        out = weight(scores, keep)
        assert out.shape == shape
        assert out.isfinite().all()
        gradients = torch.autograd.grad(out.sum(), [scores, *weight.parameters()])
        assert all(bool(g.isfinite().all()) for g in gradients)


SHARING = ["softmax", "softmax1", "sink", "sparsemax", "entmax15"]


@pytest.mark.parametrize("form", SHARING)
def test_a_visible_score_of_minus_infinity_weighs_nothing(form):
    """As softmax's limit has it; a row of nothing else has no weight to give."""
    scores = torch.tensor([[1.0, -torch.inf, 0.5], [-torch.inf] * 3], dtype=torch.float64)
    scores = scores.expand(1, 2, 2, 3)
    out = ready_weight(form)(scores)
    assert not out[..., 1].any()
    assert not out[:, :, 1].any()
    torch.testing.assert_close(
        out[:, :, 0, ::2], ready_weight(form)(scores[:, :, :1, ::2])[:, :, 0]
    )


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_left_as_they_came(form):
    scores, keep = normal(1, 2, 4, 5), normal(1, 2, 4, 5, seed=1) > 0
    before = scores.clone(), keep.clone()
    ready_weight(form)(scores, keep)
    assert torch.equal(scores, before[0])
    assert torch.equal(keep, before[1])


@pytest.mark.parametrize("form", FORMS)
def test_strides_do_not_matter(form):
    scores, keep = normal(2, 2, 4, 5), normal(2, 2, 4, 5, seed=1) > 0
    weight = ready_weight(form)
    turned = scores.transpose(2, 3).contiguous().transpose(2, 3)
    masked = keep.transpose(0, 3).contiguous().transpose(0, 3)
    torch.testing.assert_close(weight(turned, masked), weight(scores, keep), rtol=1e-14, atol=1e-16)
