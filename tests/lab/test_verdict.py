"""From rows to verdicts to sentences: the rule, over a family, with seeds that failed."""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np
import pytest

from ogive.lab import Row, Study, compare, sentence, stats
from ogive.lab.validate import FIRST_TUNING_SEED

STUDIES = 4000 if os.environ.get("OGIVE_TEST_ALL") == "1" else 500


def study(variants=("a",), **changes) -> Study:
    labels = {label: f"query={label}" for label in variants}
    return Study(**{"name": "s", "question": "?", "variants": labels, "margin": 0.1, **changes})


def row(variant, seed, score, *, role="compare", state="done", task="text", **result) -> Row:
    """A row that ended with a score, or failed without one."""
    good = {
        "score": score,
        "metric": "nats per byte",
        "higher_is_better": False,
        "parameters": 1000,
        "step_ms": 2.0,
        **result,
    }
    config = {"task": {"name": task}, "seed": seed, "train": {"lr": 0.01}}
    return Row(
        study="s",
        variant=variant,
        role=role,
        position=0,
        id=f"{variant}-{seed}-{role}",
        config=config,
        state=state,
        reason="diverged: nan at step 3" if state == "failed" else None,
        result=good if state == "done" else None,
        deaths=0,
        created=0.0,
        started=0.0,
        finished=1.0,
    )


def rows(differences, variant="a", **result) -> list[Row]:
    """A baseline that varies from seed to seed, and a variant that differs from it as told."""
    base = [2.0 + 0.3 * math.sin(seed) for seed in range(len(differences))]
    pairs = list(zip(base, differences, strict=True))
    found = [row("baseline", seed, y, **result) for seed, (y, _) in enumerate(pairs)]
    return found + [row(variant, seed, y + d, **result) for seed, (y, d) in enumerate(pairs)]


SPREAD = np.array([-1.0, 1.0, -0.5, 0.5, -0.2, 0.2])


@pytest.mark.parametrize(
    ("differences", "higher", "verdict", "measurable"),
    [
        (-0.5 + 0.02 * SPREAD, False, "better", True),
        (-0.5 + 0.02 * SPREAD, True, "worse", True),
        (+0.5 + 0.02 * SPREAD, False, "worse", True),
        (+0.5 + 0.02 * SPREAD, True, "better", True),
        (0.0 + 0.02 * SPREAD, False, "equivalent", False),
        (0.05 + 0.01 * SPREAD, False, "equivalent", True),
        (0.09 + 0.05 * SPREAD, False, "worse", True),  # measurable, and not inside the margin
        (0.05 + 0.2 * SPREAD, False, "undecided", False),
        (0.0 * SPREAD, False, "equivalent", False),
        (0.0 * SPREAD + 0.5, False, "worse", True),
    ],
)
def test_the_rule(differences, higher, verdict, measurable):
    (one,) = compare(study(), rows(differences, higher_is_better=higher))
    assert (one.verdict, one.measurable) == (verdict, measurable)
    assert (one.more_seeds is None) == (verdict != "undecided")
    assert one.effect == pytest.approx(np.mean(differences))
    assert one.verdict in sentence(one)


def test_few_seeds_without_spread_decide_no_difference():
    (one,) = compare(study(), rows([0.5, 0.5, 0.5]))
    assert (one.sd, one.verdict, one.more_seeds) == (0.0, "undecided", 3)
    (same,) = compare(study(), rows([0.0, 0.0]))
    assert same.verdict == "equivalent"


@pytest.mark.parametrize("n", [0, 1])
def test_no_verdict_without_an_interval(n):
    (one,) = compare(study(), rows([0.1] * n))
    assert (one.n, one.verdict, one.more_seeds) == (n, "undecided", None)
    assert math.isnan(one.low)
    assert "undecided" in sentence(one)
    assert "an interval takes two" in sentence(one)


def test_failed_missing_and_nan_seeds_leave_their_pair_and_are_counted():
    found = rows(-0.5 + 0.02 * np.resize(SPREAD, 9))
    found[2] = row("baseline", 2, 0.0, state="failed")
    found[9 + 4] = row("a", 4, float("nan"))
    found[9 + 5] = row("a", 5, None)
    del found[9 + 7]
    (one,) = compare(study(seeds=9), found)
    assert one.seeds == (0, 1, 3, 6, 8)
    assert (one.n, one.failed, one.planned, one.weak) == (5, 3, 9, True)
    assert "3 of 9 seeds failed and are left out" in sentence(one)
    assert one.reasons == ("diverged: nan at step 3", "its score is not a number")
    assert len(one.differences) == len(one.scores) == len(one.baseline_scores) == 5


def test_tuning_is_no_evidence():
    found = rows([0.1] * 6)
    tuned = [row("a", FIRST_TUNING_SEED, -99.0, role="tune")]
    assert compare(study(), found + tuned) == compare(study(), found)


