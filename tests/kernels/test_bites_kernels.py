"""The rule bites: each wrong twin of the operation must fail it, most times that it can show.

A twin is `attention` with one bug of a kind that kernels had. Beside each stands the share of
cases that must catch it; a bug of one part in ten thousand is caught, and a right answer never is
(T1). At the end of a run the terminal says how many twins were killed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import cases, oracle
from kernels.cases import Case, build_call, ours, random_case, theirs
from kernels.rule import violations
from ogive.kernels import attention
from ogive.parts import ElementwiseWeight, Weight

CASES = 40


# --- wrong weight functions -------------------------------------------------------------------


class Wrapped(Weight, listed=False):
    """Another weight function with something done to its weights."""

    def __init__(self, inner: Weight) -> None:
        super().__init__()
        self.inner = inner


class Rounded(Wrapped, listed=False):
    def forward(self, scores, keep=None):
        return self.inner(scores, keep).bfloat16().to(scores.dtype)


class RoughExp(Wrapped, listed=False):
    def forward(self, scores, keep=None):
        weights = self.inner(scores, keep)
        return weights * (1 + 1e-5 * torch.cos(1e3 * scores.detach()))


class NoDelta(Wrapped, listed=False):
    """Softmax whose gradient forgets that the row's sum depends on the scores."""

    def forward(self, scores, keep=None):
        weights = self.inner(scores, keep).detach()
        return weights * (1 + scores - scores.detach())


class RoughDelta(Wrapped, listed=False):
    """Softmax whose row sum of gradients was kept in bf16."""

    def forward(self, scores, keep=None):
        weights = self.inner(scores, keep)
        return RoughDeltaStep.apply(scores, weights.detach())


class RoughDeltaStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, weights):
        ctx.save_for_backward(weights)
        return weights.clone()

    @staticmethod
    def backward(ctx, grad):
        (weights,) = ctx.saved_tensors
        delta = (grad * weights).sum(-1, keepdim=True).bfloat16().to(grad.dtype)
        return weights * (grad - delta), None


class LeakingMask(Wrapped, listed=False):
    """'Add a big negative number, then apply f': right for softmax alone."""

    def forward(self, scores, keep=None):
        if keep is None:
            return self.inner(scores)
        return self.inner(scores.masked_fill(~keep, -1e4))


class HiddenCount(Wrapped, listed=False):
    """n counts all keys, not those that the row may see."""

    def forward(self, scores, keep=None):
        if keep is None:
            return self.inner(scores)
        return self.inner(scores).masked_fill(~keep, 0)


class ProductMask(Wrapped, listed=False):
    """Hides by a product with zero: 0 · NaN is NaN."""

    def forward(self, scores, keep=None):
        return self.inner(scores) if keep is None else self.inner(scores) * keep


class CancellingSoftpick(Wrapped, listed=False):
    """e^s − 1 as a difference, which has no digits left where scores are tiny."""

    def forward(self, scores, keep=None):
        lifted = scores.exp() - 1
        masses = lifted.abs() if keep is None else lifted.abs().masked_fill(~keep, 0)
        total = masses.sum(-1, keepdim=True)
        weights = lifted.relu() / total.masked_fill(total == 0, 1)
        return weights if keep is None else weights.masked_fill(~keep, 0)


class AbsoluteSum(Wrapped, listed=False):
    """Divides by the sum of sizes where the signed sum is meant."""

    def forward(self, scores, keep=None):
        shown = scores if keep is None else scores.masked_fill(~keep, 0)
        total = shown.abs().sum(-1, keepdim=True)
        return shown / total.masked_fill(total == 0, 1)


# --- wrong operations -------------------------------------------------------------------------

Run = Callable[..., Any]


def with_weight(wrapper: type[Wrapped]) -> Run:
    def run(*, weight, impl, **rest):
        return attention(**rest, weight=wrapper(weight))

    return run


def with_scale(factor: float) -> Run:
    def run(*, query, score, scale, impl, **rest):
        right = score.resolve_scale(query.shape[-1], scale)
        return attention(query, score=score, scale=right * factor, **rest)

    return run


def run_lost_row(*, query, key, impl, **rest):
    """dk misses the first query's share."""
    whole = attention(query, key, **rest)
    first = torch.arange(query.shape[-2]).view(-1, 1) == 0
    return torch.where(first, attention(query, key.detach(), **rest), whole)


