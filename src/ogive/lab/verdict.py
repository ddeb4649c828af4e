"""Verdicts: from the rows of a study to one comparison per variant, without torch.

The rule, for every variant on every task:

    equivalent   the whole 90 % paired t interval lies within ± margin (two one-sided tests at 5 %);
                 where the difference is measurable all the same, the sentence says so
    better       the 95 % paired t interval excludes 0 on the good side, and the paired t test's p,
    worse        … on the bad side … adjusted by Holm over all comparisons of the study, is < 0.05
    undecided    otherwise; says how many more seeds would decide, were the measured effect and
                 spread the truth, four times in five

Holm bounds at 5 % the chance that *any* variant without effect is called better or worse.
Equivalence is judged at 5 % for each variant by itself. Both hold for a number of seeds fixed in
advance: adding seeds until a verdict appears raises the chance of a false one, so the number of
looks belongs beside it. A seed that failed in either arm is dropped from both and counted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from ogive.lab import stats
from ogive.lab.study import BASELINE, Study

if TYPE_CHECKING:
    from ogive.lab.store import Row

VERDICTS = ("better", "worse", "equivalent", "undecided")
FEWEST_SEEDS = 6  # below, an exact sign-flip test cannot reach 5 %: the verdict is called weak


@dataclass(frozen=True)
class Comparison:
    """One variant against the baseline on one task; numbers in the metric's units.

    `effect` is variant minus baseline, `low` and `high` its 95 % interval, `low90` and `high90` the
    90 % interval that decides equivalence. Unknown numbers are NaN. `seeds`, `differences` and the
    scores are in the same order. `more_seeds` is None where decided, or where more than
    `stats.MOST_SEEDS` in all would be needed. `cost` is the median over seeds of time per step
    against the baseline's. `failed` counts seeds lost to a failure in either arm,
    `untrained` says that all learning rates of one arm's ladder failed, and `reasons` say why.
    """

    task: str
    variant: str
    control: bool
    metric: str
    higher_is_better: bool
    margin: float
    weak: bool
    verdict: str
    measurable: bool
    effect: float
    low: float
    high: float
    low90: float
    high90: float
    sd: float
    n: int
    planned: int
    failed: int
    untrained: bool
    correlation: float
    p_value: float
    p_holm: float
    p_signflip: float
    more_seeds: int | None
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    baseline_scores: tuple[float, ...]
    differences: tuple[float, ...]
    learning_rate: float | None
    baseline_learning_rate: float | None
    parameters: int | None
    baseline_parameters: int | None
    step_ms: float
    baseline_step_ms: float
    cost: float
    reasons: tuple[str, ...]

    @property
    def excludes_zero(self) -> bool:
        """Whether the 95 % interval, taken by itself, shows a difference."""
        return self.low > 0 or self.high < 0

    @property
    def improves(self) -> bool:
        """Whether the effect points to the good side of the metric."""
        return self.effect != 0 and (self.effect > 0) == self.higher_is_better


def compare(study: Study | Mapping[str, Any], rows: Iterable[Row]) -> list[Comparison]:
    """Judge every variant of a study by the rows there are; works on a half-finished study too.

    Args:
        study: a `Study`, or its `spec()` as the store keeps it.
        rows: the study's rows; rows of tuning are left aside.

    Returns:
        One comparison per task and variant, in the study's order.
    """
    spec = study.spec() if isinstance(study, Study) else study
    arms = _by_arm(rows)
    found = [
        _measure(
            spec, task, label, arms.get((task, label), _Arm()), arms.get((task, BASELINE), _Arm())
        )
        for task in spec["tasks"]
        for label in spec["variants"]
    ]
    adjusted = stats.holm([one.p_value for one in found])
    family = [p for p in adjusted if not math.isnan(p)]
    return [_judge(one, p, family) for one, p in zip(found, adjusted, strict=True)]


@dataclass
class _Arm:
    """One arm's rows on one task: comparisons by seed, and those of its tuning."""

    by_seed: dict[int, Row] = dataclasses.field(default_factory=dict)
    tuning: list[Row] = dataclasses.field(default_factory=list)

    @property
    def scores(self) -> dict[int, float]:
        return {seed: _score(row) for seed, row in sorted(self.by_seed.items()) if _scored(row)}

    @property
    def lost(self) -> list[Row]:
        return [row for row in self.by_seed.values() if _over(row) and not _scored(row)]

    @property
    def untrained(self) -> list[Row]:
        """The rows of its tuning, where every one of them failed."""
        failed = all(row.state == "failed" for row in self.tuning) and not self.by_seed
        return self.tuning if failed else []

    @property
    def learning_rate(self) -> float | None:
        return next((row.learning_rate for row in self.by_seed.values()), None)

    def result(self, name: str, default: Any = None) -> Any:
        """What the first trial that has a score says of itself."""
        good = (row.result or {} for row in self.by_seed.values() if _scored(row))
        return next(good, {}).get(name, default)


