"""What the rows of a study say, gathered per task and variant; the page and its figures read this.

The baseline is a variant like the others here; trials that did not finish keep their reason.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ogive.report.text import clean, is_number

BASELINE = "baseline"
_NOWHERE = math.nan


@dataclass(frozen=True)
class Trial:
    """One row, read defensively: a row that lacks something still gets its line in the page."""

    id: str
    variant: str
    role: str
    task: str
    seed: Any
    lr: Any
    state: str
    reason: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Finished, with a score that is a number."""
        return self.state == "done" and is_number(self.result.get("score"))

    @property
    def score(self) -> float:
        """The held-out score in the task's unit; NaN when there is none."""
        return float(self.result["score"]) if self.done else _NOWHERE

    @cached_property
    def losses(self) -> dict[int, float]:
        """Training loss by step."""
        return self._column(1)

    @cached_property
    def held_out(self) -> dict[int, float]:
        """Held-out score by step, where it was taken."""
        return self._column(2)

    def _column(self, column: int) -> dict[int, float]:
        return {
            point[0]: point[column] for point in self.result["curve"] if is_number(point[column])
        }

    def amount(self, name: str) -> float:
        """A number of the result (parameters, flops_per_token, step_ms …); NaN when missing."""
        value = self.result.get(name)
        return _float(value)


def _float(value: Any) -> float:
    return float(value) if is_number(value) else _NOWHERE


def read_trial(row: Any) -> Trial:
    """A row of the store (or anything with its attributes) as a `Trial` with clean strings."""
    config, result = clean(row.config or {}), dict(row.result or {})
    curve = result.pop("curve", None)  # numbers, and most of a row
    result = clean(result) | {"curve": curve or []}
    return Trial(
        id=clean(str(row.id)),
        variant=clean(row.variant),
        role=row.role,
        state=row.state,
        task=str(config.get("task", {}).get("name", "")),
        seed=config.get("seed"),
        lr=config.get("train", {}).get("lr"),
        reason=clean(row.reason or ""),
        config=config,
        result=result,
    )


@dataclass
class Evidence:
    """The trials of one task."""

    task: str
    trials: list[Trial]
    variants: list[str]  # the baseline first, the others in the study's order
    unit: str = ""  # of the scores, as the verdicts name it: nats per byte, accuracy
    higher_is_better: bool = False
    _compared: dict[str, dict[Any, Trial]] = field(default_factory=dict)
    _pairs: dict[str, list[tuple[Any, Trial, Trial]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        compared: dict[str, dict[Any, Trial]] = defaultdict(dict)
        for trial in self.trials:
            if trial.done and trial.role == "compare":
                compared[trial.variant][trial.seed] = trial
        self._compared = dict(compared)
        for trial in self.trials:
            if trial.done:
                self.unit = str(trial.result.get("metric", ""))
                self.higher_is_better = bool(trial.result.get("higher_is_better", False))
                break

    def compared(self, variant: str) -> dict[Any, Trial]:
        """Finished trials of the comparison by seed."""
        return self._compared.get(variant, {})

    def pairs(self, variant: str) -> list[tuple[Any, Trial, Trial]]:
        """(seed, baseline's trial, variant's trial) for the seeds that both finished."""
        if variant not in self._pairs:
            ours, theirs = self.compared(variant), self.compared(BASELINE)
            self._pairs[variant] = [
                (seed, theirs[seed], ours[seed])
                for seed in sorted(ours, key=_order)
                if seed in theirs
            ]
        return self._pairs[variant]

    def amounts(self, variant: str, name: str) -> list[float]:
        """A number of the result over the variant's finished trials of the comparison."""
        values = [trial.amount(name) for trial in self.compared(variant).values()]
        return [value for value in values if is_number(value)]

    def typical(self, variant: str, name: str) -> float:
        """Median over seeds of a number of the result; NaN when no trial has it."""
        values = self.amounts(variant, name)
        return statistics.median(values) if values else _NOWHERE

    def ladder(self, variant: str) -> dict[float, list[float]]:
        """Scores of the finished tuning trials by learning rate, in rising order.

        A rung that was tried and failed is there with no scores.
        """
        rungs: dict[float, list[float]] = defaultdict(list)
        for trial in self.trials:
            if trial.role == "tune" and trial.variant == variant and is_number(trial.lr):
                rungs[trial.lr].extend([trial.score] if trial.done else [])
        return dict(sorted(rungs.items()))

    def chosen_rate(self, variant: str) -> float | None:
        """The learning rate of the variant's trials in the comparison."""
        for trial in self.trials:
            if trial.role == "compare" and trial.variant == variant and is_number(trial.lr):
                return trial.lr
        return None


def _order(seed: Any) -> tuple[bool, Any]:
    return (False, seed) if is_number(seed) else (True, str(seed))


def gather(spec: Mapping[str, Any], rows: Iterable[Any]) -> list[Evidence]:
    """The study's trials by task, in the study's order; a task without trials is there, empty.

    Args:
        spec: the study as plain values (`tasks`, `variants` …), strings already clean.
        rows: what the store's `rows` gives.
    """
    by_task: dict[str, list[Trial]] = {name: [] for name in task_names(spec)}
    for row in rows:
        trial = read_trial(row)
        by_task.setdefault(trial.task, []).append(trial)
    if len(by_task) > 1:
        by_task = {name: trials for name, trials in by_task.items() if name or trials}
    found = []
    for name, trials in by_task.items():
        extra = [trial.variant for trial in trials]
        variants = list(dict.fromkeys([BASELINE, *spec.get("variants", {}), *extra]))
        found.append(Evidence(name, trials, variants))
    return found


def task_names(spec: Mapping[str, Any]) -> list[str]:
    """Names of the study's tasks, which may be written as text or as {"name": …}."""
    tasks = spec.get("tasks") or []
    return [task.get("name", "") if isinstance(task, dict) else str(task) for task in tasks]