def test_an_arm_that_never_trained_says_so():
    base = [row("baseline", seed, 1.0 + seed) for seed in range(6)]
    tuned = [row("a", FIRST_TUNING_SEED, 0.0, role="tune", state="failed")]
    (one,) = compare(study(), base + tuned)
    assert one.untrained
    assert "no learning rate of the ladder trained (diverged: nan at step 3)" in sentence(one)
    (waiting,) = compare(study(), base)
    assert not waiting.untrained


def test_order_of_rows_does_not_matter():
    found = rows(0.05 + 0.5 * SPREAD)
    assert compare(study(), found) == compare(study(), found[::-1])


def test_tasks_and_variants_in_the_order_of_the_study():
    two = study(("b", "a"), tasks=("text", "recall"), margin={"text": 0.1, "recall": 0.02})
    found = compare(two, [])
    assert [(one.task, one.variant) for one in found] == [
        ("text", "b"),
        ("text", "a"),
        ("recall", "b"),
        ("recall", "a"),
    ]
    assert [one.margin for one in found] == [0.1, 0.1, 0.02, 0.02]
    assert compare(two.spec(), []) != []


def null_study(rng, variants=11, seeds=6) -> list[Row]:
    """No variant has an effect; all share the baseline's noise, as real ones do."""
    shared = rng.standard_normal(seeds)
    arms = {"baseline": shared + rng.standard_normal(seeds)}
    arms |= {f"v{k}": shared + rng.standard_normal(seeds) for k in range(variants)}
    return [
        row(arm, seed, float(s)) for arm, scores in arms.items() for seed, s in enumerate(scores)
    ]


def false_alarm_rate(judge) -> float:
    """How often any of 11 variants without effect is called better or worse."""
    rng = np.random.default_rng(0)
    spec = study([f"v{k}" for k in range(11)], margin=1e-6).spec()
    alarms = (
        any(one in ("better", "worse") for one in judge(compare(spec, null_study(rng))))
        for _ in range(STUDIES)
    )
    return sum(alarms) / STUDIES


def test_false_alarms_over_a_family_of_eleven():
    most = 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert false_alarm_rate(lambda found: [one.verdict for one in found]) <= most


def test_without_holm_the_family_would_cry_wolf():
    def careless(found):
        return ["worse" if one.excludes_zero else "undecided" for one in found]

    assert false_alarm_rate(careless) > 0.15


def test_more_seeds_takes_the_shorter_way():
    (apart,) = compare(study(), rows(0.4 + 0.6 * SPREAD))
    assert apart.more_seeds == stats.seeds_for_difference(apart.effect, apart.sd) - 6
    (alike,) = compare(study(margin=0.5), rows(0.01 + 1.0 * SPREAD))
    assert alike.more_seeds == stats.seeds_for_equivalence(alike.effect, alike.sd, 0.5) - 6
    (never,) = compare(study(margin=1e-4), rows(0.01 + 1.0 * SPREAD))
    assert (never.verdict, never.more_seeds) == ("undecided", None)
    assert "more than 200 seeds would be needed" in sentence(never)


def test_a_sentence_holds_all_that_an_asker_needs():
    found = rows(-0.3 + 0.5 * SPREAD)
    found = [
        dataclasses.replace(r, result={**r.result, "parameters": 1003, "step_ms": 3.0})
        if r.variant == "a"
        else r
        for r in found
    ]
    (one,) = compare(study(controls=("a",)), found)
    text = sentence(one)
    for words in (
        "a (control) on text: undecided",
        "−0.30 nats per byte, lower than the baseline, where lower is better",
        "95 % interval −0.",
        " to +0.",
        "6 paired seeds, pairing correlation 0.",
        "1,003 parameters (+0.30 %)",
        "1.50 × the baseline's time per step",
        f"about {one.more_seeds} more seeds would decide",
    ):
        assert words in text
    assert "weak" not in text


def test_what_rounds_to_nothing_has_no_sign():
    (one,) = compare(study(margin=0.5), rows(-1e-5 + 0.5 * SPREAD))
    assert ": 0.00 nats per byte, lower than the baseline" in sentence(one)


def test_weak_verdicts_say_so():
    (few,) = compare(study(), rows([-0.5, -0.51, -0.49]))
    assert (few.verdict, few.weak) == ("better", True)
    assert "a weak verdict: 3 seeds are fewer than 6" in sentence(few)
    (quick,) = compare(study(quick=True), rows(-0.5 + 0.02 * SPREAD))
    assert "a weak verdict, from a quick study" in sentence(quick)


def test_significant_alone_but_not_in_the_family():
    labels = [f"v{k}" for k in range(11)]
    differences = 0.3 + 0.3 * SPREAD
    found = rows(differences, "v0")
    found += [
        r for k in range(1, 11) for r in rows(2.0 * SPREAD, f"v{k}") if r.variant != "baseline"
    ]
    one = compare(study(labels), found)[0]
    assert one.excludes_zero
    assert one.p_holm > 0.05
    assert one.verdict == "undecided"
    assert "not after Holm's correction" in sentence(one)
    assert compare(study(["v0"]), rows(differences, "v0"))[0].verdict == "worse"