def _by_arm(rows: Iterable[Row]) -> dict[tuple[str, str], _Arm]:
    arms: dict[tuple[str, str], _Arm] = {}
    for row in rows:
        arm = arms.setdefault((row.task, row.variant), _Arm())
        if row.role == "compare":
            arm.by_seed[row.seed] = row
        else:
            arm.tuning.append(row)
    return arms


def _measure(spec: Mapping[str, Any], task: str, label: str, arm: _Arm, base: _Arm) -> Comparison:
    """Join the pairs and compute everything that needs no other variant."""
    own, other = arm.scores, base.scores
    seeds = [seed for seed in own if seed in other]
    scores, baseline_scores = (tuple(side[seed] for seed in seeds) for side in (own, other))
    differences = tuple(a - b for a, b in zip(scores, baseline_scores, strict=True))
    summary = stats.paired(scores, baseline_scores)
    times = [(_step(arm.by_seed[seed]), _step(base.by_seed[seed])) for seed in seeds]
    times = [pair for pair in times if min(pair) > 0]
    lost = [*arm.lost, *base.lost]
    troubles = [*lost, *arm.untrained, *base.untrained]
    known = arm if own else base
    return Comparison(
        task=task,
        variant=label,
        control=label in spec["controls"],
        metric=known.result("metric", "units of the metric"),
        higher_is_better=bool(known.result("higher_is_better", False)),
        margin=spec["margin"][task],
        weak=bool(spec["quick"]) or summary.n < FEWEST_SEEDS,
        verdict="undecided",
        measurable=False,
        **{field.name: getattr(summary, field.name) for field in dataclasses.fields(summary)},
        planned=max(spec["seeds"], len(arm.by_seed)),
        failed=len({row.seed for row in lost}),
        untrained=bool(arm.untrained or base.untrained),
        p_holm=math.nan,
        p_signflip=stats.sign_flip(differences),
        more_seeds=None,
        seeds=tuple(seeds),
        scores=scores,
        baseline_scores=baseline_scores,
        differences=differences,
        learning_rate=arm.learning_rate,
        baseline_learning_rate=base.learning_rate,
        parameters=arm.result("parameters"),
        baseline_parameters=base.result("parameters"),
        step_ms=_median(a for a, _ in times),
        baseline_step_ms=_median(b for _, b in times),
        cost=_median(a / b for a, b in times),
        reasons=tuple(sorted({row.reason or "its score is not a number" for row in troubles})),
    )


def _median(values: Iterable[float]) -> float:
    known = list(values)
    return median(known) if known else math.nan


def _over(row: Row) -> bool:
    return row.state in ("done", "failed")


def _scored(row: Row) -> bool:
    score = (row.result or {}).get("score")
    return row.state == "done" and isinstance(score, int | float) and math.isfinite(score)


def _score(row: Row) -> float:
    return float((row.result or {})["score"])


def _step(row: Row) -> float:
    return float((row.result or {}).get("step_ms") or 0.0)


def _judge(one: Comparison, p_holm: float, family: Sequence[float]) -> Comparison:
    """Apply the rule at the top of this file."""
    if one.n < 2:
        return one
    measurable = one.excludes_zero and p_holm < stats.LEVEL
    if one.sd == 0.0 and one.n < FEWEST_SEEDS:
        measurable = False  # a spread of exactly 0 over a few seeds is no measurement of spread
    within = -one.margin < one.low90 and one.high90 < one.margin
    if within:
        verdict = "equivalent"
    elif measurable:
        verdict = "better" if one.improves else "worse"
    else:
        verdict = "undecided"
    more = _more_seeds(one, p_holm, family) if verdict == "undecided" else None
    return dataclasses.replace(
        one, p_holm=p_holm, measurable=measurable, verdict=verdict, more_seeds=more
    )


def _more_seeds(one: Comparison, p_holm: float, family: Sequence[float]) -> int | None:
    """Seeds still to run for a difference or for equivalence, whichever takes fewer."""
    if one.sd == 0.0:
        return max(1, FEWEST_SEEDS - one.n)  # see `_judge`
    rivals = sum(1 for p in family if p >= p_holm)  # Holm divides the level by those still open
    totals = (
        stats.seeds_for_difference(one.effect, one.sd, stats.LEVEL / max(1, rivals)),
        stats.seeds_for_equivalence(one.effect, one.sd, one.margin),
    )
    enough = [total for total in totals if total is not None]
    return max(1, min(enough) - one.n) if enough else None
