"""Scores by distance in the kernels: close points keep their digits, forward and backward."""

from __future__ import annotations

import pytest
import torch

from ogive.kernels import attention, compiled

pytestmark = pytest.mark.skipif(
    compiled.missing is not None, reason=f"no kernels were compiled here: {compiled.missing}"
)
SETS = [] if compiled.missing else compiled.supported()
SCORES = ("distance", "distance(power=1)")


def far_and_close(queries=53, keys=131, width=19):
    """Points around one far from the origin, so close to each other that products say nothing."""
    draw = torch.Generator().manual_seed(0)
    centre = 300 * torch.randn(1, 1, 1, width, generator=draw)
    rows = (1, 2, queries, width), (1, 1, keys, width)
    points = [centre + torch.randn(*shape, generator=draw) for shape in rows]
    return [*points, torch.randn(1, 1, keys, 5, generator=draw)]


def everything(tensors, score, impl="native", **more):
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = attention(*leaves, score=score, enable_gqa=True, impl=impl, **more)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)


def gap(found, truth) -> float:
    pairs = zip(found, truth, strict=True)
    return max(float((one - two).abs().max() / two.abs().max()) for one, two in pairs)


def by_differences(tensors, score):
    """Softmax of minus distances, in float64, from differences."""
    query, key, value = (t.double().requires_grad_() for t in tensors)
    squared = (query.unsqueeze(-2) - key.unsqueeze(-3)).square().sum(-1)
    width = query.shape[-1]
    scores = -squared / 2 / width**0.5 if score == "distance" else -squared.sqrt() / width**0.25
    out = scores.softmax(-1) @ value
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out.detach(), *torch.autograd.grad((out * weights).sum(), (query, key, value))


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("score", SCORES)
def test_close_points_far_from_the_origin_keep_their_digits(score, instructions, monkeypatch):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    tensors = far_and_close()
    truth = by_differences(tensors, score)
    assert gap(everything(tensors, score), truth) < 1e-5


@pytest.mark.parametrize("score", SCORES)
def test_squares_less_a_product_would_be_caught(score):
    """The wrong twin: |q|² + |k|² − 2 q·k in float32 keeps three digits here, or none."""
    tensors = far_and_close()
    twin = everything(tensors, score, impl="reference")
    assert gap(twin, by_differences(tensors, score)) > 1e-3


@pytest.mark.parametrize("weight", ["softmax", "sigmoid(bias=-1)", "sparsemax"])
def test_points_that_are_one_pass_no_gradient(weight):
    """A distance of zero has a slope that only convention gives: none, as in the definition."""
    draw = torch.Generator().manual_seed(3)
    point = torch.randn(1, 1, 1, 7, generator=draw)
    tensors = [point.expand(1, 1, n, 7) for n in (50, 60)]
    tensors.append(torch.randn(1, 1, 60, 3, generator=draw))
    found = everything(tensors, "distance(power=1)", weight=weight)
    exact = [t.double() for t in tensors]
    right = everything(exact, "distance(power=1)", "reference", weight=weight)
    assert not found[1].any()
    assert not found[2].any()
    assert gap((found[0], found[3]), (right[0], right[3])) < 1e-5


def test_sigma_and_scale():
    tensors = far_and_close(9, 11, 4)
    for power in (1, 2):
        written = f"distance(sigma=3,power={power})"
        found = everything(tensors, written)
        other = everything(tensors, f"distance(power={power})", scale=3.0**-power)
        assert gap(found, other) == 0
