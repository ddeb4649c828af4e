"""The tests bite: each battery of the parts must fail on its wrong twin, for the named reason."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError

from ogive.parts import Activation, ElementwiseWeight, Facts, Norm, Weight
from ogive.parts.weights import over_sum, row_maximum, shifted_exp
from parts import batteries
from parts.samples import ready, ready_weight


class LeakingMask(Weight, listed=False):
    """Adds a big negative number, then applies tanh: the future weighs −1."""

    name = "leaking_mask"

    def forward(self, scores, keep=None):
        return (scores if keep is None else scores.masked_fill(~keep, -1e9)).tanh()


class LeakingALittle(Weight, listed=False):
    """A sigmoid whose hidden scores are −30: weights of 1e-13 where nothing may be seen."""

    name = "leaking_a_little"

    def forward(self, scores, keep=None):
        return (scores if keep is None else scores.masked_fill(~keep, -30.0)).sigmoid()


class HiddenGradient(Weight, listed=False):
    """Hidden weights are zero, and still pass gradients: straight through the mask."""

    name = "hidden_gradient"

    def forward(self, scores, keep=None):
        weights = scores.tanh()
        return weights if keep is None else weights - (weights.detach() * ~keep)


class HiddenNan(Weight, listed=False):
    """Multiplies by the mask: 0 · NaN is NaN."""

    name = "hidden_nan"

    def forward(self, scores, keep=None):
        weights = scores.relu()
        return weights if keep is None else weights * keep


class HiddenNanInGradient(Weight, listed=False):
    """Selects after the function: the values are clean, the gradient is 0 · NaN."""

    name = "hidden_nan_in_gradient"

    def forward(self, scores, keep=None):
        weights = torch.exp(scores)
        return weights if keep is None else weights.masked_fill(~keep, 0)


class ForgetsTheMaskInItsSum(Weight, listed=False):
    """A softmax whose denominator counts the hidden keys."""

    name = "forgets_the_mask"
    facts = Facts(nonnegative=True, rows_sum_to_one=True, bounded=True, monotone=True)

    def weigh(self, scores, keep):
        return scores.softmax(-1)


class EmptyRowsAreUniform(Weight, listed=False):
    """finfo.min instead of −∞: a row with nothing to see attends to everything."""

    name = "empty_rows_are_uniform"
    facts = Facts(nonnegative=True, rows_sum_to_one=True, bounded=True, monotone=True)

    def forward(self, scores, keep=None):
        least = torch.finfo(scores.dtype).min
        return (scores if keep is None else scores.masked_fill(~keep, least)).softmax(-1)


class EmptyRowsAreNan(Weight, listed=False):
    """torch's softmax over −∞ alone."""

    name = "empty_rows_are_nan"
    facts = Facts(nonnegative=True, rows_sum_to_one=True, bounded=True, monotone=True)

    def forward(self, scores, keep=None):
        return (scores if keep is None else scores.masked_fill(~keep, -torch.inf)).softmax(-1)


class DividesByAllKeys(Weight, listed=False):
    """tanh over S, the number of keys there are, not n, the number that the row may see."""

    name = "divides_by_all_keys"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def weigh(self, scores, keep):
        return scores.tanh() / scores.shape[-1]


class ReadsTheMaskWithoutBroadcasting(Weight, listed=False):
    """Counts the entries of the mask as it came, before it spreads over the keys."""

    name = "reads_the_mask_unbroadcast"

    def forward(self, scores, keep=None):
        if keep is None:
            return scores.tanh() / max(scores.shape[-1], 1)
        count = keep.sum(-1, keepdim=True).clamp_min(1)
        return (scores.masked_fill(~keep, 0).tanh() / count).masked_fill(~keep, 0)


class WrongSlope(torch.autograd.Function):
    """tanh whose gradient is that of the sigmoid."""

    @staticmethod
    def forward(ctx, scores):
        ctx.save_for_backward(scores)
        return scores.tanh()

    @staticmethod
    def backward(ctx, upstream):
        (scores,) = ctx.saved_tensors
        return upstream * scores.sigmoid() * (1 - scores.sigmoid())


class WrongGradient(ElementwiseWeight, listed=False):
    """Right values, wrong slope."""

    name = "wrong_gradient"

    def value(self, scores, n):
        return WrongSlope.apply(scores) / n


class DetachedSum(Weight, listed=False):
    """A softmax that does not differentiate its denominator."""

    name = "detached_sum"
    facts = Facts(nonnegative=True, rows_sum_to_one=True, bounded=True, monotone=True)

    def weigh(self, scores, keep):
        powers = shifted_exp(scores, keep, row_maximum(scores, keep))
        return powers / powers.sum(-1, keepdim=True).detach().clamp_min(1e-30)


class SwallowsNan(ElementwiseWeight, listed=False):
    """Repairs what it sees: a visible NaN becomes a harmless zero."""

    name = "swallows_nan"

    def value(self, scores, n):
        return scores.nan_to_num(0.0).tanh() / n