def run_last_key_dropped(*, query, key, impl, attn_mask=None, **rest):
    last = torch.arange(key.shape[-2]) < key.shape[-2] - 1
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        mask = attn_mask.masked_fill(~last, -torch.inf)
    else:
        mask = last if attn_mask is None else attn_mask & last
    return attention(query, key, attn_mask=mask, **rest)


def run_off_by_one(*, impl, q_offset=0, **rest):
    return attention(q_offset=q_offset + 1, **rest)


def run_wide_window(*, impl, window_size, **rest):
    left, right = window_size
    return attention(window_size=(left if left is None else left + 1, right), **rest)


class Turned(torch.autograd.Function):
    """The identity, whose gradient comes out with its heads turned round."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.flip(1)


class Shrunk(torch.autograd.Function):
    """The identity, whose gradient loses one part in a thousand."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * 0.999


def gradient_of(name: str, wrong: type[torch.autograd.Function]) -> Run:
    def run(*, impl, **rest):
        return attention(**(rest | {name: wrong.apply(rest[name])}))

    return run


def run_wrong_groups(*, query, key, value, impl, enable_gqa=False, **rest):
    """Heads 0, 1, 2, 3 on key heads 0, 1, 0, 1 instead of 0, 0, 1, 1."""
    times = query.shape[1] // key.shape[1]
    return attention(query, key.repeat(1, times, 1, 1), value.repeat(1, times, 1, 1), **rest)


def run_bias_ignored(*, impl, attn_bias=None, **rest):
    return attention(**rest)


def run_bias_detached(*, impl, attn_bias, **rest):
    return attention(attn_bias=attn_bias.detach(), **rest)


def run_half_inside(*, query, key, value, impl, **rest):
    """float32 in and out, bf16 inside."""
    inner = [t.bfloat16() for t in (query, key, value)]
    return attention(*inner, **rest).to(query.dtype)


def run_single_inside(*, query, key, value, impl, **rest):
    """float64 in and out, float32 inside."""
    inner = [t.float() for t in (query, key, value)]
    bias = {
        n: t.float() for n, t in rest.items() if isinstance(t, Tensor) and t.is_floating_point()
    }
    return attention(*inner, **(rest | bias)).to(query.dtype)


class ThirteenDigits(Wrapped, listed=False):
    """An exponential whose polynomial stops early."""

    def forward(self, scores, keep=None):
        weights = self.inner(scores, keep)
        return weights * (1 + 1e-13 * torch.cos(1e3 * scores.detach()))


def run_silent_nan(*, impl, **rest):
    return torch.nan_to_num(attention(**rest), nan=0.0)


@dataclass(frozen=True)
class Twin:
    """A wrong operation, the cases that can show it, and the share of them that must."""

    name: str
    run: Run
    share: float
    draw: dict[str, Any]
    shows: Callable[[cases.Call], bool] = lambda call: True


SOFT = {"score": "dot", "weight": "softmax", "dtype": torch.float32}
ANY = {"dtype": torch.float32}
DOUBLE = {"score": "dot", "weight": "softmax", "dtype": torch.float64}
TINY = {"score": "dot", "dtype": torch.float32, "size": 0.003, "mask": "none"}


def moves(call: cases.Call) -> bool:
    """Whether a row sees two keys, so that its weights can differ at all."""
    return bool((call.keep.sum(-1) > 1).any()) and _telling(call)


def sees(call: cases.Call) -> bool:
    return bool(call.keep.any())


def first_row_moves(call: cases.Call) -> bool:
    return bool((call.keep[..., 0, :].sum(-1) > 1).any()) and _telling(call)


def mixed_signs(call: cases.Call) -> bool:
    """Whether a row sees scores of both signs."""
    scores = attention_scores(call)
    return bool(((scores > 0).any(-1) & (scores < 0).any(-1)).any())


def attention_scores(call: cases.Call) -> Tensor:
    """Scores of all pairs, 0 where hidden."""
    group = call.case.group
    key = call.inputs["key"].double().repeat_interleave(group, 1)
    scores = call.score(call.inputs["query"].double(), key, call.case.scale)
    scores = scores if call.bias is None else scores + call.bias
    return torch.where(call.keep, scores, 0)


