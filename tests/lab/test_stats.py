"""The statistics keep their promises in simulation and agree with scipy; wrong twins do not."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from scipy import special
from scipy import stats as reference

from ogive.lab import stats

TRIALS = 20_000 if os.environ.get("OGIVE_TEST_ALL") == "1" else 1500
SIZES = (3, 6, 10)


def arms(rng, n, tails, correlation):
    """Two arms over n seeds whose true difference is 0.3."""
    noise = rng.standard_normal if tails == "gauss" else lambda size: rng.standard_t(3, size)
    shared, own, other = noise(n), noise(n), noise(n)
    weight = math.sqrt(abs(correlation) / (1 - abs(correlation)))
    return 0.3 + own + math.copysign(weight, correlation) * shared, other + weight * shared


def broken_promises(interval, trials=TRIALS):
    """Where a 95 % interval for the mean difference does not cover as it says.

    With Gaussian noise coverage must be 95 % within binomial error; heavy tails may only widen it.
    """
    error = 3.5 * math.sqrt(0.95 * 0.05 / trials)
    broken = []
    for n in SIZES:
        for tails in ("gauss", "t3"):
            for correlation in (0.8, -0.5):
                rng = np.random.default_rng([n, len(tails), trials])
                pairs = (arms(rng, n, tails, correlation) for _ in range(trials))
                hits = sum(low <= 0.3 <= high for low, high in (interval(x, y) for x, y in pairs))
                most = 1.0 if tails == "t3" else 0.95 + error
                if not 0.95 - error <= hits / trials <= most:
                    broken.append(f"n={n} {tails} rho={correlation}: {hits / trials:.3f}")
    return broken


def ours(x, y):
    found = stats.paired(x, y)
    return found.low, found.high


def percentile_bootstrap(x, y):
    rng = np.random.default_rng(0)
    means = rng.choice(x - y, size=(300, len(x))).mean(1)
    return np.quantile(means, 0.025), np.quantile(means, 0.975)


def unpaired(x, y):
    error = math.sqrt((x.var(ddof=1) + y.var(ddof=1)) / len(x))
    half = special.stdtrit(2 * len(x) - 2, 0.975) * error
    return np.mean(x - y) - half, np.mean(x - y) + half


def test_interval_covers_95_percent():
    assert broken_promises(ours) == []


@pytest.mark.parametrize("twin", [percentile_bootstrap, unpaired])
def test_wrong_intervals_are_found_out(twin):
    assert broken_promises(twin, trials=400) != []


@pytest.mark.parametrize("n", SIZES)
def test_equivalence_is_rarely_claimed_at_the_margin(n):
    rng = np.random.default_rng(n)
    differences = 1.0 + 0.4 * rng.standard_normal((TRIALS, n))
    false = np.mean([stats.equivalent(stats.paired(d, 0 * d), 1.0) for d in differences])
    assert false <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / TRIALS)
    inside = np.mean([stats.equivalent(stats.paired(d - 1, 0 * d), 2.0) for d in differences])
    assert inside > 0.9, "and claimed where it is true, or the test above says nothing"


def test_paired_agrees_with_scipy():
    rng = np.random.default_rng(1)
    for n in (2, 3, 6, 17):
        x, y = rng.standard_normal((2, n))
        found, theirs = stats.paired(x, y), reference.ttest_rel(x, y)
        assert found.p_value == pytest.approx(theirs.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
        assert (found.low90, found.high90) == pytest.approx(tuple(theirs.confidence_interval(0.90)))
        assert found.sd == pytest.approx(np.std(x - y, ddof=1))
        if n > 2:
            assert found.correlation == pytest.approx(reference.pearsonr(x, y).statistic)


@pytest.mark.parametrize("margin", [0.2, 0.6, 1.2])
def test_equivalence_is_two_one_sided_tests(margin):
    rng = np.random.default_rng(2)
    for _ in range(200):
        d = rng.standard_normal(6)
        sides = [
            reference.ttest_1samp(d, -margin, alternative="greater").pvalue,
            reference.ttest_1samp(d, margin, alternative="less").pvalue,
        ]
        assert stats.equivalent(stats.paired(d, 0 * d), margin) == (max(sides) < 0.05)


@pytest.mark.parametrize("n", [2, 5, 6, 11])
def test_exact_sign_flip_agrees_with_scipy(n):
    d = np.random.default_rng(n).standard_normal(n) + 0.7
    theirs = reference.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert stats.sign_flip(d) == pytest.approx(theirs.pvalue)
    assert stats.sign_flip(np.abs(d)) == pytest.approx(2 / 2**n), (
        "the floor that it cannot go below"
    )


def test_sampled_sign_flip_meets_the_exact_one():
    d = np.random.default_rng(3).standard_normal(16) + 0.4
    exact = stats.sign_flip(d)
    bits = (np.arange(2**17)[:, None] >> np.arange(17)) & 1
    longer = np.append(d, 0.2)
    truth = np.mean(np.abs((1 - 2 * bits) @ longer) >= abs(longer.sum()) - 1e-12)
    assert stats.sign_flip(longer) == pytest.approx(truth, abs=0.003)
    assert stats.sign_flip(longer) == stats.sign_flip(longer), "seeded"
    assert stats.sign_flip(longer) != exact
    assert stats.sign_flip(np.full(40, 1.0)) > 0


def test_holm():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0]
    first, none, second = stats.holm([0.01, math.nan, 0.04])
    assert (first, second) == pytest.approx((0.02, 0.04))
    assert math.isnan(none)
    assert stats.holm([]) == []


def test_swapping_the_arms_turns_the_sign():
    x, y = np.random.default_rng(4).standard_normal((2, 7))
    there, back = stats.paired(x, y), stats.paired(y, x)
    assert there.effect == -back.effect
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p_value == pytest.approx(back.p_value)
    assert stats.sign_flip(x - y) == stats.sign_flip(y - x)


def test_a_shift_of_both_arms_changes_nothing():
    x, y = np.random.default_rng(5).standard_normal((2, 7))
    there, moved = stats.paired(x, y), stats.paired(x + 3, y + 3)
    for name in ("effect", "low", "high", "sd", "p_value", "correlation"):
        assert getattr(there, name) == pytest.approx(getattr(moved, name))


def test_few_seeds_and_no_spread():
    nothing, one = stats.paired([], []), stats.paired([2.0], [1.0])
    assert (nothing.n, one.n, one.effect) == (0, 1, 1.0)
    assert all(math.isnan(v) for v in (nothing.effect, nothing.low, one.low, one.p_value, one.sd))
    assert not stats.equivalent(one, 10.0)
    same = stats.paired([1.1, 2.1, 3.1], [1.0, 2.0, 3.0])  # 0.1 but for rounding
    assert same.sd == 0.0
    assert same.low == same.high == pytest.approx(0.1)
    assert same.p_value == 0.0
    zero = stats.paired([1.0, 2.0], [1.0, 2.0])
    assert (zero.effect, zero.p_value) == (0.0, 1.0)
    assert math.isnan(stats.paired([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).correlation)
    assert math.isnan(stats.sign_flip([]))


@pytest.mark.parametrize(
    ("x", "y"), [([1.0, 2.0], [1.0]), ([math.nan], [1.0]), ([1.0], [math.inf])]
)
def test_scores_that_do_not_pair_up_raise(x, y):
    with pytest.raises(ValueError, match="scores must"):
        stats.paired(x, y)


@pytest.mark.parametrize("effect", [0.4, 0.8, 1.5])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 11])
def test_seeds_for_a_difference_give_the_power_they_promise(effect, alpha):
    n = stats.seeds_for_difference(effect, 1.0, alpha)
    assert simulated_power(n, effect, lambda found: found.p_value < alpha) > 0.8 - 0.04
    assert simulated_power(n - 1, effect, lambda found: found.p_value < alpha) < 0.8 + 0.04


@pytest.mark.parametrize(("effect", "margin"), [(0.0, 0.5), (0.3, 1.0), (0.0, 2.0)])
def test_seeds_for_equivalence_give_the_power_they_promise(effect, margin):
    n = stats.seeds_for_equivalence(effect, 1.0, margin)
    assert simulated_power(n, effect, lambda found: stats.equivalent(found, margin)) > 0.8 - 0.04
    assert (
        simulated_power(n - 2, effect, lambda found: stats.equivalent(found, margin)) < 0.8 + 0.04
    )


def simulated_power(n, effect, succeeds, trials=1200):
    rng = np.random.default_rng(n)
    draws = effect + rng.standard_normal((trials, n))
    return np.mean([succeeds(stats.paired(d, 0 * d)) for d in draws])


def test_seeds_that_nobody_can_run():
    assert stats.seeds_for_difference(0.01, 1.0) is None
    assert stats.seeds_for_difference(0.0, 1.0) is None
    assert stats.seeds_for_equivalence(1.0, 1.0, 1.0) is None
    assert stats.seeds_for_equivalence(0.99, 1.0, 1.0) is None
    assert stats.seeds_for_difference(1e6, 1.0) == 2
