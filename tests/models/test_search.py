"""The search finds the best of all with enough beams, and each step's best with one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.models.search import search

END, VOCABULARY, LONGEST = 0, 3, 4


class Table:
    """A decoding whose distribution depends on the question and on all tokens so far."""

    def __init__(self, questions: int, seed: int) -> None:
        self.question = list(range(questions))
        self.read: list[tuple[int, ...]] = [() for _ in self.question]
        self.seed = seed

    def logits(self, question: int, read: tuple[int, ...]) -> torch.Tensor:
        seed = hash((self.seed, question, *read)) % 2**31
        return 2 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)).double()

    def next(self, tokens):
        read = zip(self.read, tokens.tolist(), strict=True)
        self.read = [(*before, token) for before, token in read]
        return torch.stack(
            [self.logits(*row) for row in zip(self.question, self.read, strict=True)]
        )

    def select(self, index):
        self.read = [self.read[at] for at in index.tolist()]
        self.question = [self.question[at] for at in index.tolist()]


class Forgetful(Table):
    """The wrong twin: goes on with the rows in the order in which they were."""

    def select(self, index):
        many = range(len(index))
        self.question = [self.question[at] for at in index.tolist()]
        self.read = [self.read[at % len(self.read)] for at in many]


def log_p(table: Table, question: int, answer: tuple[int, ...]) -> float:
    read, total = (END,), 0.0
    for token in answer:
        total += float(torch.log_softmax(table.logits(question, read), -1)[token])
        read = (*read, token)
    return total


def every_answer() -> list[tuple[int, ...]]:
    """All answers: ended within LONGEST tokens, or cut there."""
    words = range(1, VOCABULARY)
    ended = [
        (*said, END)
        for length in range(LONGEST)
        for said in itertools.product(words, repeat=length)
    ]
    return ended + list(itertools.product(words, repeat=LONGEST))


def check_best(kind: type[Table], seed: int, penalty: float) -> None:
    """As many beams as there are answers find the best of them all, with its score."""
    answers = every_answer()
    found, scores = search(
        kind(2, seed), 2, END, LONGEST, beams=len(answers), length_penalty=penalty
    )
    for question in range(2):
        best = max(answers, key=lambda a: log_p(Table(2, seed), question, a) / len(a) ** penalty)
        came = found[question, 0].tolist()
        assert tuple(came[: len(best)]) == best
        assert set(came[len(best) :]) <= {END}
        wanted = log_p(Table(2, seed), question, best)
        assert float(scores[question, 0]) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_enough_beams_find_the_best_of_all(seed, penalty):
    check_best(Table, seed, penalty)


def test_bites_on_a_decoding_that_does_not_follow():
    missed = 0
    for seed in range(6):
        try:
            check_best(Forgetful, seed, 2.0)  # the best answers are long
        except AssertionError:
            missed += 1
    assert missed >= 3


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_takes_the_likeliest_each_time(seed):
    found, scores = search(Table(3, seed), 3, END, LONGEST)
    table = Table(3, seed)
    for question in range(3):
        read, said = (END,), []
        while len(said) < LONGEST and END not in said:
            said.append(int(table.logits(question, read).argmax()))
            read = (*read, said[-1])
        assert found[question, 0, : len(said)].tolist() == said
        assert float(scores[question, 0]) == pytest.approx(log_p(table, question, tuple(said)))


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_the_answers_own_and_in_order(seed):
    found, scores = search(Table(2, seed), 2, END, LONGEST, beams=4)
    for question, row in itertools.product(range(2), range(4)):
        answer = found[question, row].tolist()
        answer = answer[: answer.index(END) + 1] if END in answer else answer
        wanted = log_p(Table(2, seed), question, tuple(answer))
        assert float(scores[question, row]) == pytest.approx(wanted)
    assert bool((scores.diff(dim=1) <= 0).all())
    assert all(len({tuple(a) for a in found[q].tolist()}) == 4 for q in range(2))


def test_a_length_penalty_lengthens():
    def mean_length(penalty):
        found, _ = search(Table(40, 3), 40, END, LONGEST, beams=6, length_penalty=penalty)
        return (found[:, 0] != END).sum(1).double().mean()

    assert mean_length(2.0) > mean_length(0.0)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"beams": 0}, ArgumentError, "beams takes a whole number of at least 1, not 0"),
        ({"beams": 2.0}, ArgumentTypeError, "beams takes a whole number"),
        ({"beams": True}, ArgumentTypeError, "beams"),
        ({"max_length": 0}, ArgumentError, "max_length takes a whole number of at least 1"),
        ({"length_penalty": -0.1}, ArgumentError, "length_penalty takes a finite number from 0"),
        ({"length_penalty": math.inf}, ArgumentError, "length_penalty"),
        ({"length_penalty": math.nan}, ArgumentError, "length_penalty"),
        ({"length_penalty": "long"}, ArgumentTypeError, "length_penalty takes a number"),
    ],
)
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        search(Table(1, 0), 1, END, **{"max_length": 3, **options})
