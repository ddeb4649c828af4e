"""Translation: tasks whose answer is another sequence, for models that read one and write one.

An answer counts where every token of it, its end included, is right. Given the right beginning, the
likeliest next token is right at every place exactly where the answer that the model writes by
itself, greedily, is right as a whole: so one teacher-forced pass scores what generation would.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import unknown
from ogive.lab.tasks.task import IGNORE, Batch, Task
from ogive.models.pairs import Pairs, shifted

END = 0
"""The token that starts and ends an answer."""
ENDED = "∎"
"""How a reader is shown it."""


class Translation(Task):
    """Base of the tasks that a `Seq2Seq` or a `Translator` learns.

    A member calls `_choose` with its option `family` and sets `vocabulary` (of sources),
    `answers` (tokens of answers, `END` among them), `length` and `answer_length`. In its batches
    `tokens` are sources, `targets` answers ended by `END` and filled with `IGNORE`, and `key_mask`
    tells the source's tokens from padding.
    """

    metric = "exact match"
    unit = "share of answers that are right as a whole"
    higher_is_better = True
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """For each kind of model: `model`, `train`, `quick` settings, and `rates` to tune over."""

    answers: int
    answer_length: int

    def _choose(self, family: object) -> None:
        if family not in self.settings:
            raise unknown(f"{self.name} option family", str(family), self.settings)
        own = self.settings[str(family)]
        self.family = str(family)  # type: ignore[misc]  # of this task, not of the class
        self.default_model = dict(own["model"])  # type: ignore[misc]
        self.default_train = dict(own["train"])  # type: ignore[misc]
        self.quick_train = dict(own["quick"])  # type: ignore[misc]
        self.learning_rates = tuple(own["rates"])  # type: ignore[misc]

    def given(self) -> dict[str, Any]:
        sizes = {"source_vocabulary": self.vocabulary, "target_vocabulary": self.answers}
        return {**sizes, "end": END}

    def example(self) -> tuple[Tensor, ...]:
        source = torch.zeros(1, self.length, dtype=torch.int64)
        return source, torch.zeros(1, self.answer_length, dtype=torch.int64)

    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """(batch, answer length, tokens of answers), and the targets (batch, answer length)."""
        reads = shifted(batch.targets, END)
        return model(batch.tokens, reads, source_mask=batch.key_mask), batch.targets

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        logits, targets = self.logits(model, batch)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)

    def measure(self, logits: Tensor, targets: Tensor) -> tuple[float, int]:
        right = (logits.argmax(-1) == targets) | (targets == IGNORE)
        return float(right.all(-1).sum()), len(targets)

    @abstractmethod
    def source_tokens(self, tokens: list[int]) -> list[str]:
        """What a reader sees of a source's tokens, padding left out."""

    @abstractmethod
    def answer_tokens(self, tokens: list[int]) -> list[str]:
        """What a reader sees of an answer's tokens, those before its end."""

    def picture(self, model: nn.Module) -> dict[str, Any]:
        """The rows of attention, mean over heads, for the longest of the first sources held out."""
        batch = next(iter(self.held_out()))
        mask = batch.key_mask
        lengths = (batch.tokens != 0 if mask is None else mask).sum(1)
        at = int(lengths.argmax())
        source = batch.tokens[at : at + 1, : int(lengths[at])]
        training = model.training
        model.eval()
        with torch.inference_mode():
            pairs = cast(Pairs, model)
            answer = pairs.generate(source, self.answer_length)
            seen = pairs.weights(source, shifted(answer, END))[0].mean(0)
        model.train(training)
        rows = self.answer_tokens(answer[0].tolist())
        return {
            "columns": self.source_tokens(source[0].tolist()),
            "rows": rows + [ENDED] * (len(rows) < answer.shape[1]),
            "weights": [
                [round(weight, 4) for weight in row] for row in seen[: len(rows) + 1].tolist()
            ],
        }


class PairOracle(nn.Module):
    """A solver written by hand, which reads sources as a model does and answers in one-hot logits.

    A member writes `answer`.
    """

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers = answers

    def answer(self, source: list[int]) -> list[int]:
        """The tokens of the answer to a source without padding, `END` last."""
        raise NotImplementedError

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(source).bool() if source_mask is None else source_mask
        told = torch.full(target.shape, END)
        for row, (tokens, kept) in enumerate(zip(source, mask, strict=True)):
            answer = torch.tensor(self.answer(tokens[kept].tolist())[: target.shape[1]])
            told[row, : len(answer)] = answer
        return F.one_hot(told, self.answers).float()


def padded(rows: list[list[int]], length: int, fill: int) -> Tensor:
    """Rows of different lengths as one tensor (rows, length) int64, filled up at their ends."""
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows], dtype=torch.int64)
