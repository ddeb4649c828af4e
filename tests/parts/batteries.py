"""Batteries that a part must pass. Each raises AssertionError on a wrong part.

They take parts, not names, so that `test_bites` can put wrong twins through them.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from ogive.parts import Part, Weight, measure
from parts.samples import normal, separated

HEADS, QUERIES, KEYS = 2, 5, 7
POISONS = (float("nan"), float("inf"), -float("inf"))


def check_facts(part: Part) -> None:
    """What is declared was measured, and what was measured is declared."""
    declared, measured = asdict(part.facts), asdict(measure(part))
    apart = {n: (declared[n], measured[n]) for n in declared if declared[n] != measured[n]}
    assert not apart, f"{part}: (declared, measured) differ: {apart}"


def some_keep(seed: int = 0) -> Tensor:
    """A mask with a full row, a row with one key, an empty row, and random rows."""
    keep = normal(3, HEADS, QUERIES, KEYS, seed=seed) > 0
    keep[:, :, 0], keep[:, :, 1] = True, False
    keep[:, :, 2] = False
    keep[:, :, 2, seed % KEYS] = True
    return keep


def weights_and_gradient(weight: Weight, scores: Tensor, keep: Tensor | None) -> list[Tensor]:
    """Weights, the gradient of a random combination of them, and that of what is learned."""
    scores = scores.detach().clone().requires_grad_()
    out = weight(scores, keep)
    upstream = normal(*out.shape, seed=99).to(out.dtype)
    inputs = [scores, *weight.parameters()]
    return [out.detach(), *torch.autograd.grad(out, inputs, upstream, materialize_grads=True)]


def check_hidden_weighs_nothing(weight: Weight) -> None:
    """Exactly zero weight and exactly zero gradient, at scores of every size."""
    for magnitude in (1e-3, 1.0, 30.0):
        scores = normal(3, HEADS, QUERIES, KEYS) * magnitude
        for seed in range(3):
            keep = some_keep(seed)
            out, gradient, *_ = weights_and_gradient(weight, scores, keep)
            assert not out[~keep].any(), f"{weight}: a hidden pair has weight"
            assert not gradient[~keep].any(), f"{weight}: a hidden pair has gradient"


def check_hidden_says_nothing(weight: Weight) -> None:
    """Whatever stands at hidden places, every bit of weights and gradients is the same."""
    scores, keep = normal(3, HEADS, QUERIES, KEYS), some_keep()
    clean = weights_and_gradient(weight, scores, keep)
    for poison in (*POISONS, 1e308, -7.0):
        came = weights_and_gradient(weight, scores.masked_fill(~keep, poison), keep)
        for left, right in zip(came, clean, strict=True):
            assert torch.equal(left, right), f"{weight}: {poison} at a hidden place shows"


def check_empty_rows(weight: Weight) -> None:
    """A row that sees nothing weighs nothing and passes no gradient, to what is learned neither."""
    nothing = torch.zeros(3, HEADS, QUERIES, KEYS, dtype=torch.bool)
    for fill in (0.0, 1.0, *POISONS):
        scores = torch.full(nothing.shape, fill, dtype=torch.float64)
        for came in weights_and_gradient(weight, scores, nothing):
            assert not came.any(), f"{weight}: a row that sees nothing gives {came.unique()}"


def check_row_sums(weight: Weight) -> None:
    """Rows that see anything sum to one where that is declared, and not everywhere elsewhere."""
    keep = some_keep()
    weights = weight(normal(3, HEADS, QUERIES, KEYS), keep)[keep.any(-1)]
    sums = weights.sum(-1)
    one = bool(((sums - 1).abs() < 1e-12 * weights.abs().sum(-1).clamp_min(1)).all())
    assert one == weight.facts.rows_sum_to_one, f"{weight}: row sums are {sums}"


def check_counts_visible_keys(weight: Weight) -> None:
    """A masked row weighs as the row of its visible keys alone: n counts those, not all."""
    scores, keep = normal(1, HEADS, QUERIES, KEYS), some_keep()[:1]
    out = weight(scores, keep)
    for head in range(HEADS):
        for row in range(QUERIES):
            seen = keep[0, head, row]
            short = scores[:, :, row : row + 1, seen]
            alone = weight(short, None)[0, head, 0]
            error = (out[0, head, row, seen] - alone).abs()
            assert bool((error <= 4e-16 * (1 + alone.abs())).all()), (
                f"{weight}: a row of {int(seen.sum())} visible keys among {KEYS} is off by {error}"
            )


def check_broadcast_masks(weight: Weight) -> None:
    """A mask of every broadcastable shape gives the bits of the same mask written out."""
    scores = normal(3, HEADS, QUERIES, KEYS)
    shape = scores.shape
    for kept in range(16):
        sizes = [size if kept >> axis & 1 else 1 for axis, size in enumerate(shape)]
        keep = normal(*sizes, seed=kept) > -0.3
        full = weight(scores, keep.expand(shape).contiguous())
        assert torch.equal(weight(scores, keep), full), f"{weight}: mask of shape {sizes}"
        while keep.dim() and keep.shape[0] == 1:
            keep = keep[0]
            assert torch.equal(weight(scores, keep), full), f"{weight}: mask {tuple(keep.shape)}"


def check_gradients(weight: Weight) -> None:
    """First and second derivatives against differences in fp64, away from kinks."""
    scores = separated(1, HEADS, 3, 4).requires_grad_()
    keep = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    for mask in (None, keep):
        assert torch.autograd.gradcheck(lambda s, m=mask: weight(s, m), (scores,))
        assert torch.autograd.gradgradcheck(lambda s, m=mask: weight(s, m), (scores,))


def check_visible_poison_shows(weight: Weight) -> None:
    """NaN at a visible place is NaN there, in the row it belongs to, and in no other row."""
    scores, keep = normal(3, HEADS, QUERIES, KEYS), some_keep()
    clean = weight(scores, keep)
    keep[0, 0, 0, 3] = True
    scores[0, 0, 0, 3] = float("nan")
    came = weight(scores, keep)
    assert bool(came[0, 0, 0, 3].isnan()), f"{weight}: a visible NaN is swallowed"
    came[0, 0, 0] = clean[0, 0, 0]
    assert torch.equal(came, clean), f"{weight}: a NaN reaches rows that are not its own"


WEIGHT_BATTERY = (
    check_hidden_weighs_nothing,
    check_hidden_says_nothing,
    check_empty_rows,
    check_row_sums,
    check_counts_visible_keys,
    check_broadcast_masks,
    check_gradients,
    check_visible_poison_shows,
)
