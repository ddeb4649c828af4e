"""Task: what a model is trained on and how it is scored. One task per file, found by walking.

A task hands out training batches that depend on (seed, step) and nothing else, so that every
variant under one seed reads the same data in the same order, and it scores a model on a fixed
set that training never sees.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError, unknown
from ogive.models import kinds
from ogive.parts import Sites

IGNORE = -100
"""The target where nothing is asked (`torch.nn.functional.cross_entropy`'s own convention)."""


class Batch(NamedTuple):
    """Sequences, and what is asked of each position.

    Attributes:
        tokens: (batch, length) int64, what the model reads.
        targets: (batch, length) int64, what it should answer; `IGNORE` where nothing is asked.
        key_mask: (batch, length) bool, True = may be attended to; None for all.
    """

    tokens: Tensor
    targets: Tensor
    key_mask: Tensor | None = None


class Task(ABC):
    """Base of all tasks.

    A member names itself, takes its options as keyword arguments with defaults, keeps them in
    attributes of the same names, and writes `batch`, `held_out` and `measure`.
    """

    name: ClassVar[str] = ""
    metric: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = False
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    family: ClassVar[str] = "decoder"
    """The kind of model that learns it, one of `ogive.models.kinds()`."""
    default_model: ClassVar[dict[str, Any]] = {}
    """Settings of a model that learns the task on one core in seconds."""
    default_train: ClassVar[dict[str, Any]] = {}
    """Settings of `Recipe` under which it does."""
    quick_train: ClassVar[dict[str, Any]] = {}
    """What a quick look changes in them."""
    learning_rates: ClassVar[tuple[float, ...]] = ()
    """A ladder around the baseline's best learning rate, for tuning."""

    vocabulary: int
    length: int

    @abstractmethod
    def batch(self, seed: int, step: int, size: int) -> Batch:
        """`size` training sequences; the same for the same (seed, step, size), in any order."""

    @abstractmethod
    def held_out(self) -> Iterator[Batch]:
        """The fixed sequences that score a model, in batches; none of them is ever trained on."""

    @abstractmethod
    def measure(self, logits: Tensor, targets: Tensor) -> tuple[float, int]:
        """The metric's sum over the answers asked for, and how many they are.

        Args:
            logits: (answers, vocabulary), the positions that ask something.
            targets: (answers,) int64.
        """

    @property
    def options(self) -> dict[str, Any]:
        """The options as a plain dict, defaults included: what a trial records."""
        return {name: getattr(self, name) for name in _options(type(self))}

    def version(self) -> str:
        """16 hex digits that name the data: rows of different versions must not be compared.

        The hash is over what the task hands out (two training batches and the whole held-out
        set), so a changed file, a changed generator and a changed random stream all change it,
        and a changed comment does not.
        """
        digest = hashlib.sha256(json.dumps([self.name, self.metric]).encode())
        for tensor in self._shown():
            digest.update(b"none" if tensor is None else tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _shown(self) -> Iterator[Tensor | None]:
        """What the version is over; a task with training data of its own adds them."""
        for batch in (self.batch(0, 0, 16), self.batch(1, 1000, 16), *self.held_out()):
            yield from batch

    def given(self) -> dict[str, Any]:
        """The settings of a model that the task itself decides: how many tokens there are."""
        return {"vocabulary": self.vocabulary}

    def example(self) -> tuple[Tensor, ...]:
        """What a model reads for one question of full length, as it is called."""
        return (torch.zeros(1, self.length, dtype=torch.int64),)

    def model(self, settings: dict[str, Any], sites: str = "") -> nn.Module:
        """The task's kind of model, with what this task gives.

        Args:
            settings: keyword arguments of the model other than those `given`, and sites.
            sites: what sits where, in the written form of `Sites`.

        Raises:
            UnknownName, ArgumentError: as `check_settings`, or values that do not fit.
        """
        self.check_settings(settings)
        return kinds()[self.family](**self.given(), **settings, sites=Sites.parse(sites))

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Raise where a setting's name is unknown to the model, or a needed one is missing."""
        takes = dict(inspect.signature(kinds()[self.family]).parameters)
        for name in (*self.given(), "sites"):
            del takes[name]
        for name in settings:
            if name not in takes:
                raise unknown(f"{self.family} setting", name, takes)
        for name, parameter in takes.items():
            if parameter.default is parameter.empty and name not in settings:
                raise ArgumentError(f"a {self.family} needs the setting {name!r}, which is missing")

    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The model's answers where something is asked: (answers, vocabulary) and (answers,)."""
        more = {} if batch.key_mask is None else {"key_mask": batch.key_mask}
        logits = model(batch.tokens, **more).flatten(0, 1)
        targets = batch.targets.flatten()
        asked = targets != IGNORE
        return (logits, targets) if asked.all() else (logits[asked], targets[asked])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy over the answers asked for, in nats."""
        return F.cross_entropy(*self.logits(model, batch))

    def picture(self, model: nn.Module) -> dict[str, Any] | None:
        """What attention does on one held-out question, for the report; None where none is kept.

        {"columns": tokens of the question, "rows": tokens of the model's answer, "weights": for
        each row a number for each column}, all of it JSON.
        """
        return None

    def evaluate(self, model: nn.Module) -> float:
        """The metric over the held-out set, in evaluation mode; leaves the mode as it was."""
        training = model.training
        model.eval()
        total, count = 0.0, 0
        with torch.inference_mode():
            for batch in self.held_out():
                amount, answers = self.measure(*self.logits(model, batch))
                total, count = total + amount, count + answers
        model.train(training)
        return total / count


class Accuracy:
    """Mix-in for tasks with one right answer: the share of answers that are right."""

    metric = "accuracy"
    unit = "share right"
    higher_is_better = True

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[float, int]:
        return float((logits.argmax(-1) == targets).sum()), len(targets)


class Oracle(nn.Module):
    """A solver written by hand: reads the tokens as a model does, answers with one-hot logits.

    It proves that a task can be solved, and that its scoring gives 100 % when it is.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def answer(self, tokens: list[int]) -> list[int]:
        """One answer per position of one sequence; anything where nothing is asked."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        answers = torch.tensor([self.answer(row) for row in tokens.tolist()])
        return F.one_hot(answers, self.vocabulary).float()


def whole(option: str, came: object, low: int, high: int) -> int:
    """`came`, checked to be a whole number in [low, high]; `ArgumentError` otherwise."""
    if isinstance(came, bool) or not isinstance(came, int) or not low <= came <= high:
        raise ArgumentError(f"{option} takes a whole number from {low} to {high}, not {came!r}")
    return came


def _options(member: type[Task]) -> tuple[str, ...]:
    return tuple(list(inspect.signature(member.__init__).parameters)[1:])
