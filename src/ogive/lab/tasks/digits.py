"""The digits task: tell which digit a hand has written, on images small enough for one core."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError, DataError, unknown
from ogive.lab.keys import stream
from ogive.lab.tasks.files import packaged
from ogive.lab.tasks.task import Accuracy, Batch, Task

SIDE, CLASSES, BRIGHTEST = 8, 10, 16
SPLITS = ("train", "validation", "test")
_SHARES = (0.7, 0.1, 0.2)


class Digits(Accuracy, Task):
    """1,797 images of 8 × 8 pixels, 17 shades, read by a vision transformer patch by patch.

    Images are split once, by a fixed shuffle, into those to train on (70 %), to validate on (10 %)
    and to test on (20 %). The 43 hands that wrote them are not told apart in the file, so each is
    on all sides. In training an image moves by up to `shift` pixels.

    Args:
        scored: which images score a model, `test` or `validation`.
        shift: by how many pixels an image may move, in training; 0 for none.

    Raises:
        DataError: scikit-learn, which ships the images, is not installed.
        UnknownName, ArgumentError: an option that does not fit.
    """

    name = "digits"
    summary = "tell which digit a hand has written, from 8 × 8 pixels"
    source = "Optical Recognition of Handwritten Digits, UCI (CC BY 4.0), as scikit-learn ships it"
    family = "vision"
    default_model: ClassVar = {
        "width": 32,
        "depth": 2,
        "heads": 4,
        "hidden": 64,
        "positions": "sinusoidal",
    }
    default_train: ClassVar = {
        "steps": 400,
        "batch": 64,
        "lr": 4e-3,
        "warmup": 40,
        "evaluations": 3,
    }
    quick_train: ClassVar = {"steps": 150, "evaluations": 1}
    learning_rates = (2e-3, 4e-3, 8e-3)

    def __init__(self, *, scored: str = "test", shift: int = 0) -> None:
        if scored not in SPLITS[1:]:
            raise unknown("digits option scored", str(scored), SPLITS[1:])
        if isinstance(shift, bool) or not isinstance(shift, int) or not 0 <= shift <= 3:
            raise ArgumentError(
                f"digits option shift takes a whole number from 0 to 3, not {shift!r}"
            )
        self.scored, self.shift = scored, shift
        self.vocabulary, self.length = 1 + BRIGHTEST, SIDE * SIDE
        images, answers = read_images()
        order = torch.randperm(len(images), generator=stream("digits", "split"))
        sizes = [round(share * len(images)) for share in _SHARES[:-1]]
        parts = order.split([*sizes, len(images) - sum(sizes)])
        self.split = {
            name: (images[part], answers[part]) for name, part in zip(SPLITS, parts, strict=True)
        }

    def batch(self, seed: int, step: int, size: int) -> Batch:
        random = stream("digits", seed, step)
        images, answers = self.split["train"]
        picks = torch.randint(len(images), (size,), generator=random)
        moves = torch.randint(-self.shift, self.shift + 1, (size, 2), generator=random)
        return Batch(_moved(images[picks], moves, self.shift).flatten(1), answers[picks, None])

    def held_out(self) -> Iterator[Batch]:
        images, answers = self.split[self.scored]
        for part in torch.arange(len(images)).split(256):
            yield Batch(images[part].flatten(1), answers[part, None])

    def given(self) -> dict[str, Any]:
        return {"classes": CLASSES, "image_size": SIDE, "channels": 1}

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 1, SIDE, SIDE),)

    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        images = batch.tokens.unflatten(1, (1, SIDE, SIDE)).float() / BRIGHTEST
        return model(images), batch.targets[:, 0]


def read_images() -> tuple[Tensor, Tensor]:
    """Images (1797, 8, 8) of shades 0 … 16, and which digits they show (1797,); both int64.

    Raises:
        DataError: scikit-learn is not installed, or its file is not the one that is meant.
    """
    needs = "the file of handwritten digits"
    path = packaged("sklearn", "datasets", "data", "digits.csv.gz", needs=needs)
    try:
        lines = gzip.decompress(path.read_bytes()).decode("ascii").split()
        table = torch.tensor([[int(float(n)) for n in line.split(",")] for line in lines])
        images, answers = table[:, :-1].unflatten(1, (SIDE, SIDE)), table[:, -1]
    except (OSError, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as {needs}: {error}") from None
    return images, answers


def _moved(images: Tensor, moves: Tensor, most: int) -> Tensor:
    """Images (batch, 8, 8), each moved by its own (rows, columns), dark where nothing comes in."""
    if not most:
        return images
    wide = nn.functional.pad(images, (most,) * 4)
    rows = (torch.arange(SIDE) + most - moves[:, :1])[:, :, None]
    columns = (torch.arange(SIDE) + most - moves[:, 1:])[:, None, :]
    return wide[torch.arange(len(images))[:, None, None], rows, columns]
