"""A study: a question, a baseline, the variants that might answer it, and how to compare them.

A study is a Python file that you can read, with a global `study`. It is derived from another by
changing a field: `study = other.replace(name="longer", train={**other.train, "steps": 900})`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ogive.errors import StudyError, unknown
from ogive.lab.identity import canonical
from ogive.lab.validate import check_arm, check_names, check_numbers, check_tasks

if TYPE_CHECKING:
    from ogive.parts import Sites

BASELINE = "baseline"
"""The baseline's label, in rows and plans."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: what sits at the sites, and what else differs.

    `model` and `train` are laid over the study's own, so `Arm("", model={"hidden": 0})` is the
    default attention without a feed-forward network. An arm that changes the model is not matched
    to the baseline's budget: its receipt shows what it costs instead.
    """

    sites: Sites | str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """The arm as a JSON value."""
        model, train = dict(self.model), dict(self.train)
        return {"sites": str(self.sites).strip(), "model": model, "train": train}


@dataclass(frozen=True)
class Study:
    """A grid of trials and the rules by which its variants are judged.

    Every variant is compared with the baseline on every task, seed by seed. Each arm first tries
    every learning rate on `tuning_seeds` seeds that the comparison never uses; where the best one
    is at the end of the ladder, the ladder grows by a rung, at most `extra_rungs` times per end.

    Args:
        name: letters, digits, `.`, `_` and `-`; names the study in its store and its files.
        question: what the study answers, in a sentence.
        variants: label to a written Sites (or `Sites`, or `Arm`).
        tasks: names of tasks.
        baseline: what the variants are compared with.
        controls: labels of variants that are controls, not candidates.
        margin: differences smaller than this do not matter, in the metric's units; a number, or one
            per task. Declared before the trials run.
        seeds: comparison seeds; at least 2 for an interval, 6 for a verdict that is not weak.
        tuning_seeds: seeds for the ladder of learning rates.
        learning_rates: the ladder, ascending; a single one is used as it is, without tuning.
        extra_rungs: by how many rungs either end of the ladder may grow.
        match: what the variants are made to share with the baseline: "parameters", "flops", "none".
        model: settings of the model, without its sites, over the task's own defaults.
        train: settings of training, without the learning rate, over the task's own defaults.
        task_options: options per task.
        quick: trains by the task's quick settings, and calls its verdicts weak.
        plugins: modules or .py files with parts of your own, imported before the trials.

    Raises:
        StudyError: what does not fit, and what would.
    """

    name: str
    question: str
    variants: Mapping[str, Sites | str | Arm]
    tasks: Sequence[str] = ("text",)
    baseline: Sites | str | Arm = ""
    controls: Sequence[str] = ()
    margin: float | Mapping[str, float] = 0.01
    seeds: int = 6
    tuning_seeds: int = 1
    learning_rates: Sequence[float] = (1e-3, 3e-3, 1e-2)
    extra_rungs: int = 1
    match: str = "parameters"
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    task_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quick: bool = False
    plugins: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_names(self)
        check_numbers(self)
        check_tasks(self)
        seen: dict[str, str] = {}
        for label, arm in self.arms().items():
            check_arm(label, arm, self.model, self.train)
            content = canonical(arm.spec())
            if content in seen:
                raise StudyError(f"{label!r} is the same as {seen[content]!r}: {arm.spec()}")
            seen[content] = label
        canonical(self.spec())

    def arms(self) -> dict[str, Arm]:
        """The baseline, then the variants, by label."""
        both = {BASELINE: self.baseline, **self.variants}
        return {label: arm if isinstance(arm, Arm) else Arm(arm) for label, arm in both.items()}

    def replace(self, **changes: Any) -> Study:
        """A study like this one but for the fields named.

        Raises:
            StudyError: a field of that name does not exist; the message lists those that do.
        """
        for name in changes:
            if name not in FIELDS:
                raise StudyError(str(unknown("field of a study", name, FIELDS)))
        return dataclasses.replace(self, **changes)

    def spec(self) -> dict[str, Any]:
        """The study as a JSON value: what the store keeps and the report reads."""
        margin = self.margin
        arms = {label: arm.spec() for label, arm in self.arms().items()}
        return {
            "name": self.name,
            "question": self.question,
            "tasks": list(self.tasks),
            "baseline": arms.pop(BASELINE),
            "variants": arms,
            "controls": list(self.controls),
            "margin": {
                task: float(margin[task] if isinstance(margin, Mapping) else margin)
                for task in self.tasks
            },
            "seeds": self.seeds,
            "tuning_seeds": self.tuning_seeds,
            "learning_rates": [float(rate) for rate in self.learning_rates],
            "extra_rungs": self.extra_rungs,
            "match": self.match,
            "model": dict(self.model),
            "train": dict(self.train),
            "task_options": {task: dict(self.task_options.get(task, {})) for task in self.tasks},
            "quick": self.quick,
            "plugins": [str(name) for name in self.plugins],
        }


FIELDS = tuple(each.name for each in dataclasses.fields(Study))