def sees_last(call: cases.Call) -> bool:
    return bool(call.keep[..., -1].any()) and _telling(call)


def bias_tells(call: cases.Call) -> bool:
    return call.case.broadcast != "1h11" and moves(call)


def sees_left(call: cases.Call) -> bool:
    return call.case.queries > 3


def masked(call: cases.Call) -> bool:
    """Whether some row sees a key and does not see another."""
    return bool((call.keep.any(-1) & ~call.keep.all(-1)).any())


def later(call: cases.Call) -> bool:
    return call.case.queries > 1


def _telling(call: cases.Call) -> bool:
    return call.case.width > 1 or call.case.score == "dot"


TWINS = [
    Twin("scale wrong by 1e-4", with_scale(1 + 1e-4), 0.95, SOFT, moves),
    Twin("scale wrong by 1e-5", with_scale(1 + 1e-5), 0.4, SOFT, moves),
    Twin("weights rounded to bf16", with_weight(Rounded), 1.0, SOFT, moves),
    Twin("exp wrong by 1e-5", with_weight(RoughExp), 0.7, SOFT, moves),
    Twin("delta in bf16", with_weight(RoughDelta), 0.9, SOFT, moves),
    Twin("no delta", with_weight(NoDelta), 1.0, SOFT, moves),
    Twin("a query row missing in dk", run_lost_row, 0.95, SOFT, first_row_moves),
    Twin("the last key dropped", run_last_key_dropped, 1.0, SOFT, sees_last),
    Twin(
        "causal off by one",
        run_off_by_one,
        1.0,
        SOFT | {"causal": "square", "mask": "none", "window": None},
        later,
    ),
    Twin(
        "window one too wide",
        run_wide_window,
        1.0,
        SOFT | {"causal": "square", "mask": "none", "window": (2, 0)},
        sees_left,
    ),
    Twin(
        "heads swapped in dv",
        gradient_of("value", Turned),
        1.0,
        SOFT | {"heads": 2, "group": 1},
        sees,
    ),
    Twin(
        "heads swapped in dq",
        gradient_of("query", Turned),
        0.95,
        SOFT | {"heads": 2, "group": 1},
        moves,
    ),
    Twin("dk smaller by 1e-3", gradient_of("key", Shrunk), 0.8, SOFT, moves),
    Twin("dv smaller by 1e-3", gradient_of("value", Shrunk), 1.0, SOFT, moves),
    Twin("groups interleaved", run_wrong_groups, 1.0, SOFT | {"heads": 4, "group": 2}, sees),
    Twin("bias ignored", run_bias_ignored, 0.95, SOFT | {"mask": "learned bias"}, bias_tells),
    Twin(
        "no gradient for the bias",
        run_bias_detached,
        0.95,
        SOFT | {"mask": "learned bias"},
        bias_tells,
    ),
    Twin("bf16 inside", run_half_inside, 1.0, SOFT, moves),
    Twin("scale wrong by 1e-4, any part", with_scale(1 + 1e-4), 0.75, ANY, moves),
    Twin("weights rounded to bf16, any part", with_weight(Rounded), 0.95, ANY, moves),
    Twin(
        "mask by a big negative number, tanh",
        with_weight(LeakingMask),
        1.0,
        {"score": "dot", "weight": "tanh", "dtype": torch.float32, "mask": "bool"},
        masked,
    ),
    Twin(
        "mask by a big negative number, any weight",
        with_weight(LeakingMask),
        0.4,
        ANY | {"mask": "bool"},
        masked,
    ),
    Twin("scale wrong by 1e-13, float64", with_scale(1 + 1e-13), 0.9, DOUBLE, moves),
    Twin("exp wrong by 1e-13, float64", with_weight(ThirteenDigits), 0.9, DOUBLE, moves),
    Twin("float32 inside, float64", run_single_inside, 1.0, DOUBLE, sees),
    Twin("a query row missing in dk, float64", run_lost_row, 0.9, DOUBLE, first_row_moves),
    Twin(
        "softpick of tiny scores as a difference",
        with_weight(CancellingSoftpick),
        0.9,
        TINY | {"weight": "softpick"},
        moves,
    ),
    Twin(
        "linear over the sum of sizes",
        with_weight(AbsoluteSum),
        0.9,
        ANY | {"score": "distance", "weight": "linear(normalise=true)", "mask": "bias"},
        mixed_signs,
    ),
    Twin(
        "n counts hidden keys",
        with_weight(HiddenCount),
        1.0,
        {"score": "dot", "weight": "tanh", "dtype": torch.float32, "mask": "bool"},
        masked,
    ),
]


