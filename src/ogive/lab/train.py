"""One trial: build the model, train it, score it. Read from top to bottom; nothing is hidden.

The same configuration gives the same score to the last bit on the same machine: one thread,
parameters started by name (`pairing`), data and dropout from streams keyed by (seed, step).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from ogive.errors import ArgumentError, StudyError, TrialDiverged, unknown
from ogive.lab.average import WeightAverage
from ogive.lab.budget import count_parameters, flops_per_token
from ogive.lab.keys import key
from ogive.lab.machine import environment, keep_freed_memory, one_thread
from ogive.lab.pairing import initialise
from ogive.lab.tasks import Task, build

POINTS = 40
"""How many points a learning curve has, at most."""
_AT_LEAST_ONE = {"steps", "batch", "evaluations"}
_KINDS = {"int": ("whole number", int), "float": ("number", int | float)}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        steps: optimizer steps.
        batch: sequences per step.
        lr: highest learning rate, reached after the warm-up; a cosine then takes it to zero.
        warmup: steps of linear warm-up.
        weight_decay: AdamW's, on matrices that start at random; gains, biases, logits and other
            parameters with a declared start are not pulled towards zero.
        clip: largest norm of the gradient; 0 for no clipping.
        ema: decay of the average of the weights that is scored; 0 scores the last weights.
        evaluations: how often the held-out set is scored on the way, the end included.
    """

    steps: int = 400
    batch: int = 16
    lr: float = 3e-3
    warmup: int = 40
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.0
    evaluations: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            came, least = getattr(self, field.name), int(field.name in _AT_LEAST_ONE)
            kind, fits = _KINDS[str(field.type)]
            if isinstance(came, bool) or not isinstance(came, fits) or not least <= came < math.inf:
                raise ArgumentError(
                    f"train setting {field.name} takes a {kind} of at least {least}, not {came!r}"
                )
        if self.ema >= 1:
            raise ArgumentError(f"train setting ema takes a decay below 1, not {self.ema!r}")

    @classmethod
    def read(cls, settings: dict[str, Any]) -> Recipe:
        """A recipe from a plain dict; `UnknownName` for a setting that there is not."""
        known = {field.name for field in fields(cls)}
        for name in settings:
            if name not in known:
                raise unknown("train setting", name, known)
        return cls(**settings)

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, …, steps − 1."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (1 + math.cos(math.pi * done)) / 2


def train(
    config: dict[str, Any], *, on_step: Callable[[int, float], None] | None = None
) -> dict[str, Any]:
    """Run one trial.

    Args:
        config: {"task": {"name", "version", "options"}, "sites": written form, "model": settings
            of the model, "train": settings of `Recipe`, "seed": int}; other keys are ignored.
        on_step: called after every step with the steps done so far and the training loss.

    Returns:
        A JSON-able dict: score, metric, unit, higher_is_better, curve ([step, training loss since
        the last point, held-out score or None] …), parameters, flops_per_token, step_ms (median),
        seconds, environment, diverged (False: a diverged trial raises); and `picture`, where the
        task has one.

    Raises:
        TrialDiverged: the loss became NaN or infinite; says at which step.
        StudyError: a key is missing, or the task's data are not those the trial was made for.
        UnknownName, ArgumentError, DataError: a setting, part or file that does not fit.
    """
    began = time.perf_counter()
    task, recipe, seed = _read(config)
    keep_freed_memory()
    with one_thread(), torch.random.fork_rng(devices=[]):
        model = task.model(config["model"], config["sites"])
        drawn = initialise(model, seed)
        run = _Run(task, model, recipe, seed, drawn, on_step)
        score = run.to_the_end()
        picture = run.picture()
        return {
            "score": score,
            "metric": task.metric,
            "unit": task.unit,
            "higher_is_better": task.higher_is_better,
            "curve": run.curve,
            "parameters": count_parameters(model),
            "flops_per_token": flops_per_token(task, config["model"], config["sites"]),
            "step_ms": round(1000 * statistics.median(run.times), 3),
            "seconds": round(time.perf_counter() - began, 3),
            "environment": environment(),
            "diverged": False,
            **({} if picture is None else {"picture": picture}),
        }


