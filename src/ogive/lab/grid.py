"""From a study's plan to its trials: the ladder first, then comparisons seed by seed.

Comparisons are ordered by seed, so that a run that is stopped half way has complete pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ogive.lab.store import Row, Trial
from ogive.lab.tuning import Rung, Tuned, tune
from ogive.lab.validate import FIRST_TUNING_SEED

Plan = dict[str, Any]
Key = tuple[str, str]
"""A task's name and an arm's label."""


@dataclass(frozen=True)
class Ladder:
    """The learning rates that an arm tries, in the order of trying, and what came of it."""

    rates: tuple[float, ...]
    tuned: Tuned


def ladders(plan: Plan, rows: Iterable[Row]) -> dict[Key, Ladder]:
    """How far every arm's tuning is: the baseline first, then the variants, task by task."""
    tried: dict[Key, list[Row]] = {}
    for row in rows:
        if row.role == "tune":
            tried.setdefault((row.task, row.variant), []).append(row)
    keys = [(task, label) for task, labels in plan["arms"].items() for label in labels]
    return {key: _ladder(plan["ladder"], tried.get(key, [])) for key in keys}


def wanted(plan: Plan, seeds: int, ladders: dict[Key, Ladder]) -> list[Trial]:
    """All trials that the study consists of, as far as its ladders decide it."""
    trials: list[Trial] = []
    for place, (key, ladder) in enumerate(ladders.items()):
        for at, rate in enumerate(ladder.rates):
            for count in range(plan["ladder"]["seeds"]):
                trial = config(plan, key, rate, FIRST_TUNING_SEED + count)
                position = (place * 1000 + at) * 1000 + count
                trials.append(Trial(trial, key[1], "tune", position))
        if ladder.tuned.best is not None:
            for seed in range(seeds):
                trial = config(plan, key, ladder.tuned.best, seed)
                trials.append(Trial(trial, key[1], "compare", seed * len(ladders) + place))
    return trials


def outdated(rows: Iterable[Row], ladders: dict[Key, Ladder]) -> list[Row]:
    """Comparisons at a learning rate that is no longer the arm's (a failed rung was retried)."""
    return [
        row
        for row in rows
        if row.role == "compare"
        and (tuned := ladders[row.task, row.variant].tuned).settled
        and row.learning_rate != tuned.best
    ]


def config(plan: Plan, key: Key, rate: float, seed: int) -> dict[str, Any]:
    """One trial's configuration: all that determines its numbers, and nothing else."""
    task, label = key
    arm = plan["arms"][task][label]
    return {
        "task": plan["tasks"][task],
        "sites": arm["sites"],
        "model": arm["model"],
        "train": {**arm["train"], "lr": rate},
        "seed": seed,
        "code": plan["code"],
    }


def _ladder(ladder: dict[str, Any], rows: list[Row]) -> Ladder:
    rates = ladder["rates"]
    if len(rates) == 1:
        return Ladder((), Tuned(best=rates[0], settled=True))
    over = [row for row in rows if row.state in ("done", "failed")]
    tried = [*rates, *sorted({row.learning_rate for row in rows} - {*rates})]
    rungs = {
        rate: Rung(tuple(_score(row) for row in over if row.learning_rate == rate), ladder["seeds"])
        for rate in tried
    }
    higher = any((row.result or {}).get("higher_is_better", False) for row in over)
    tuned = tune(rates, rungs, ladder["extra"], higher)
    more = [] if tuned.next_rung is None else [tuned.next_rung]
    return Ladder((*tried, *more), tuned)


def _score(row: Row) -> float | None:
    return row.result["score"] if row.state == "done" and row.result else None
