"""Pairs: what models share that read one sequence and write another."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.layers.checks import check_key_mask, whole
from ogive.models.saving import Saved
from ogive.models.search import Decoding, search
from ogive.models.trunk import check_tokens


class Pairs(Saved):
    """Base of the models that answer a source with a target, token by token.

    A member writes `forward(source, target, source_mask=)`, `weights` of the same arguments, and
    `decoding(source, source_mask)`.
    """

    def __init__(self, end: int, target_vocabulary: int) -> None:
        super().__init__()
        self.target_vocabulary = whole("target_vocabulary", target_vocabulary)
        self.end = whole("end", end, 0)
        if end >= target_vocabulary:
            raise ArgumentError(
                f"end={end} is no token of a target vocabulary of {target_vocabulary}: 0 … "
                f"{target_vocabulary - 1} fit"
            )

    def decoding(self, source: Tensor, source_mask: Tensor | None = None) -> Decoding:
        """The model before its first token, one row for each source."""
        raise NotImplementedError

    def weights(
        self, source: Tensor, target: Tensor, *, source_mask: Tensor | None = None
    ) -> Tensor:
        """The rows of attention from a target to its source: (batch, heads, target, source)."""
        raise NotImplementedError

    def teacher(self, answers: Int64[Tensor, "b t"]) -> Int64[Tensor, "b t"]:
        """What the decoder reads where it should write these answers: `end`, then all but the last.

        Numbers below 0 (where nothing is asked) are read as `end`.
        """
        return shifted(answers, self.end)

    @torch.no_grad()
    def generate(
        self,
        source: Int64[Tensor, "b s"],
        max_length: int,
        *,
        source_mask: Bool[Tensor, "b s"] | None = None,
        beams: int = 1,
        length_penalty: float = 0.0,
    ) -> Int64[Tensor, "b t"]:
        """Answer each source.

        Args:
            source: (batch, source length) int64.
            max_length: longest answer, its end included.
            source_mask: bool (batch, source length), True = a token, False = padding.
            beams: 1 takes the likeliest token at each step; more keep as many beginnings (see
                `ogive.models.search`).
            length_penalty: with beams, answers are ranked by log p / lengthᵃ, a this number.

        Returns:
            (batch, length ≤ max_length), each ended and filled up with `end`, or cut at
            max_length. Dropout acts as in any call: generate in evaluation mode.

        Raises:
            ArgumentError, ArgumentTypeError: an argument that does not fit.
        """
        whole("max_length", max_length)
        whole("beams", beams)
        decoding = self.decoding(source, source_mask)
        answers, _ = search(
            decoding,
            len(source),
            self.end,
            max_length,
            device=source.device,
            beams=beams,
            length_penalty=length_penalty,
        )
        return answers[:, 0]


def shifted(answers: Tensor, end: int) -> Tensor:
    """Answers (batch, length) moved by one place, behind `end`; numbers below 0 become `end`."""
    moved = torch.cat([torch.full_like(answers[:, :1], end), answers[:, :-1]], 1)
    return moved.masked_fill(moved < 0, end)


def check_source(source: Tensor, mask: Tensor | None, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Source and mask without the columns at the end that are padding everywhere.

    So that more padding changes no sum, and no bit of any result. The mask is all True where none
    came. Raises where either does not fit.
    """
    _check_range("source", source, vocabulary)
    if mask is None:
        return source, torch.ones(source.shape, dtype=torch.bool, device=source.device)
    try:
        check_key_mask(mask, *source.shape)
    except (ArgumentError, ArgumentTypeError) as error:
        raise type(error)(str(error).replace("key_mask", "source_mask")) from None
    if torch.compiler.is_compiling() or mask.is_meta:
        return source, mask
    used = mask.any(0).nonzero()
    end = int(used[-1]) + 1 if len(used) else 1
    return source[:, :end], mask[:, :end]


def check_target(target: Tensor, source: Tensor, vocabulary: int) -> None:
    """Raise unless the target fits the vocabulary and the batch of the source."""
    _check_range("target", target, vocabulary)
    if isinstance(source, Tensor) and len(source) != len(target):
        raise ArgumentError(
            f"target has a batch of {len(target)}, and source has a batch of {len(source)}"
        )


def _check_range(name: str, tokens: Tensor, vocabulary: int) -> None:
    check_tokens(name, tokens)
    if not tokens.shape[1]:
        raise ArgumentError(
            f"{name} takes (batch, length ≥ 1): a sequence of no tokens cannot be read"
        )
    if tokens.is_meta or torch.compiler.is_compiling() or not tokens.numel():
        return
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocabulary:
        raise ArgumentError(
            f"{name} ranges from {low} to {high}, and the vocabulary holds 0 … {vocabulary - 1}"
        )
