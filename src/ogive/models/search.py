"""Search: the answer that a model finds likeliest, word by word, greedily or with a beam.

One search serves every model that answers token by token: a `Decoding` keeps what the model must
remember, whatever that is, and the search keeps the answers.
"""

import math
from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.layers.checks import whole


class Decoding(Protocol):
    """A model half way through its answers, which are its rows."""

    def next(self, tokens: Tensor) -> Tensor:
        """Read one token for each row (rows,) and give logits (rows, vocabulary) for the next."""
        ...

    def select(self, index: Tensor) -> None:
        """Go on with the rows at `index` (int64), in that order.

        An index as long as there are rows exchanges answers to one question only; a longer one
        repeats each row for the first time.
        """
        ...


@torch.no_grad()
def search(
    decoding: Decoding,
    questions: int,
    end: int,
    max_length: int,
    *,
    device: torch.device | None = None,
    beams: int = 1,
    length_penalty: float = 0.0,
) -> tuple[Int64[Tensor, "b k t"], Float[Tensor, "b k"]]:
    """The likeliest answers to each question that a beam finds.

    At each step a question keeps its `beams` likeliest beginnings; one that has ended stays among
    them with the score that it has. One beam takes the likeliest token at each step, and as many
    beams as there are answers find the best of them all.

    Args:
        decoding: the model, at the start of one answer for each question.
        questions: how many.
        end: the token that starts and ends an answer.
        max_length: longest answer, its end included.
        device: where the model is; None for the CPU.
        beams: beginnings kept for each question.
        length_penalty: answers are ranked by log p / lengthᵃ, a this number; at 0 by log p itself,
            which favours short ones.

    Returns:
        Answers (questions, beams, length ≤ max_length), the best first, each ended and filled up
        with `end` (or cut at max_length); and their log probabilities (questions, beams).

    Raises:
        ArgumentError, ArgumentTypeError: an argument that does not fit.
    """
    whole("max_length", max_length)
    whole("beams", beams)
    check_length_penalty(length_penalty)
    scores, ended, answers, beam = _start(questions, end, device)
    for _ in range(max_length):
        logits = decoding.next(beam.flatten())
        gains = torch.log_softmax(logits, -1).unflatten(0, beam.shape)
        scores, parents, beam = _best(scores, _after(gains, ended, end), beams)
        if beams > 1:
            decoding.select(_rows(parents, ended.shape[1]))
        ended = ended.gather(1, parents) | (beam == end)
        kept = answers.gather(1, parents[..., None].expand(-1, -1, answers.shape[2]))
        answers = torch.cat([kept, beam[..., None]], 2)
        # A score only falls, so without a penalty nothing overtakes a best answer that has ended.
        if (ended[:, 0] if length_penalty == 0 else ended).all():
            break
    return _ranked(answers, scores, end, length_penalty)


def check_length_penalty(came: object) -> None:
    """Raise unless `came` is a finite number from 0."""
    if isinstance(came, bool) or not isinstance(came, int | float):
        raise ArgumentTypeError(f"length_penalty takes a number, not {came!r}")
    if not 0 <= came < math.inf:
        raise ArgumentError(f"length_penalty takes a finite number from 0, not {came!r}")


def _start(
    questions: int, end: int, device: torch.device | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, whether ended, answers and last tokens of one empty answer to each question."""
    last = torch.full((questions, 1), end, device=device)
    return torch.zeros_like(last, dtype=torch.float32), last != end, last[..., None][..., :0], last


def _after(gains: Tensor, ended: Tensor, end: int) -> Tensor:
    """What each token adds to the score: after the end nothing but the end, which adds nothing."""
    only_end = gains.new_full(gains.shape[-1:], -torch.inf)
    only_end[end] = 0
    return torch.where(ended[..., None], only_end, gains)


def _best(scores: Tensor, gains: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations: their scores, which answers they continue, and with what."""
    total = (scores[..., None] + gains).flatten(1)
    best, at = total.topk(min(beams, total.shape[1]), 1)
    return best, at // gains.shape[2], at % gains.shape[2]


def _rows(parents: Tensor, many: int) -> Tensor:
    """The decoding's rows that are continued, where each question had `many` of them."""
    first = torch.arange(len(parents), device=parents.device) * many
    return (first[:, None] + parents).flatten()


def _ranked(
    answers: Tensor, scores: Tensor, end: int, length_penalty: float
) -> tuple[Tensor, Tensor]:
    over = (answers == end).cumsum(2).clamp_max(1)
    lengths = (1 - over).sum(2) + over[..., -1]
    answers = torch.where(over.bool(), end, answers)
    order = torch.argsort(scores / lengths**length_penalty, dim=1, descending=True, stable=True)
    ordered = answers.gather(1, order[..., None].expand_as(answers))
    return ordered, scores.gather(1, order)