class SpreadsNan(ElementwiseWeight, listed=False):
    """Looks at all rows for its scale: one NaN spoils them all."""

    name = "spreads_nan"

    def value(self, scores, n):
        return scores / n * (scores.sum() * 0 + 1)


class SumsToOneUndeclared(Weight, listed=False):
    """A right softmax that does not say that its rows sum to one."""

    name = "undeclared"
    facts = Facts(nonnegative=True, bounded=True, monotone=True)

    def weigh(self, scores, keep):
        return over_sum(shifted_exp(scores, keep, row_maximum(scores, keep)))


TWINS = [
    (batteries.check_hidden_weighs_nothing, LeakingMask, "has weight"),
    (batteries.check_hidden_weighs_nothing, LeakingALittle, "has weight"),
    (batteries.check_hidden_weighs_nothing, HiddenGradient, "has gradient"),
    (batteries.check_hidden_says_nothing, HiddenNan, "nan at a hidden place shows"),
    (batteries.check_hidden_says_nothing, HiddenNanInGradient, "at a hidden place shows"),
    (batteries.check_hidden_says_nothing, HiddenGradient, "at a hidden place shows"),
    (batteries.check_empty_rows, EmptyRowsAreUniform, "sees nothing gives"),
    (batteries.check_empty_rows, EmptyRowsAreNan, "sees nothing gives"),
    (batteries.check_row_sums, ForgetsTheMaskInItsSum, "row sums"),
    (batteries.check_row_sums, SumsToOneUndeclared, "row sums"),
    (batteries.check_counts_visible_keys, DividesByAllKeys, "visible keys"),
    (batteries.check_counts_visible_keys, ForgetsTheMaskInItsSum, "visible keys"),
    (batteries.check_broadcast_masks, ReadsTheMaskWithoutBroadcasting, "mask"),
    (batteries.check_visible_poison_shows, SwallowsNan, "swallowed"),
    (batteries.check_visible_poison_shows, SpreadsNan, "not its own"),
]


@pytest.mark.parametrize(("check", "twin", "reason"), TWINS)
def test_the_weight_battery_fails_on_its_wrong_twin(check, twin, reason):
    with pytest.raises(AssertionError, match=reason):
        check(ready(twin()))


@pytest.mark.parametrize("twin", [WrongGradient, DetachedSum])
def test_the_gradient_battery_fails_on_a_wrong_slope(twin):
    with pytest.raises(GradcheckError):
        batteries.check_gradients(ready(twin()))


def test_every_check_has_a_wrong_twin():
    bitten = {check for check, _, _ in TWINS} | {batteries.check_gradients}
    assert bitten == set(batteries.WEIGHT_BATTERY)


@pytest.mark.parametrize("check", batteries.WEIGHT_BATTERY, ids=lambda check: check.__name__)
def test_the_right_twin_passes(check):
    check(ready_weight("softmax"))
    check(ready_weight("tanh"))


# --- facts: parts that declare what is not so, or keep quiet about what is ----------------------


class NonnegativeTanh(Activation, listed=False):
    name = "nonnegative_tanh"
    facts = Facts(nonnegative=True, bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def value(self, h):
        return h.tanh()


class SquareRelu(Activation, listed=False):
    """A relu that declares degree 2."""

    name = "square_relu"
    facts = Facts(nonnegative=True, degree=2, monotone=True, zero_at_zero=True)

    def value(self, h):
        return h.relu()


class QuietTanh(Activation, listed=False):
    """Odd, and does not say so."""

    name = "quiet_tanh"
    facts = Facts(bounded=True, monotone=True, zero_at_zero=True)

    def value(self, h):
        return h.tanh()


class OffsetNorm(Norm, listed=False):
    """A layer norm with a learned offset that declares itself odd: it is, at its start only."""

    name = "offset_norm"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def setup(self, sizes):
        self.offset = torch.nn.Parameter(torch.zeros(sizes.head_width))
        return self

    def forward(self, h, x=None):
        return torch.nn.functional.layer_norm(h, h.shape[-1:]) + self.offset


class OddSigmoid(ElementwiseWeight, listed=False):
    """Declares the odd symmetry that a sigmoid lacks by a half."""

    name = "odd_sigmoid"
    facts = Facts(nonnegative=True, bounded=True, odd=True, monotone=True)

    def value(self, scores, n):
        return scores.sigmoid() / n


@pytest.mark.parametrize(
    ("twin", "fact"),
    [
        (NonnegativeTanh, "nonnegative"),
        (SquareRelu, "degree"),
        (QuietTanh, "odd"),
        (OffsetNorm, "odd"),
        (OffsetNorm, "zero_at_zero"),
        (OddSigmoid, "odd"),
        (ForgetsTheMaskInItsSum, "rows_sum_to_one"),
        (SumsToOneUndeclared, "rows_sum_to_one"),
    ],
)
def test_the_battery_of_facts_fails_on_a_false_declaration(twin, fact):
    with pytest.raises(AssertionError, match=f"'{fact}'"):
        batteries.check_facts(twin())