class _Run:
    """A model on its way: the optimizer, the average, the curve."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        recipe: Recipe,
        seed: int,
        drawn: frozenset[str],
        on_step: Callable[[int, float], None] | None,
    ) -> None:
        self.task, self.model, self.recipe, self.seed = task, model, recipe, seed
        self.on_step = on_step or (lambda step, loss: None)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(model, recipe, drawn)
        self.average = WeightAverage(self.parameters, recipe.ema) if recipe.ema else None
        self.curve: list[list[float | int | None]] = []
        self.times: list[float] = []

    def to_the_end(self) -> float:
        """Train, with a point on the curve every so often; returns the last held-out score."""
        recipe, since_point, score = self.recipe, [], math.nan
        points = _marks(recipe.steps, POINTS)
        evaluations = _marks(recipe.steps, recipe.evaluations)
        self.model.train()
        for step in range(recipe.steps):
            began = time.perf_counter()
            since_point.append(self.one_step(step))
            self.times.append(time.perf_counter() - began)
            self.on_step(step + 1, since_point[-1])
            if step + 1 in evaluations:
                score = self.score()
            if step + 1 in points | evaluations:
                held_out = score if step + 1 in evaluations else None
                self.curve.append([step + 1, statistics.fmean(since_point), held_out])
                since_point = []
        return score

    def one_step(self, step: int) -> float:
        """One optimizer step; returns the training loss in nats."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        torch.default_generator.manual_seed(key("dropout", self.seed, step))
        loss = self.task.loss(self.model, self.task.batch(self.seed, step, recipe.batch))
        amount = loss.item()
        self._must_be_finite(amount, f"training loss became {amount} at step {step + 1}")
        self.optimizer.zero_grad()
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        if self.average:
            self.average.update()
        return amount

    def score(self) -> float:
        """The held-out score, of the averaged weights where there is an average."""
        with self.average.in_place() if self.average else nullcontext():
            score = self.task.evaluate(self.model)
        self._must_be_finite(score, f"held-out score became {score} after step {len(self.times)}")
        return score

    def picture(self) -> dict[str, Any] | None:
        """What attention of the scored weights does on one question, where the task keeps that."""
        with self.average.in_place() if self.average else nullcontext():
            return self.task.picture(self.model)

    def _must_be_finite(self, amount: float, what: str) -> None:
        if not math.isfinite(amount):
            raise TrialDiverged(
                f"{what} of {self.recipe.steps} (learning rate {self.recipe.lr:g}, "
                f"seed {self.seed}); a smaller learning rate may train"
            )


def _read(config: dict[str, Any]) -> tuple[Task, Recipe, int]:
    for name in ("task", "sites", "model", "train", "seed"):
        if name not in config:
            raise StudyError(f"a trial needs the key {name!r}; it has {', '.join(config)}")
    task = build(config["task"]["name"], config["task"].get("options"))
    planned, found = config["task"].get("version"), task.version()
    if planned not in (None, found):
        raise StudyError(
            f"task {task.name!r} hands out other data now (version {found}) than when the trial "
            f"was planned ({planned}): plan the study again, so that scores do not mix"
        )
    return task, Recipe.read(config["train"]), config["seed"]


def _optimizer(model: nn.Module, recipe: Recipe, drawn: frozenset[str]) -> torch.optim.AdamW:
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name in drawn and parameter.ndim >= 2].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": recipe.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=recipe.lr,
        betas=(0.9, 0.95),
        fused=True,
    )


def _marks(steps: int, many: int) -> set[int]:
    """`many` step numbers spread evenly over 1 … steps, the last one included."""
    many = min(many, steps)
    return {round(steps * (at + 1) / many) for at in range(many)}
