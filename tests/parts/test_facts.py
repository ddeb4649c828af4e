"""Facts are measured, for every part and both ways; and the measure rejects near misses."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch.nn import functional as F

from ogive.errors import ArgumentTypeError
from ogive.parts import Activation, ElementwiseWeight, Facts, Map, Weight, build, measure
from ogive.parts.weights import over_sum, row_maximum, shifted_exp
from parts.batteries import check_facts
from parts.samples import CHAINS, SIZES, built, everything, randomised

CASES = [*everything(), *(("score", chain) for chain in CHAINS)]


@pytest.mark.parametrize(("family", "form"), CASES)
def test_declared_facts_are_the_measured_ones(family, form):
    check_facts(built(family, form))


@pytest.mark.parametrize(
    ("form", "degree"),
    [("power(3)", 3), ("power(1.5)", 1.5), ("glu(relu)", 2), ("gate(power(2))", 3), ("relu", 1)],
)
def test_degrees(form, degree):
    assert measure(build("map", form)).degree == degree


def test_everything_declared_somewhere_and_missing_somewhere():
    """Each fact tells parts apart; one that none or all declare would test nothing."""
    declared = [built(family, form).facts for family, form in CASES]
    for field in fields(Facts):
        values = {getattr(facts, field.name) for facts in declared}
        assert len(values) > 1, field.name


def test_measuring_leaves_the_part_as_it_was():
    part = randomised(build("map", "gate(sigmoid)").setup(SIZES))
    before = part.weight.clone()
    random = torch.random.get_rng_state()
    measure(part)
    assert torch.equal(part.weight, before)
    assert part.weight.dtype == torch.float32
    assert part.weight.requires_grad
    bare = build("map", "gate(sigmoid)")
    measure(bare)
    assert not list(bare.parameters())
    torch.random.set_rng_state(random)


def test_measuring_twice_gives_the_same():
    for family, form in (("map", "gelu"), ("weight", "sink"), ("score", "additive(tanh)")):
        assert measure(build(family, form)) == measure(build(family, form))


@pytest.mark.parametrize("came", ["relu", None, torch.nn.ReLU()])
def test_only_parts_are_measured(came):
    with pytest.raises(ArgumentTypeError, match="takes a part"):
        measure(came)


# --- near misses: functions that nearly have a fact -------------------------------------------


def curve(function, **declared) -> Activation:
    """An activation of this function that declares these facts."""

    class Near(Activation, listed=False):
        name = "near"
        facts = Facts(**declared)

        def value(self, h):
            return function(h)

    return Near()


NEARLY = {
    "odd, but for an offset": ("odd", lambda h: h.tanh() + 1e-6),
    "odd, but for a kink": ("odd", lambda h: torch.where(h > 0, h, h * (1 - 1e-6)).tanh()),
    "nonnegative, but for a dip": ("nonnegative", lambda h: F.softplus(h) - 1e-4),
    "nonnegative, but for the far left": ("nonnegative", lambda h: torch.where(h < -9, h, h.exp())),
    "monotone, but for a dip of gelu": ("monotone", F.gelu),
    "monotone, but for a ripple": ("monotone", lambda h: h + 1.01 * h.sin()),
    "monotone, but far out": ("monotone", lambda h: torch.where(h > 50, -h, h)),
    "bounded, but for a logarithm": ("bounded", lambda h: h.sign() * torch.log1p(h.abs())),
    "bounded, but for log log": ("bounded", lambda h: torch.log1p(torch.log1p(h.abs()))),
    "bounded, but for a pole at zero": ("bounded", lambda h: h.tanh() / h.square()),
    "zero at zero, but for 1e-12": ("zero_at_zero", lambda h: h + 1e-12),
    "linear, but for a thousandth": ("linear", lambda h: h + 1e-6 * h.tanh()),
    "linear near zero only": ("linear", lambda h: h.clamp(-500, 500)),
    "linear, but for an offset": ("linear", lambda h: h + 1e-3),
    "foldable, but for a bend": ("fold_safe", lambda h: F.leaky_relu(h, 1 - 1e-5)),
}


@pytest.mark.parametrize("case", NEARLY)
def test_near_misses_are_rejected(case):
    fact, function = NEARLY[case]
    assert not getattr(measure(curve(function)), fact)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: F.relu(h) ** 2 + 1e-5 * F.relu(h),
        lambda h: h.abs() ** 2.001 + h.abs() ** 2,
        lambda h: h.tanh(),
        lambda h: F.relu(h) + 1e-6,
        lambda h: h * torch.where(h.abs() > 900, 1 + 1e-6, 1.0),
    ],
)
def test_nearly_homogeneous_functions_have_no_degree(function):
    assert measure(curve(function)).degree is None


def test_an_offset_folds_but_is_not_linear():
    facts = measure(curve(lambda h: 2 * h + 1))
    assert facts.fold_safe
    assert not facts.linear


class Neighbour(Map, listed=False):
    """Linear, but a token looks at the one before: it cannot fold into a token's weights."""

    name = "neighbour"

    def forward(self, h, x):
        return h + 1e-6 * h.roll(1, 1)