def flagged(twin: Twin) -> tuple[int, int]:
    """(cases that caught the twin, cases that can show it)."""
    caught, tried, seed = 0, 0, 0
    while tried < CASES:
        seed += 1
        case = random_case(seed, lengths=(2, 3, 7, 8, 16, 17, 33), **twin.draw)
        call = build_call(case)
        if not twin.shows(call):
            continue
        tried += 1
        caught += bool(cases.broken(call, {"twin": ours(call, "reference", run=twin.run)}))
    return caught, tried


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_the_rule_kills(twin, record_property):
    caught, tried = flagged(twin)
    record_property("twin", f"{twin.name}: {caught}/{tried}")
    print(f"{twin.name}: {caught}/{tried}")
    assert caught >= twin.share * tried, f"{twin.name}: caught in {caught} of {tried} cases"


# --- NaN --------------------------------------------------------------------------------------


def special_call(weight: str, hidden: bool) -> cases.Call:
    call = build_call(Case(5, weight=weight, queries=6, keys=7))
    seen = torch.ones(6, 7, dtype=torch.bool)
    seen[:, 4] = not hidden
    call.options["attn_mask"] = seen
    call.keep = oracle.visible_pairs((1, 2, 6, 7), mask=seen)
    call.inputs["value"][0, 0, 4, 1] = torch.nan
    call.inputs["key"][0, 1, 4, 1] = torch.nan
    return call


def nan_lines(call: cases.Call, run: Run = attention) -> list[str]:
    truth, eager = theirs(call, torch.float64), theirs(call, torch.float32)
    nat = dict.fromkeys(truth, 1e3)  # values are not the matter here
    return violations(ours(call, "reference", run), eager, truth, nat, torch.float32)


@pytest.mark.parametrize("weight", ["softmax", "tanh", "relu(length_power=1)"])
def test_a_hidden_nan_let_through_is_caught(weight):
    call = special_call(weight, hidden=True)
    assert not nan_lines(call)
    assert nan_lines(call, with_weight(ProductMask))


@pytest.mark.parametrize("weight", ["softmax", "tanh"])
def test_a_visible_nan_swallowed_is_caught(weight):
    call = special_call(weight, hidden=False)
    assert nan_lines(call, run_silent_nan)


def test_a_comparison_cannot_be_deaf_to_nan():
    """A NaN on either side alone breaks the rule, however generous the tolerance."""
    truth = {"out": torch.tensor([1.0, torch.nan, 2.0], dtype=torch.float64)}
    wide = {"out": 1e9}
    for wrong in ([1.0, 0.0, 2.0], [torch.nan, torch.nan, 2.0], [1.0, torch.nan, torch.inf]):
        ours_ = {"out": torch.tensor(wrong)}
        assert violations(ours_, {"out": truth["out"].float()}, truth, wide, torch.float32), wrong
    right = {"out": truth["out"].float()}
    assert not violations(right, right, truth, wide, torch.float32)


def test_a_missing_or_misshapen_tensor_is_caught():
    truth = {"out": torch.zeros(2, 3, dtype=torch.float64)}
    for wrong in (
        {},
        {"out": torch.zeros(3, 2)},
        {"out": torch.zeros(2, 3), "more": torch.ones(1)},
    ):
        assert violations(wrong, truth, truth, {"out": 1.0}, torch.float32)


def test_an_author_cannot_forget_the_mask():
    """A weight function that knows nothing of masks is masked by its family."""

    class Naive(ElementwiseWeight, listed=False):
        name = "naive"

        def value(self, scores: Tensor, n: Tensor) -> Tensor:
            return scores + 1

    call = special_call("softmax", hidden=True)
    tensors = {n: t.requires_grad_() for n, t in call.inputs.items()}
    out = attention(**tensors, weight=Naive(), attn_mask=call.options["attn_mask"])
    assert out.isfinite().all()
    assert all(t.isfinite().all() for t in torch.autograd.grad(out.sum(), tensors.values()))