class ReadsInput(Map, listed=False):
    """Linear in h, and changed by x."""

    name = "reads_input"

    def forward(self, h, x):
        return h + 1e-6 * x.sum(-1)[..., None, None]


class Noisy(Map, listed=False):
    """Linear, but not the same twice."""

    name = "noisy"

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, h, x):
        self.calls += 1
        return h * (1 + 1e-3 * self.calls)


@pytest.mark.parametrize("part", [Neighbour, ReadsInput, Noisy])
def test_what_looks_elsewhere_does_not_fold(part):
    assert not measure(part()).fold_safe


class LearnedSign(Map, listed=False):
    """Monotone at the start, and not once training has made the factor negative."""

    name = "learned_sign"
    facts = Facts(odd=True, degree=1, monotone=True, zero_at_zero=True, linear=True, fold_safe=True)

    def setup(self, sizes):
        self.weight = torch.nn.Parameter(torch.ones(()))
        return self

    def forward(self, h, x):
        return h * self.weight


def test_facts_hold_for_whatever_is_learned():
    assert not measure(LearnedSign()).monotone
    with pytest.raises(AssertionError, match="monotone"):
        check_facts(LearnedSign())


def weighing(function, elementwise: bool = False) -> Weight:
    base = ElementwiseWeight if elementwise else Weight

    class Near(base, listed=False):
        name = "near"

        def weigh(self, scores, keep):
            return function(scores, keep)

    return Near()


WRONG_ROWS = {
    "the mask is forgotten in the sum": lambda s, keep: s.softmax(-1),
    "the sum is a millionth short": lambda s, keep: s.softmax(-1) * (1 - 1e-6),
    "a sink takes a little": lambda s, keep: over_sum(
        shifted_exp(s, keep, row_maximum(s, keep)), torch.full((1,), 1e-6, dtype=s.dtype)
    ),
    "absolute sums": lambda s, keep: s / s.abs().sum(-1, keepdim=True),
}


@pytest.mark.parametrize("case", WRONG_ROWS)
def test_rows_that_nearly_sum_to_one_are_rejected(case):
    assert not measure(weighing(WRONG_ROWS[case])).rows_sum_to_one


def test_a_quotient_by_a_vanishing_sum_is_not_bounded():
    assert not measure(weighing(lambda s, keep: over_sum(s))).bounded
    assert measure(weighing(lambda s, keep: over_sum(s, masses=s.abs()))).bounded


def test_a_zero_score_must_weigh_nothing_beside_any_others():
    centred = weighing(lambda s, keep: s - s.mean(-1, keepdim=True))
    assert not measure(centred).zero_at_zero
